//! What the kernel starts for each program of another architecture in a sandbox (binfmt_misc): runs the same program as
//! this machine's own processor has it where the sandbox brings that, and else QEMU.
//!
//! A program of its own, without anything but the standard library, statically linked: it runs in trees that have no
//! libraries for it. The kernel gives it, after its own name, the program's path, the program's first argument, and the
//! rest (flag `P`; kernel documentation, "Kernel Support for miscellaneous Binary Formats").

#![forbid(unsafe_code)]
// A program of the tree: its standard error is that of the script that called it.
#![allow(clippy::print_stderr)]

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// Where the programs of this machine's architecture are, each below its path in the tree.
const NATIVE: &str = env!("AULE_NATIVE_PROGRAMS");
/// Where QEMU is.
const EMULATOR: &str = env!("AULE_EMULATOR");
/// With these the dynamic loader does something to the program itself, such as telling its libraries (ld.so(8)).
const LOADER: [&str; 5] = ["LD_TRACE_LOADED_OBJECTS", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "LD_BIND_NOW"];

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let (Some(path), Some(name)) = (arguments.next(), arguments.next()) else {
        eprintln!("this program is called by the kernel");
        return ExitCode::from(126);
    };
    let rest: Vec<OsString> = arguments.collect();
    // (exec resets SIGPIPE and the signal mask: of a program that a script starts nothing else is expected.)
    let error = match native(Path::new(&path), &rest) {
        Some(program) => Command::new(program).arg0(name).args(rest).exec(),
        None => Command::new(EMULATOR).arg("-0").arg(name).arg(&path).args(rest).exec(),
    };
    eprintln!("{}: {error}", Path::new(&path).display());
    ExitCode::from(126)
}

/// The program that stands in for this one.
fn native(path: &Path, arguments: &[OsString]) -> Option<PathBuf> {
    if LOADER.iter().any(|name| env::var_os(name).is_some()) {
        return None;
    }
    let path = fs::canonicalize(path).ok()?;
    if is_python(&path) && !compiles(arguments) {
        return None;
    }
    let place = Path::new(NATIVE).join(path.strip_prefix("/").ok()?);
    place.is_file().then_some(place)
}

fn is_python(path: &Path) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("python"))
}

/// What Debian's py3compile asks an interpreter, whose answer is the same on every processor.
const QUESTIONS: [&str; 2] =
    ["import importlib.util; print(importlib.util.MAGIC_NUMBER)", "import sys; print(sys.implementation.cache_tag)"];

/// Whether Python only compiles modules. Anything else may need modules that are of its own architecture, and may ask for it.
fn compiles(arguments: &[OsString]) -> bool {
    let is_plain = |it: &&str| it.len() > 1 && it.starts_with('-') && it[1..].chars().all(|it| "BEISsu".contains(it));
    let mut arguments = arguments.iter().filter_map(|it| it.to_str()).skip_while(is_plain);
    match arguments.next() {
        Some("-m") => matches!(arguments.next(), Some("py_compile" | "compileall")),
        Some("-c") => arguments.next().is_some_and(|it| QUESTIONS.contains(&it)),
        Some(script) => {
            let name = script.rsplit('/').next().unwrap_or(script);
            matches!(name, "py3compile" | "py3clean" | "py_compile.py" | "compileall.py")
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_compiles_natively_and_does_all_else_emulated() {
        for (arguments, wanted) in [
            (&["-m", "py_compile", "a.py"][..], true),
            (&["-E", "-S", "-m", "compileall", "/usr/lib"], true),
            (&["/usr/bin/py3compile", "-p", "x"], true),
            (&["-BEs", "/usr/bin/py3clean"], true),
            (&["-c", QUESTIONS[0]], true),
            (&["-c", "import platform; print(platform.machine())"], false),
            (&["-m", "platform"], false),
            (&["/usr/bin/deb-systemd"], false),
            (&["-X", "importtime", "-m", "py_compile"], false),
            (&["-"], false),
            (&["-m"], false),
            (&[], false),
        ] {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            assert_eq!(compiles(&arguments), wanted, "{arguments:?}");
        }
    }

    #[test]
    fn python_is_known_by_its_name() {
        for (path, wanted) in [("/usr/bin/python3.13", true), ("/usr/bin/perl", false), ("/", false)] {
            assert_eq!(is_python(Path::new(path)), wanted, "{path}");
        }
    }
}
