//! `.deb` files (deb(5)): an ar archive of the format's version, the control archive and the data archive, in that order.

use crate::control::Paragraph;
use std::{
    collections::BTreeMap,
    io::{self, Read},
};
use tar::EntryType;

/// The largest control archive, unpacked, in bytes.
const CONTROL_MAX: u64 = 256 << 20;
/// The largest file of a control archive that is kept.
const CONTROL_FILE_MAX: u64 = 64 << 20;
/// How many names a data archive may have.
const NAMES_MAX: usize = 4 << 20;
/// The longest name.
const NAME_MAX: usize = 4096;

/// A `.deb`, up to its data archive.
pub struct Deb<R: Read> {
    /// The files of the control archive by name: `control`, `postinst`, `conffiles`, ….
    pub control: BTreeMap<String, Vec<u8>>,
    data: Member<R>,
    form: Form,
    unpacked_max: u64,
}

/// Why a file is no `.deb`, or none that is taken.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is none.
    #[error("it is no .deb: {0}")]
    Form(String),
    /// Something in it is larger than it may be.
    #[error("{what} has more than {most} bytes unpacked")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How many there may be.
        most: u64,
    },
    /// A name leads out of the tree.
    #[error("the name `{0}` leads out of the tree, or is none")]
    Name(String),
}

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Gzip,
    Xz,
    Zstd,
}

impl Form {
    fn of(name: &str, archive: &str) -> Option<Form> {
        Some(match name.strip_prefix(archive)? {
            "" => Form::Plain,
            ".gz" => Form::Gzip,
            ".xz" => Form::Xz,
            ".zst" => Form::Zstd,
            _ => return None,
        })
    }

    fn decode<'r>(self, reader: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
        Ok(match self {
            Form::Plain => Box::new(reader),
            Form::Gzip => Box::new(flate2::read::GzDecoder::new(reader)),
            Form::Xz => Box::new(liblzma::read::XzDecoder::new(reader)),
            Form::Zstd => Box::new(zstd::stream::read::Decoder::new(reader)?),
        })
    }
}

/// A reader of what an index or archive holds, by the end of its name: `.gz`, `.xz`, `.zst`, or none of them.
///
/// # Errors
/// When it cannot be read.
pub fn decode<'r>(name: &str, reader: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
    let forms = [(".gz", Form::Gzip), (".xz", Form::Xz), (".zst", Form::Zstd)];
    let form = forms.into_iter().find(|(end, _)| name.ends_with(end)).map_or(Form::Plain, |(_, form)| form);
    form.decode(reader)
}

/// What stands at a name of a data archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A directory.
    Directory,
    /// A file of so many bytes.
    File(u64),
    /// A symbolic link to this.
    Symlink(Vec<u8>),
    /// Another name of the file of this one.
    Link(Vec<u8>),
    /// A character or block device, or a pipe.
    Special,
}

/// A name of a data archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path without anything before it: `usr/bin/a`; empty for the root.
    pub path: Vec<u8>,
    /// What it is.
    pub what: What,
    /// Permissions with set-user-id, set-group-id and sticky bits.
    pub mode: u32,
    /// User and group, by number.
    pub owner: (u64, u64),
    /// When it was changed last, in seconds since 1970.
    pub mtime: u64,
}

impl<R: Read> Deb<R> {
    /// Reads the control archive. Nothing that is unpacked may have more than `unpacked_max` bytes.
    ///
    /// # Errors
    /// When it is no `.deb`, or too large.
    pub fn open(mut reader: R, unpacked_max: u64) -> Result<Self, DebError> {
        let wrong = |reason: &str| DebError::Form(reason.into());
        let mut magic = [0; 8];
        reader.read_exact(&mut magic)?;
        if &magic != b"!<arch>\n" {
            return Err(wrong("it does not begin as an ar archive"));
        }
        let version = next(&mut reader)?;
        if version.name != "debian-binary" || version.size > 1024 {
            return Err(wrong("its first member is not `debian-binary`"));
        }
        let text = version.read(&mut reader)?;
        if !text.starts_with(b"2.") {
            return Err(wrong("its format is not version 2"));
        }
        let control = member(&mut reader)?;
        let form = Form::of(&control.name, "control.tar");
        let form = form.ok_or_else(|| DebError::Form(format!("`{}` is no control archive", control.name)))?;
        if control.size > CONTROL_MAX {
            return Err(DebError::TooLarge { what: "the control archive", most: CONTROL_MAX });
        }
        let control = control_files(form, &control.read(&mut reader)?)?;
        if !control.contains_key("control") {
            return Err(wrong("its control archive has no file `control`"));
        }
        let head = member(&mut reader)?;
        let form = Form::of(&head.name, "data.tar");
        let form = form.ok_or_else(|| DebError::Form(format!("`{}` is no data archive", head.name)))?;
        Ok(Deb { control, data: Member { reader, left: head.size }, form, unpacked_max })
    }

