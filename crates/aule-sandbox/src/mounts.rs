//! What a program in the sandbox sees: the tree with its changes on top, and the little of a running system that
//! maintainer scripts need. Runs in the helper.

use crate::{
    emulator::{HANDLER, LOADER, NATIVE, PLACE},
    protocol::Emulator,
};
use rustix::{
    fs::{MemfdFlags, memfd_create},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount, unmount},
};
use std::{
    fs,
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::symlink},
    path::{Path, PathBuf},
};

/// Names below the directory of changes.
const UPPER: &str = "upper";
const WORK: &str = "work";
const ROOT: &str = "root";
/// Where the directory that is shown appears in the tree.
const SHOWN: &str = "run/aule";
/// The device nodes of the host that are there too. (mknod(2) is refused in a user namespace.)
const DEVICES: [&str; 4] = ["null", "zero", "full", "urandom"];
/// An empty file in place of the device: what a script takes from there would be in the tree (overlayroot has a seed for each
/// initramfs), and another one each time. Whoever needs a secret from it finds none, rather than one that others know.
const NOTHING_RANDOM: &str = "random";
/// No program may make user namespaces of its own: it would have every capability there (user_namespaces(7)).
const MOST_NAMESPACES: &str = "/proc/sys/user/max_user_namespaces";
/// The most that a file system in memory may hold.
const MEMORY: &std::ffi::CStr = c"mode=755,size=25%";
const MEMORY_FOR_ALL: &std::ffi::CStr = c"mode=1777,size=25%";

/// The mounted tree.
pub(crate) struct Mounted {
    changes: PathBuf,
}

/// An error with what was tried.
fn tried<T>(what: impl std::fmt::Display, result: Result<T, impl Into<io::Error>>) -> io::Result<T> {
    result.map_err(|error| {
        let error: io::Error = error.into();
        io::Error::new(error.kind(), Tried { what: what.to_string(), errno: error.raw_os_error(), error })
    })
}

/// See [`tried`]; the kernel's number is kept for whoever knows what it means.
#[derive(Debug)]
pub(crate) struct Tried {
    what: String,
    pub(crate) errno: Option<i32>,
    error: io::Error,
}

impl std::fmt::Display for Tried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}

impl std::error::Error for Tried {}

