//! `services:` — what `systemctl enable`, `disable` and `mask` do, without systemd: symlinks in /etc/systemd/system.

use crate::{BuildError, Result, stage::Stage};
use aule_recipe::{Diagnostics, Merged};
use aule_tree::{Kind, TreePath};

const CONFIG: &str = "etc/systemd/system";
/// Where units lie, what is searched first first (systemd.unit(5), "Unit File Load Path").
const SEARCH: [&str; 4] = [CONFIG, "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

/// Disables, masks and enables what the recipe names; every unit must exist in the tree.
pub(crate) fn run(stage: &mut Stage, merged: &Merged) -> Result<()> {
    let services = &merged.recipe.services;
    for (number, unit) in services.disable.iter().enumerate() {
        let key = format!("services.disable[{number}]");
        find(stage, merged, unit, &key)?;
        disable(stage, unit, &key)?;
    }
    for (number, unit) in services.mask.iter().enumerate() {
        let key = format!("services.mask[{number}]");
        find(stage, merged, unit, &key)?;
        mask(stage, unit, &key)?;
    }
    // The list is a set: of two units with the same alias the last one by name has it, however the list is written.
    let mut enabled: Vec<_> = services.enable.iter().enumerate().collect();
    enabled.sort_by_key(|(_, unit)| *unit);
    for (number, unit) in enabled {
        let key = format!("services.enable[{number}]");
        unmask(stage, unit, &key)?;
        let file = find(stage, merged, unit, &key)?;
        enable(stage, merged, unit, &file, &key)?;
    }
    Ok(())
}

/// The template that an instance comes from: `getty@tty1.service` from `getty@.service`.
fn template_of(unit: &str) -> Option<String> {
    let (name, suffix) = unit.rsplit_once('.')?;
    let (prefix, instance) = name.split_once('@')?;
    (!instance.is_empty()).then(|| format!("{prefix}@.{suffix}"))
}

/// The unit's file, or its template's; `None` when the tree has neither.
pub(crate) fn locate(stage: &Stage, unit: &str) -> Result<Option<TreePath>> {
    for name in [Some(unit.to_owned()), template_of(unit)].into_iter().flatten() {
        for directory in SEARCH {
            let path = TreePath::new(format!("{directory}/{name}"))?;
            let place = stage.place(&path)?;
            if stage.tree.get(&place).is_some() {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

/// As [`locate`]; an error that names the nearest unit where there is none.
pub(crate) fn find(stage: &Stage, merged: &Merged, unit: &str, key: &str) -> Result<TreePath> {
    if let Some(path) = locate(stage, unit)? {
        return Ok(path);
    }
    let mut known = Vec::new();
    for directory in SEARCH {
        let directory = stage.tree.resolve(&TreePath::new(directory)?, true)?;
        for (path, _) in stage.tree.children(&directory) {
            known.push(String::from_utf8_lossy(path.name()).into_owned());
        }
    }
    let mut diagnostic = merged
        .origins
        .diagnostic(key, format!("the image has no unit `{unit}`"))
        .help("units are looked for in /etc/systemd/system, /usr/local/lib/systemd/system and /usr/lib/systemd/system");
    if let Some(near) = aule_recipe::nearest(unit, known.iter().map(String::as_str)) {
        diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
    }
    Err(BuildError::Recipe(Diagnostics::from(diagnostic)))
}

/// `systemctl mask`: a symlink to /dev/null.
pub(crate) fn mask(stage: &mut Stage, unit: &str, origin: &str) -> Result<()> {
    let path = TreePath::new(format!("{CONFIG}/{unit}"))?;
    stage.put_symlink(&path, b"/dev/null", origin)?;
    Ok(())
}

fn unmask(stage: &mut Stage, unit: &str, origin: &str) -> Result<()> {
    let path = TreePath::new(format!("{CONFIG}/{unit}"))?;
    let place = stage.place(&path)?;
    if matches!(stage.tree.get(&place).map(|it| &it.kind), Some(Kind::Symlink(target)) if target == b"/dev/null") {
        stage.remove(&place, origin)?;
    }
    Ok(())
}

/// `systemctl disable`: every symlink in /etc/systemd/system that has the unit's name, or leads to it, goes.
fn disable(stage: &mut Stage, unit: &str, origin: &str) -> Result<()> {
    let top = stage.tree.resolve(&TreePath::new(CONFIG)?, true)?;
    let doomed: Vec<TreePath> = stage
        .tree
        .subtree(&top)
        .filter(|(path, _, inode)| match &inode.kind {
            Kind::Symlink(target) if target != b"/dev/null" => {
                let deeper = path.strip_prefix(&top).is_some_and(|it| it.components().count() > 1);
                let leads_there = target.rsplit(|&b| b == b'/').next() == Some(unit.as_bytes());
                (deeper && path.name() == unit.as_bytes()) || leads_there
            }
            _ => false,
        })
        .map(|(path, ..)| path.clone())
        .collect();
    for path in doomed {
        stage.remove(&path, origin)?;
    }
    Ok(())
}

/// `systemctl enable`: symlinks as the unit's `[Install]` section says.
fn enable(stage: &mut Stage, merged: &Merged, unit: &str, file: &TreePath, origin: &str) -> Result<()> {
    let text = stage.read_text(file)?.unwrap_or_default();
    let install = Install::parse(&text);
    let blame = |message: String, help: &str| {
        BuildError::Recipe(Diagnostics::from(merged.origins.diagnostic(origin, message).help(help)))
    };
    if install == Install::default() {
        let help = "a unit without WantedBy=, RequiredBy=, UpheldBy=, Also= or Alias= is started by others and cannot be enabled";
        return Err(blame(format!("`{unit}` has no [Install] section that says what starts it"), help));
    }
    // A template is enabled as its default instance.
    let instance = match unit.split_once("@.") {
        Some((prefix, suffix)) => match &install.default_instance {
            Some(default) => format!("{prefix}@{default}.{suffix}"),
            None => {
                return Err(blame(
                    format!("`{unit}` is a template; name an instance of it"),
                    "such as `name@instance.service`",
                ));
            }
        },
        None => unit.to_owned(),
    };
    let target = format!("/{}", String::from_utf8_lossy(file.as_bytes()));
    for (suffix, others) in
        [("wants", &install.wanted_by), ("requires", &install.required_by), ("upholds", &install.upheld_by)]
    {
        for other in others {
            let link = TreePath::new(format!("{CONFIG}/{}.{suffix}/{instance}", specifiers(other, &instance)))?;
            stage.put_symlink(&link, target.as_bytes(), origin)?;
        }
    }
    for alias in &install.alias {
        let alias = specifiers(alias, &instance);
        if alias != instance {
            stage.put_symlink(&TreePath::new(format!("{CONFIG}/{alias}"))?, target.as_bytes(), origin)?;
        }
    }
    for also in &install.also {
        let also = specifiers(also, &instance);
        if also == unit {
            continue;
        }
        if let Some(file) = locate(stage, &also)? {
            let text = stage.read_text(&file)?.unwrap_or_default();
            // One level, as units that name each other would go round in circles; `Also=` of those is theirs to say.
            let other = Install { also: Vec::new(), ..Install::parse(&text) };
            let target = format!("/{}", String::from_utf8_lossy(file.as_bytes()));
            for (suffix, wanted) in [("wants", &other.wanted_by), ("requires", &other.required_by)] {
                for by in wanted {
                    let link = TreePath::new(format!("{CONFIG}/{}.{suffix}/{also}", specifiers(by, &also)))?;
                    stage.put_symlink(&link, target.as_bytes(), origin)?;
                }
            }
        }
    }
    Ok(())
}

/// The specifiers that `[Install]` sections use (systemd.unit(5), "Specifiers").
fn specifiers(text: &str, unit: &str) -> String {
    let name = unit.rsplit_once('.').map_or(unit, |(name, _)| name);
    let (prefix, instance) = name.split_once('@').unwrap_or((name, ""));
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, letter == '%') {
            (_, true) => match letters.next() {
                Some('n') => out.push_str(unit),
                Some('N') => out.push_str(name),
                Some('p') => out.push_str(prefix),
                Some('i' | 'I') => out.push_str(instance),
                Some('%') => out.push('%'),
                Some(other) => out.extend(['%', other]),
                None => out.push('%'),
            },
            (letter, false) => out.push(letter),
        }
    }
    out
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Install {
    wanted_by: Vec<String>,
    required_by: Vec<String>,
    upheld_by: Vec<String>,
    alias: Vec<String>,
    also: Vec<String>,
    default_instance: Option<String>,
}

impl Install {
    /// The `[Install]` section of a unit file (systemd.syntax(7): `\` joins lines, an empty value clears the list).
    fn parse(text: &str) -> Self {
        let mut install = Install::default();
        let mut inside = false;
        for line in text.replace("\\\n", " ").lines().map(str::trim) {
            if line.starts_with('[') {
                inside = line == "[Install]";
                continue;
            }
            if !inside || line.starts_with(['#', ';']) {
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let value = value.trim();
            let list = match key.trim() {
                "WantedBy" => &mut install.wanted_by,
                "RequiredBy" => &mut install.required_by,
                "UpheldBy" => &mut install.upheld_by,
                "Alias" => &mut install.alias,
                "Also" => &mut install.also,
                "DefaultInstance" => {
                    install.default_instance = (!value.is_empty()).then(|| value.to_owned());
                    continue;
                }
                _ => continue,
            };
            if value.is_empty() {
                list.clear();
            }
            list.extend(value.split_whitespace().map(str::to_owned));
        }
        install
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn install_sections() {
        let install = Install::parse(
            "[Unit]\nWantedBy=no\n[Install]\n# c\nWantedBy=a.target \\\n b.target\nAlias=x.service\nRequiredBy=r\nRequiredBy=\nDefaultInstance=tty1\n",
        );
        assert_eq!(install.wanted_by, ["a.target", "b.target"]);
        assert_eq!(install.alias, ["x.service"]);
        assert!(install.required_by.is_empty());
        assert_eq!(install.default_instance.as_deref(), Some("tty1"));
        assert_eq!(Install::parse("[Service]\nExecStart=/x\n"), Install::default());
    }

    #[test]
    fn templates_and_specifiers() {
        assert_eq!(template_of("getty@tty1.service").as_deref(), Some("getty@.service"));
        assert_eq!(template_of("getty@.service"), None);
        assert_eq!(template_of("ssh.service"), None);
        assert_eq!(specifiers("%p@%i.mount 100%%", "a@b.service"), "a@b.mount 100%");
    }
}
