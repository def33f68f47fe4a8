//! `boot:`: the kernel command line, config.txt and the size of the boot partition.

use indexmap::IndexMap;

use super::{Context, keys};
use crate::recipe::{Boot, Cmdline};
use crate::suggest::nearest;
use crate::value::parse_size;
use crate::yaml::Node;

/// Filters of config.txt without an argument (Raspberry Pi documentation, "Conditional filters").
const FILTERS: [&str; 21] = [
    "all", "none", "pi0", "pi02", "pi0w", "pi1", "pi2", "pi3", "pi3+", "pi4", "pi400", "pi5", "pi500", "cm0", "cm1",
    "cm3", "cm3+", "cm4", "cm4s", "cm5", "tryboot",
];

/// The firmware reads this many characters of a line of config.txt and passes over the rest.
const MAX_CONFIG_LINE: usize = 98;

pub(super) fn boot(cx: &mut Context<'_>, node: &Node) -> Boot {
    let mut boot = Boot::default();
    if cx.fields(node, "`boot`", keys::BOOT).is_none() {
        return boot;
    }
    if let Some(node) = node.get("cmdline") {
        boot.cmdline = cmdline(cx, node);
    }
    if let Some(node) = node.get("config") {
        boot.config = config(cx, node);
    }
    if let Some(node) = node.get("size") {
        let text = cx.letters(node, "`boot.size`");
        boot.size = cx.parsed(node, "the size", text, parse_size);
    }
    boot
}

fn cmdline(cx: &mut Context<'_>, node: &Node) -> Cmdline {
    let mut cmdline = Cmdline::default();
    if cx.fields(node, "`boot.cmdline`", keys::CMDLINE).is_none() {
        return cmdline;
    }
    if let Some(map) = node.get("set").and_then(|node| cx.map(node, "`boot.cmdline.set`")) {
        for (key, entry) in map {
            let key = key.text.as_str();
            if argument(key).is_err() || key.contains('=') {
                let message = format!("`{key}` cannot be the name of a kernel argument");
                cx.report(entry.key.span, message, "expected a word without blanks, quotes and `=`");
                continue;
            }
            let Some(value) = cx.letters(&entry.value, &format!("the kernel argument `{key}`")) else {
                let help = format!("for `{key}` without a value write `add: [{key}]`");
                if let Some(last) = cx.gathered.last_mut() {
                    last.help.push(help);
                }
                continue;
            };
            match argument_value(value) {
                Ok(()) => {
                    cmdline.set.insert(key.to_owned(), value.to_owned());
                }
                Err(expected) => {
                    cx.report(entry.value.span, format!("the value of the kernel argument `{key}`"), expected);
                }
            }
        }
    }
    if let Some(node) = node.get("add") {
        cmdline.add = cx.strings(node, "`boot.cmdline.add`", argument_with_value);
    }
    if let Some(node) = node.get("remove") {
        cmdline.remove = cx.strings(node, "`boot.cmdline.remove`", argument_with_value);
    }
    cmdline
}

/// A bare word.
fn argument(text: &str) -> Result<(), String> {
    let valid = !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '"');
    if valid { Ok(()) } else { Err(String::from("expected one kernel argument, without blanks")) }
}

/// A value: one word, or anything in double quotes (Linux, Documentation/admin-guide/kernel-parameters.rst).
fn argument_value(text: &str) -> Result<(), String> {
    let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let bad = match quoted {
        Some(inner) => inner.chars().any(|c| c.is_control() || c == '"'),
        None => text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '"'),
    };
    if bad {
        return Err(String::from("expected a value without blanks, or one in double quotes: '\"two words\"'"));
    }
    Ok(())
}

fn argument_with_value(text: &str) -> Result<(), String> {
    match text.split_once('=') {
        Some((key, value)) => argument(key).and(argument_value(value)),
        None => argument(text),
    }
}

fn config(cx: &mut Context<'_>, node: &Node) -> IndexMap<String, Vec<String>> {
    let mut config = IndexMap::new();
    let Some(map) = cx.map(node, "`boot.config`") else {
        return config;
    };
    for (key, entry) in map {
        let filter = key.text.as_str();
        if !is_filter(filter) {
            let mut diagnostic = cx
                .sources
                .diagnostic(entry.key.span, format!("unknown filter `{filter}` in `boot.config`"))
                .label("expected a filter of config.txt, such as all, pi4, pi5, cm4, tryboot or gpio4=1");
            if let Some(name) = nearest(filter.trim_matches(['[', ']']), FILTERS) {
                diagnostic = diagnostic.help(format!("did you mean `{name}`?"));
            }
            cx.push(diagnostic);
        }
        let lines = cx.strings(&entry.value, &format!("`boot.config.{filter}`"), config_line);
        config.insert(filter.to_owned(), lines);
    }
    config
}

/// A filter by name, or one with an argument: `[EDID=…]`, `[gpio4=1]`, `[HDMI:1]`, a serial number (`[0x12345678]`).
fn is_filter(text: &str) -> bool {
    let printable = text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '[' | ']' | '#'));
    let hex = |digits: &str| !digits.is_empty() && digits.len() <= 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let serial = text.strip_prefix("0x").is_some_and(hex);
    let with_argument =
        text.split_once('=').is_some_and(|(name, value)| !name.is_empty() && !value.is_empty() && printable);
    FILTERS.contains(&text) || serial || with_argument || matches!(text, "HDMI:0" | "HDMI:1")
}

fn config_line(text: &str) -> Result<(), String> {
    if text.chars().any(char::is_control) {
        return Err(String::from("expected one line without control characters"));
    }
    if text.trim_start().starts_with('[') {
        return Err(String::from("a filter is a key of `boot.config`, not a line"));
    }
    if text.len() > MAX_CONFIG_LINE {
        return Err(format!("the firmware reads only the first {MAX_CONFIG_LINE} bytes of a line"));
    }
    Ok(())
}
