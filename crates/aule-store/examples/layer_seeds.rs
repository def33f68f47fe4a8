//! Writes the seeds of the fuzz target that reads layers: `layer_seeds DIRECTORY`.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a tool for development")]
#![allow(dead_code, unreachable_pub, reason = "modules that several programs include")]

#[path = "../tests/common/everything.rs"]
mod everything;
#[path = "../../../tests/fuzz/exercise/layer_table.rs"]
mod exercise;
#[path = "../tests/common/seeds.rs"]
mod seeds;

use std::{error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: layer_seeds DIRECTORY")?);
    fs::create_dir_all(&directory)?;
    for (number, seed) in seeds::seeds().into_iter().chain(seeds::regressions()).enumerate() {
        fs::write(directory.join(format!("seed-{number}")), seed)?;
    }
    Ok(())
}
