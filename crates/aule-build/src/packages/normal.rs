//! What of the changes that dpkg and maintainer scripts leave does not go into the layer, because it says when, where or
//! how the packages were installed, or is made anew by whoever needs it. `docs/packages.md` has the list with its reasons.

use aule_tree::TreePath;

/// Paths whose changes are left out, with all that is below a directory: what stood there before stays, and what is new
/// goes.
const LEFT_OUT: &[&str] = &[
    // Mounted over, or for what runs now.
    "dev",
    "proc",
    "run",
    "sys",
    "tmp",
    "var/tmp",
    // Logs of the installation, with its times.
    "var/log/alternatives.log",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
    "var/log/faillog",
    "var/log/lastlog",
    "var/log/fontconfig.log",
    // What apt and dpkg keep beside the database: copies of what was before, locks, what a mirror had.
    "var/lib/dpkg/available",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/triggers/Lock",
    // Copies of what was before.
    "etc/group-",
    "etc/gshadow-",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/passwords.dat-old",
    "var/cache/debconf/templates.dat-old",
    // Who a machine is, which it finds out when it boots first.
    "etc/machine-id",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
    "etc/hostid",
    "etc/nvme/hostid",
    "etc/nvme/hostnqn",
    // Caches that hold inode numbers, times or the order of a directory.
    "var/cache/ldconfig/aux-cache",
    "var/lib/systemd/catalog/database",
];

/// Directories of which everything is left out but directories, which packages bring.
const EMPTIED: &[&str] = &["var/cache/apt", "var/cache/man", "var/lib/apt/lists", "var/log/apt"];

/// Locks beside the files that they are for.
const LOCKS: &[&str] = &["etc/.pwd.lock"];

/// Whether what happened at `path` is left out; `is_directory` says what is there now.
pub(super) fn is_left_out(path: &TreePath, is_directory: bool) -> bool {
    let bytes = path.as_bytes();
    let below = |directory: &&str| {
        bytes.strip_prefix(directory.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    let emptied: &[&str] = if is_directory { &[] } else { EMPTIED };
    LEFT_OUT.iter().chain(LOCKS).chain(emptied).any(below)
}

/// The kernel's command line below the boot partition. raspi-firmware's hook writes it anew with the root that it finds mounted,
/// which in a sandbox is none that a machine has.
const COMMAND_LINE: &[u8] = b"cmdline.txt";

/// Whether `path` is the command line of the boot partition that is mounted at `mount`.
pub(super) fn is_command_line(path: &TreePath, mount: Option<&TreePath>) -> bool {
    mount.and_then(|mount| path.strip_prefix(mount)).is_some_and(|rest| rest.as_bytes() == COMMAND_LINE)
}

/// A file that is there before a package is configured, so that its script makes up nothing for this one machine.
pub(super) struct Preset {
    pub(super) package: &'static str,
    pub(super) path: &'static str,
    pub(super) mode: u16,
    pub(super) bytes: &'static [u8],
}

/// All of them. Each goes into the tree where the package is installed and the tree has no such file.
pub(super) const PRESETS: &[Preset] = &[
    // open-iscsi's postinst draws a random name, which its initramfs hook copies; with this the name is drawn when the daemon
    // starts first (its startup-checks.sh).
    Preset { package: "open-iscsi", path: "etc/iscsi/initiatorname.iscsi", mode: 0o600, bytes: b"GenerateName=yes\n" },
];

/// Keys that packages' scripts draw for one machine, and what is made with them.
const KEYS: &[&str] = &[
    // bind9
    "etc/bind/rndc.key",
    // munge
    "etc/munge/munge.key",
    // ssl-cert: the certificate; its key is known by its form.
    "etc/ssl/certs/ssl-cert-snakeoil.pem",
];
/// What a link to that certificate says.
const CERTIFICATE: &[u8] = b"ssl-cert-snakeoil.pem";

/// Keys of a machine, which no two may have in common.
pub(super) fn is_machine_key(path: &TreePath) -> bool {
    let bytes = path.as_bytes();
    let of_dropbear = bytes.starts_with(b"etc/dropbear/") && bytes.ends_with(b"_host_key");
    let of_ssh = bytes.starts_with(b"etc/ssh/ssh_host_") && !bytes.ends_with(b".d");
    of_dropbear || of_ssh || KEYS.iter().any(|key| key.as_bytes() == bytes)
}

/// Whether a link leads to what is left out.
pub(super) fn leads_to_machine_key(path: &TreePath, target: &[u8]) -> bool {
    path.as_bytes().starts_with(b"etc/ssl/certs/") && target == CERTIFICATE
}

/// Whether a new file may be a key that a script drew: what dpkg and debconf write down themselves, scripts of packages among it, is none.
pub(super) fn may_be_drawn(path: &TreePath) -> bool {
    !["var/lib/dpkg/", "var/cache/"].iter().any(|it| path.as_bytes().starts_with(it.as_bytes()))
}

/// Whether a text is a private key, or has one among others (RFC 7468, sections 2, 10 and 11; the older forms of OpenSSL and OpenSSH).
pub(super) fn holds_private_key(bytes: &[u8]) -> bool {
    // Programs that know the form have its words, too.
    let is_text = !bytes.contains(&0);
    let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let mut is_line = |begins: &[u8]| lines.any(|line| line.starts_with(begins) && line.ends_with(b"PRIVATE KEY-----"));
    is_text && is_line(b"-----BEGIN ") && is_line(b"-----END ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out() {
        for (path, wanted) in [
            ("run", true),
            ("run/lock/a", true),
            ("running", false),
            ("var/lib/dpkg/status", false),
            ("var/lib/dpkg/status-old", true),
            ("etc/passwd", false),
            ("etc/.pwd.lock", true),
            ("var/log", false),
            ("var/log/apt/history.log", true),
        ] {
            assert_eq!(is_left_out(&TreePath::new(path).unwrap(), false), wanted, "{path}");
        }
        assert!(!is_left_out(&TreePath::new("var/lib/apt/lists/partial").unwrap(), true));
    }

    #[test]
    fn keys_of_one_machine() {
        for (path, wanted) in [
            ("etc/ssh/ssh_host_rsa_key", true),
            ("etc/ssh/ssh_host_keys.d", false),
            ("etc/ssh/ssh_config", false),
            ("etc/bind/rndc.key", true),
            ("etc/dropbear/initramfs/dropbear_ed25519_host_key", true),
            ("etc/dropbear/run", false),
            ("etc/bind/rndc.key.old", false),
        ] {
            assert_eq!(is_machine_key(&TreePath::new(path).unwrap()), wanted, "{path}");
        }
        let link = TreePath::new("etc/ssl/certs/7d1a5fa8.0").unwrap();
        assert!(leads_to_machine_key(&link, b"ssl-cert-snakeoil.pem") && !leads_to_machine_key(&link, b"ISRG.pem"));
        for (text, wanted) in [
            ("-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\n", true),
            ("a\r\n-----BEGIN OPENSSH PRIVATE KEY-----\r\nb\r\n-----END OPENSSH PRIVATE KEY-----", true),
            ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", false),
            ("# no PRIVATE KEY-----\n", false),
            ("#!/bin/sh\nprintf '-----BEGIN PRIVATE KEY-----\\n'\n-----END PRIVATE KEY-----\n", false),
            ("-----BEGIN PRIVATE KEY-----\n\0-----END PRIVATE KEY-----\n\n-----END PRIVATE KEY-----\n", false),
        ] {
            assert_eq!(holds_private_key(text.as_bytes()), wanted, "{text}");
        }
    }
}
