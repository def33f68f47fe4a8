//! ext4 as mke2fs and debugfs make it, without root: what the kernel cannot be made to write, and what is damaged.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests are tests")]

use aule_image::{Entry, EntryKind, Filesystem, FilesystemError, open};
use aule_testkit::{ext::Ext, noise, tool};
use aule_tree::Timestamp;
use std::{collections::BTreeMap, fs, sync::Arc};

/// A directory with a bit of everything that mke2fs -d takes from an unprivileged user.
fn source() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let mut noise = noise::Noise::new(2);
    fs::create_dir_all(root.join("etc/deep/er")).unwrap();
    fs::create_dir(root.join("many")).unwrap();
    for index in 0..200 {
        fs::write(root.join(format!("many/file-with-a-longer-name-{index:03}")), noise.bytes(index)).unwrap();
    }
    fs::write(root.join("etc/hostname"), "node\n").unwrap();
    fs::write(root.join("large"), noise.bytes(200_000)).unwrap();
    fs::hard_link(root.join("large"), root.join("etc/hardlink")).unwrap();
    std::os::unix::fs::symlink("etc/hostname", root.join("short-link")).unwrap();
    std::os::unix::fs::symlink("t".repeat(300), root.join("long-link")).unwrap();
    directory
}

const COMMANDS: &str = "\
mknod null c 1 3
mknod disk b 259 300
mknod pipe p
set_inode_field /etc/hostname uid 100000
set_inode_field /etc/hostname gid 4294967295
set_inode_field /etc/hostname mode 0104755
set_inode_field /etc/hostname mtime @15032385535
set_inode_field /null mtime @4294967296
ea_set /etc/hostname user.key value
ea_set /etc/hostname security.capability \\001\\000\\000\\002
ea_set /etc user.large aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
";

fn by_path(filesystem: &dyn Filesystem) -> BTreeMap<String, Entry> {
    let entries = filesystem.entries().unwrap();
    entries.into_iter().map(|entry| (entry.path.to_string(), entry)).collect()
}

#[test]
fn reads_what_debugfs_set() {
    let source = source();
    let image = Ext { kib: 4096, source: Some(source.path()), commands: COMMANDS, ..Ext::default() }.make();
    let filesystem = open(Arc::new(image)).unwrap();
    assert_eq!((filesystem.label(), filesystem.kind()), (&b"writable"[..], "ext4"));
    assert_eq!(filesystem.uuid(), aule_testkit::ext::UUID);
    let entries = by_path(filesystem.as_ref());
    assert!(!entries.contains_key("/lost+found"));
    let hostname = &entries["/etc/hostname"].metadata;
    assert_eq!((hostname.uid, hostname.gid, hostname.mode), (100_000, u32::MAX, 0o4755));
    assert_eq!(hostname.mtime, Timestamp::from_seconds(15_032_385_535));
    assert_eq!(hostname.xattrs[&b"user.key"[..]], b"value");
    assert_eq!(hostname.xattrs[&b"security.capability"[..]], [1, 0, 0, 2]);
    assert_eq!(entries["/etc"].metadata.xattrs[&b"user.large"[..]], [b'a'; 101]);
    assert_eq!(entries["/null"].metadata.mtime.seconds, 4_294_967_296);
    assert!(matches!(entries["/null"].what, EntryKind::CharDevice { major: 1, minor: 3 }));
    assert!(matches!(entries["/disk"].what, EntryKind::BlockDevice { major: 259, minor: 300 }));
    assert!(matches!(entries["/pipe"].what, EntryKind::Fifo));
    let (first, second) = (&entries["/large"], &entries["/etc/hardlink"]);
    assert!(first.link.is_some() && first.link == second.link);
    for (path, wanted) in [("/short-link", b"etc/hostname".to_vec()), ("/long-link", vec![b't'; 300])] {
        let EntryKind::Symlink(target) = &entries[path].what else { panic!("{path}") };
        assert_eq!(target, &wanted);
    }
    for (path, entry) in &entries {
        let EntryKind::File { handle, size, .. } = &entry.what else { continue };
        let mut content = vec![0; *size as usize];
        filesystem.read(handle, 0, &mut content).unwrap();
        assert!(content == fs::read(source.path().join(&path[1..])).unwrap(), "{path}");
    }
}

