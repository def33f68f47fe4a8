//! Which calls of the kernel a program in the sandbox may not make (seccomp(2)): those that no namespace confines. What is
//! left out here is what Docker's default profile leaves out, too; mounts, modules and the like take capabilities that
//! nothing inside has.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};
use std::{collections::BTreeMap, io};

/// Keys of the host's user are those of whoever is root inside (keyrings(7)), rings of calls make sockets unseen by a
/// filter (io_uring(7)), and the others are for whoever looks for a way out.
const REFUSED: [libc::c_long; 7] = [
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
];
/// Families of sockets that a network namespace holds (unix(7), ip(7), ipv6(7), netlink(7)). Others do not know of it: AF_VSOCK leads
/// from a virtual machine to its host.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Refuses them to this thread and to all that it starts. A program for another form of this processor (32 bits) is ended.
#[allow(clippy::useless_conversion, reason = "on processors of 32 bits a number of a call has as many")]
pub(crate) fn refuse() -> io::Result<()> {
    let refused = REFUSED.into_iter().map(|call| (call.into(), Vec::new())).collect();
    apply(refused, libc::ENOSYS)?;
    let others = FAMILIES.into_iter().map(|family| {
        // Numbers of families are small: none has a sign.
        SeccompCondition::new(0, Dword, Ne, u64::from(family.unsigned_abs()))
    });
    let others = others.collect::<Result<_, _>>().and_then(SeccompRule::new).map_err(io::Error::other)?;
    apply(BTreeMap::from([(libc::SYS_socket.into(), vec![others])]), libc::EAFNOSUPPORT)
}

/// What a call of the x32 ABI has in its number, which a kernel may know beside those of x86_64 (`__X32_SYSCALL_BIT`).
const X32: i64 = 0x4000_0000;

fn apply(mut rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> io::Result<()> {
    // The library knows these three of 64 bits only.
    let Ok(architecture) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(()) };
    if architecture == TargetArch::x86_64 {
        let others: Vec<_> = rules.iter().map(|(call, rules)| (call | X32, rules.clone())).collect();
        rules.extend(others);
    }
    let action = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, architecture).map_err(io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    apply_filter(&program).map_err(io::Error::other)
}
