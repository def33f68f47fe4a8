//! `aule recipe`, and reading recipes and locks for the other commands.

use crate::{
    arguments::RecipeCommand,
    failure::Failure,
    output::{self, Format},
};
use aule_build::BuildOutcome;
use aule_recipe::{BaseEntry, Lock, Merged, RecipeSet, Sources};
use std::{
    collections::BTreeSet,
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

/// Recipe files on disk.
struct Disk;

impl Sources for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // One byte more than is allowed, so that the library sees that it is too much.
        let limit = u64::try_from(aule_recipe::limits::MAX_DOCUMENT_BYTES).unwrap_or(u64::MAX) + 1;
        io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, limit), &mut bytes)?;
        Ok(bytes)
    }
}

/// Reads a recipe and gives the variants that are named, or all.
pub(super) fn load(path: &Path, variants: &[String]) -> Result<(RecipeSet, Vec<Merged>), Failure> {
    let set = aule_recipe::load(&Disk, path)?;
    let names: Vec<String> = match variants {
        [] => set.variants().into_iter().map(str::to_owned).collect(),
        named => {
            // The same one twice is one.
            let mut names: Vec<String> = Vec::new();
            for name in named {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
            names
        }
    };
    let merged = names.iter().map(|name| set.variant(name)).collect::<Result<Vec<_>, _>>()?;
    Ok((set, merged))
}

/// The lock beside a recipe: `ainur.lock` beside `ainur.yaml`.
pub(super) struct LockFile {
    path: PathBuf,
    /// As it is on disk.
    written: Lock,
    now: Lock,
    /// Name and architecture of every package that a build used.
    used: BTreeSet<(String, String)>,
    /// The names of packages of the base that were asked for.
    kept: BTreeSet<String>,
    /// Another image takes the place of the base, of which everything is kept.
    replaced: bool,
}

impl LockFile {
    /// Reads the lock; a missing one is empty.
    pub(super) fn read(recipe: &Path) -> Result<LockFile, Failure> {
        let path = recipe.with_extension("lock");
        let written = match fs::read(&path) {
            Ok(bytes) => Lock::parse_file(&path, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Lock::default(),
            Err(error) => return Err(Failure::new(format!("cannot read {}: {error}", path.display()))),
        };
        Ok(LockFile {
            path,
            now: written.clone(),
            written,
            used: BTreeSet::new(),
            kept: BTreeSet::new(),
            replaced: false,
        })
    }

    /// `--update`: forgets all that these variants use, or what is named.
    /// With `replaced` a local image takes the place of the base, whose entry stays.
    pub(super) fn forget(
        &mut self,
        update: Option<&[String]>,
        variants: &[Merged],
        replaced: bool,
    ) -> Result<(), Failure> {
        self.replaced = replaced;
        match update {
            None => {}
            Some([]) => {
                let used: Vec<&str> =
                    variants.iter().flat_map(|it| it.recipe.fetched_files()).map(|(_, url, _)| url.as_str()).collect();
                self.now.base = self.now.base.take().filter(|_| replaced);
                self.now.files.retain(|file| !used.contains(&file.url.as_str()));
                self.now.packages.clear();
                self.now.kept.clear();
            }
            Some(names) => {
                for name in names {
                    let before = self.now.clone();
                    self.now.base = self.now.base.take().filter(|base| base.url != *name && name != "base");
                    self.now.files.retain(|file| file.url != *name);
                    self.now.packages.retain(|package| package.name != *name);
                    self.now.kept.retain(|package| package.name != *name);
                    if self.now == before {
                        return Err(Failure::new(format!("`{name}` is not in {}", self.path.display()))
                            .hint("name `base`, a package or one of the URLs in the lock; without a name everything is updated"));
                    }
                }
            }
        }
        Ok(())
    }

    /// `--locked`: refuses any difference between lock and recipe. To be called with all variants, before anything is
    /// fetched; `replaced` says that `--base` takes the place of the recipe's image.
    pub(super) fn refuse_difference(&self, variants: &[Merged], replaced: bool) -> Result<(), Failure> {
        let recipes: Vec<_> = variants.iter().map(|merged| &merged.recipe).collect();
        let base = if replaced { BaseEntry::LeftAlone } else { BaseEntry::Compared };
        let difference = self.now.compare(&recipes, base);
        if difference.is_empty() {
            return Ok(());
        }
        let place = self.path.display();
        Err(Failure::new(format!("the lock {place} does not fit the recipe\n{difference}"))
            .hint("run `aule lock`, and commit the result"))
    }

    /// The lock that a build starts from.
    pub(super) fn for_build(&self) -> Lock {
        self.now.clone()
    }

    /// As it is on disk.
    pub(super) fn written(&self) -> &Lock {
        &self.written
    }

    /// Takes over what a build pinned.
    pub(super) fn add(&mut self, built: &Lock) {
        self.now.base.clone_from(&built.base);
        if !self.replaced {
            self.now.suite.clone_from(&built.suite);
        }
        for file in &built.files {
            self.now.files.retain(|it| it.url != file.url);
            self.now.files.push(file.clone());
        }
        for package in &built.packages {
            self.used.insert((package.name.clone(), package.architecture.clone()));
            self.now.packages.retain(|it| (&it.name, &it.architecture) != (&package.name, &package.architecture));
            self.now.packages.push(package.clone());
        }
        for package in &built.kept {
            self.kept.insert(package.name.clone());
            self.now.kept.retain(|it| it.name != package.name);
            self.now.kept.push(package.clone());
        }
    }

    /// After a failure: the lock as it was, with what finished builds pinned. What was forgotten is there again.
    pub(super) fn write_what_is_done(&mut self, done: &[BuildOutcome]) -> Result<(), Failure> {
        self.now = self.written.clone();
        done.iter().for_each(|outcome| self.add(&outcome.lock));
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
        let used = &self.used;
        self.now.packages.retain(|it| used.contains(&(it.name.clone(), it.architecture.clone())));
        self.now.kept.retain(|it| self.kept.contains(&it.name));
    }

    /// Writes the lock where it changed; a lock that pins nothing is not made.
    pub(super) fn write(&self) -> Result<(), Failure> {
        if self.now == self.written {
            return Ok(());
        }
        let failed = |error: io::Error| Failure::new(format!("cannot write {}: {error}", self.path.display()));
        let directory = self.path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(directory)
            .map_err(failed)?;
        file.write_all(&self.now.to_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(&self.path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

/// Runs a `recipe` command.
pub(super) fn run(command: RecipeCommand, format: Format) -> Result<(), Failure> {
    match command {
        RecipeCommand::Schema => {
            let schema = aule_recipe::json_schema();
            match format {
                Format::Text => output::write(schema.as_bytes()),
                Format::Json => {
                    let failed = |error| Failure::new(format!("the schema is no JSON: {error}"));
                    output::json(&serde_json::from_str::<serde_json::Value>(&schema).map_err(failed)?)
                }
            }
        }
        RecipeCommand::Show { recipe, variant, origin } => {
            let (set, variants) = load(&recipe, variant.as_slice())?;
            let [merged] = variants.as_slice() else {
                let names = set.variants().join(", ");
                return Err(Failure::usage(format!("the recipe has several variants: {names}"))
                    .hint("say which one with `--variant`"));
            };
            match format {
                Format::Text => output::write(aule_recipe::show(merged, origin).as_bytes()),
                Format::Json if origin => {
                    let places: std::collections::BTreeMap<&str, String> =
                        merged.origins.iter().map(|(key, place)| (key, place.to_string())).collect();
                    output::json(&serde_json::json!({ "recipe": merged.recipe, "origins": places }))
                }
                Format::Json => output::json(&merged.recipe),
            }
        }
    }
}
