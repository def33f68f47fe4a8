//! `check` on the tiny image: every kind of finding from a recipe that has the mistake, none from one that has not.

#![allow(clippy::unwrap_used, reason = "test set-up")]

use aule_build::{BuildRequest, LocalInputs, LockMode, Network, Observer, check};
use aule_recipe::Lock;
use aule_store::Store;
use std::path::Path;

struct Silent;

impl Observer for Silent {
    fn step(&self, _: &str, _: bool) {}
    fn note(&self, _: &str) {}
    fn progress(&self, _: &'static str, _: u64, _: Option<u64>) {}
}

/// A schema with a few keys of cloud-init's, as an overlay of the test brings it.
const SCHEMA: &str = r##"{
  "$schema": "http://json-schema.org/draft-04/schema#",
  "$defs": {"user": {"type": "object", "required": ["name"], "properties": {
      "name": {"type": "string"}, "groups": {}, "uid": {"type": "integer"}, "expiredate": {"type": "string"},
      "no-lock": {"type": "boolean", "deprecated": true, "deprecated_version": "22.3"}}, "additionalProperties": false}},
  "type": "object",
  "properties": {
    "users": {"type": "array", "items": {"oneOf": [{"type": "string"}, {"$ref": "#/$defs/user"}]}},
    "groups": {}, "packages": {"type": "array"},
    "write_files": {"type": "array", "items": {"type": "object", "required": ["path"],
        "properties": {"path": {"type": "string"}, "permissions": {"type": "string"}}}}
  },
  "additionalProperties": false
}"##;

const OVERLAY: &[(&str, &str, bool)] = &[
    ("usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json", SCHEMA, false),
    ("usr/lib/modules/6/modules.dep", "kernel/fs/nfs/nfs.ko.zst: kernel/x.ko\n", false),
    ("usr/lib/modules/6/modules.builtin", "kernel/drivers/i2c-dev.ko\n", false),
    ("etc/modules-load.d/good.conf", "# both spellings\ni2c_dev\nnfs\n", false),
    ("usr/local/bin/good", "#!/bin/sh -e\ntrue\n", true),
    (
        "etc/systemd/system/good.service",
        "[Unit]\nAfter=ssh.service dev-sda.device\n[Service]\nExecStart=-/usr/local/bin/good a\nUser=app\n\
         [Install]\nWantedBy=multi-user.target\n",
        false,
    ),
];

