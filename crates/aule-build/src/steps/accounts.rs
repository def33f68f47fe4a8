//! Names of users and groups, resolved against the tree's own /etc/passwd and /etc/group.

use crate::{BuildError, Result, stage::Stage};
use aule_recipe::{Diagnostics, Merged, Principal};
use aule_tree::TreePath;

/// The number of a user (`passwd`) or group (`group`) as the tree knows it. `key` is the recipe key to blame.
pub(crate) fn resolve(stage: &Stage, merged: &Merged, principal: &Principal, file: &str, key: &str) -> Result<u32> {
    let name = match principal {
        Principal::Id(number) => return Ok(*number),
        Principal::Name(name) => name,
    };
    let known = names(stage, file)?;
    match known.iter().find(|(known, _)| known == name) {
        Some((_, number)) => Ok(*number),
        None => {
            let what = if file == "passwd" { "user" } else { "group" };
            let diagnostic = merged
                .origins
                .diagnostic(key, format!("the image has no {what} `{name}`"))
                .help(format!("names are looked up in the image's /etc/{file}; a number works, too"));
            Err(BuildError::Recipe(Diagnostics::from(diagnostic)))
        }
    }
}

/// Name and number of every line of /etc/passwd or /etc/group.
pub(crate) fn names(stage: &Stage, file: &str) -> Result<Vec<(String, u32)>> {
    let text = stage.read_text(&TreePath::new(format!("etc/{file}"))?)?.unwrap_or_default();
    let parse = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((name, fields.nth(1)?.parse().ok()?))
    };
    Ok(text.lines().filter_map(parse).collect())
}
