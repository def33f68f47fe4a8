//! Makers of tiny images, archives and signatures for tests, with the tools of the host; never shipped.
//!
//! Everything here panics when a tool is missing or fails: a test that cannot be set up must not pass. The tools come
//! from the Debian packages acl, attr, dosfstools, e2fsprogs, fdisk, gdisk, gnupg, gzip, libcap2-bin, mtools, xz-utils,
//! zip and zstd.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a failing test set-up must fail the test")]

pub mod disk;
pub mod ext;
pub mod fat;
pub mod gpg;
pub mod listing;
pub mod mount;
pub mod noise;
pub mod tool;
