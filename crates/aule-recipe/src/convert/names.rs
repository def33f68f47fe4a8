//! What may stand as a name: recipes, variants, systemd units, Debian packages.

/// Recipe and variant names become parts of references (`name:variant`), so they follow the OCI rules for those:
/// distribution-spec, "Pulling manifests".
pub(super) fn reference(text: &str) -> Result<(), String> {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let valid = text.len() <= 64
        && text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && text.chars().all(|c| alphanumeric(c) || matches!(c, '-' | '_' | '.'))
        && !["..", "._", "_.", ".-", "-.", "-_", "_-", "___"].iter().any(|run| text.contains(run));
    if valid {
        Ok(())
    } else {
        Err(String::from("expected lower-case letters and digits, with single `-`, `_` or `.` between, at most 64"))
    }
}

/// Unit types of systemd.unit(5).
const UNIT_TYPES: [&str; 11] =
    ["service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope"];

/// A full unit name, by systemd.unit(5): at most 255 characters of a closed set, with its type.
pub(super) fn unit(text: &str) -> Result<(), String> {
    let valid = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@'));
    if text.is_empty() || text.len() > 255 || !valid {
        return Err(String::from("expected the name of a systemd unit, such as ssh.service"));
    }
    match text.rsplit_once('.') {
        Some((name, kind)) if !name.is_empty() && UNIT_TYPES.contains(&kind) => Ok(()),
        _ => Err(format!("expected a unit name with its type, such as {text}.service")),
    }
}

/// A package name by Debian policy 5.6.1, with an optional `:architecture` and `=version` (5.6.12).
pub(super) fn package(text: &str) -> Result<(), String> {
    let (name, version) = match text.split_once('=') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    let version_fits = version.is_none_or(|version| {
        !version.is_empty() && version.bytes().all(|b| b.is_ascii_alphanumeric() || b".+-~:".contains(&b))
    });
    if package_name(name).is_ok() && version_fits {
        Ok(())
    } else {
        Err(String::from("expected a Debian package, such as nfs-common, libc6:arm64 or xfsprogs=6.6.0-1"))
    }
}

/// A suite of a repository, or a component: words with `/` between them, as in `bookworm/updates`.
pub(super) fn suite(text: &str) -> Result<(), String> {
    let word = |word: &str| {
        !word.is_empty()
            && word.starts_with(|c: char| c.is_ascii_alphanumeric())
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+~".contains(&b))
    };
    if text.len() <= 128 && text.split('/').all(word) {
        Ok(())
    } else {
        Err(String::from("expected a name such as trixie, noble-updates or main"))
    }
}

/// A package name with an optional `:architecture`.
pub(super) fn package_name(text: &str) -> Result<(), String> {
    let word = |word: &str, extra: &[u8]| {
        word.len() >= 2
            && word.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || extra.contains(&b))
    };
    let valid = match text.split_once(':') {
        Some((name, architecture)) => word(name, b"+-.") && word(architecture, b"-"),
        None => word(text, b"+-."),
    };
    if valid && text.len() <= 255 { Ok(()) } else { Err(String::from("expected a Debian package name, such as snapd")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        for text in ["ainur", "a", "ubuntu-24.04", "a__b", "0"] {
            assert!(reference(text).is_ok(), "{text}");
        }
        for text in ["", "A", "-a", "a-", "a..b", "a:b", "a/b", "a b", "a___b", &"a".repeat(65)] {
            assert!(reference(text).is_err(), "{text}");
        }
    }

    #[test]
    fn units() {
        for text in ["ssh.service", "getty@tty1.service", "dev-disk-by\\x2dlabel.mount", "a.b.timer"] {
            assert!(unit(text).is_ok(), "{text}");
        }
        for text in ["", "ssh", ".service", "ssh.servce", "../x.service", "a b.service", "ssh/x.service"] {
            assert!(unit(text).is_err(), "{text}");
        }
        assert_eq!(unit("ssh"), Err("expected a unit name with its type, such as ssh.service".into()));
    }

    #[test]
    fn packages() {
        for text in ["nfs-common", "g++", "libc6:arm64", "xfsprogs=6.6.0-1", "a1=1:2~rc1+b"] {
            assert!(package(text).is_ok(), "{text}");
        }
        for text in ["", "a", "-x", "Nfs", "nfs common", "x1=", "libc6:", "x1=1 2", "--allow"] {
            assert!(package(text).is_err(), "{text}");
        }
        assert!(package_name("x1=1").is_err());
    }
}
