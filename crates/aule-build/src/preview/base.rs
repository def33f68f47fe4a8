//! The base of a build that is looked ahead at: whether it is there, and what it would take to have it.

use super::report::{Download, DownloadKind};
use crate::{
    BuildError, BuildRequest, Result,
    base::{IMAGE_MAX, ImportedBase, WantedBase},
    packages::{Plan, bootstrap},
};
use aule_recipe::{Base, Lock, Merged};
use aule_store::{
    StepKey,
    download::{shown, size_of},
};
use aule_tree::Digest;

/// What is known of the base.
pub(super) struct BaseAhead {
    /// The base, where it is there.
    pub(super) imported: Option<ImportedBase>,
    /// What decides it, where that is known.
    pub(super) key: Option<StepKey>,
    /// What the lock has from now on of base, suite and the packages of the base; as it was, where that is not known.
    pub(super) lock: Lock,
    /// What of that is not known, in words.
    pub(super) lock_unknown: Option<String>,
    /// The image, where it would be fetched.
    pub(super) download: Option<Download>,
    /// The packages that the base is made of, where it is, and they are known.
    pub(super) plan: Option<Plan>,
    /// Why what depends on the base is not known, where it is not there.
    pub(super) why: String,
}

impl BaseAhead {
    /// Looks for it. Checksums and signatures are fetched and judged as a build does, an image is not.
    pub(super) fn find(request: &BuildRequest<'_>, merged: &Merged) -> Result<BaseAhead> {
        let (Base::Packages { packages }, None) = (&merged.recipe.base, &request.base) else {
            return BaseAhead::image(request, merged);
        };
        let suite = Some(packages.suite_line());
        Ok(match bootstrap::find(request, merged, packages) {
            Ok(wanted) => BaseAhead {
                imported: wanted.made,
                key: Some(wanted.key),
                lock: Lock { suite, base_packages: wanted.plan.pins(), ..Lock::default() },
                lock_unknown: None,
                download: None,
                plan: Some(wanted.plan),
                why: "the base is not made yet".into(),
            },
            Err(BuildError::NotAtHand(why)) => BaseAhead {
                imported: None,
                key: None,
                lock: Lock { suite, base_packages: request.lock.base_packages.clone(), ..Lock::default() },
                lock_unknown: Some("which packages the base is made of".into()),
                download: None,
                plan: None,
                why,
            },
            Err(error) => return Err(error),
        })
    }

    fn image(request: &BuildRequest<'_>, merged: &Merged) -> Result<BaseAhead> {
        let wanted = WantedBase::find(request, merged)?;
        let (digest, imported) = wanted.look(request)?;
        let mut ahead = BaseAhead {
            key: digest.map(crate::base::key_of).transpose()?,
            lock: Lock { base: request.lock.base.clone(), ..Lock::default() },
            lock_unknown: None,
            download: None,
            plan: None,
            why: format!("the base image {} is not imported yet", shown(&wanted.name)),
            imported,
        };
        if let Some(imported) = &ahead.imported {
            if !wanted.replaced {
                ahead.lock.base.clone_from(&imported.lock);
            }
            return Ok(ahead);
        }
        let Some(url) = wanted.url() else {
            // A local image is no entry of the lock, unless it takes the place of one.
            ahead.lock.base = ahead.lock.base.filter(|_| wanted.replaced);
            return Ok(ahead);
        };
        let locked = request.lock.base.as_ref();
        let locked = locked.filter(|it| it.url == url && digest == Some(Digest::from_bytes(it.sha256.0)));
        // Nobody needs the answer: where the server does not give it, the size is not known.
        let size = locked.map(|it| it.size).or_else(|| size_of(&request.network.request(url, IMAGE_MAX)).ok()?);
        match digest.zip(size).and_then(|(digest, size)| wanted.locked(digest, size)) {
            Some(base) => ahead.lock.base = Some(base),
            None => ahead.lock_unknown = Some("the size of the base image".into()),
        }
        let received = request.store.received(url);
        ahead.download = Some(Download { kind: DownloadKind::Image, name: None, url: url.to_owned(), size, received });
        Ok(ahead)
    }
}
