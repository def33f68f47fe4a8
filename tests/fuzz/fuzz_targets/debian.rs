//! Fuzz target: what archives of Debian packages give: sources, `Release` files, indices, `.deb` files.

#![no_main]

use aule_deb::{archive::{Deb, DebError}, index::Packages, release::Release, sources};
use std::io::Read;

const RELEASE: &str = "Suite: stable\nDate: Sat, 11 Jul 2026 10:16:37 UTC\nComponents: main\nArchitectures: arm64\nSHA256:\n \
0000000000000000000000000000000000000000000000000000000000000000 7 main/binary-arm64/Packages.xz\n";

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        // Where the input is no `Release`, its sources are judged by one that has all that they could ask for.
        let release = Release::parse(text).or_else(|_| Release::parse(RELEASE));
        for source in sources::one_line(text).into_iter().chain(sources::deb822(text)).flatten() {
            let Ok(release) = &release else { panic!("the target's own Release is none") };
            for index in release.indices(&source, "arm64") {
                let _ = (index.address(true), index.address(false));
            }
            let _ = (source.directory(), release.unknown_components(&source));
            let _ = (source.on("arm64"), source.mirror_list(), source.at(text));
        }
        let _ = sources::first_mirror(text);
        let _ = Packages::parse_index(text.to_owned());
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
