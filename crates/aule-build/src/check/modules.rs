//! Kernel modules and mounts that files of the recipe name.

use super::{
    context::{Brought, Context},
    users::children,
};
use crate::Result;
use std::collections::BTreeSet;

/// File systems that the kernel always has or that are no file system of its own.
const KNOWN: [&str; 22] = [
    "auto",
    "bind",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "ext2",
    "ext3",
    "ext4",
    "hugetlbfs",
    "mqueue",
    "none",
    "proc",
    "ramfs",
    "rootfs",
    "securityfs",
    "swap",
    "sysfs",
    "tmpfs",
    "tracefs",
    "vfat",
];

/// Checks modules-load.d, modprobe.d and fstab.
pub(super) fn check(context: &mut Context<'_>) -> Result<()> {
    let mut modules = None;
    for (brought, _) in context.files() {
        let path = brought.path.to_string();
        let path = path.trim_start_matches('/');
        let loads = path == "etc/modules" || (path.contains("modules-load.d/") && path.ends_with(".conf"));
        let configures = path.contains("modprobe.d/") && path.ends_with(".conf");
        if !(loads || configures || path == "etc/fstab") {
            continue;
        }
        let Some(text) = context.text(&brought.path)? else { continue };
        if modules.is_none() {
            modules = Some(names(context)?);
        }
        let Some(modules) = modules.as_ref().filter(|it| !it.is_empty()) else { continue };
        for (number, line) in (1_u32..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            match (words.as_slice(), loads, configures) {
                ([name, ..], true, _) => module(context, &brought, &text, number, name, modules, true),
                (["options" | "install", name, ..], _, true) => {
                    module(context, &brought, &text, number, name, modules, false);
                }
                ([_, target, kind, ..], false, false) => mount(context, &brought, &text, number, target, kind, modules),
                _ => {}
            }
        }
    }
    Ok(())
}

/// `-` and `_` are the same in names of modules.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// Every module of any kernel in the tree, and the aliases without wildcards.
fn names(context: &Context<'_>) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for kernel in children(context, "usr/lib/modules")?.into_iter().chain(children(context, "lib/modules")?) {
        for list in ["modules.dep", "modules.builtin"] {
            for line in context.text(&kernel.join(list)?)?.unwrap_or_default().lines() {
                let file = line.split(':').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
                if let Some((name, _)) = file.split_once(".ko") {
                    names.insert(plain(name));
                }
            }
        }
        for line in context.text(&kernel.join("modules.alias")?)?.unwrap_or_default().lines() {
            if let ["alias", alias, _] = line.split_whitespace().collect::<Vec<_>>().as_slice()
                && !alias.contains(['*', '?', '['])
            {
                names.insert(plain(alias));
            }
        }
    }
    Ok(names)
}

fn module(
    context: &mut Context<'_>,
    brought: &Brought,
    text: &str,
    line: u32,
    name: &str,
    modules: &BTreeSet<String>,
    loads: bool,
) {
    if modules.contains(&plain(name)) {
        return;
    }
    let message = format!("{}: no kernel of the image has a module `{name}`", brought.path);
    let mut finding = context.blame(brought, Some(line), text, message);
    if let Some(near) = aule_recipe::nearest(&plain(name), modules.iter().map(String::as_str)) {
        finding = finding.help(format!("did you mean `{near}`?"));
    }
    if loads { context.error(finding) } else { context.warning(finding) }
}

/// A line of fstab: systemd makes a missing mount point where it can, which a read-only root does not let it.
fn mount(
    context: &mut Context<'_>,
    brought: &Brought,
    text: &str,
    line: u32,
    target: &str,
    kind: &str,
    modules: &BTreeSet<String>,
) {
    if let Some(path) = target.strip_prefix('/').filter(|it| !it.is_empty() && !target.starts_with("/run/")) {
        let path = path.replace("\\040", " ");
        let there = context.node(&path).map(aule_tree::Inode::is_directory);
        if there != Some(true) {
            let what = if there.is_none() { "does not exist in the image" } else { "is not a directory" };
            let finding =
                context.blame(brought, Some(line), text, format!("{}: the mount point {target} {what}", brought.path));
            context.warning(finding.help("`files:` can make the directory"));
        }
    }
    let has_helper = ["usr/sbin", "sbin"].iter().any(|it| context.exists(&format!("{it}/mount.{kind}")));
    for kind in kind.split(',') {
        let module = plain(kind.split('.').next().unwrap_or(kind));
        if !(KNOWN.contains(&kind)
            || modules.contains(&module)
            || modules.contains(&format!("fs_{module}"))
            || has_helper)
        {
            let message = format!("{}: no kernel of the image knows the file system `{kind}`", brought.path);
            let finding = context.blame(brought, Some(line), text, message);
            context.warning(finding);
        }
    }
}