/// What debugfs says about every path agrees with the reader; this needs no root.
#[test]
fn agrees_with_debugfs_on_every_path() {
    let source = source();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    Ext { kib: 4096, source: Some(source.path()), commands: COMMANDS, ..Ext::default() }.make_at(&path);
    let filesystem = open(Arc::new(fs::read(&path).unwrap())).unwrap();
    let mut checked = 0;
    let paths: Vec<_> = filesystem.entries().unwrap();
    let commands: String = paths.iter().map(|entry| format!("stat \"{}\"\n", entry.path)).collect();
    let (_, stdout, _) = tool::attempt("debugfs", &["-f", "-", tool::text(&path)], commands.as_bytes());
    let text = String::from_utf8(stdout).unwrap();
    for (entry, said) in paths.iter().zip(text.split("debugfs: stat ").skip(1)) {
        let field = |name: &str| said.split_once(name).unwrap().1.split_whitespace().next().unwrap();
        // Numbers are shown with a sign.
        let number = |name: &str| field(name).parse::<i64>().unwrap();
        let metadata = &entry.metadata;
        assert_eq!(metadata.uid, number("User:") as u32, "{}", entry.path);
        assert_eq!(metadata.gid, number("Group:") as u32, "{}", entry.path);
        assert_eq!(Ok(metadata.mode), u16::from_str_radix(field("Mode:"), 8), "{}", entry.path);
        let seconds = u32::from_str_radix(field("mtime: 0x").split(':').next().unwrap(), 16).unwrap();
        assert_eq!(metadata.mtime.seconds as u32, seconds, "{}", entry.path);
        if let EntryKind::File { size, .. } = entry.what {
            assert_eq!(size, number("Size:") as u64, "{}", entry.path);
        }
        checked += 1;
    }
    assert_eq!(checked, paths.len());
}

/// A dirty journal that debugfs wrote: it says what the one block of `/file` is to be.
#[test]
fn a_dirty_journal_is_replayed_but_for_what_is_revoked_or_not_committed() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new, newer) = (vec![b'o'; 1024], vec![b'n'; 1024], vec![b'N'; 1024]);
    let escaped = [&0xc03b_3998u32.to_be_bytes()[..], &[7; 1020]].concat();
    for (name, content) in [("file", &old), ("new", &new), ("newer", &newer), ("escaped", &escaped)] {
        fs::write(directory.path().join(name), content).unwrap();
    }
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let source = tempfile::tempdir().unwrap();
    fs::copy(path("file"), source.path().join("file")).unwrap();
    for (form, options, open_command) in [
        ("no checksums", &["-b", "1024", "-J", "size=1", "-O", "^metadata_csum"][..], "jo"),
        ("32 bit", &["-b", "1024", "-J", "size=1", "-O", "^metadata_csum,^64bit"], "jo"),
        ("checksums 2", &["-b", "1024", "-J", "size=1"], "jo -c -v 2"),
        ("checksums 3", &["-b", "1024", "-J", "size=1"], "jo -c -v 3"),
        ("checksums 3, 32 bit", &["-b", "1024", "-J", "size=1", "-O", "^64bit"], "jo -c -v 3"),
    ] {
        let clean = Ext { kib: 3000, options, source: Some(source.path()), ..Ext::default() }.make();
        let at = clean.windows(1024).position(|window| window == old).unwrap() / 1024;
        let dirty = |commands: &str| {
            let commands = commands.replace("AT", &at.to_string());
            let commands = format!("{open_command}\n{commands}\njc\n");
            Ext { kib: 3000, options, source: Some(source.path()), commands: &commands }.make()
        };
        let read = |image: Vec<u8>| {
            let filesystem = open(Arc::new(image))?;
            let entries = filesystem.entries()?;
            let Some(EntryKind::File { handle, .. }) = entries.iter().map(|entry| &entry.what).next_back() else {
                panic!()
            };
            let mut content = vec![0; 1024];
            filesystem.read(handle, 0, &mut content)?;
            Ok::<_, FilesystemError>(content)
        };
        let write = |name: &str| format!("jw -b AT {}", path(name));
        for (commands, wanted) in [
            (write("new"), &new),
            ([write("new"), write("newer")].join("\n"), &newer),
            (write("escaped"), &escaped),
            ([write("new"), "jw -r AT".into()].join("\n"), &old),
            (["jw -r AT".into(), write("new")].join("\n"), &new),
            ([write("new"), format!("jw -c -b AT {}", path("newer"))].join("\n"), &new),
        ] {
            let got = read(dirty(&commands)).unwrap_or_else(|error| panic!("{form}: {commands}: {error}"));
            assert_eq!(got[..8], wanted[..8], "{form}: {commands}");
            assert!(got == *wanted, "{form}: {commands}");
        }
        // Damage in the log: with checksums it is named, without it is what the journal says.
        let image = dirty(&write("new"));
        for needle in [&new[..], &[0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 2]] {
            let found = image.windows(needle.len()).position(|window| window == needle).unwrap();
            let mut changed = image.clone();
            changed[found + 100 % needle.len() + 60] ^= 1;
            let result = read(changed);
            assert_eq!(result.is_err(), form.contains("checksums "), "{form}: {result:?}");
            if let Err(error) = result {
                assert!(error.to_string().contains("journal") && error.to_string().contains("e2fsck"), "{error}");
            }
        }
    }
}

