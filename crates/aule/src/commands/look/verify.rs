//! `aule verify`: reads every byte of a build again, checks each archive against its table, and on request builds it
//! once more.

use super::{
    parts,
    rebuild::{self, Rebuilt},
    resolve,
    text::count,
};
use crate::{
    failure::Failure,
    output::{self, Format},
    progress::Story,
};
use aule_build::{FORMAT_VERSION, types};
use aule_store::{
    ARTIFACT_NAME, Build, FORMAT, Store,
    layer::{Contents, LayerCheck},
    oci::{Descriptor, ImageConfig, Index, Manifest, TITLE},
};
use aule_tree::Digest;
use std::collections::BTreeMap;

#[derive(serde::Serialize)]
struct Report<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    digest: Digest,
    /// Whether nothing is wrong.
    ok: bool,
    /// How many blobs were read, each once.
    blobs: u64,
    /// How many bytes they have.
    bytes: u64,
    /// How many archives were compared with their tables.
    archives: u64,
    problems: Vec<Problem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rebuild: Option<Rebuilt>,
}

/// Something wrong in the build.
#[derive(Debug, serde::Serialize)]
struct Problem {
    /// Which part: `oci: layer 2 (files)`.
    what: String,
    digest: Digest,
    problem: String,
}

/// What is done beside reading everything.
#[derive(Clone, Copy)]
pub(super) struct Options {
    /// Build again, and compare.
    pub(super) rebuild: bool,
    /// Remove what is damaged.
    pub(super) drop_damaged: bool,
}

/// Verifies a build; fails when anything is wrong with it.
pub(super) fn run(store: &Store, reference: &str, options: Options, format: Format) -> Result<(), Failure> {
    let Options { rebuild: again, drop_damaged } = options;
    let descriptor = resolve(store, reference)?;
    let digest = descriptor.digest;
    let story = Story::new();
    let mut check = Check { store, story: &story, sizes: BTreeMap::new(), archives: 0, problems: Vec::new() };
    check.build(&descriptor);
    let Check { sizes, archives, problems, .. } = check;
    // A damaged build cannot show that its source leads to it.
    let rebuild = match again && problems.is_empty() {
        true => Some(rebuild::run(store, &Build::open(store, descriptor)?, &story)?),
        false => None,
    };
    story.end();
    let damaged: Vec<Digest> = sizes.iter().filter(|(_, size)| size.is_none()).map(|(digest, _)| *digest).collect();
    if drop_damaged {
        for digest in &damaged {
            if store.remove_damaged(*digest)? {
                story.say(&format!("{:>9} {digest}", "removed"));
            }
        }
    }
    let differs = rebuild.as_ref().is_some_and(|it| !it.same);
    let ok = problems.is_empty() && !differs;
    let (blobs, bytes) = (sizes.len() as u64, sizes.values().flatten().sum());
    let report = Report { reference, digest, ok, blobs, bytes, archives, problems, rebuild };
    match format {
        Format::Json => output::json(&report)?,
        Format::Text => show(&report)?,
    }
    if !report.problems.is_empty() {
        let problems = count(report.problems.len() as u64, "problem");
        let failure = Failure::new(format!("{reference} has {problems}"));
        let failure = if again { failure.hint("a damaged build is not built again to compare") } else { failure };
        return Err(match (damaged.is_empty(), drop_damaged) {
            (true, _) => {
                failure.hint("build it again under another name, or with another store, and compare with `aule diff`")
            }
            (false, false) => failure.hint("`aule verify --drop-damaged` removes what is damaged; then build it again"),
            (false, true) => failure.hint("what was damaged is gone; build it again, and it is made anew"),
        });
    }
    if differs {
        return Err(Failure::new(format!("building {reference} again gave something else")).hint(
            "a newer or older version of aule may give other bytes; the format version stands in `aule inspect`",
        ));
    }
    Ok(())
}

fn show(report: &Report<'_>) -> Result<(), Failure> {
    for Problem { what, digest, problem } in &report.problems {
        // Most messages name the blob themselves.
        let place = if problem.contains(&digest.to_string()) { String::new() } else { format!(" ({digest})") };
        output::line(format!("{what}{place}: {problem}"))?;
    }
    let read = format!(
        "{}, {} read, {} compared",
        count(report.blobs, "blob"),
        output::size(report.bytes),
        count(report.archives, "archive")
    );
    let state = if report.problems.is_empty() { "intact" } else { "damaged" };
    output::line(format!("{} {} is {state}: {read}", report.reference, report.digest))?;
    report.rebuild.as_ref().map_or(Ok(()), rebuild::show)
}

