//! What an index says of a package, as a lock pins it.

use super::indices::Fetched;
use crate::{BuildError, Result};
use aule_deb::index::Package;
use aule_recipe::{LockedPackage, Sha256};

/// What the indices say of locked packages, each with where it is by them; and those of which they say nothing.
pub(super) fn listed(
    packages: &[LockedPackage],
    fetched: &[Fetched],
) -> (Vec<(String, LockedPackage)>, Vec<LockedPackage>) {
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    if packages.is_empty() {
        return (found, unknown);
    }
    let by_name: Vec<_> = fetched.iter().map(|it| (it, it.packages.by_name())).collect();
    for package in packages {
        let of_its_name = by_name.iter().flat_map(|(fetched, names)| {
            let numbers = names.get(package.name.as_str()).into_iter().flatten();
            numbers.filter_map(|number| Some((*fetched, fetched.packages.get(*number)?)))
        });
        // The very file that the lock pins, by its digest.
        let mut same = of_its_name.filter_map(|(fetched, listed)| {
            let now = locked(fetched, &listed).ok().filter(|it| it.sha256 == package.sha256)?;
            Some((format!("{}\n\n", listed.paragraph().text()), now))
        });
        match same.next() {
            Some(one) => found.push(one),
            None => unknown.push(package.clone()),
        }
    }
    (found, unknown)
}

/// A package as the lock pins it.
///
/// # Errors
/// [`BuildError::Packages`] where its index does not say where it is, its size or its SHA-256.
pub(super) fn locked(source: &Fetched, package: &Package<'_>) -> Result<LockedPackage> {
    let wrong = |field: &str| {
        BuildError::Packages(format!(
            "the index {} says no {field} of {} that could be used",
            source.name, package.name
        ))
    };
    let path = package.get("Filename").and_then(archive_path);
    let sha256: Option<Sha256> = package.get("SHA256").and_then(|it| it.parse().ok());
    Ok(LockedPackage {
        name: package.name.to_owned(),
        architecture: package.architecture.to_owned(),
        version: package.version.to_owned(),
        url: format!("{}/{}", source.uri, path.ok_or_else(|| wrong("path"))?),
        size: package.get("Size").and_then(|it| it.parse().ok()).ok_or_else(|| wrong("size"))?,
        sha256: sha256.ok_or_else(|| wrong("SHA-256"))?,
        variants: Vec::new(),
    })
}

/// The path of a package below its archive; indices of one directory begin it with `./`. It must not lead out.
fn archive_path(name: &str) -> Option<&str> {
    let path = name.trim_start_matches("./");
    path.split('/').all(|part| !matches!(part, "" | "." | "..")).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_an_archive() {
        for (name, wanted) in [
            ("pool/main/a/a_1_all.deb", Some("pool/main/a/a_1_all.deb")),
            ("./a_1_all.deb", Some("a_1_all.deb")),
            ("././a.deb", Some("a.deb")),
            (".a/b.deb", Some(".a/b.deb")),
            ("", None),
            ("./", None),
            ("/a.deb", None),
            ("./../a.deb", None),
            (".//a.deb", None),
            ("a//b.deb", None),
            ("a/./b.deb", None),
            ("../a.deb", None),
        ] {
            assert_eq!(archive_path(name), wanted, "{name}");
        }
    }
}