    /// The paragraph of its file `control`.
    ///
    /// # Errors
    /// When it is not text.
    pub fn paragraph(&self) -> Result<Paragraph<'_>, DebError> {
        let text = self.control.get("control").and_then(|bytes| std::str::from_utf8(bytes).ok());
        let paragraph = text.and_then(Paragraph::first);
        paragraph.ok_or_else(|| DebError::Form("its file `control` is no paragraph of fields".into()))
    }

    /// Goes through the data archive, from its beginning to its end. `each` gets every name with what stands there, and the
    /// bytes of a file, of which it need not read all.
    ///
    /// # Errors
    /// When it cannot be read, is too large or has a name that leads out of the tree; and what `each` fails with.
    pub fn entries<E: From<DebError>>(
        self,
        mut each: impl FnMut(&Entry, &mut dyn Read) -> Result<(), E>,
    ) -> Result<(), E> {
        let most = self.unpacked_max;
        let failed = |error: io::Error| DebError::from(error);
        let plain = self.form.decode(self.data).map_err(failed)?;
        let mut archive = tar::Archive::new(Bounded { reader: plain, left: most, is_over: false });
        let too_large = DebError::TooLarge { what: "the data archive", most };
        let mut count = 0;
        let over = |error: io::Error| match error.kind() {
            io::ErrorKind::FileTooLarge => DebError::TooLarge { what: "the data archive", most },
            _ => DebError::from(error),
        };
        // As they stand: the library would read a long name whole, however long it says that it is.
        let (mut long_name, mut long_target) = (None, None);
        for entry in archive.entries().map_err(over)?.raw(true) {
            let mut entry = entry.map_err(over)?;
            count += 1;
            if count > NAMES_MAX {
                return Err(too_large.into());
            }
            let kind = entry.header().entry_type();
            if kind.is_gnu_longname() || kind.is_gnu_longlink() {
                let mut name = Vec::new();
                entry.by_ref().take(NAME_MAX as u64 + 2).read_to_end(&mut name).map_err(over)?;
                name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
                if name.len() > NAME_MAX {
                    return Err(DebError::Form("a name in its data archive is too long".into()).into());
                }
                *(if kind.is_gnu_longname() { &mut long_name } else { &mut long_target }) = Some(name);
                continue;
            }
            if kind.is_pax_global_extensions() || kind.is_pax_local_extensions() {
                return Err(DebError::Form("its data archive has pax headers, which dpkg does not read".into()).into());
            }
            let path = path(&long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned()))?;
            let target = long_target.take().or_else(|| entry.link_name_bytes().map(|it| it.into_owned()));
            let target = target.unwrap_or_default();
            let what = match kind {
                EntryType::Directory => What::Directory,
                EntryType::Symlink => What::Symlink(target),
                EntryType::Link => What::Link(self::path(&target)?),
                EntryType::Char | EntryType::Block | EntryType::Fifo => What::Special,
                kind if kind.is_file() || kind.is_contiguous() => What::File(entry.size()),
                _ => return Err(DebError::Form("its data archive has an entry that dpkg does not read".into()).into()),
            };
            let header = entry.header();
            let numbers =
                (|| Ok::<_, io::Error>((header.mode()? & 0o7777, (header.uid()?, header.gid()?), header.mtime()?)))();
            let (mode, owner, mtime) = numbers.map_err(over)?;
            each(&Entry { path, what, mode, owner, mtime }, &mut entry)?;
        }
        Ok(())
    }
}

