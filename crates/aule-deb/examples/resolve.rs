//! Resolves by hand, and prints what apt prints of a simulation:
//!
//!     resolve ARCHITECTURE STATUS PACKAGES[,PACKAGES…] NAME… [NAME-…]
//!
//! STATUS is dpkg's database, PACKAGES are indices; a hyphen after a name removes it. Times go to stderr.

use aule_deb::{
    index::Packages,
    resolve::{Request, Source, Universe},
};
use std::{error::Error, fs, io::Write, time::Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [architecture, status, indices, names @ ..] = arguments.as_slice() else {
        return Err("resolve ARCHITECTURE STATUS PACKAGES NAME…".into());
    };
    let started = Instant::now();
    let mut said = std::io::stderr().lock();
    let installed = Packages::parse(fs::read_to_string(status)?)?;
    let mut packages = Vec::new();
    for path in indices.split(',') {
        let (index, left_out) = Packages::parse_index(fs::read_to_string(path)?)?;
        if let Some(first) = left_out.first {
            writeln!(said, "{path}: {} packages are left out: {first}", left_out.count)?;
        }
        packages.push(index);
    }
    writeln!(said, "read after {:?}", started.elapsed())?;
    let (remove, install): (Vec<String>, Vec<String>) = names.iter().cloned().partition(|it| it.ends_with('-'));
    let remove = remove.iter().map(|it| it.trim_end_matches('-').to_owned()).collect();
    let sources: Vec<Source<'_>> =
        packages.iter().map(|packages| Source { packages, priority: 500, is_pinned: false }).collect();
    let universe = Universe::new(architecture, &installed, &sources, &install)?;
    writeln!(said, "sorted after {:?}", started.elapsed())?;
    let solution = universe.resolve(&Request { install, remove })?;
    writeln!(said, "resolved after {:?}", started.elapsed())?;
    let mut out = std::io::stdout().lock();
    for (_, package) in solution.install {
        writeln!(out, "Inst {} {}", package.name, package.version)?;
    }
    for package in solution.remove {
        writeln!(out, "Remv {} {}", package.name, package.version)?;
    }
    Ok(())
}
