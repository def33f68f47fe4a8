//! As much of the port mapper, version 2 (RFC 1833, 3), as clients need that always ask on port 111 where MOUNT is: klibc's
//! nfsmount. Nothing can be registered.

use super::{
    mount, procedures,
    rpc::{Accepted, Call},
    xdr::Writer,
};

/// The number of the program.
pub(crate) const PROGRAM: u32 = 100_000;
/// Its version.
pub(crate) const VERSION: u32 = 2;
const TCP: u32 = 6;

/// Answers a call; `port` is where NFS and MOUNT are.
pub(crate) fn call(port: u16, call: &Call<'_>, writer: &mut Writer) -> Accepted {
    let programs = [(procedures::PROGRAM, procedures::VERSION), (mount::PROGRAM, mount::VERSION)];
    let mut arguments = call.arguments;
    match call.procedure {
        0 => {}
        // GETPORT: program, version, protocol; 0 is: not here.
        3 => {
            let mut asked = || Ok::<_, super::xdr::Garbage>((arguments.u32()?, arguments.u32()?, arguments.u32()?));
            let Ok((program, version, protocol)) = asked() else { return Accepted::GarbageArguments };
            let here = protocol == TCP && programs.contains(&(program, version));
            writer.u32(if here { u32::from(port) } else { 0 });
        }
        // DUMP.
        4 => {
            for (program, version) in programs {
                writer.bool(true);
                [program, version, TCP, u32::from(port)].into_iter().for_each(|it| writer.u32(it));
            }
            writer.bool(false);
        }
        _ => return Accepted::ProcedureUnavailable,
    }
    Accepted::Success
}
