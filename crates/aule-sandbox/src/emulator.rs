//! Which emulator runs the programs of an architecture, and how the kernel is told
//! (kernel documentation, "Kernel Support for miscellaneous Binary Formats"; ELF specification, "ELF Header").

use crate::{Result, SandboxError, identifiers::find, protocol::Emulator};
use std::path::PathBuf;

/// The handler (`handler/main.rs`), or nothing where it could not be compiled.
pub(crate) const HANDLER: &[u8] = include_bytes!(env!("AULE_HANDLER"));
/// Where the handler finds QEMU, as a path in the tree.
pub(crate) const PLACE: &str = "run/aule.emulator";
/// Where programs of this machine's architecture find their loader, as a path in the tree.
pub(crate) const LOADER: &str = "/run/aule.loader";
/// Where programs look for their loader elsewhere, by Rust's name of the architecture (System V ABI supplements).
const LOADERS: [(&str, &str); 2] =
    [("x86_64", "/lib64/ld-linux-x86-64.so.2"), ("aarch64", "/lib/ld-linux-aarch64.so.1")];

/// Where the directory with programs of this machine's architecture is mounted, as a path in the tree. Of the same length
/// as `usr/lib`, and in its place in the paths that these programs know: whatever looks for libraries in the tree must not
/// come across theirs.
pub(crate) const NATIVE: &str = "run/lib";

/// This machine's architecture, whose programs may stand in for those of a foreign tree: the same program gives the same
/// whatever processor runs it, and emulation makes it some thirty times slower.
///
/// They are in a directory of their own: what a package has below `/usr/lib/TRIPLET` is in `TRIPLET`, programs that stand in
/// are below `root`, each at its path in the tree. Programs and libraries must say `/run/lib/TRIPLET` where they said
/// `/usr/lib/TRIPLET`, and [`Native::loader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Native {
    /// Debian's name of it, such as `amd64`.
    pub architecture: &'static str,
    /// Its libraries' directory below `/usr/lib`, such as `x86_64-linux-gnu` (Debian: "Multiarch/Tuples").
    pub triplet: &'static str,
    /// What its programs say where their loader is, and what they have to say in the sandbox.
    pub loader: (&'static str, &'static str),
}

impl Native {
    /// What this machine has for trees of `architecture`: nothing where it runs their programs itself, or where this
    /// program was built without the handler.
    pub fn beside(architecture: &str) -> Option<Native> {
        let own = ARCHITECTURES.iter().find(|it| it.2 == std::env::consts::ARCH)?;
        let (_, loader) = LOADERS.iter().find(|it| it.0 == own.2)?;
        let native = Native { architecture: own.0, triplet: env!("AULE_TRIPLET"), loader: (loader, LOADER) };
        (own.0 != architecture && !HANDLER.is_empty()).then_some(native)
    }
}

/// The libraries' directory of Debian's `architecture` below `/usr/lib`: processor, kernel and C library (Debian: "Multiarch/Tuples").
pub fn triplet(architecture: &str) -> Option<&'static str> {
    TRIPLETS.iter().find(|it| it.0 == architecture).map(|it| it.1)
}

const TRIPLETS: [(&str, &str); 4] = [
    ("amd64", "x86_64-linux-gnu"),
    ("arm64", "aarch64-linux-gnu"),
    ("armhf", "arm-linux-gnueabihf"),
    ("riscv64", "riscv64-linux-gnu"),
];

/// Debian's name of an architecture, QEMU's, Rust's, the ELF class (1: 32 bits, 2: 64 bits) and the ELF machine.
const ARCHITECTURES: [(&str, &str, &str, u8, u8); 4] = [
    ("amd64", "x86_64", "x86_64", 2, 0x3e),
    ("arm64", "aarch64", "aarch64", 2, 0xb7),
    ("armhf", "arm", "arm", 1, 0x28),
    ("riscv64", "riscv64", "riscv64", 2, 0xf3),
];

/// What it takes to run programs of Debian's `architecture` here: `None` where this machine runs them itself.
/// `has_native` says whether the tree has programs of this machine's architecture, too.
pub(crate) fn emulator(architecture: &str, has_native: bool, search: &[PathBuf]) -> Result<Option<Emulator>> {
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
    let program = program.to_str().map(str::to_owned);
    let program = program.ok_or_else(|| SandboxError::Broken("the emulator's path is no text".into()))?;
    // Executables and shared objects (which position-independent executables are), of any ABI but little endian.
    let magic = format!(r"\x7fELF\x{class:02x}\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x{machine:02x}\x00");
    let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
    // P: the program sees its own first argument; F: the emulator is opened now, here.
    let format = format!("aule-{qemu}:M::{magic}:{mask}");
    let loader = Native::beside(architecture).filter(|_| has_native).map(|native| {
        let name = native.loader.0.rsplit('/').next().unwrap_or_default();
        format!("/{NATIVE}/{}/{name}", native.triplet)
    });
    Ok(Some(Emulator { format, program, loader }))
}