/// Makes the helper's own mounts its own, and gives it a /proc of its own processes.
pub(crate) fn begin() -> io::Result<()> {
    tried("making mounts private", mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    tried("mounting /proc", mount("proc", "/proc", "proc", flags, None))?;
    // A kernel without the file has no such limit, and no such namespaces beyond this one's parents' limits.
    match fs::write(MOST_NAMESPACES, "0\n") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Registers the emulator in a binfmt_misc of this user namespace (Linux 6.7 and later).
pub(crate) fn emulate(emulator: &Emulator) -> io::Result<()> {
    let place = "/proc/sys/fs/binfmt_misc";
    tried("mounting binfmt_misc", mount("binfmt_misc", place, "binfmt_misc", MountFlags::empty(), None))?;
    // In memory: what /proc/self/exe of each program leads to is no file of the host's then, whose mode root inside could change
    // where that is root there, too; and no path of the host's has to be told to the kernel.
    // (A host may have it that nothing in memory runs but what is said to be a program: kernel documentation, "memfd".)
    let memory = memfd_create("emulator", MemfdFlags::CLOEXEC | MemfdFlags::EXEC);
    let mut memory = fs::File::from(tried("making a program in memory (sysctl vm.memfd_noexec)", memory)?);
    match emulator.loader {
        None => io::copy(&mut tried(&emulator.program, fs::File::open(&emulator.program))?, &mut memory).map(drop)?,
        Some(_) => memory.write_all(HANDLER)?,
    }
    let program = format!("/proc/self/fd/{}", memory.as_raw_fd());
    // P: the program sees its own first argument; F: the emulator is opened now, here.
    let line = format!(":{}:{program}:PF", emulator.format);
    tried("registering the emulator in binfmt_misc", fs::write(format!("{place}/register"), line))
}

/// What the handler of foreign programs needs in the tree.
pub(crate) struct Handled<'a> {
    /// The host's path of the emulator.
    pub(crate) emulator: &'a str,
    /// Where the loader of this machine's programs is, as a path in the tree.
    pub(crate) loader: &'a str,
    /// The name of the directory with these programs.
    pub(crate) native: &'a str,
}

impl Mounted {
    /// Lays `trees` over each other, the first one highest, and mounts /proc, /dev, /run and /tmp in it.
    pub(crate) fn open(
        trees: &[String],
        changes: &str,
        shown: Option<&str>,
        handled: Option<Handled<'_>>,
    ) -> io::Result<Mounted> {
        let mounted = Mounted { changes: PathBuf::from(changes) };
        fs::create_dir(&mounted.changes)?;
        for name in [UPPER, WORK, ROOT] {
            fs::create_dir(mounted.changes.join(name))?;
        }
        let root = mounted.root();
        let (upper, work) = (mounted.upper(), mounted.changes.join(WORK));
        // The new directory takes the place of the root's own, whose owner and mode are to be seen.
        let lower = trees.join(":");
        let options =
            format!("lowerdir={lower},upperdir={},workdir={},userxattr,volatile", upper.display(), work.display());
        let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
        copy_root(Path::new(trees.last().map_or("", String::as_str)), &upper)?;
        tried("mounting an overlay", mount("overlay", &root, "overlay", MountFlags::empty(), Some(&*options)))?;

        let proc = mount_point(&root, "proc")?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        tried("mounting /proc", mount("proc", &proc, "proc", flags, None))?;
        // Files in it change the host, were the one who runs this root there.
        tried("making read-only", mount_remount(&proc, MountFlags::BIND | MountFlags::RDONLY | flags, c""))?;
        let dev = mount_point(&root, "dev")?;
        tmpfs(&dev, MEMORY)?;
        for name in DEVICES {
            let place = dev.join(name);
            fs::write(&place, b"")?;
            tried(format!("showing /dev/{name}"), mount_bind(Path::new("/dev").join(name), &place))?;
            // It is the host's node: its mode and owner are not to be changed. Writing to it does not ask the mount.
            let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC;
            tried("making read-only", mount_remount(&place, flags, c""))?;
        }
        fs::write(dev.join(NOTHING_RANDOM), b"")?;
        let links = [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
        ];
        for (name, target) in links {
            symlink(target, dev.join(name))?;
        }
        fs::create_dir(dev.join("shm"))?;
        fs::create_dir(dev.join("pts"))?;
        let options = c"newinstance,ptmxmode=0666,mode=620";
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        tried("mounting /dev/pts", mount("devpts", dev.join("pts"), "devpts", flags, Some(options)))?;

        let run = mount_point(&root, "run")?;
        tmpfs(&run, MEMORY)?;
        fs::create_dir(run.join("lock"))?;
        tmpfs(&mount_point(&root, "tmp")?, MEMORY_FOR_ALL)?;
        if let Some(shown) = shown {
            let place = root.join(SHOWN);
            fs::create_dir(&place)?;
            tried("showing a directory", mount_bind(shown, &place))?;
            let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
            tried("making read-only", mount_remount(&place, flags, c""))?;
        }
        if let Some(Handled { emulator, loader, native }) = handled {
            let place = root.join(PLACE);
            fs::write(&place, b"")?;
            tried("showing the emulator", mount_bind(emulator, &place))?;
            // It is the host's own file: root inside may be root, or its owner, there.
            let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
            tried("making read-only", mount_remount(&place, flags, c""))?;
            symlink(loader, root.join(LOADER.trim_start_matches('/')))?;
            let place = root.join(NATIVE);
            fs::create_dir(&place)?;
            tried("showing this machine's programs", mount_bind(native, &place))?;
            let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
            tried("making read-only", mount_remount(&place, flags, c""))?;
        }
        Ok(mounted)
    }

    /// Where the tree is mounted.
    pub(crate) fn root(&self) -> PathBuf {
        self.changes.join(ROOT)
    }

    /// Where the changes are.
    pub(crate) fn upper(&self) -> PathBuf {
        self.changes.join(UPPER)
    }

    /// Takes the mounts away; the changes stay.
    pub(crate) fn unmount(&self) -> io::Result<()> {
        tried("unmounting", unmount(self.root(), UnmountFlags::DETACH))
    }
}

/// The root of the overlay is the upper directory itself: it gets what the tree's root has.
fn copy_root(tree: &Path, upper: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
    let root = fs::symlink_metadata(tree)?;
    lchown(upper, Some(root.uid()), Some(root.gid()))?;
    fs::set_permissions(upper, fs::Permissions::from_mode(root.mode() & 0o7777))
}

/// A directory of the tree that something is mounted on. A symlink there would lead out of the tree.
fn mount_point(root: &Path, name: &str) -> io::Result<PathBuf> {
    let place = root.join(name);
    match fs::symlink_metadata(&place) {
        Ok(found) if found.is_dir() => Ok(place),
        _ => Err(io::Error::other(format!("the tree has no directory /{name}"))),
    }
}

fn tmpfs(place: &Path, options: &std::ffi::CStr) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    tried("mounting a tmpfs", mount("tmpfs", place, "tmpfs", flags, Some(options)))
}
