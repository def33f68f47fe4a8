//! Programs that the recipe brings: their interpreters exist, and binaries are for the image's processor.

use super::context::{Brought, Context};
use crate::Result;
use aule_recipe::Diagnostic;
use aule_tree::Kind;

/// Where programs are looked for by name (systemd's and sudo's path on Debian and Ubuntu).
const PATH: [&str; 6] = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];

/// The longest first line that the kernel reads (`BINPRM_BUF_SIZE`).
const FIRST_LINE_MAX: usize = 256;

/// Whether a program that is named by path or by name alone is there (`Some`) and can be run.
pub(super) fn find_program(context: &Context<'_>, name: &str) -> Option<bool> {
    if name.starts_with('/') {
        return context.is_program(name);
    }
    let found: Vec<bool> = PATH.iter().filter_map(|it| context.is_program(&format!("{it}/{name}"))).collect();
    found.iter().copied().max()
}

/// Checks every executable file that the recipe brings.
pub(super) fn check(context: &mut Context<'_>) -> Result<()> {
    let machine = image_machine(context)?;
    for (brought, inode) in context.files() {
        if !matches!(inode.kind, Kind::File(_)) || inode.metadata.mode & 0o111 == 0 {
            continue;
        }
        let Some(bytes) = context.bytes(&brought.path)? else { continue };
        if let Some(finding) = interpreter(context, &brought, &bytes) {
            context.error(finding);
        }
        if let (Some((machine, name)), Some(other)) = (&machine, elf_machine(&bytes))
            && other != *machine
        {
            let message = format!(
                "{} is a program for another processor ({}); the image's are for {name}",
                brought.path,
                machine_name(other)
            );
            let finding = context.blame(&brought, None, "", message);
            context.error(finding);
        }
    }
    Ok(())
}

/// What is wrong with the `#!` line of a script.
fn interpreter(context: &Context<'_>, brought: &Brought, bytes: &[u8]) -> Option<Diagnostic> {
    let line = bytes.strip_prefix(b"#!")?.split(|&b| b == b'\n').next()?;
    let line = line.get(..FIRST_LINE_MAX.min(line.len()))?;
    let text = String::from_utf8_lossy(bytes);
    let blame = |message: String| context.blame(brought, Some(1), &text, message);
    if line.ends_with(b"\r") {
        let message = format!(
            "{}: its lines end with CR LF, so the kernel looks for an interpreter with a CR in its name",
            brought.path
        );
        return Some(blame(message).help("save it with line feeds alone"));
    }
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace();
    let program = words.next()?;
    if !program.starts_with('/') {
        return Some(blame(format!("{}: the interpreter `{program}` needs its whole path", brought.path)));
    }
    let missing = |name: &str, found: Option<bool>| match found {
        Some(true) => None,
        Some(false) => Some(blame(format!("{}: the interpreter `{name}` is not executable", brought.path))),
        None => Some(blame(format!("{}: the image has no interpreter `{name}`", brought.path))),
    };
    if let Some(finding) = missing(program, context.is_program(program)) {
        return Some(finding);
    }
    if program.ends_with("/env") {
        let name = words.find(|it| !it.starts_with('-') && !it.contains('='))?;
        return missing(name, find_program(context, name));
    }
    None
}

/// The machine of an ELF file (`e_machine`, in the byte order that the file says).
fn elf_machine(bytes: &[u8]) -> Option<u16> {
    let header = bytes.get(..20).filter(|it| it.starts_with(b"\x7fELF"))?;
    let machine = [*header.get(18)?, *header.get(19)?];
    Some(if header.get(5) == Some(&2) { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) })
}

fn machine_name(machine: u16) -> String {
    match machine {
        3 => "x86".into(),
        40 => "arm".into(),
        62 => "x86-64".into(),
        183 => "arm64".into(),
        243 => "RISC-V".into(),
        other => format!("ELF machine {other}"),
    }
}

/// The machine of the image's own programs.
fn image_machine(context: &Context<'_>) -> Result<Option<(u16, String)>> {
    for path in ["usr/bin/env", "usr/bin/sh", "usr/bin/true"] {
        if let Some(machine) = context.bytes(&aule_tree::TreePath::new(path)?)?.as_deref().and_then(elf_machine) {
            return Ok(Some((machine, machine_name(machine))));
        }
    }
    Ok(None)
}
