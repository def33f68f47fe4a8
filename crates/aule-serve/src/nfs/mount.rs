//! The MOUNT protocol, version 3 (RFC 1813, appendix I): a name becomes a handle.

use super::{
    handle::HANDLE,
    rpc::{Accepted, Call},
    xdr::{Garbage, Writer},
};
use std::net::IpAddr;

/// The number of the program.
pub(crate) const PROGRAM: u32 = 100_005;
/// Its version.
pub(crate) const VERSION: u32 = 3;
/// The longest path that a client may send (MNTPATHLEN).
const PATH_MAX: usize = 1024;
const NO_ENTRY: u32 = 2;

/// What can be mounted.
pub(crate) trait Names {
    /// The handle of the directory that this path names, for somebody who asks from `peer`.
    fn mount(&self, path: &[u8], peer: IpAddr) -> Option<[u8; HANDLE]>;
    /// All paths that can be mounted.
    fn paths(&self) -> Vec<String>;
}

/// Answers a call. Of the writer only what follows the RPC header is the procedure's.
pub(crate) fn call(names: &dyn Names, peer: IpAddr, call: &Call<'_>, writer: &mut Writer) -> Accepted {
    let mut arguments = call.arguments;
    let mut path = || -> Result<&[u8], Garbage> { arguments.opaque(PATH_MAX) };
    match call.procedure {
        // NULL; UMNTALL.
        0 | 4 => {}
        // MNT: status, handle, and which ways of saying who calls are taken: AUTH_SYS and none.
        1 => {
            let Ok(path) = path() else { return Accepted::GarbageArguments };
            match names.mount(path, peer) {
                Some(handle) => {
                    writer.u32(0);
                    writer.opaque(&handle);
                    [2, 1, 0].into_iter().for_each(|it| writer.u32(it));
                }
                None => writer.u32(NO_ENTRY),
            }
        }
        // DUMP: nobody keeps a list of who mounted what.
        2 => writer.bool(false),
        // UMNT.
        3 => {
            if path().is_err() {
                return Accepted::GarbageArguments;
            }
        }
        // EXPORT: each path with an empty list of groups.
        5 => {
            for path in names.paths() {
                writer.bool(true);
                writer.opaque(path.as_bytes());
                writer.bool(false);
            }
            writer.bool(false);
        }
        _ => return Accepted::ProcedureUnavailable,
    }
    Accepted::Success
}
