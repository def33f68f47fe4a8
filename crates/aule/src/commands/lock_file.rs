//! The lock beside a recipe, for all of its variants: read before builds, brought up to date by what they pinned, written.

use crate::failure::Failure;
use aule_build::BuildOutcome;
use aule_recipe::{BaseEntry, Lock, LockedPackage, Merged, RecipeSet};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

/// Packages with the variants that use them; as keys they name none themselves.
type Users = BTreeMap<LockedPackage, BTreeSet<String>>;

/// The lock beside a recipe: `ainur.lock` beside `ainur.yaml`.
pub(super) struct LockFile {
    path: PathBuf,
    /// As it is on disk.
    written: Lock,
    /// As it is now, but for `packages`.
    now: Lock,
    /// The packages that are installed on the base, by every variant for itself: one may demand another version than the others.
    packages: Users,
    /// All variants of the recipe.
    variants: BTreeSet<String>,
    /// The names of packages of the base that were asked for.
    kept: BTreeSet<String>,
    /// What is asked anew.
    update: Update,
    /// Another image takes the place of the base, of which everything is kept.
    replaced: bool,
}

/// What `--update` asks anew, of which variants.
#[derive(Default)]
struct Update {
    variants: BTreeSet<String>,
    /// Names of packages; `None` is all.
    names: Option<Vec<String>>,
}

impl Update {
    /// Whether what a variant has of a name is no answer any more.
    fn asks(&self, variant: &str, name: &str) -> bool {
        let is_named = self.names.as_ref().is_none_or(|names| names.iter().any(|it| it == name));
        self.variants.contains(variant) && is_named
    }
}

