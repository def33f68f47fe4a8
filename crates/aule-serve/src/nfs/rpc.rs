//! ONC RPC version 2 (RFC 5531): calls come in, replies go out.

use super::xdr::{Garbage, Reader, Writer};

/// `AUTH_SYS` (RFC 5531, 8.2): who calls, as far as the client says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Credential {
    /// User.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    groups: [u32; GROUPS_MAX],
    count: usize,
}

/// How many more groups a credential may name.
const GROUPS_MAX: usize = 16;
/// The longest body of a credential or verifier.
const AUTH_MAX: usize = 400;
const AUTH_SYS: u32 = 1;
/// Nobody, for calls without a credential.
const NOBODY: u32 = 65_534;

impl Credential {
    /// Whether the caller is in the group.
    pub(crate) fn has_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.iter().take(self.count).any(|it| *it == gid)
    }

    fn read(flavor: u32, body: &[u8]) -> Result<Self, Garbage> {
        let mut credential = Credential { uid: NOBODY, gid: NOBODY, ..Credential::default() };
        if flavor != AUTH_SYS {
            return Ok(credential);
        }
        let mut reader = Reader::new(body);
        let _stamp = reader.u32()?;
        let _machine = reader.opaque(255)?;
        credential.uid = reader.u32()?;
        credential.gid = reader.u32()?;
        credential.count = reader.u32()? as usize;
        for group in credential.groups.get_mut(..credential.count).ok_or(Garbage)? {
            *group = reader.u32()?;
        }
        Ok(credential)
    }
}

/// A call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    /// Given back in the reply.
    pub(crate) xid: u32,
    /// Which protocol.
    pub(crate) program: u32,
    /// Of the protocol.
    pub(crate) version: u32,
    /// Which procedure of it.
    pub(crate) procedure: u32,
    /// Who calls.
    pub(crate) credential: Credential,
    /// The arguments.
    pub(crate) arguments: Reader<'a>,
}

/// Why a message gets no reply from a procedure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is no call: nothing is said, and the connection is ended.
    NotACall,
    /// It is of another version of RPC.
    RpcVersion {
        /// Of the call.
        xid: u32,
    },
    /// Its credential cannot be understood.
    Credential {
        /// Of the call.
        xid: u32,
    },
}

impl<'a> Call<'a> {
    /// Reads a message.
    pub(crate) fn read(message: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(message);
        let mut number = || reader.u32().map_err(|_| Refusal::NotACall);
        let (xid, kind, rpc_version) = (number()?, number()?, number()?);
        if kind != 0 {
            return Err(Refusal::NotACall);
        }
        if rpc_version != 2 {
            return Err(Refusal::RpcVersion { xid });
        }
        let (program, version, procedure) = (number()?, number()?, number()?);
        let mut authentication = || -> Result<Credential, Garbage> {
            let flavor = reader.u32()?;
            let credential = Credential::read(flavor, reader.opaque(AUTH_MAX)?)?;
            let _flavor = reader.u32()?;
            let _verifier = reader.opaque(AUTH_MAX)?;
            Ok(credential)
        };
        let credential = authentication().map_err(|_| Refusal::Credential { xid })?;
        Ok(Call { xid, program, version, procedure, credential, arguments: reader })
    }
}

/// What becomes of a call that was understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// The results follow.
    Success,
    /// There is no such program here.
    ProgramUnavailable,
    /// The program has another version.
    ProgramMismatch {
        /// The version that there is.
        version: u32,
    },
    /// The program has no such procedure.
    ProcedureUnavailable,
    /// The arguments cannot be understood.
    GarbageArguments,
}

/// Begins a reply; after [`Accepted::Success`] the results are to be written.
pub(crate) fn accept(writer: &mut Writer, xid: u32, accepted: Accepted) {
    // A reply, accepted, with an empty verifier.
    [xid, 1, 0, 0, 0].into_iter().for_each(|it| writer.u32(it));
    match accepted {
        Accepted::Success => writer.u32(0),
        Accepted::ProgramUnavailable => writer.u32(1),
        Accepted::ProgramMismatch { version } => [2, version, version].into_iter().for_each(|it| writer.u32(it)),
        Accepted::ProcedureUnavailable => writer.u32(3),
        Accepted::GarbageArguments => writer.u32(4),
    }
}

/// Writes the reply to a call that is refused; says whether there is one.
pub(crate) fn refuse(writer: &mut Writer, refusal: Refusal) -> bool {
    match refusal {
        Refusal::NotACall => return false,
        Refusal::RpcVersion { xid } => [xid, 1, 1, 0, 2, 2].into_iter().for_each(|it| writer.u32(it)),
        // AUTH_BADCRED.
        Refusal::Credential { xid } => [xid, 1, 1, 1, 1].into_iter().for_each(|it| writer.u32(it)),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(rpc_version: u32, groups: u32) -> Vec<u8> {
        let mut body = Writer::default();
        body.u32(0);
        body.opaque(b"host");
        [1000, 100, groups].into_iter().for_each(|it| body.u32(it));
        (0..groups).for_each(|it| body.u32(it));
        let mut writer = Writer::default();
        [9, 0, rpc_version, 100_003, 3, 1, AUTH_SYS].into_iter().for_each(|it| writer.u32(it));
        writer.opaque(&body.0);
        writer.u32(0);
        writer.opaque(b"");
        writer.u32(77);
        writer.0
    }

    #[test]
    fn calls_are_read() {
        let bytes = call(2, 3);
        let mut read = Call::read(&bytes).unwrap();
        assert_eq!((read.xid, read.program, read.version, read.procedure), (9, 100_003, 3, 1));
        assert_eq!(read.credential.uid, 1000);
        assert!(read.credential.has_group(100) && read.credential.has_group(2) && !read.credential.has_group(3));
        assert_eq!(read.arguments.u32(), Ok(77));
        for length in 0..bytes.len() - 4 {
            assert!(Call::read(&bytes[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn odd_calls_are_refused() {
        assert_eq!(Call::read(&call(3, 0)).unwrap_err(), Refusal::RpcVersion { xid: 9 });
        assert_eq!(Call::read(&call(2, 17)).unwrap_err(), Refusal::Credential { xid: 9 });
        let mut reply = call(2, 0);
        reply[7] = 1;
        assert_eq!(Call::read(&reply).unwrap_err(), Refusal::NotACall);
        let mut writer = Writer::default();
        assert!(refuse(&mut writer, Refusal::RpcVersion { xid: 9 }) && !refuse(&mut writer, Refusal::NotACall));
    }
}