/// What `check` says of a recipe that lays the good overlay and `more` over the tiny image; `DIR` in a finding is the
/// directory of the recipe. Each finding is one text: `error` or `warning`, `file:line:column` where known, and the
/// message.
fn found(recipe: &str, more: &[(&str, &str, bool)]) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    for (path, text, executable) in OVERLAY.iter().chain(more) {
        let path = directory.path().join("overlay").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        let mode = if *executable { 0o755 } else { 0o644 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny.img.xz");
    let path = directory.path().join("recipe.yaml");
    let text = format!("name: test\nbase: {{image: {}}}\noverlays: [overlay]\n{recipe}", image.display());
    std::fs::write(&path, text).unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    let request = BuildRequest {
        store: &store,
        inputs: &LocalInputs,
        jobs: 1,
        base: None,
        network: Network::default(),
        now: None,
        lock: Lock::default(),
        lock_mode: LockMode::Add,
        sandbox: None,
        observer: &Silent,
    };
    let set = aule_recipe::load(&|path: &Path| std::fs::read(path), &path).unwrap();
    let merged = set.variant("default").unwrap();
    let findings = check::run(&request, &merged).unwrap();
    let prefix = format!("{}/", directory.path().display());
    let show = |finding: &check::Finding| {
        let word = if finding.is_error() { "error" } else { "warning" };
        assert!(finding.to_string().starts_with(word));
        let at = finding.diagnostic.location().map(|it| format!(" {it}").replace(&prefix, "")).unwrap_or_default();
        format!("{word}{at}: {}", finding.diagnostic.message)
    };
    findings.iter().map(show).collect()
}

#[test]
fn a_good_recipe_has_no_findings() {
    let recipe = "services: {enable: [good.service], mask: [apt-daily.timer]}\n\
                  boot: {config: {all: [dtoverlay=a-longer-name-than-8-3, kernel=vmlinuz]}}\n\
                  cloud_init:\n  meta_data: {local-hostname: x}\n  user_data:\n  - groups: [staff]\n    users:\n    \
                  - {name: me, uid: 0644, groups: [staff, app]}\n    write_files:\n    \
                  - {path: /etc/x.yaml, content: 'a: 1', owner: 'app:app', permissions: '0644'}\n";
    assert_eq!(found(recipe, &[]), Vec::<String>::new());
}

#[test]
fn mistakes_in_cloud_init_name_their_lines() {
    for (recipe, part, wanted) in [
        (
            "cloud_init: {user_data: [overlay/../part.yaml]}\n",
            "#cloud-config\nusers:\n- name: me\n  uid: '12'\n- name: he\n  no-lock: true\n- nam: you\npakages: []\n",
            vec![
                "error part.yaml:8:1: user-data `pakages`: `pakages` is not a known key",
                "error part.yaml:4:3: user-data `users[0].uid`: \"12\" is not of type \"integer\"",
                "error part.yaml:7:3: user-data `users[2]`: \"name\" is a required property",
                "error part.yaml:7:3: user-data `users[2].nam`: `nam` is not a known key",
                "warning part.yaml:6:3: user-data `users[1].no-lock`: deprecated since cloud-init 22.3",
            ],
        ),
        (
            "cloud_init: {user_data: [part.yaml]}\n",
            "#cloud-config\nusers:\n- name: me\n  expiredate: 2032-09-01\n  groups: [ap]\n",
            vec![
                "error part.yaml:4:3: user-data `users[0].expiredate`: YAML reads 2032-09-01 as a date; a string needs quotes",
                "warning part.yaml:5:12: user-data `users[0].groups[0]`: neither the image nor `groups:` has the group `ap`; cloud-init makes an empty one",
            ],
        ),
        (
            "cloud_init: {user_data: [part.yaml]}\n",
            "#cloud-config\nusers: [{name: me}]\nwrite_files:\n- {path: /a.yml, content: \"a:\\n b: [\\n\"}\n\
             - {path: /b.json, content: '{'}\n- {path: /c, owner: me}\n- {path: /d, owner: me, defer: true}\n\
             - {path: /e, owner: 'app:none', defer: true, permissions: 0600}\n",
            vec![
                "error part.yaml:8:46: user-data `write_files[4].permissions`: 384 is not of type \"string\"",
                "error part.yaml:4:18: user-data `write_files[0].content`: /a.yml: line 3 of the content is not valid YAML",
                "error part.yaml:5:19: user-data `write_files[1].content`: /b.json: line 1 of the content is not valid JSON",
                "error part.yaml:6:14: user-data `write_files[2].owner`: the image has no user `me`, and files are written before users are made",
                "warning part.yaml:8:14: user-data `write_files[4].owner`: neither the image nor user-data has the group `none`",
            ],
        ),
        (
            "cloud_init: {user_data: [part.yaml]}\n",
            "## template: jinja\n#cloud-config\n{% if x %}\n",
            vec![
                "warning part.yaml:1:1: user-data is a Jinja template, which cloud-init renders on the node; it is not checked",
            ],
        ),
        (
            "cloud_init:\n  meta_data:\n    instance-id: $(uuidgen)\n    x: 1\n",
            "",
            vec!["error recipe.yaml:6:5: meta-data `instance-id`: `$(uuidgen)` is taken as it is; no shell expands it"],
        ),
        (
            "cloud_init:\n  user_data: [{user: [], users: [{name: 7}]}]\n  meta_data: {instance-id: 7}\n",
            "",
            vec![
                "error recipe.yaml:5:16: user-data `user`: `user` is not a known key",
                "error recipe.yaml:5:35: user-data `users[0].name`: 7 is not of type \"string\"",
                "error recipe.yaml:6:15: meta-data `instance-id` must be a string; quotes make it one",
            ],
        ),
    ] {
        let findings = found(recipe, &[("../part.yaml", part, false)]);
        let alike = |found: &String, wanted: &&str| found.starts_with(wanted);
        assert!(
            findings.len() == wanted.len() && findings.iter().zip(&wanted).all(|(found, wanted)| alike(found, wanted)),
            "{recipe}{part}\nfound {findings:#?}\nwanted {wanted:#?}"
        );
    }
}

#[test]
fn mistakes_in_the_tree_name_their_lines() {
    for (recipe, file, wanted) in [
        (
            "",
            (
                "etc/systemd/system/bad.service",
                "[Unit]\nRequires=ssh.service gone.service\nAfter=gone.target\n[Service]\nExecStartPre=-/no\n\
                 ExecStart=/usr/local/bin/none\nExecStop=/etc/hostname\nExecReload=good\nUser=nobody-here\n\
                 [Install]\nWantedBy=none.target\n",
                false,
            ),
            vec![
                "error overlay/etc/systemd/system/bad.service:2:1: /etc/systemd/system/bad.service: `Requires=` names `gone.service`",
                "error overlay/etc/systemd/system/bad.service:6:1: /etc/systemd/system/bad.service: `/usr/local/bin/none` of `ExecStart=` is not in the image",
                "error overlay/etc/systemd/system/bad.service:7:1: /etc/systemd/system/bad.service: `/etc/hostname` of `ExecStop=` is not executable",
                "error overlay/etc/systemd/system/bad.service:9:1: /etc/systemd/system/bad.service: the image has no user `nobody-here`",
                "warning overlay/etc/systemd/system/bad.service:3:1: /etc/systemd/system/bad.service: `After=` names `gone.target`",
                "warning overlay/etc/systemd/system/bad.service:5:1: /etc/systemd/system/bad.service: `/no` of `ExecStartPre=` is not in the image",
                "warning overlay/etc/systemd/system/bad.service:11:1: /etc/systemd/system/bad.service: `WantedBy=` names `none.target`",
            ],
        ),
        (
            "services: {enable: [a.service, good.service], mask: [b.timer]}\n",
            ("usr/local/bin/x", "#!/usr/bin/python9\n", true),
            vec![
                "error recipe.yaml:4:54: the image has no unit `b.timer`",
                "error recipe.yaml:4:21: the image has no unit `a.service`",
                "error overlay/usr/local/bin/x:1:1: /usr/local/bin/x: the image has no interpreter `/usr/bin/python9`",
            ],
        ),
        (
            "files: {/usr/bin/env: {content: x, mode: '0755'}}\n",
            ("usr/local/bin/x", "#!/usr/bin/env -S A=b python9 -x\n", true),
            vec!["error overlay/usr/local/bin/x:1:1: /usr/local/bin/x: the image has no interpreter `python9`"],
        ),
        (
            "",
            ("usr/local/bin/x", "#!/bin/sh\r\ntrue\r\n", true),
            vec!["error overlay/usr/local/bin/x:1:1: /usr/local/bin/x: its lines end with CR LF"],
        ),
        (
            "",
            ("etc/modules-load.d/x.conf", "nfs\n\nnfsx\n", false),
            vec![
                "error overlay/etc/modules-load.d/x.conf:3:1: /etc/modules-load.d/x.conf: no kernel of the image has a module `nfsx`",
            ],
        ),
        (
            "",
            ("etc/fstab", "a /srv nfs ro 0 0\nb /mnt/x zfs ro 0 0\n", false),
            vec![
                "warning overlay/etc/fstab:2:1: /etc/fstab: the mount point /mnt/x does not exist",
                "warning overlay/etc/fstab:2:1: /etc/fstab: no kernel of the image knows the file system `zfs`",
            ],
        ),
        (
            "boot: {config: {pi5: [dtoverlay=none, kernel=k.img]}, cmdline: {add: [overlayroot=tmpfs, ro]}}\n",
            ("x", "", false),
            vec![
                "error recipe.yaml:4:90: `ro` on the command line",
                "warning recipe.yaml:4:23: `dtoverlay=none`: the boot partition has no file `overlays/none.dtbo`",
                "warning recipe.yaml:4:39: `kernel=k.img`: the boot partition has no file `k.img`",
            ],
        ),
    ] {
        let findings = found(recipe, &[file]);
        assert!(
            findings.len() == wanted.len()
                && findings.iter().zip(&wanted).all(|(found, wanted)| found.starts_with(wanted)),
            "{recipe}{file:?}\nfound {findings:#?}\nwanted {wanted:#?}"
        );
    }
}
