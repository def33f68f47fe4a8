//! Boot files that the recipe's lines for config.txt name, and arguments that do not go together.

use super::context::Context;
use crate::{Result, steps::boot::cmdline_path};
use aule_tree::TreePath;

/// Checks `boot:` against the boot partition.
pub(super) fn check(context: &mut Context<'_>, mount: Option<&TreePath>) -> Result<()> {
    let Some(mount) = mount else { return Ok(()) };
    let config = context.text(&mount.join("config.txt")?)?.unwrap_or_default();
    let setting = |name: &str| {
        let value = |line: &str| line.trim().strip_prefix(name)?.strip_prefix('=').map(|it| it.trim().to_owned());
        config.lines().filter_map(value).next_back()
    };
    let prefix = setting("os_prefix").unwrap_or_default();
    let overlays = setting("overlay_prefix").unwrap_or_else(|| "overlays/".into());
    let exists = |context: &Context<'_>, name: &str| {
        [format!("{mount}/{prefix}{name}"), format!("{mount}/{name}")].iter().any(|it| context.exists(it))
    };
    for (filter, lines) in &context.merged.recipe.boot.config {
        for (number, line) in lines.iter().enumerate() {
            let line = line.trim();
            // (raspberrypi/documentation, config_txt/boot.adoc and device-tree.adoc)
            let wanted: Vec<String> = if let Some(name) = line.strip_prefix("initramfs ") {
                name.split_whitespace().take(1).flat_map(|it| it.split(',')).map(str::to_owned).collect()
            } else {
                match line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                    Some(("kernel" | "device_tree" | "ramfsfile", name)) if !name.is_empty() => {
                        name.split(',').map(str::to_owned).collect()
                    }
                    Some(("dtoverlay", value)) if !value.is_empty() => {
                        let name = value.split([',', ':']).next().unwrap_or_default();
                        vec![format!("{overlays}{name}.dtbo")]
                    }
                    _ => continue,
                }
            };
            for name in wanted.iter().filter(|it| !it.is_empty()) {
                if !exists(context, name) {
                    let key = format!("boot.config.{filter}[{number}]");
                    let message = format!("`{line}`: the boot partition has no file `{name}`");
                    let finding = context.merged.origins.diagnostic(&key, message);
                    context.warning(finding);
                }
            }
        }
    }
    let line = context.text(&cmdline_path(context.stage, mount)?)?.unwrap_or_default();
    let arguments: Vec<&str> = line.split_whitespace().collect();
    if arguments.contains(&"ro")
        && arguments.iter().any(|it| it.starts_with("overlayroot=") && *it != "overlayroot=disabled")
    {
        let key = match context.merged.recipe.boot.cmdline.add.iter().position(|it| it == "ro") {
            Some(number) => format!("boot.cmdline.add[{number}]"),
            None => "boot.cmdline".to_owned(),
        };
        let message = "`ro` on the command line makes overlayroot's overlay read-only";
        let finding = context
            .merged
            .origins
            .diagnostic(&key, message)
            .help("leave `ro` out: the layer below is read-only anyway");
        context.error(finding);
    }
    Ok(())
}
