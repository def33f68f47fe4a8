//! Writes the seeds of the fuzz targets that read images: `image_seeds DIRECTORY` makes `DIRECTORY/TARGET/NAME`.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a tool for development")]
#![allow(dead_code, unreachable_pub, reason = "modules that several programs include")]

#[path = "../../../tests/fuzz/exercise/image.rs"]
mod exercise;
#[path = "../tests/common/seeds.rs"]
mod seeds;

use std::{error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: image_seeds DIRECTORY")?);
    for target in ["partition", "fat", "ext4"] {
        let directory = directory.join(target);
        fs::create_dir_all(&directory)?;
        for (name, image) in seeds::seeds(target) {
            fs::write(directory.join(name), exercise::pack(&image))?;
        }
        for (index, (_, input)) in seeds::regressions(target).into_iter().enumerate() {
            fs::write(directory.join(format!("regression-{index}")), input)?;
        }
    }
    Ok(())
}
