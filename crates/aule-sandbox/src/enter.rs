//! The last step into the sandbox: from the helper to the program, which sees the tree as its root and has no rights
//! over what holds it. Runs in a process of its own, which becomes the program.

use crate::{filter, protocol::Program};
use nix::sched::{CloneFlags, unshare};
use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Resource, Rlimit, pivot_root, setrlimit, umask},
    thread::{CapabilitySet, remove_capability_from_bounding_set, set_no_new_privs},
};
use std::{fs, io, os::unix::process::CommandExt, path::Path, process::Command};

/// What maintainer scripts do to files, owners and processes; above all neither mounts nor the network.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SYS_CHROOT);

/// The largest file that a program may write, in bytes: it is read back, holes and all.
const FILE_MAX: u64 = 16 << 30;
/// How many processes there may be. (The kernel does not count those of the machine's own root.)
const PROCESSES_MAX: u64 = 16_384;

/// Becomes the program; only gives back an error.
pub(crate) fn enter(root: &Path, program: &Program) -> io::Error {
    match confine(root) {
        Ok(()) => {}
        Err(error) => return error,
    }
    let mut arguments = program.arguments.iter();
    let Some(name) = arguments.next() else { return io::ErrorKind::InvalidInput.into() };
    Command::new(name).args(arguments).env_clear().envs(&program.environment).exec()
}

fn confine(root: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    std::env::set_current_dir(root)?;
    // The same directory twice: the old root lies over the new one, and is taken away (pivot_root(2), NOTES).
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")?;
    rustix::process::setsid()?;
    umask(rustix::fs::Mode::from_raw_mode(0o022));
    let limits =
        [(Resource::Core, 0), (Resource::Nofile, 4096), (Resource::Fsize, FILE_MAX), (Resource::Nproc, PROCESSES_MAX)];
    for (resource, limit) in limits {
        // A lower limit of the host's stays.
        let (soft, hard) = if resource == Resource::Nofile { (1024, limit) } else { (limit, limit) };
        let _ = setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) });
    }
    for capability in CapabilitySet::all().difference(KEPT).iter() {
        match remove_capability_from_bounding_set(capability) {
            // One that this kernel does not know.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // What this process was told by there is not for the program.
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
    set_no_new_privs(true)?;
    filter::refuse()
}
