//! Runs programs in the tree of a Linux system without being root.
//!
//! A [`Sandbox`] is a second process of the same program (the *helper*; the program's `main` hands it to [`helper`]) in
//! namespaces of its own: users (user_namespaces(7)), mounts, processes, network, IPC, host name. The tree is unpacked into a
//! directory there, by its numeric owners; what programs change goes to a directory beside it (overlayfs), and is given
//! back as a list of changes. Nothing of the host is to be seen inside: no network, no environment, no file, no process.
//! When the helper ends, or the process that started it dies, the kernel ends all that ran inside.
//!
//! Programs of another architecture run by QEMU's user mode emulation, which a binfmt_misc of the sandbox's own calls. Where
//! the sandbox has the same program for this machine's own processor ([`Native`]), that one runs in its place.

#![cfg(target_os = "linux")]

mod capture;
mod emulator;
mod enter;
mod error;
mod filter;
mod helper;
mod host;
mod identifiers;
mod mounts;
mod protocol;
mod run;
mod unpack;

pub use emulator::{Native, triplet};
pub use error::{Result, SandboxError};
pub use helper::helper;
pub use host::{Host, Sandbox, Unpacker, View};
pub use identifiers::name_of_map;
pub use protocol::{Entry, Exit, Program, What};
