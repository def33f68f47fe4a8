//! `root: {over: nfs}` — everything that makes a system from a disk image boot from a read-only NFS root with its
//! writes in RAM.
//!
//! | what | why |
//! |---|---|
//! | cmdline.txt | NFSv3 over TCP in klibc's spelling, DHCP, overlayroot, the NoCloud seed over HTTP; the network that carries the root is not configured again |
//! | /etc/overlayroot.conf | writes go to a tmpfs; `recurse=0` leaves other mounts alone |
//! | overlayfs features off | `redirect_dir`, `index` and `metacopy` need xattrs or file handles that an NFSv3 lower layer lacks |
//! | /etc/fstab | neither the root nor the boot partition exists as a disk; an entry for either makes units fail |
//! | /etc/cloud/cloud.cfg.d/90-aule-nfs-root.cfg | there is no partition to grow, and NoCloud is the only data source |
//! | masked units | they wait for a network that is up already, or write to a disk, EEPROM or package state that is gone after the boot |

use crate::{
    BuildError, Result,
    stage::Stage,
    steps::{boot, services},
};
use aule_recipe::{Cmdline, Diagnostics, Merged, Root};
use aule_tree::TreePath;

const ORIGIN: &str = "root";

/// Units that make no sense on a node whose root is read-only and whose writes are lost. Those that the image has are
/// masked before anything of the recipe is looked at, so that `enable`, or a unit of its own, brings one back.
const MASKED: [&str; 17] = [
    "systemd-networkd-wait-online.service",
    "NetworkManager-wait-online.service",
    "snapd.service",
    "snapd.socket",
    "snapd.seeded.service",
    "wpa_supplicant.service",
    "rpi-eeprom-update.service",
    "rpi-eeprom-update.timer",
    "rpi-eeprom-config.service",
    "apport.service",
    "rsyslog.service",
    "ubuntu-advantage.service",
    "ubuntu-advantage.timer",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "motd-news.timer",
    "systemd-growfs-root.service",
];

/// What the command line loses: all that speaks of a root on a disk. A bare `ro` makes overlayroot's overlay read-only.
const DROPPED: [&str; 12] = [
    "root",
    "rootfstype",
    "rootflags",
    "rootwait",
    "rootdelay",
    "nfsroot",
    "ip",
    "ro",
    "rw",
    "init",
    "fixrtc",
    "overlayroot",
];

/// The part that comes before the recipe's own files and services: everything but the command line.
pub(crate) fn prepare(stage: &mut Stage, boot_mount: Option<&TreePath>) -> Result<()> {
    let conf = "# A read-only root over NFS with its writes in RAM.\noverlayroot=\"tmpfs:swap=1,recurse=0\"\n";
    stage.put_text(&TreePath::new("etc/overlayroot.conf")?, conf.as_bytes(), 0o644, ORIGIN)?;

    let overlay = "# overlayfs over NFS: the lower layer has neither the xattrs nor the file handles that these need.\noptions overlay redirect_dir=off index=off metacopy=off\n";
    stage.put_text(&TreePath::new("etc/modprobe.d/aule-overlay.conf")?, overlay.as_bytes(), 0o644, ORIGIN)?;

    let path = TreePath::new("etc/fstab")?;
    let old = stage.read_text(&path)?.unwrap_or_default();
    stage.put_text(&path, fstab(&old, boot_mount).as_bytes(), 0o644, ORIGIN)?;

    if stage.exists(&TreePath::new("etc/cloud")?)? {
        let text = "# The root comes over NFS: there is no partition to grow, and the seed comes over HTTP.\n\
                    datasource_list: [NoCloud, None]\ngrowpart: {mode: 'off'}\nresize_rootfs: false\n";
        let path = TreePath::new("etc/cloud/cloud.cfg.d/90-aule-nfs-root.cfg")?;
        stage.put_text(&path, text.as_bytes(), 0o644, ORIGIN)?;
    }
    for unit in MASKED {
        if services::locate(stage, unit)?.is_some() {
            services::mask(stage, unit, ORIGIN)?;
        }
    }
    Ok(())
}