impl LockFile {
    /// Reads the lock of a recipe; a missing one is empty.
    pub(super) fn read(recipe: &Path, set: &RecipeSet) -> Result<LockFile, Failure> {
        let path = recipe.with_extension("lock");
        let written = match fs::read(&path) {
            Ok(bytes) => Lock::parse_file(&path, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Lock::default(),
            Err(error) => return Err(Failure::new(format!("cannot read {}: {error}", path.display()))),
        };
        Ok(LockFile::new(path, written, set.variants().into_iter().map(str::to_owned).collect()))
    }

    fn new(path: PathBuf, written: Lock, variants: BTreeSet<String>) -> LockFile {
        let packages = users(&written.packages, &variants);
        let now = Lock { packages: Vec::new(), ..written.clone() };
        let (kept, update) = Default::default();
        LockFile { path, written, now, packages, variants, kept, update, replaced: false }
    }

    /// `--update`: forgets all that these variants use, or what is named of it.
    /// With `replaced` a local image takes the place of the base, of which everything stays.
    pub(super) fn forget(
        &mut self,
        update: Option<&[String]>,
        variants: &[Merged],
        replaced: bool,
    ) -> Result<(), Failure> {
        self.replaced = replaced;
        let Some(names) = update else { return Ok(()) };
        let unknown = names.iter().find(|name| !self.has(name));
        if let Some(name) = unknown {
            return Err(Failure::new(format!("`{name}` is not in {}", self.path.display()))
                .hint("name `base`, a package or one of the URLs in the lock; without a name everything is updated"));
        }
        let is_named = |name: &str| names.is_empty() || names.iter().any(|it| it == name);
        let used: BTreeSet<&str> =
            variants.iter().flat_map(|it| it.recipe.fetched_files()).map(|(_, url, _)| url.as_str()).collect();
        self.now.files.retain(|file| match names {
            [] => !used.contains(file.url.as_str()),
            _ => !is_named(&file.url),
        });
        self.now.base = self.now.base.take().filter(|base| replaced || !(is_named(&base.url) || is_named("base")));
        // Of a base of packages nothing is asked when another image takes its place, nor of what is installed on it.
        if replaced && self.now.suite.is_some() {
            return Ok(());
        }
        self.now.base_packages.retain(|package| !is_named(&package.name));
        let names = (!names.is_empty()).then(|| names.to_vec());
        self.update = Update { variants: variants.iter().map(|it| it.variant.clone()).collect(), names };
        self.packages.retain(|package, users| {
            users.retain(|variant| !self.update.asks(variant, &package.name));
            !users.is_empty()
        });
        Ok(())
    }

    /// Whether the lock has something of this name.
    fn has(&self, name: &str) -> bool {
        let base = self.now.base.as_ref().is_some_and(|base| base.url == name || name == "base");
        let packages = self.now.base_packages.iter().chain(self.packages.keys()).any(|it| it.name == name);
        let kept = self.now.kept.iter().any(|it| it.name == name);
        base || packages || kept || self.now.files.iter().any(|it| it.url == name)
    }

    /// `--locked`: refuses any difference between lock and recipe. To be called with all variants, before anything is
    /// fetched; `replaced` says that `--base` takes the place of the recipe's image.
    pub(super) fn refuse_difference(&self, variants: &[Merged], replaced: bool) -> Result<(), Failure> {
        let recipes: Vec<_> = variants.iter().map(|merged| &merged.recipe).collect();
        let base = if replaced { BaseEntry::LeftAlone } else { BaseEntry::Compared };
        let difference = self.now.compare(&recipes, base);
        let place = self.path.display();
        // (What of it a build does not need it refuses itself; of names that the base has anyway the lock may have more.)
        let is_gone = |variant: &String| !self.variants.contains(variant);
        let of_gone = self.written.packages.iter().any(|it| it.variants.iter().any(is_gone));
        if difference.is_empty() && !replaced && of_gone {
            return Err(Failure::new(format!(
                "the lock {place} has packages for variants that the recipe does not have"
            ))
            .hint("run `aule lock`, and commit the result"));
        }
        if difference.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!("the lock {place} does not fit the recipe\n{difference}"))
            .hint("run `aule lock`, and commit the result"))
    }

    /// The lock that the build of a variant starts from.
    pub(super) fn for_build(&self, variant: &str) -> Lock {
        let of_it = self.packages.iter().filter(|(_, users)| users.contains(variant));
        let packages = of_it.map(|(package, _)| package.clone()).collect();
        // Other variants may go on with what the base has.
        let kept = self.now.kept.iter().filter(|it| !self.update.asks(variant, &it.name)).cloned().collect();
        Lock { packages, kept, ..self.now.clone() }
    }

    /// As it is on disk.
    pub(super) fn written(&self) -> &Lock {
        &self.written
    }

    /// As it would be written now.
    pub(super) fn for_all(&self) -> Lock {
        let packages = self.packages.iter().map(|(package, users)| {
            let variants = if *users == self.variants { Vec::new() } else { users.iter().cloned().collect() };
            LockedPackage { variants, ..package.clone() }
        });
        let mut packages: Vec<LockedPackage> = packages.collect();
        packages.sort_unstable();
        Lock { packages, ..self.now.clone() }
    }

    /// Takes over what the build of a variant pinned.
    pub(super) fn add(&mut self, variant: &str, built: &Lock) {
        let other_image =
            self.now.base.as_ref().zip(built.base.as_ref()).is_some_and(|(then, now)| then.url != now.url);
        if !self.replaced && (self.now.suite != built.suite || other_image) {
            // What other variants have is of a base that is no more; it would be taken for an answer.
            self.packages.clear();
            self.now.kept.clear();
        }
        self.now.base.clone_from(&built.base);
        for file in &built.files {
            self.now.files.retain(|it| it.url != file.url);
            self.now.files.push(file.clone());
        }
        // What is installed on another image says nothing of what the recipe's own base of packages needs.
        if self.replaced && self.now.suite.is_some() {
            return;
        }
        if !self.replaced {
            self.now.suite.clone_from(&built.suite);
            self.now.base_packages.clone_from(&built.base_packages);
        }
        self.forget_packages(variant);
        for package in &built.packages {
            let package = LockedPackage { variants: Vec::new(), ..package.clone() };
            self.packages.entry(package).or_default().insert(variant.to_owned());
        }
        for package in &built.kept {
            self.kept.insert(package.name.clone());
            self.now.kept.retain(|it| it.name != package.name);
            self.now.kept.push(package.clone());
        }
    }

    fn forget_packages(&mut self, variant: &str) {
        self.packages.retain(|_, users| {
            users.remove(variant);
            !users.is_empty()
        });
    }

    /// After a failure: the lock as it was, with what finished builds pinned. What was forgotten is there again.
    pub(super) fn write_what_is_done(&mut self, done: &[BuildOutcome]) -> Result<(), Failure> {
        self.packages = users(&self.written.packages, &self.variants);
        self.now = Lock { packages: Vec::new(), ..self.written.clone() };
        done.iter().for_each(|outcome| self.add(&outcome.variant, &outcome.lock));
        self.write()
    }

    /// Drops what none of the variants uses. To be called with all of them.
    pub(super) fn keep_only(&mut self, variants: &[Merged]) {
        let recipes: Vec<_> = variants.iter().map(|merged| &merged.recipe).collect();
        let difference = self.now.compare(&recipes, BaseEntry::LeftAlone);
        self.now.drop_stale(&difference);
        // Those of the base were not asked for, where another image takes its place.
        if self.replaced && self.now.suite.is_some() {
            return;
        }
        self.now.kept.retain(|it| self.kept.contains(&it.name));
    }

    /// Writes the lock where it changed; a lock that pins nothing is not made.
    pub(super) fn write(&self) -> Result<(), Failure> {
        let now = self.for_all();
        if now == self.written {
            return Ok(());
        }
        let failed = |error: io::Error| Failure::new(format!("cannot write {}: {error}", self.path.display()));
        let directory = self.path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(directory)
            .map_err(failed)?;
        file.write_all(&now.to_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(&self.path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

/// The packages of a lock with those that use them, of the variants that there are.
fn users(packages: &[LockedPackage], variants: &BTreeSet<String>) -> Users {
    let mut users = Users::new();
    for package in packages {
        let of_it: BTreeSet<String> = match package.variants.as_slice() {
            [] => variants.clone(),
            named => named.iter().filter(|it| variants.contains(*it)).cloned().collect(),
        };
        if !of_it.is_empty() {
            users.entry(LockedPackage { variants: Vec::new(), ..package.clone() }).or_default().extend(of_it);
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;
    use aule_recipe::{KeptPackage, LockedBase, Sha256};

    fn package(name: &str, version: &str) -> LockedPackage {
        let (url, sha256) = (format!("https://example.org/{name}_{version}.deb"), Sha256([0; 32]));
        let (name, version) = (name.to_owned(), version.to_owned());
        LockedPackage { name, architecture: "all".into(), version, url, size: 1, sha256, variants: Vec::new() }
    }

    fn built(base: &[LockedPackage], packages: &[LockedPackage]) -> Lock {
        let suite = Some("trixie main".to_owned());
        Lock { suite, base_packages: base.to_vec(), packages: packages.to_vec(), ..Lock::default() }
    }

    fn file(written: Lock, variants: &[&str]) -> LockFile {
        LockFile::new("x.lock".into(), written, variants.iter().map(|it| (*it).to_owned()).collect())
    }

    #[test]
    fn every_variant_has_its_own_packages_and_all_have_the_same_base() {
        let mut lock = file(Lock::default(), &["a", "b"]);
        let base = [package("libc6", "2.41-1")];
        lock.add("a", &built(&base, &[package("nano", "8"), package("libc6", "2.41-2")]));
        lock.add("b", &built(&base, &[package("nano", "9"), package("libc6", "2.41-2")]));
        let read = Lock::parse(&lock.for_all().to_bytes()).unwrap();
        assert_eq!(read, lock.for_all());
        let lock = file(read, &["a", "b"]);
        let shown = |packages: &[LockedPackage]| -> Vec<String> {
            packages.iter().map(|it| format!("{} {} {}", it.name, it.version, it.variants.join(","))).collect()
        };
        assert_eq!(shown(&lock.for_all().packages), ["libc6 2.41-2 ", "nano 8 a", "nano 9 b"]);
        assert_eq!(shown(&lock.for_build("a").packages), ["libc6 2.41-2 ", "nano 8 "]);
        assert_eq!(shown(&lock.for_build("b").packages), ["libc6 2.41-2 ", "nano 9 "]);
        assert_eq!(shown(&lock.for_build("b").base_packages), ["libc6 2.41-1 "]);
        // A variant that is new starts with what all others have, and one that is gone has nothing.
        assert_eq!(shown(&file(lock.for_all(), &["a", "b", "c"]).for_build("c").packages), ["libc6 2.41-2 "]);
        assert_eq!(shown(&file(lock.for_all(), &["b"]).for_all().packages), ["libc6 2.41-2 ", "nano 9 "]);
    }

    #[test]
    fn what_a_variant_uses_no_more_goes_and_what_others_use_stays() {
        let mut lock = file(Lock::default(), &["a", "b"]);
        lock.add("a", &built(&[], &[package("nano", "8"), package("vim", "1")]));
        lock.add("b", &built(&[], &[package("nano", "8"), package("vim", "1")]));
        lock.add("b", &built(&[], &[package("nano", "9")]));
        let users: Vec<_> =
            lock.for_all().packages.into_iter().map(|it| (it.name, it.version, it.variants.join(","))).collect();
        let wanted = [("nano", "8", "a"), ("nano", "9", "b"), ("vim", "1", "a")];
        assert_eq!(users, wanted.map(|(name, version, users)| (name.to_owned(), version.to_owned(), users.to_owned())));
    }

    fn merged(variant: &str) -> Merged {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.yaml");
        fs::write(&path, "name: x\nbase: { image: x.img }\n").unwrap();
        let (_, mut variants) = crate::commands::recipe::load(&path, &[]).map_err(|it| it.to_string()).unwrap();
        Merged { variant: variant.into(), ..variants.remove(0) }
    }

    #[test]
    fn an_update_is_of_what_is_built_alone() {
        let kept = vec![KeptPackage { name: "vim".into(), version: "1".into() }];
        let written = Lock { kept, ..built(&[package("libc6", "1")], &[package("less", "1"), package("nano", "8")]) };
        let shown = |lock: &Lock| -> Vec<String> {
            let packages = lock.packages.iter().map(|it| format!("{} {}", it.name, it.version));
            packages.chain(lock.kept.iter().map(|it| format!("kept {}", it.name))).collect()
        };
        let all = ["less 1", "nano 8", "kept vim"];
        for (names, of_a) in
            [(&[][..], &[][..]), (&["nano"], &["less 1", "kept vim"]), (&["vim"], &["less 1", "nano 8"])]
        {
            let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
            let mut lock = file(written.clone(), &["a", "b"]);
            lock.forget(Some(&names), &[merged("a")], false).map_err(|it| it.to_string()).unwrap();
            assert_eq!(shown(&lock.for_build("a")), of_a, "{names:?}");
            assert_eq!(shown(&lock.for_build("b")), all, "{names:?}");
            // The base is the same for both.
            assert_eq!(lock.for_all().base_packages.is_empty(), names.is_empty());
            let base = LockedBase { url: "u".into(), size: 1, sha256: Sha256([0; 32]), verified: "not".into() };
            let written = Lock { base: Some(base), ..written.clone() };
            let names = if names.is_empty() { names } else { [names, vec!["base".into()]].concat() };
            let mut lock = file(written.clone(), &["a", "b"]);
            lock.forget(Some(&names), &[merged("a")], true).map_err(|it| it.to_string()).unwrap();
            assert_eq!(lock.for_all(), written, "another image takes the place of the base");
        }
        let mut lock = file(written, &["a", "b"]);
        let unknown = lock.forget(Some(&["emacs".to_owned()]), &[merged("a")], false);
        assert!(unknown.is_err_and(|it| it.to_string().contains("emacs")));
        // What only variants have that are no more.
        let of_gone = LockedPackage { variants: vec!["gone".into()], ..package("nano", "8") };
        let gone = Lock { packages: vec![of_gone], ..Lock::default() };
        assert!(file(gone, &["a"]).refuse_difference(&[merged("a")], false).is_err());
        // All that are left may be named one by one.
        let of_all = LockedPackage { variants: vec!["a".into()], ..package("nano", "8") };
        let lock = Lock { packages: vec![of_all], ..Lock::default() };
        assert!(file(lock, &["a"]).refuse_difference(&[merged("a")], false).is_ok());
    }

    #[test]
    fn packages_on_another_base_are_no_answer() {
        let mut lock = file(built(&[], &[package("nano", "8")]), &["a", "b"]);
        let other = Lock { suite: Some("forky main".into()), ..built(&[], &[package("nano", "9")]) };
        lock.add("a", &other);
        assert_eq!(lock.for_build("b").packages, []);
        // With another image in place of the base nothing is learned of the base's own.
        let mut lock = file(built(&[package("libc6", "1")], &[package("nano", "8")]), &["a"]);
        let before = lock.for_all();
        lock.replaced = true;
        lock.add("a", &Lock { packages: vec![package("nano", "9")], ..Lock::default() });
        assert_eq!(lock.for_all(), before);
    }
}
