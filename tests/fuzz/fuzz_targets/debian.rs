//! Fuzz target: what archives of Debian packages give: sources, `Release` files, indices, `.deb` files.

#![no_main]

use aule_deb::{archive::{Deb, DebError}, index::Packages, release::Release, sources};
use std::io::Read;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = Release::parse(text);
        for source in sources::one_line(text).into_iter().chain(sources::deb822(text)).flatten() {
            let _ = (source.directory(), source.indices("arm64"));
        }
        if let Ok(packages) = Packages::parse(text.to_owned()) {
            for package in packages.iter() {
                let _ = (package.parsed_version(), package.is_essential(), package.multi_arch(), package.state());
                for field in ["Depends", "Conflicts", "Provides"] {
                    let _ = package.relations(field);
                }
            }
        }
    }
    if let Ok(deb) = Deb::open(input, 1 << 24) {
        let _ = deb.paragraph().map(|it| it.fields().count());
        let _ = deb.entries(|entry, bytes| -> Result<(), DebError> {
            assert!(!entry.path.split(|&byte| byte == b'/').any(|part| part == b".."));
            Ok(std::io::copy(&mut bytes.take(1 << 20), &mut std::io::sink()).map(drop)?)
        });
    }
});
