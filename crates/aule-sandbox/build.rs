//! Compiles the handler of foreign programs (`handler/main.rs`) as a static program, which the library has in it.
//!
//! Where that cannot be done, as without a static C library, all foreign programs are emulated; the library says so.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo::rerun-if-changed=handler/main.rs");
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let output = PathBuf::from(variable("OUT_DIR")).join("handler");
    let triplet = format!("{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH"));
    println!("cargo::rustc-env=AULE_TRIPLET={triplet}");
    println!("cargo::rustc-env=AULE_HANDLER={}", output.display());

    let mut command = Command::new(variable("RUSTC"));
    for (name, value) in [("AULE_NATIVE_PROGRAMS", "/run/lib/root"), ("AULE_EMULATOR", "/run/aule.emulator")] {
        command.env(name, value);
        // Its tests are compiled by cargo.
        println!("cargo::rustc-env={name}={value}");
    }
    command.args(["--edition", "2024", "--crate-name", "handler", "--target", &variable("TARGET")]);
    command.args(["-C", "target-feature=+crt-static", "-C", "panic=abort", "-C", "opt-level=s", "-C", "strip=symbols"]);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        command.arg("-C").arg(format!("linker={linker}"));
    }
    command.arg("-o").arg(&output).arg("handler/main.rs");
    let built = command.status().is_ok_and(|status| status.success()) && Path::new(&output).is_file();
    if !built {
        println!(
            "cargo::warning=no static program can be linked here: packages of other architectures will be installed slowly"
        );
        if let Err(error) = fs::write(&output, b"") {
            println!("cargo::error=cannot write {}: {error}", output.display());
        }
    }
}