/// A path of an archive without `./` before it.
fn path(bytes: &[u8]) -> Result<Vec<u8>, DebError> {
    let wrong = || DebError::Name(bytes.escape_ascii().to_string().chars().take(200).collect());
    if bytes.len() > NAME_MAX || bytes.contains(&0) {
        return Err(wrong());
    }
    // dpkg takes a name from the root as one below the tree, as it is.
    let parts: Vec<&[u8]> = bytes.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err(wrong());
    }
    Ok(parts.join(&b'/'))
}

fn control_files(form: Form, bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, DebError> {
    let too_large = |error: io::Error| match error.kind() {
        io::ErrorKind::FileTooLarge => DebError::TooLarge { what: "the control archive", most: CONTROL_MAX },
        _ => DebError::from(error),
    };
    let reader = Bounded { reader: form.decode(bytes)?, left: CONTROL_MAX, is_over: false };
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(reader).entries().map_err(too_large)?.raw(true) {
        let mut entry = entry.map_err(too_large)?;
        let name = String::from_utf8(path(&entry.path_bytes())?);
        let name = name.map_err(|_| DebError::Form("a name of its control archive is not UTF-8".into()))?;
        // Only files count, and all lie side by side.
        if !entry.header().entry_type().is_file() || name.contains('/') {
            continue;
        }
        if entry.size() > CONTROL_FILE_MAX {
            return Err(DebError::TooLarge { what: "a file of the control archive", most: CONTROL_FILE_MAX });
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(too_large)?;
        files.insert(name, bytes);
    }
    Ok(files)
}

/// The head of a member of an ar archive.
struct Head {
    name: String,
    size: u64,
}

impl Head {
    fn read(self, reader: &mut impl Read) -> Result<Vec<u8>, DebError> {
        let mut bytes = Vec::new();
        reader.take(self.size).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < self.size {
            return Err(DebError::Form("it ends too early".into()));
        }
        // Members begin at even places.
        if self.size % 2 == 1 {
            reader.read_exact(&mut [0])?;
        }
        Ok(bytes)
    }
}

fn next(reader: &mut impl Read) -> Result<Head, DebError> {
    let mut head = [0; 60];
    reader.read_exact(&mut head)?;
    let text = |from: usize, to: usize| {
        let bytes = head.get(from..to).unwrap_or_default();
        String::from_utf8_lossy(bytes).trim_end().trim_end_matches('/').to_owned()
    };
    let size = text(48, 58).parse();
    match (size, head.get(58..)) {
        (Ok(size), Some(b"`\n")) => Ok(Head { name: text(0, 16), size }),
        _ => Err(DebError::Form("a member of the ar archive has no head".into())),
    }
}

/// The next member that counts: those whose names begin with `_` may stand in between (deb(5)).
fn member(reader: &mut impl Read) -> Result<Head, DebError> {
    loop {
        let head = next(reader)?;
        if !head.name.starts_with('_') {
            return Ok(head);
        }
        let padded = head.size.saturating_add(head.size % 2);
        io::copy(&mut reader.by_ref().take(padded), &mut io::sink())?;
    }
}

/// The bytes of a member that are left.
struct Member<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Member<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|it| !it.is_empty()) else { return Ok(0) };
        let read = self.reader.read(buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// At most so many bytes; more are an error.
struct Bounded<R> {
    reader: R,
    left: u64,
    is_over: bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_over {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let read = self.reader.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => {
                self.is_over = true;
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write, process::Command};

    fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = b"!<arch>\n".to_vec();
        for (name, bytes) in members {
            writeln!(out, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100_644, bytes.len()).unwrap();
            out.extend_from_slice(bytes);
            if bytes.len() % 2 == 1 {
                out.push(b'\n');
            }
        }
        out
    }

    fn tar_of(files: &[(&str, EntryType, &str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, target, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(bytes.len() as u64);
            // The crate itself refuses names that lead out.
            let field = &mut header.as_gnu_mut().unwrap().name;
            field[..name.len()].copy_from_slice(name.as_bytes());
            if !target.is_empty() {
                header.set_link_name_literal(target).unwrap();
            }
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn deb(data: &[u8]) -> Vec<u8> {
        let control = tar_of(&[("./control", EntryType::Regular, "", b"Package: a\nVersion: 1\n")]);
        ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("_odd", b"xyz"), ("data.tar/", data)])
    }

    fn names(bytes: &[u8], most: u64) -> Result<Vec<(String, What)>, DebError> {
        let mut names = Vec::new();
        Deb::open(bytes, most)?.entries(|entry, _| -> Result<(), DebError> {
            names.push((String::from_utf8_lossy(&entry.path).into_owned(), entry.what.clone()));
            Ok(())
        })?;
        Ok(names)
    }

    #[test]
    fn a_package_is_read() {
        let data = tar_of(&[
            ("./", EntryType::Directory, "", b""),
            ("./usr/a", EntryType::Regular, "", b"12345"),
            ("./usr/b", EntryType::Symlink, "../../../etc", b""),
            ("./usr/c", EntryType::Link, "./usr/a", b""),
            ("./dev/x", EntryType::Char, "", b""),
        ]);
        let bytes = deb(&data);
        assert_eq!(Deb::open(bytes.as_slice(), 1 << 20).unwrap().paragraph().unwrap().get("Version"), Some("1"));
        let wanted = [
            ("", What::Directory),
            ("usr/a", What::File(5)),
            ("usr/b", What::Symlink(b"../../../etc".to_vec())),
            ("usr/c", What::Link(b"usr/a".to_vec())),
            ("dev/x", What::Special),
        ];
        assert_eq!(names(&bytes, 1 << 20).unwrap(), wanted.map(|(name, what)| (name.to_owned(), what)));
        assert!(matches!(names(&bytes, 1000), Err(DebError::TooLarge { .. })));
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for (name, target) in [("../a", ""), ("./a/../../b", ""), ("a", "../b")] {
            let kind = if target.is_empty() { EntryType::Regular } else { EntryType::Link };
            let bytes = deb(&tar_of(&[(name, kind, target, b"")]));
            assert!(matches!(names(&bytes, 1 << 20), Err(DebError::Name(_))), "{name} {target}");
        }
        assert_eq!(names(&deb(&tar_of(&[("/a", EntryType::Regular, "", b"")])), 1 << 20).unwrap()[0].0, "a");
    }

    #[test]
    fn what_is_no_package() {
        let good = deb(&tar_of(&[("a", EntryType::Regular, "", &[7; 3000])]));
        for end in [0, 7, 30, 68, 72, 100, 900, good.len() - 2000] {
            assert!(names(&good[..end], 1 << 20).is_err(), "{end}");
        }
        for bytes in [
            ar(&[("debian-binary", b"3.0\n")]),
            ar(&[("control.tar", b"")]),
            ar(&[("debian-binary", b"2.0\n"), ("control.tar.lz4", b"")]),
            ar(&[("debian-binary", b"2.0\n"), ("control.tar", &tar_of(&[]))]),
        ] {
            assert!(names(&bytes, 1 << 20).is_err());
        }
    }

    #[test]
    fn what_dpkg_makes_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("tree/DEBIAN")).unwrap();
        fs::create_dir_all(at("tree/usr/share")).unwrap();
        let control = "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: a <a@a>\nDescription: a\n";
        fs::write(at("tree/DEBIAN/control"), control).unwrap();
        let long = "n".repeat(180);
        fs::write(at("tree/usr/share").join(&long), "text").unwrap();
        for form in ["none", "gzip", "xz", "zstd"] {
            let made =
                Command::new("dpkg-deb").arg(format!("-Z{form}")).arg("-b").arg(at("tree")).arg(at("a.deb")).output();
            // (An old dpkg does not know them all.)
            if !made.is_ok_and(|it| it.status.success()) {
                continue;
            }
            let bytes = fs::read(at("a.deb")).unwrap();
            let names = names(&bytes, 1 << 20).unwrap();
            assert_eq!(names.last().unwrap(), &(format!("usr/share/{long}"), What::File(4)), "{form}");
            assert_eq!(Deb::open(bytes.as_slice(), 1 << 20).unwrap().control["control"], control.as_bytes());
        }
    }
}
