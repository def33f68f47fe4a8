//! Which emulator runs the programs of an architecture, and how the kernel is told
//! (kernel documentation, "Kernel Support for miscellaneous Binary Formats"; ELF specification, "ELF Header").

use crate::{Result, SandboxError, identifiers::find, protocol::Emulator};
use std::path::PathBuf;

/// Debian's name of an architecture, QEMU's, Rust's, the ELF class (1: 32 bits, 2: 64 bits) and the ELF machine.
const ARCHITECTURES: [(&str, &str, &str, u8, u8); 4] = [
    ("amd64", "x86_64", "x86_64", 2, 0x3e),
    ("arm64", "aarch64", "aarch64", 2, 0xb7),
    ("armhf", "arm", "arm", 1, 0x28),
    ("riscv64", "riscv64", "riscv64", 2, 0xf3),
];

/// What it takes to run programs of Debian's `architecture` here: `None` where this machine runs them itself.
pub(crate) fn emulator(architecture: &str, search: &[PathBuf]) -> Result<Option<Emulator>> {
    let known = ARCHITECTURES.iter().find(|it| it.0 == architecture);
    let (_, qemu, rust, class, machine) = known.ok_or_else(|| SandboxError::Missing {
        what: format!("programs of the architecture `{architecture}` cannot be run"),
        help: "build on a machine of that architecture".into(),
    })?;
    if *rust == std::env::consts::ARCH {
        return Ok(None);
    }
    // Both are statically linked in Debian and Ubuntu: the tree has nothing that they would need.
    let names = [format!("qemu-{qemu}-static"), format!("qemu-{qemu}")];
    let program = names.iter().find_map(|name| find(search, name)).ok_or_else(|| SandboxError::Missing {
        what: format!("{} is missing: this machine cannot run programs of {architecture} without it", names[0]),
        help: "run `sudo apt-get install qemu-user-static`".into(),
    })?;
    let program = program.to_str().filter(|it| !it.contains([':', '\\'])).map(str::to_owned);
    let program =
        program.ok_or_else(|| SandboxError::Broken("the emulator's path cannot be told to the kernel".into()))?;
    // Executables and shared objects (which position-independent executables are), of any ABI but little endian.
    let magic = format!(r"\x7fELF\x{class:02x}\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x{machine:02x}\x00");
    let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
    // P: the program sees its own first argument; F: the emulator is opened now, here.
    Ok(Some(Emulator { registration: format!(":aule-{qemu}:M::{magic}:{mask}:{program}:PF") }))
}
