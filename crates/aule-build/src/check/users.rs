//! Accounts: who is in the tree, whom the first boot adds, and who is named by user-data without being either.

use super::{
    cloud_init::{Documents, is_cloud_config, is_template},
    context::Context,
    yaml::{Node, NodeKind, Step, dotted, parse},
};
use crate::{
    Result,
    steps::{accounts, seed::Seed},
};
use aule_tree::TreePath;
use serde_json::Value;
use std::collections::BTreeSet;

/// What user-data does on the first boot, as far as checks of the tree need to know.
#[derive(Default)]
pub(super) struct FirstBoot {
    pub(super) users: BTreeSet<String>,
    pub(super) groups: BTreeSet<String>,
    /// Paths of `write_files`.
    pub(super) files: BTreeSet<String>,
    /// Packages are installed, so that more may come to be.
    pub(super) packages: bool,
    /// It cannot be known what it does: a template, a script.
    pub(super) unknown: bool,
    node: Option<Node>,
}

/// Accounts of the tree.
pub(super) struct Accounts {
    pub(super) users: BTreeSet<String>,
    pub(super) groups: BTreeSet<String>,
}

impl Accounts {
    /// Reads passwd, group, and what systemd-sysusers adds at each boot.
    pub(super) fn read(context: &Context<'_>) -> Result<Accounts> {
        let names = |file| -> Result<BTreeSet<String>> {
            Ok(accounts::names(context.stage, file)?.into_iter().map(|(name, _)| name).collect())
        };
        let mut all = Accounts { users: names("passwd")?, groups: names("group")? };
        for directory in ["usr/lib/sysusers.d", "etc/sysusers.d"] {
            for file in children(context, directory)? {
                for line in context.text(&file)?.unwrap_or_default().lines() {
                    let mut words = line.split_whitespace();
                    match (words.next(), words.next()) {
                        (Some(kind), Some(name)) if kind.starts_with('u') => {
                            all.users.insert(name.into());
                            all.groups.insert(name.into());
                        }
                        (Some("g"), Some(name)) => {
                            all.groups.insert(name.into());
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(all)
    }
}

/// The paths in a directory, symlinks followed.
pub(super) fn children(context: &Context<'_>, directory: &str) -> Result<Vec<TreePath>> {
    let directory = TreePath::new(directory)?;
    let Ok(place) = context.stage.tree.resolve(&directory, true) else { return Ok(Vec::new()) };
    Ok(context.stage.tree.children(&place).into_iter().map(|(path, _)| path.clone()).collect())
}

impl FirstBoot {
    /// Reads user-data for what it adds to the tree.
    pub(super) fn read(context: &Context<'_>, seed: &Seed) -> Result<FirstBoot> {
        let mut boot = FirstBoot::default();
        if is_template(&seed.user_data) || !is_cloud_config(&seed.user_data) {
            boot.unknown = !seed.user_data.is_empty();
            return Ok(boot);
        }
        let Ok(Some(node)) = parse(&String::from_utf8_lossy(&seed.user_data)) else { return Ok(boot) };
        boot.packages = node.get("packages").is_some_and(|it| !it.items().is_empty());
        for user in node.get("users").map(Node::items).unwrap_or_default() {
            let name = user.get("name").and_then(Node::text).or_else(|| user.text());
            let name = match name {
                Some("default") if user.text().is_some() => default_user(context)?,
                Some(name) => Some(name.to_owned()),
                None => None,
            };
            boot.users.extend(name.clone());
            // A user gets a group of its own name unless it says otherwise.
            boot.groups.extend(name);
        }
        if node.get("users").is_none() {
            let name = default_user(context)?;
            boot.users.extend(name.clone());
            boot.groups.extend(name);
        }
        if let Some(groups) = node.get("groups") {
            boot.groups.extend(group_names(groups).into_iter().map(|(name, _)| name));
        }
        let paths = node.get("write_files").map(Node::items).unwrap_or_default();
        boot.files.extend(paths.iter().filter_map(|it| it.get("path")?.text().map(str::to_owned)));
        boot.node = Some(node);
        Ok(boot)
    }

    /// Whether the first boot writes this file.
    pub(super) fn writes(&self, path: &str) -> bool {
        self.files.contains(path)
    }
}

/// `system_info.default_user.name` of the image's cloud.cfg.
fn default_user(context: &Context<'_>) -> Result<Option<String>> {
    let text = context.text(&TreePath::new("etc/cloud/cloud.cfg")?)?.unwrap_or_default();
    let node = parse(&text).ok().flatten();
    let name = node.as_ref().and_then(|it| it.get("system_info")?.get("default_user")?.get("name")?.text());
    Ok(name.map(str::to_owned))
}

/// Names of groups in any of the forms that cloud-init takes (a string with commas, a list, a map of members), each
/// with the steps that lead to it.
fn group_names(node: &Node) -> Vec<(String, Vec<Step>)> {
    match &node.kind {
        NodeKind::Scalar(Value::String(text)) => {
            text.split(',').map(|it| (it.trim().to_owned(), Vec::new())).filter(|(name, _)| !name.is_empty()).collect()
        }
        NodeKind::List(items) => {
            let mut names = Vec::new();
            for (number, item) in items.iter().enumerate() {
                let at = Step::Index(number);
                match item.text() {
                    Some(text) => names.push((text.trim().to_owned(), vec![at])),
                    None => names.extend(item.pairs().iter().map(|pair| (pair.key.clone(), vec![at.clone()]))),
                }
            }
            names
        }
        NodeKind::Map(pairs) => {
            pairs.iter().map(|pair| (pair.key.clone(), vec![Step::Key(pair.key.clone())])).collect()
        }
        _ => Vec::new(),
    }
}

/// Checks the accounts that user-data names.
pub(super) fn check(context: &mut Context<'_>, documents: &Documents, accounts: &Accounts, boot: &FirstBoot) {
    let Some(node) = &boot.node else { return };
    let key = |name: &str| Step::Key(name.into());
    for (number, file) in node.get("write_files").map(Node::items).unwrap_or_default().iter().enumerate() {
        let Some(owner) = file.get("owner").and_then(Node::text) else { continue };
        let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
        let deferred = file.get("defer").is_some_and(Node::is_true);
        let path = [key("write_files"), Step::Index(number), key("owner")];
        for (what, name, there, made) in [
            ("user", user.trim(), &accounts.users, &boot.users),
            ("group", group.trim(), &accounts.groups, &boot.groups),
        ] {
            if name.is_empty() || there.contains(name) || name.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
                continue;
            }
            let place = dotted(&path);
            if !deferred {
                let message = format!(
                    "user-data `{place}`: the image has no {what} `{name}`, and files are written before users are made"
                );
                let finding = documents.user_data.blame(context, node, &path, message);
                context.error(finding.help("`defer: true` writes the file at the end of the boot"));
            } else if !made.contains(name) {
                let message = format!("user-data `{place}`: neither the image nor user-data has the {what} `{name}`");
                let finding = documents.user_data.blame(context, node, &path, message);
                context.warning(finding);
            }
        }
    }
    for (number, user) in node.get("users").map(Node::items).unwrap_or_default().iter().enumerate() {
        for list in ["groups", "primary_group"] {
            let Some(named) = user.get(list) else { continue };
            for (name, steps) in group_names(named) {
                if accounts.groups.contains(&name) || boot.groups.contains(&name) {
                    continue;
                }
                let mut path = vec![key("users"), Step::Index(number), key(list)];
                path.extend(steps);
                let message = format!(
                    "user-data `{}`: neither the image nor `groups:` has the group `{name}`; cloud-init makes an empty one",
                    dotted(&path)
                );
                let mut finding = documents.user_data.blame(context, node, &path, message);
                if let Some(near) = aule_recipe::nearest(&name, accounts.groups.iter().map(String::as_str)) {
                    finding = finding.help(format!("did you mean `{near}`?"));
                }
                context.warning(finding);
            }
        }
    }
}
