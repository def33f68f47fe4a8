//! Writing files into a directory of somebody else's: by names below an open directory, so that no symlink that stands
//! there, or is put there meanwhile, leads out of it. Each file appears whole, in place of an older one; nothing else
//! is touched.

use super::failed;
use crate::failure::Failure;
use rustix::{
    fs::{self, AtFlags, CWD, FlockOperation, Mode, OFlags},
    io::Errno,
};
use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

/// The name of a file that is being written.
const UNFINISHED: &str = ".aule-export.tmp";

/// An open directory.
pub(super) struct Directory {
    descriptor: OwnedFd,
    /// For messages.
    path: PathBuf,
}

impl Directory {
    /// Opens the directory that a person named, making it if it is not there, and keeps other exports out of it.
    pub(super) fn create(path: &Path) -> Result<Directory, Failure> {
        std::fs::create_dir_all(path).map_err(|error| failed("create", path, &error))?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let descriptor = fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| errno("open", path, error))?;
        match fs::flock(&descriptor, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let message = format!("another aule process is writing to {}", path.display());
                return Err(Failure::new(message).hint("try again when it is done"));
            }
            // Some network filesystems have no locks; then there is only this person's word that nobody else writes.
            Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::INVAL | Errno::BADF | Errno::NOSYS) => {}
            Err(error) => return Err(errno("lock", path, error)),
        }
        Ok(Directory { descriptor, path: path.into() })
    }

    /// Opens the directory `name` in this one, making it if it is not there. A symlink is not followed.
    pub(super) fn subdirectory(&self, name: &[u8]) -> Result<Directory, Failure> {
        let path = self.path.join(OsStr::from_bytes(name));
        match fs::mkdirat(&self.descriptor, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(errno("create", &path, error)),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        match fs::openat(&self.descriptor, name, flags, Mode::empty()) {
            Ok(descriptor) => Ok(Directory { descriptor, path }),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let message = format!("{} is in the way: a directory must be there, and it is none", path.display());
                Err(Failure::new(message)
                    .hint("symlinks are not followed; move it away, or export to another directory"))
            }
            Err(error) => Err(errno("open", &path, error)),
        }
    }

    /// Writes the file `name`: `fill` writes its bytes; then it takes the place of what has that name.
    pub(super) fn write(
        &self,
        name: &[u8],
        fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let path = self.path.join(OsStr::from_bytes(name));
        // Left by an export that was killed; another one that runs is kept out by the lock.
        match fs::unlinkat(&self.descriptor, UNFINISHED, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(errno("remove", &self.path.join(UNFINISHED), error)),
        }
        let written = self.write_unfinished(&path, fill);
        let renamed = written.and_then(|()| {
            fs::renameat(&self.descriptor, UNFINISHED, &self.descriptor, name).map_err(|error| match error {
                Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST => {
                    Failure::new(format!("{} is a directory, and a file must be there", path.display()))
                        .hint("move it away, or export to another directory")
                }
                error => errno("replace", &path, error),
            })
        });
        if renamed.is_err() {
            // The first failure is what counts; the file that is left has a name of ours and goes with the next run.
            let _ = fs::unlinkat(&self.descriptor, UNFINISHED, AtFlags::empty());
        }
        renamed
    }

    fn write_unfinished(
        &self,
        path: &Path,
        fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let descriptor =
            fs::openat(&self.descriptor, UNFINISHED, flags, mode).map_err(|error| errno("create", path, error))?;
        // A server under another user must be able to read it, whatever the umask.
        fs::fchmod(&descriptor, mode).map_err(|error| errno("write", path, error))?;
        let mut file = File::from(descriptor);
        fill(&mut |bytes| io::Write::write_all(&mut file, bytes).map_err(|error| failed("write", path, &error)))?;
        file.sync_all().map_err(|error| failed("write", path, &error))
    }
}

fn errno(verb: &str, path: &Path, error: Errno) -> Failure {
    failed(verb, path, &io::Error::from(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn write(directory: &Directory, name: &str, text: &str) -> Result<(), Failure> {
        directory.write(name.as_bytes(), |sink| sink(text.as_bytes()))
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_replaced_and_symlinks_never_followed() {
        let temporary = tempfile::tempdir().unwrap();
        let (outside, inside) = (temporary.path().join("outside"), temporary.path().join("new/inside"));
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "precious").unwrap();
        let directory = Directory::create(&inside).unwrap();
        write(&directory, "a", "one").unwrap();
        write(&directory, "a", "two").unwrap();
        assert_eq!(std::fs::read_to_string(inside.join("a")).unwrap(), "two");
        assert_eq!(std::fs::metadata(inside.join("a")).unwrap().permissions().mode() & 0o7777, 0o644);

        symlink(outside.join("file"), inside.join("b")).unwrap();
        write(&directory, "b", "three").unwrap();
        assert!(!inside.join("b").is_symlink());
        symlink(&outside, inside.join("boot")).unwrap();
        assert!(directory.subdirectory(b"boot").is_err());
        symlink(outside.join("file"), inside.join(UNFINISHED)).unwrap();
        write(&directory, "c", "four").unwrap();
        std::fs::create_dir(inside.join("d")).unwrap();
        assert!(write(&directory, "d", "five").is_err());

        write(&directory.subdirectory(b"sub").unwrap(), "e", "six").unwrap();
        assert_eq!(names(&inside), ["a", "b", "boot", "c", "d", "sub"]);
        assert_eq!(names(&inside.join("sub")), ["e"]);
        assert_eq!(names(&outside), ["file"]);
        assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "precious");
    }

    #[test]
    fn a_failure_leaves_the_old_file() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::create(temporary.path()).unwrap();
        write(&directory, "a", "old").unwrap();
        let failed = directory.write(b"a", |sink| {
            sink(b"half of the n")?;
            Err(Failure::new("no more"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read_to_string(temporary.path().join("a")).unwrap(), "old");
        assert_eq!(names(temporary.path()), ["a"]);
        assert!(Directory::create(temporary.path()).is_err(), "two exports at once");
    }
}
