//! `boot:` — cmdline.txt and config.txt on the boot partition.

use crate::{BuildError, Result, stage::Stage};
use aule_recipe::{Cmdline, Diagnostics, Merged};
use aule_tree::TreePath;

/// Edits cmdline.txt and config.txt as the recipe says.
pub(crate) fn run(stage: &mut Stage, merged: &Merged, boot: &TreePath) -> Result<()> {
    let wanted = &merged.recipe.boot;
    if wanted.cmdline != Cmdline::default() {
        let path = cmdline_path(stage, boot)?;
        let old = stage.read_text(&path)?.unwrap_or_default();
        let new = edit_cmdline(&old, &wanted.cmdline);
        stage.put_text(&path, new.as_bytes(), 0o755, "boot.cmdline")?;
    }
    if !wanted.config.is_empty() {
        let path = boot.join("config.txt")?;
        let Some(mut text) = stage.read_text(&path)? else {
            let message =
                format!("the image has no {path}, so it is no Raspberry Pi image that `boot.config` could change");
            return Err(BuildError::Recipe(Diagnostics::from(merged.origins.diagnostic("boot.config", message))));
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        for (filter, lines) in &wanted.config {
            // Filters of different kinds hold together until `[all]` (raspberrypi/documentation, conditional.adoc), also
            // those that the image's own text ends with.
            text.push_str(&if filter == "all" { "\n[all]\n".into() } else { format!("\n[all]\n[{filter}]\n") });
            for line in lines {
                text.push_str(line);
                text.push('\n');
            }
        }
        // What others append later must not land under the last filter.
        text.push_str("\n[all]\n");
        stage.put_text(&path, text.as_bytes(), 0o755, "boot.config")?;
    }
    Ok(())
}

/// Where the firmware reads the kernel's command line: `cmdline=` and `os_prefix=` of config.txt move it
/// (raspberrypi/documentation, config_txt/boot.adoc). Only settings that hold for every model are followed.
pub(crate) fn cmdline_path(stage: &Stage, boot: &TreePath) -> Result<TreePath> {
    let text = stage.read_text(&boot.join("config.txt")?)?.unwrap_or_default();
    let (mut prefix, mut name, mut for_all) = (String::new(), String::from("cmdline.txt"), true);
    for line in text.lines().map(str::trim) {
        if let Some(filter) = line.strip_prefix('[') {
            for_all = filter.trim_end_matches(']').eq_ignore_ascii_case("all");
        } else if let Some((key, value)) = line.split_once('=').filter(|_| for_all) {
            match key.trim() {
                "os_prefix" => prefix = value.trim().to_owned(),
                "cmdline" => name = value.trim().to_owned(),
                _ => {}
            }
        }
    }
    Ok(boot.join(format!("{prefix}{name}"))?)
}

/// The command line with `remove`, then `set`, then `add` applied; one line with a line feed at its end.
pub(crate) fn edit_cmdline(old: &str, edit: &Cmdline) -> String {
    let key = |argument: &str| argument.split('=').next().unwrap_or_default().to_owned();
    let mut arguments: Vec<String> = split(old);
    arguments.retain(|it| !edit.remove.iter().any(|gone| gone == it || *gone == key(it)));
    for (name, value) in &edit.set {
        let new = format!("{name}={value}");
        match arguments.iter().position(|it| key(it) == *name) {
            Some(first) => {
                let mut number = 0;
                arguments.retain(|it| {
                    number += 1;
                    key(it) != *name || number == first + 1
                });
                if let Some(place) = arguments.get_mut(first) {
                    *place = new;
                }
            }
            None => arguments.push(new),
        }
    }
    arguments.extend(edit.add.iter().cloned());
    arguments.join(" ") + "\n"
}

/// Arguments as the kernel splits them: at spaces outside of double quotes.
fn split(line: &str) -> Vec<String> {
    let (mut arguments, mut current, mut quoted) = (Vec::new(), String::new(), false);
    for letter in line.chars() {
        match letter {
            '"' => {
                quoted = !quoted;
                current.push(letter);
            }
            letter if letter.is_whitespace() && !quoted => {
                if !current.is_empty() {
                    arguments.push(std::mem::take(&mut current));
                }
            }
            letter => current.push(letter),
        }
    }
    if !current.is_empty() {
        arguments.push(current);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let edit = |set: &[(&str, &str)], add: &[&str], remove: &[&str]| Cmdline {
            set: set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            add: add.iter().map(|it| (*it).to_owned()).collect(),
            remove: remove.iter().map(|it| (*it).to_owned()).collect(),
        };
        let old = "console=serial0,115200 console=tty1 root=LABEL=writable quiet splash dyndbg=\"a b\"\n";
        for (edit, wanted) in [
            (
                edit(&[], &[], &["quiet", "splash"]),
                "console=serial0,115200 console=tty1 root=LABEL=writable dyndbg=\"a b\"\n",
            ),
            (edit(&[("console", "tty1")], &[], &[]), "console=tty1 root=LABEL=writable quiet splash dyndbg=\"a b\"\n"),
            (
                edit(&[("new", "1")], &["add", "add"], &["console", "dyndbg"]),
                "root=LABEL=writable quiet splash new=1 add add\n",
            ),
            (
                edit(&[("root", "x")], &[], &["console=tty1"]),
                "console=serial0,115200 root=x quiet splash dyndbg=\"a b\"\n",
            ),
        ] {
            assert_eq!(edit_cmdline(old, &edit), wanted);
        }
    }
}