#[test]
fn other_files_and_features_are_refused_by_name() {
    assert!(matches!(open(Arc::new(vec![])).err(), Some(FilesystemError::Unknown(_))));
    assert!(
        matches!(open(Arc::new(vec![0; 1 << 20])).err(), Some(FilesystemError::Unknown(text)) if text.contains("zeros"))
    );
    let image = Ext { kib: 1024, ..Ext::default() }.make();
    for (offset, bytes, wanted) in
        [(1024 + 0x60, &[0xff, 0xff, 0xff, 0xff][..], "checksum"), (1024 + 0x4, &[0xff], "checksum")]
    {
        let mut changed = image.clone();
        changed[offset..offset + bytes.len()].copy_from_slice(bytes);
        let error = open(Arc::new(changed)).err().unwrap().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    let plain = Ext { kib: 1024, options: &["-O", "^metadata_csum"], ..Ext::default() }.make();
    for (offset, byte, wanted) in [
        (0x60, 0x80 | 0x1, "compression"),
        (0x18, 7, "block size"),
        (0x21, 0, "impossible"),
        (0x28, 1, "impossible"),
        (0x59, 0x10, "inode size"),
        (0x58, 3, "inode size"),
    ] {
        let mut changed = plain.clone();
        changed[1024 + offset] = byte;
        let error = open(Arc::new(changed)).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains(wanted)), "{offset:#x}: {error:?}");
    }
    let cut = &image[..image.len() - 1024];
    let error = open(Arc::new(cut.to_vec())).err().unwrap().to_string();
    assert!(error.contains("truncated"), "{error}");
}

/// A target of a symlink in its inode, beside attributes in a block that is allocated as a whole cluster.
#[test]
fn short_symlinks_with_attributes_on_a_filesystem_with_clusters() {
    let options = ["-b", "4096", "-O", "bigalloc,^has_journal", "-C", "16384", "-I", "128"];
    let value = "v".repeat(900);
    let commands = format!("symlink /short some/target\nea_set /short trusted.long {value}\n");
    let image = Ext { kib: 32 << 10, options: &options, commands: &commands, ..Ext::default() }.make();
    let filesystem = open(Arc::new(image)).unwrap();
    let entries = by_path(filesystem.as_ref());
    let EntryKind::Symlink(target) = &entries["/short"].what else { panic!("{:?}", entries["/short"]) };
    assert_eq!(target, b"some/target");
    assert_eq!(entries["/short"].metadata.xattrs[b"trusted.long".as_slice()], value.as_bytes());
}

/// A directory whose blocks are one block again and again would hold more names than memory.
#[test]
fn a_directory_of_one_block_again_and_again_takes_no_memory() {
    let options = ["-t", "ext2", "-b", "4096", "-I", "128"];
    let directory = tempfile::tempdir().unwrap();
    for number in 0..340 {
        fs::write(directory.path().join(format!("f{number}")), "").unwrap();
    }
    let kib = 16 << 10;
    let image = Ext { kib, options: &options, source: Some(directory.path()), commands: "" };
    let mut image = image.make();
    // An indirect block that names the first block of the root again and again.
    let number = |image: &[u8], at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
    let inodes = number(&image, 4096 + 8) as usize * 4096;
    let root = inodes + 128;
    let block = number(&image, root + 40);
    let single = 3001_usize;
    for entry in 0..1024 {
        image[single * 4096 + entry * 4..][..4].copy_from_slice(&block.to_le_bytes());
    }
    for direct in 1..12 {
        image[root + 40 + direct * 4..][..4].copy_from_slice(&block.to_le_bytes());
    }
    image[root + 40 + 48..][..4].copy_from_slice(&(single as u32).to_le_bytes());
    let size = (12_u32 + 1024) * 4096;
    image[root + 4..][..4].copy_from_slice(&size.to_le_bytes());
    let error = open(Arc::new(image)).and_then(|filesystem| filesystem.entries()).unwrap_err().to_string();
    assert!(error.contains("its blocks are used twice"), "{error}");
}

