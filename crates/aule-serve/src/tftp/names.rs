//! What a requested name means: which node asks, and for which file of its boot partition.

use crate::{
    nodes::Identity,
    published::{BootFile, BootFiles},
    site::{Mac, Serial},
};

/// How many directories a prefix may have: a name could else be looked up some hundred times.
const PREFIX_MAX: usize = 4;

/// A name with what it tells of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    /// Who asks, as far as the prefix says so.
    pub(crate) identity: Identity,
    /// The name without the prefix of a node.
    pub(crate) path: Vec<u8>,
}

impl Name {
    /// Takes the prefix of a name apart: the last eight digits of the serial number, or the Ethernet address with hyphens.
    pub(crate) fn parse(name: &[u8]) -> Name {
        let mut path: Vec<u8> = name.iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect();
        while path.first() == Some(&b'/') {
            path.remove(0);
        }
        let mut identity = Identity::default();
        let prefix = path.iter().position(|&byte| byte == b'/').and_then(|end| Some((end, path.get(..end)?)));
        if let Some((end, prefix)) = prefix.and_then(|(end, prefix)| Some((end, std::str::from_utf8(prefix).ok()?))) {
            identity.serial = prefix.parse::<Serial>().ok().filter(|_| prefix.len() == 8);
            identity.mac = prefix.parse::<Mac>().ok();
            if identity.serial.is_some() || identity.mac.is_some() {
                path.drain(..=end);
            }
        }
        // U-Boot and pxelinux: hardware type 1, then the address.
        if let Some(mac) = path.strip_prefix(b"pxelinux.cfg/01-").and_then(|mac| std::str::from_utf8(mac).ok()) {
            identity.mac = mac.parse().ok().or(identity.mac);
        }
        Name { identity, path }
    }
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// A file of the boot partition.
    File(BootFile),
    /// What a boot loader asks for to know what to load, made for the node.
    Configuration(Loader),
}

/// What is told to a boot loader that asks for its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loader {
    language: Language,
    kernel: String,
    initrd: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    /// That of PXELINUX, which U-Boot speaks, too.
    Pxe,
    Grub,
}

/// What this name stands for; where it begins with directories that the partition does not have, what follows them: the
/// firmware can be told to ask below any prefix.
pub(crate) fn find(boot: &BootFiles, path: &[u8]) -> Option<Found> {
    find_below(boot, path, PREFIX_MAX)
}

fn find_below(boot: &BootFiles, path: &[u8], levels: usize) -> Option<Found> {
    if let Some(found) = boot.find(path) {
        return Some(Found::File(found.clone()));
    }
    if let Some(loader) = Loader::asked(boot, path) {
        return Some(Found::Configuration(loader));
    }
    let end = path.iter().position(|&byte| byte == b'/').filter(|_| levels > 0)?;
    let (directory, rest) = (path.get(..end)?, path.get(end + 1..)?);
    if boot.has_directory(directory) { None } else { find_below(boot, rest, levels - 1) }
}

impl Loader {
    /// For the names that U-Boot and PXELINUX ask for (`pxelinux.cfg/…`), and those that GRUB's network image asks for
    /// (`grub/grub.cfg`, and the same below its platform). `None` without a kernel, too.
    fn asked(boot: &BootFiles, path: &[u8]) -> Option<Loader> {
        let language = if path.starts_with(b"pxelinux.cfg/") {
            Language::Pxe
        } else if [&b"grub/grub.cfg"[..], b"grub/arm64-efi/grub.cfg", b"grub.cfg"].contains(&path) {
            Language::Grub
        } else {
            return None;
        };
        let shown = |file: &BootFile| String::from_utf8_lossy(file.path.as_bytes()).into_owned();
        let first = |names: &[&str]| names.iter().find_map(|name| boot.find(name.as_bytes())).map(shown);
        // Debian's have their version in the name; the firmware is told in config.txt.
        let last = |start: &str| {
            let files = boot.sorted();
            files.into_iter().rfind(|file| file.path.as_bytes().starts_with(start.as_bytes())).map(shown)
        };
        let kernel = first(&["vmlinuz", "current/vmlinuz", "kernel8.img", "kernel_2712.img"]);
        let kernel = kernel.or_else(|| last("vmlinuz-"))?;
        let initrd = first(&["initrd.img", "current/initrd.img", "initramfs8"]).or_else(|| last("initrd.img-"));
        Some(Loader { language, kernel, initrd })
    }

    /// Kernel, initramfs and the node's own command line.
    pub(crate) fn configuration(&self, line: &str) -> String {
        let Loader { language, kernel, initrd } = self;
        let initrd = |say: &dyn Fn(&str) -> String| initrd.as_deref().map(say).unwrap_or_default();
        match language {
            Language::Pxe => {
                let initrd = initrd(&|file| format!("  initrd {file}\n"));
                format!("default aule\ntimeout 1\nlabel aule\n  kernel {kernel}\n{initrd}  append {line}\n")
            }
            Language::Grub => {
                let initrd = initrd(&|file| format!("initrd {}\n", quoted(&format!("/{file}"))));
                let words: Vec<_> = line.split_ascii_whitespace().map(quoted).collect();
                format!("linux {} {}\n{initrd}boot\n", quoted(&format!("/{kernel}")), words.join(" "))
            }
        }
    }
}

/// A word as GRUB's scripts must have it: they know `;`, `$` and more, which a seed's address has. (GRUB manual, 6.2)
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaders_get_the_command_line_whole() {
        let line = "ds=nocloud;s=http://192.168.1.59/seed/ root=/dev/nfs  name=it's";
        let pxe = Loader { language: Language::Pxe, kernel: "vmlinuz".into(), initrd: Some("initrd.img".into()) };
        let wanted = "default aule\ntimeout 1\nlabel aule\n  kernel vmlinuz\n  initrd initrd.img\n";
        assert_eq!(pxe.configuration(line), format!("{wanted}  append {line}\n"));
        let grub = Loader { language: Language::Grub, initrd: None, ..pxe };
        let wanted =
            "linux '/vmlinuz' 'ds=nocloud;s=http://192.168.1.59/seed/' 'root=/dev/nfs' 'name=it'\\''s'\nboot\n";
        assert_eq!(grub.configuration(line), wanted);
    }

    #[test]
    fn prefixes_tell_who_asks() {
        let serial = Identity { serial: Some(Serial(0x5a1d_3c2b)), ..Identity::default() };
        let mac = Identity { mac: Some(Mac([0xdc, 0xa6, 0x32, 0, 0, 1])), ..Identity::default() };
        for (name, identity, path) in [
            ("5a1d3c2b/start4.elf", &serial, "start4.elf"),
            ("/5A1D3C2B/overlays/a.dtbo", &serial, "overlays/a.dtbo"),
            ("dc-a6-32-00-00-01/config.txt", &mac, "config.txt"),
            ("\\config.txt", &Identity::default(), "config.txt"),
            ("overlays/a.dtbo", &Identity::default(), "overlays/a.dtbo"),
            ("pxelinux.cfg/01-dc-a6-32-00-00-01", &mac, "pxelinux.cfg/01-dc-a6-32-00-00-01"),
            ("5a1d3c2b", &Identity::default(), "5a1d3c2b"),
            ("", &Identity::default(), ""),
        ] {
            let found = Name::parse(name.as_bytes());
            assert_eq!((&found.identity, found.path.as_slice()), (identity, path.as_bytes()), "{name}");
        }
    }
}