/// The part that comes after `boot:`: the command line. Without a server in the recipe it holds what is filled in when
/// it is served (`{{ server }}`, `{{ export }}`, `{{ seed }}`), and the file is marked as a template.
pub(crate) fn command_line(stage: &mut Stage, root: &Root, boot_mount: &TreePath) -> Result<()> {
    let path = boot::cmdline_path(stage, boot_mount)?;
    let old = stage.read_text(&path)?.unwrap_or_default();
    let server = root.server.map_or_else(|| "{{ server }}".to_owned(), |it| it.to_string());
    let export = root.path.clone().unwrap_or_else(|| "{{ export }}".to_owned());
    let seed = root.seed.as_ref().map_or_else(|| "{{ seed }}".to_owned(), |it| it.as_str().to_owned());
    let template = [&server, &export, &seed].iter().any(|it| it.starts_with("{{"));
    let edit = Cmdline {
        remove: DROPPED.iter().map(|it| (*it).to_owned()).chain(["ds".to_owned()]).collect(),
        set: Default::default(),
        add: vec![
            "root=/dev/nfs".into(),
            // klibc's nfsmount: `vers=3`, `tcp`, `nolock`; it refuses `proto=tcp` and NFSv4.
            format!("nfsroot={server}:{export},vers=3,tcp,nolock"),
            "ip=dhcp".into(),
            "overlayroot=tmpfs:swap=1,recurse=0".into(),
            "overlay.redirect_dir=off".into(),
            "overlay.index=off".into(),
            "overlay.metacopy=off".into(),
            // Configuring the link again that carries the root hangs the machine.
            "network-config=disabled".into(),
            format!("ds=nocloud;s={seed}"),
        ],
    };
    let place = stage.put_text(&path, boot::edit_cmdline(&old, &edit).as_bytes(), 0o755, ORIGIN)?;
    if template {
        stage.templates.push(place);
    }
    Ok(())
}

/// What the root decides on the command line cannot be said by `boot.cmdline`, too.
pub(crate) fn refuse_contradictions(merged: &Merged) -> Result<()> {
    let cmdline = &merged.recipe.boot.cmdline;
    let added = cmdline.add.iter().enumerate().map(|(number, argument)| {
        let name = argument.split('=').next().unwrap_or_default();
        (format!("boot.cmdline.add[{number}]"), name)
    });
    let set = cmdline.set.keys().map(|name| (format!("boot.cmdline.set.{name}"), name.as_str()));
    for (key, name) in set.chain(added) {
        if DROPPED.contains(&name) || ["ds", "network-config"].contains(&name) {
            let message = format!("`{name}` is decided by `root: {{over: nfs}}`");
            let diagnostic = merged.origins.diagnostic(&key, message);
            return Err(BuildError::Recipe(Diagnostics::from(
                diagnostic.help("leave it out here, or take another root"),
            )));
        }
    }
    Ok(())
}

/// fstab without the root, the boot partition and swap; what else it holds stays.
fn fstab(old: &str, boot_mount: Option<&TreePath>) -> String {
    let mut new =
        String::from("# The root comes over NFS with an overlay in RAM: neither it nor the boot files are a disk.\n");
    for line in old.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let on_disk = match fields.as_slice() {
            [first, ..] if first.starts_with('#') => false,
            [_, mount, kind, ..] => {
                let is_boot = boot_mount.is_some_and(|boot| boot.to_string() == mount.trim_end_matches('/'));
                *mount == "/" || is_boot || *kind == "swap"
            }
            _ => false,
        };
        if !on_disk && !line.trim().is_empty() {
            new.push_str(line);
            new.push('\n');
        }
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fstab_loses_only_what_is_on_the_disk() {
        let old = "LABEL=writable\t/\t ext4\tdefaults\t0 1\nLABEL=system-boot  /boot/firmware  vfat defaults 0 1\n\
                   # mine\ntmpfs /tmp tmpfs size=512m 0 0\n\n/swap none swap sw 0 0\n";
        let boot = TreePath::new("boot/firmware").unwrap();
        let new = fstab(old, Some(&boot));
        assert_eq!(new.lines().skip(1).collect::<Vec<_>>(), ["# mine", "tmpfs /tmp tmpfs size=512m 0 0"]);
    }
}
