//! Unit files that the recipe brings: their programs, accounts and the units that they name.

use super::{
    context::{Brought, Context},
    programs::find_program,
    users::{Accounts, FirstBoot},
};
use crate::{Result, steps::services};
use aule_tree::Kind;

/// One `Key=value` of a unit file, joined lines joined, with the number of its first line, from 1.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    line: u32,
    section: String,
    key: String,
    value: String,
}

/// The settings of a unit file (systemd.syntax(7)).
fn settings(text: &str) -> Vec<Setting> {
    let (mut all, mut section) = (Vec::new(), String::new());
    let mut lines = (1_u32..).zip(text.lines());
    while let Some((number, first)) = lines.next() {
        let mut line = first.trim().to_owned();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        while line.ends_with('\\') {
            line.pop();
            match lines.next() {
                // Comments between joined lines are left out.
                Some((_, more)) if more.trim_start().starts_with(['#', ';']) => line.push('\\'),
                Some((_, more)) => line = format!("{} {}", line.trim_end(), more.trim()),
                None => break,
            }
        }
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            all.push(Setting { line: number, section: section.clone(), key, value });
        }
    }
    all
}

/// Kinds of units that systemd makes itself or from what it finds at boot.
const MADE_AT_BOOT: [&str; 5] = [".device", ".mount", ".swap", ".slice", ".scope"];

/// Checks every unit file that the recipe brings.
pub(super) fn check(context: &mut Context<'_>, accounts: &Accounts, boot: &FirstBoot) -> Result<()> {
    for (brought, inode) in context.files() {
        let path = brought.path.to_string();
        let Some((_, inside)) = path.split_once("/systemd/system/") else { continue };
        match &inode.kind {
            Kind::Symlink(target) => {
                let target = String::from_utf8_lossy(target).into_owned();
                let away = ["/dev/", "/run/", "/proc/", "/sys/"].iter().any(|it| target.starts_with(it));
                if !away && !context.exists(&path) && !boot.writes(&format!("/{}", path.trim_start_matches('/'))) {
                    let message = format!("{path} leads to {target}, which the tree does not have");
                    let finding = context.blame(&brought, None, "", message);
                    context.warning(finding);
                }
            }
            Kind::File(_) => {
                let is_drop_in = inside.contains(".d/") && inside.ends_with(".conf");
                let is_unit = !inside.contains('/') && inside.contains('.');
                if let Some(text) = context.text(&brought.path)?.filter(|_| is_unit || is_drop_in) {
                    unit(context, &brought, &text, accounts, boot)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn unit(context: &mut Context<'_>, brought: &Brought, text: &str, accounts: &Accounts, boot: &FirstBoot) -> Result<()> {
    let settings = settings(text);
    let has = |key: &str, value: &str| settings.iter().any(|it| it.key == key && it.value == value);
    let dynamic = has("DynamicUser", "yes") || has("DynamicUser", "true") || has("DynamicUser", "1");
    // With another root its programs and users are others.
    let elsewhere = settings.iter().any(|it| matches!(it.key.as_str(), "RootDirectory" | "RootImage"));
    for setting in &settings {
        let Setting { line, section, key, value } = setting;
        let wanted = (section.as_str(), key.as_str());
        match wanted {
            ("Service" | "Socket" | "Mount" | "Swap", name) if name.starts_with("Exec") && !elsewhere => {
                program(context, brought, text, setting, boot);
            }
            ("Service" | "Socket", "User" | "Group") if !elsewhere && !dynamic => {
                let (there, made) = match key.as_str() {
                    "User" => (&accounts.users, &boot.users),
                    _ => (&accounts.groups, &boot.groups),
                };
                let is_number = value.bytes().all(|b| b.is_ascii_digit());
                if !(is_number || value.contains('%') || there.contains(value) || made.contains(value)) {
                    let what = key.to_lowercase();
                    let message = format!("{}: the image has no {what} `{value}`", brought.path);
                    let finding = context.blame(brought, Some(*line), text, message);
                    // A package or script of the first boot may make it.
                    if boot.packages || boot.unknown { context.warning(finding) } else { context.error(finding) }
                }
            }
            (
                "Unit",
                "Requires" | "Requisite" | "BindsTo" | "Wants" | "After" | "Before" | "OnFailure" | "OnSuccess",
            )
            | ("Install", "WantedBy" | "RequiredBy" | "UpheldBy" | "Also")
            | ("Socket", "Service")
            | ("Timer" | "Path", "Unit") => {
                for named in value.split_whitespace() {
                    if named.contains('%') || MADE_AT_BOOT.iter().any(|it| named.ends_with(it)) {
                        continue;
                    }
                    let written = boot.files.iter().any(|it| {
                        it.strip_suffix(named).is_some_and(|directory| directory.ends_with("/systemd/system/"))
                    });
                    if written || services::locate(context.stage, named)?.is_some() {
                        continue;
                    }
                    let message =
                        format!("{}: `{key}=` names `{named}`, a unit that the image does not have", brought.path);
                    let finding = context.blame(brought, Some(*line), text, message);
                    let needed = matches!(key.as_str(), "Requires" | "Requisite" | "BindsTo")
                        || matches!(section.as_str(), "Timer" | "Path" | "Socket");
                    if needed && !boot.packages && !boot.unknown {
                        context.error(finding.help("without it this unit does not start"));
                    } else {
                        context.warning(finding);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The program of an `Exec…=` line: its prefixes off (systemd.service(5), "Command lines"), in the tree, executable.
fn program(context: &mut Context<'_>, brought: &Brought, text: &str, setting: &Setting, boot: &FirstBoot) {
    let command = setting.value.trim_start_matches(['-', '@', ':', '+', '!', '|']);
    let prefixes = setting.value.get(..setting.value.len() - command.len()).unwrap_or_default();
    let name = match command.chars().next() {
        None => return,
        Some(quote @ ('"' | '\'')) => command.get(1..).and_then(|it| it.split(quote).next()).unwrap_or_default(),
        Some(_) => command.split_whitespace().next().unwrap_or_default(),
    };
    if name.is_empty() || name.contains(['%', '$', '\\']) || prefixes.contains('|') {
        return;
    }
    let wrong = match find_program(context, name) {
        Some(true) => return,
        Some(false) => "is not executable",
        None if boot.writes(name) => return,
        None => "is not in the image",
    };
    let message = format!("{}: `{name}` of `{}=` {wrong}", brought.path, setting.key);
    let finding = context.blame(brought, Some(setting.line), text, message);
    if prefixes.contains('-') || boot.packages || boot.unknown {
        context.warning(finding);
    } else {
        context.error(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_keep_their_lines() {
        let all = settings("# c\n[Unit]\nAfter=a \\\n  b\n\n[Service]\nExecStart = -/bin/x\n; c\nType=oneshot\\\n");
        let shown: Vec<_> = all.iter().map(|it| (it.line, &*it.section, &*it.key, &*it.value)).collect();
        assert_eq!(
            shown,
            [(3, "Unit", "After", "a b"), (7, "Service", "ExecStart", "-/bin/x"), (9, "Service", "Type", "oneshot"),]
        );
    }
}