/// Things that only a broken or hostile image has, set one at a time.
#[test]
fn what_is_corrupt_is_named() {
    let source = source();
    let image = |commands: &str, options: &[&str]| {
        let commands = format!("{commands}\n");
        Ext { kib: 4096, source: Some(source.path()), options, commands: &commands }.make()
    };
    let cases = [
        ("link /etc /many/again", "loop"),
        ("link / /etc/root", "reserved inode 2"),
        ("link <8> /journal", "reserved inode 8"),
        ("link /etc/hostname /etc/second", "link count of 1"),
        ("set_inode_field /etc/hostname links_count 0", "deleted"),
        ("set_inode_field /etc/hostname size 99999999999999999", "impossible"),
        ("set_inode_field /long-link size 5000", "4095"),
        ("set_inode_field /large block[0] 0x1234", "extent"),
        ("set_inode_field /etc size 1000", "block size"),
        ("set_inode_field /etc size 1048576", "holes"),
        ("set_inode_field /etc/hostname extra_isize 300", "extra fields"),
        ("set_inode_field /etc/hostname mode 0", "deleted"),
        ("set_inode_field /etc/hostname mode 0x3000", "unknown kind"),
        ("set_inode_field / mode 0100644", "root"),
        ("set_inode_field /large flags 0x80800", "encrypted"),
    ];
    for (command, wanted) in cases {
        let error = open(Arc::new(image(command, &[]))).and_then(|fs| fs.entries()).err();
        let error = error.unwrap_or_else(|| panic!("`{command}` is not noticed")).to_string();
        assert!(error.contains(wanted), "`{command}`: {error}");
    }
    let mut plain = image("", &["-O", "^metadata_csum"]);
    let record = plain.windows(10).position(|window| window == b"\x08\x01hostname").unwrap() - 6;
    plain[record..record + 4].copy_from_slice(&70_000u32.to_le_bytes());
    let error = open(Arc::new(plain)).and_then(|fs| fs.entries()).unwrap_err().to_string();
    assert!(error.contains("no such inode"), "{error}");
    // A flipped bit in each kind of metadata that has a checksum is named as such.
    let image = image(
        "ea_set /etc user.large aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        &[],
    );
    let find = |needle: &[u8]| image.windows(needle.len()).position(|window| window == needle).unwrap();
    for (at, wanted) in [
        (find(b"\x08\x01hostname") + 5, "wrong checksum"),
        (find(&[b'a'; 101]) + 50, "wrong checksum"),
        (find(b"file-with-a-longer-name-199"), "wrong checksum"),
    ] {
        let mut changed = image.clone();
        changed[at] ^= 2;
        let error = open(Arc::new(changed)).and_then(|fs| fs.entries()).unwrap_err().to_string();
        assert!(error.contains(wanted), "byte {at}: {error}");
    }
}

#[test]
fn damaged_images_give_errors_and_never_more() {
    let source = source();
    let variants: [(&str, &[&str]); 6] = [
        ("no checksums", &["-O", "^metadata_csum"]),
        ("checksums", &[]),
        ("inline data", &["-O", "inline_data,^metadata_csum", "-I", "512"]),
        ("indirect blocks", &["-t", "ext2", "-O", "^resize_inode"]),
        ("large blocks", &["-b", "4096", "-O", "^metadata_csum"]),
        ("meta_bg", &["-O", "meta_bg,^resize_inode,^metadata_csum", "-g", "1024"]),
    ];
    for (name, options) in variants {
        let image = Ext { kib: 4096, options, source: Some(source.path()), commands: COMMANDS }.make();
        // Metadata comes first; file contents would only dilute it.
        let used = image.len() - image.iter().rev().take_while(|&&byte| byte == 0).count();
        let mut failed = 0;
        let regions = [1024..2048, 2048..200_000, 2048..used];
        for bytes in noise::damage(&image, &regions, 500, 3) {
            failed += u32::from(read_all(bytes).is_err());
        }
        assert!(failed > 50, "{name}: only {failed} damages were found");
    }
}

fn read_all(image: Vec<u8>) -> Result<(), FilesystemError> {
    let filesystem = open(Arc::new(image))?;
    let mut buffer = vec![0; 1 << 16];
    for entry in filesystem.entries()? {
        if let EntryKind::File { handle, size, .. } = entry.what {
            let length = size.min(buffer.len() as u64) as usize;
            filesystem.read(&handle, 0, &mut buffer[..length])?;
            filesystem.read(&handle, size - length as u64, &mut buffer[..length])?;
        }
    }
    Ok(())
}