struct Check<'a> {
    store: &'a Store,
    story: &'a Story,
    /// The blobs that were read, with their sizes; `None` for damaged ones.
    sizes: BTreeMap<Digest, Option<u64>>,
    archives: u64,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn problem(&mut self, what: &str, digest: Digest, problem: impl ToString) {
        self.problems.push(Problem { what: what.into(), digest, problem: problem.to_string() });
    }

    /// Reads the blob that `descriptor` points at, and says whether it is intact.
    fn blob(&mut self, what: &str, descriptor: &Descriptor) -> bool {
        let digest = descriptor.digest;
        let size = match self.sizes.get(&digest) {
            Some(size) => *size,
            None => {
                let size = match self.store.verify_blob(digest) {
                    Ok(size) => Some(size),
                    Err(error) => {
                        self.problem(what, digest, error);
                        None
                    }
                };
                self.sizes.insert(digest, size);
                size
            }
        };
        match size {
            Some(size) if size != descriptor.size => {
                let announced = descriptor.size;
                self.problem(what, digest, format!("it has {size} bytes, and what names it says {announced}"));
                false
            }
            size => size.is_some(),
        }
    }

    /// Reads a JSON document.
    fn document<T: serde::de::DeserializeOwned>(&mut self, what: &str, descriptor: &Descriptor) -> Option<T> {
        if !self.blob(what, descriptor) {
            return None;
        }
        let document = self.store.read_document(descriptor.digest);
        document.map_err(|error| self.problem(what, descriptor.digest, error)).ok()
    }

    fn build(&mut self, descriptor: &Descriptor) {
        let Some(index) = self.document::<Index>("index", descriptor) else { return };
        match index.annotations.get(FORMAT) {
            None => self.problem("index", descriptor.digest, "it has no format version, so it is no build"),
            Some(version) if *version != FORMAT_VERSION.to_string() => {
                let problem = format!(
                    "it has format version {version}, and this program checks {FORMAT_VERSION}; build it again"
                );
                return self.problem("index", descriptor.digest, problem);
            }
            Some(_) => {}
        }
        if index.manifests.is_empty() {
            self.problem("index", descriptor.digest, "it is empty, so it is no build");
        }
        for (number, descriptor) in parts(&index).into_iter().enumerate() {
            let name = descriptor.annotations.get(ARTIFACT_NAME).cloned();
            let name = name.unwrap_or_else(|| format!("manifest {}", number + 1));
            self.manifest(&name, descriptor, number == 0);
        }
        match self.store.referrers(descriptor.digest) {
            Ok(referrers) => referrers.iter().for_each(|it| {
                self.manifest(it.artifact_type.as_deref().unwrap_or("referrer"), it, false);
            }),
            Err(error) => self.problem("referrers", descriptor.digest, error),
        }
    }

    fn manifest(&mut self, name: &str, descriptor: &Descriptor, root: bool) {
        let Some(manifest) = self.document::<Manifest>(name, descriptor) else { return };
        let what = format!("{name}: configuration");
        let config = match root {
            true => self.document::<ImageConfig>(&what, &manifest.config),
            false => {
                self.blob(&what, &manifest.config);
                None
            }
        };
        let mut intact = true;
        for (number, file) in manifest.layers.iter().enumerate() {
            let title = file.annotations.get(TITLE).cloned().unwrap_or_else(|| {
                let step = config.as_ref().and_then(|it| it.history.get(number)).map(|it| it.created_by.as_str());
                let step = step.and_then(|it| it.strip_prefix("aule: ")).map(|it| format!(" ({it})"));
                format!("layer {}{}", number + 1, step.unwrap_or_default())
            });
            let what = format!("{name}: {title}");
            if !self.blob(&what, file) {
                intact = false;
                continue;
            }
            if root || [types::BOOT_ARCHIVE, types::SOURCE_ARCHIVE].contains(&file.media_type.as_str()) {
                let diff_id = config.as_ref().map(|config| config.rootfs.diff_ids.get(number).copied());
                intact &= self.archive(&what, file.digest, diff_id);
            }
        }
        if let Some(config) = &config
            && config.rootfs.diff_ids.len() != manifest.layers.len()
        {
            let (ids, layers) = (config.rootfs.diff_ids.len(), manifest.layers.len());
            let problem = format!("the configuration has {ids} diff ids for {layers} layers");
            self.problem(name, manifest.config.digest, problem);
        }
        if root && intact {
            let layers: Vec<Digest> = manifest.layers.iter().map(|it| it.digest).collect();
            if let Err(error) = Contents::open(self.store, &layers) {
                self.problem(name, descriptor.digest, format!("its layers do not fit on each other: {error}"));
            }
        }
        self.story.say(&format!("{:>9} {name}", "checked"));
    }

    /// Compares an archive with its table. `diff_id` is what the configuration says of a layer.
    fn archive(&mut self, what: &str, digest: Digest, diff_id: Option<Option<Digest>>) -> bool {
        self.archives += 1;
        let before = self.problems.len();
        match LayerCheck::run(self.store, digest) {
            Err(error) => self.problem(what, digest, error),
            Ok(check) => {
                for problem in check.problems {
                    self.problem(what, digest, problem);
                }
                if let (Some(Some(wanted)), Some(found)) = (diff_id, check.diff_id)
                    && wanted != found
                {
                    let problem = format!("its diff id is {found}, and the configuration says {wanted}");
                    self.problem(what, digest, problem);
                }
            }
        }
        self.problems.len() == before
    }
}
