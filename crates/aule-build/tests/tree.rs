//! What a recipe makes of the image's tree, path by path.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test panics when its own set-up is wrong")]

mod common;

use aule_build::BuildOutcome;
use aule_tree::{Inode, Kind, TreePath};
use common::Bench;

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

struct Look<'a> {
    bench: &'a Bench,
    outcome: BuildOutcome,
}

impl Look<'_> {
    fn inode(&self, name: &str) -> Option<Inode> {
        self.bench.tree(&self.outcome).0.get(&path(name)).cloned()
    }

    fn text(&self, name: &str) -> String {
        let (tree, contents) = self.bench.tree(&self.outcome);
        let inode = tree.get(&path(name)).unwrap_or_else(|| panic!("no {name}"));
        String::from_utf8(contents.read(inode.content().unwrap(), 1 << 20).unwrap()).unwrap()
    }

    fn link(&self, name: &str) -> Option<String> {
        match self.inode(name)?.kind {
            Kind::Symlink(target) => Some(String::from_utf8(target).unwrap()),
            _ => None,
        }
    }
}

#[test]
fn everything_lands_where_the_rules_say() {
    let bench = Bench::new();
    let look = Look { outcome: bench.build("recipe.yaml", "netboot").unwrap(), bench: &bench };
    let metadata = |name: &str| {
        let it = look.inode(name).unwrap_or_else(|| panic!("no {name}")).metadata;
        (it.mode, it.uid, it.gid)
    };
    // Through the tree's own directory symlink, which stays one.
    assert_eq!(look.link("lib").as_deref(), Some("usr/lib"));
    assert_eq!(metadata("usr/lib/tool/run"), (0o755, 0, 0));
    assert_eq!(look.link("usr/lib/tool/alias").as_deref(), Some("run"));
    assert_eq!(metadata("srv/token"), (0o400, 4_000_000_000, 3_000_000));
    assert!(look.inode("aule.attrs").is_none());
    // An existing directory keeps its metadata.
    assert_eq!(metadata("srv"), (0o755, 4_000_000_000, 3_000_000));
    assert_eq!(metadata("var/tmp"), (0o1777, 0, 0));
    assert_eq!(metadata("var/lib/app"), (0o750, 4_000_000_000, 3_000_000));
    assert_eq!(look.text("etc/hostname"), "golden\n");
    assert_eq!(metadata("etc/motd"), (0o640, 4_000_000_000, 0));
    assert!(look.inode("etc/long").is_none());
    assert_eq!(look.link("etc/localtime").as_deref(), Some("/usr/share/zoneinfo/UTC"));
    // systemctl enable and mask.
    let wants = "etc/systemd/system/multi-user.target.wants";
    assert_eq!(look.link(&format!("{wants}/tool.service")).as_deref(), Some("/etc/systemd/system/tool.service"));
    assert_eq!(look.link(&format!("{wants}/ssh.service")).as_deref(), Some("/usr/lib/systemd/system/ssh.service"));
    assert_eq!(look.link("etc/systemd/system/sshd.service").as_deref(), Some("/usr/lib/systemd/system/ssh.service"));
    assert_eq!(look.link("etc/systemd/system/apt-daily.timer").as_deref(), Some("/dev/null"));
    // What stands for itself.
    let (tree, _) = bench.tree(&look.outcome);
    assert_eq!(tree.id(&path("usr/bin/sh")), tree.id(&path("usr/bin/dash")));
    let sparse = look.inode("srv/sparse").unwrap();
    assert_eq!(sparse.content().unwrap().size, 1 << 20);
    assert!(sparse.content().unwrap().sparse.is_some());
    assert_eq!(look.inode("dev/disk").unwrap().kind, Kind::BlockDevice { major: 259, minor: 70_000 });
    assert_eq!(look.inode("srv/pipe").unwrap().kind, Kind::Fifo);
    assert!(tree.get(&TreePath::new(b"srv/n\xf6n").unwrap()).is_some());
    assert_eq!(look.inode("etc/fstab").unwrap().metadata.mtime, look.inode("etc/hostname").unwrap().metadata.mtime);
}

#[test]
fn a_root_over_nfs_is_prepared() {
    let bench = Bench::new();
    let look = Look { outcome: bench.build("recipe.yaml", "netboot").unwrap(), bench: &bench };
    let line = look.text("boot/firmware/cmdline.txt");
    let arguments: Vec<_> = line.split_whitespace().collect();
    assert_eq!(line.lines().count(), 1);
    for wanted in ["root=/dev/nfs", "ip=dhcp", "panic=10", "console=tty1", "network-config=disabled"] {
        assert!(arguments.contains(&wanted), "{wanted} is not in {line}");
    }
    assert!(line.contains("nfsroot={{ server }}:{{ export }},vers=3,tcp,nolock"), "{line}");
    assert!(line.contains("ds=nocloud;s={{ seed }}"), "{line}");
    for gone in ["ro", "rootwait", "fixrtc", "splash", "rootfstype=ext4", "root=LABEL=writable"] {
        assert!(!arguments.contains(&gone), "{gone} is in {line}");
    }
    assert!(look.text("etc/overlayroot.conf").contains("recurse=0"));
    assert!(!look.text("etc/fstab").lines().any(|line| line.starts_with("LABEL=")));
    assert!(look.text("etc/cloud/cloud.cfg.d/90-aule-nfs-root.cfg").contains("resize_rootfs: false"));
    let config = look.text("boot/firmware/config.txt");
    assert!(config.ends_with("\n[pi5]\ndtparam=pciex1_gen=3\n\n[all]\n"), "{config}");

    let disk = Look { outcome: bench.build("recipe.yaml", "disk").unwrap(), bench: &bench };
    assert!(disk.text("boot/firmware/cmdline.txt").contains("root=LABEL=writable"));
    assert!(disk.text("etc/fstab").contains("LABEL=writable"));
    let user_data = disk.text("boot/firmware/user-data");
    assert!(user_data.starts_with("#cloud-config\n") && user_data.contains("0644"), "{user_data}");
    assert!(disk.text("boot/firmware/meta-data").starts_with("instance-id: aule-"));
}

/// Whoever serves a build finds out from its manifests what is to be rendered.
#[test]
fn templates_are_named() {
    let bench = Bench::new();
    let outcome = bench.build("recipe.yaml", "netboot").unwrap();
    let of = |name: &str| {
        let artifact = outcome.artifacts.iter().find(|it| it.name == name).unwrap();
        let manifest: aule_store::oci::Manifest = bench.store().read_document(artifact.digest).unwrap();
        manifest.annotations.get(aule_build::TEMPLATES).cloned()
    };
    assert_eq!(of("boot").as_deref(), Some("boot/firmware/cmdline.txt"));
    assert_eq!(of("nfs-root").as_deref(), Some("etc/motd"));
    assert_eq!(of("oci").as_deref(), Some("etc/motd"));
    assert_eq!(of("seed"), None);
}

#[test]
fn a_date_is_the_newest_time_of_all() {
    let bench = Bench::new();
    let recipe = bench.recipe("date: 2020-01-01T00:00:00Z\nfiles: {/etc/x: {content: x}}\n");
    let look = Look { outcome: bench.build(recipe, "default").unwrap(), bench: &bench };
    let (tree, _) = bench.tree(&look.outcome);
    let newest = tree.iter().map(|(_, _, inode)| inode.metadata.mtime).max().unwrap();
    assert_eq!(newest, aule_tree::Timestamp::from_seconds(1_577_836_800));
}

/// Mistakes that only the image shows are told with the recipe's line.
#[test]
fn mistakes_name_their_place() {
    let bench = Bench::new();
    std::fs::write(bench.path().join("list.yaml"), "- a\n").unwrap();
    for (text, place, wanted) in [
        ("services: {enable: [shh.service]}\n", "test.yaml:3:", "did you mean `ssh.service`?"),
        ("files:\n  /etc/x: {content: x, owner: nobdy}\n", "test.yaml:4:", "no user `nobdy`"),
        ("files:\n  /nothing: {remove: true}\n", "test.yaml:4:", "cannot be removed"),
        ("files:\n  /etc: {content: x}\n", "test.yaml:4:", "is a directory in the image"),
        ("files:\n  /etc/passwd/x: {content: x}\n", "test.yaml:4:", "/etc/passwd is not a directory"),
        ("overlays: [missing]\n", "test.yaml:3:", "missing"),
        ("files:\n  /etc/x: {source: missing}\n", "test.yaml:4:", "missing"),
        ("files:\n  /etc: {symlink: /nowhere}\n", "test.yaml:4:", "is a directory in the image"),
        ("files:\n  /etc/.wh.x: {content: x}\n", "", "says that something is gone"),
        ("root: {over: nfs}\nboot: {cmdline: {set: {ip: dhcp}}}\n", "test.yaml:4:", "decided by `root"),
        ("root: {over: nfs}\nboot: {cmdline: {add: [rw]}}\n", "test.yaml:4:", "decided by `root"),
        ("cloud_init: {meta_data: list.yaml}\n", "list.yaml:1:", "must be a map"),
        ("packages: {install: [vim]}\n", "test.yaml:3:", "only an image with dpkg"),
        ("outputs: [disk]\n", "test.yaml:3:", "not supported yet"),
        ("cloud_init: {user_data: [missing.yaml]}\n", "test.yaml:3:", "missing.yaml"),
    ] {
        let error = bench.build(bench.recipe(text), "default").unwrap_err().to_string();
        assert!(error.contains(place) && error.contains(wanted), "{text}: {error}");
    }
    let error = bench.build(bench.recipe("outputs: [boot]\n"), "default").unwrap_err().to_string();
    assert!(error.contains("only 2097152 are available"), "{error}");
}

/// What the recipe says itself has the last word over what a root over NFS brings.
#[test]
fn files_of_the_recipe_come_after_those_of_the_root() {
    let bench = Bench::new();
    let recipe = bench.recipe(
        "root: {over: nfs}\nfiles:\n  /etc/fstab: {content: \"LABEL=data / ext4 defaults 0 0\\n\"}\n  /etc/overlayroot.conf: {content: mine}\n",
    );
    let look = Look { outcome: bench.build(recipe, "default").unwrap(), bench: &bench };
    assert_eq!(look.text("etc/fstab"), "LABEL=data / ext4 defaults 0 0\n");
    assert_eq!(look.text("etc/overlayroot.conf"), "mine");
}

/// On a disk the image's own documents stay where the recipe names none.
#[test]
fn only_documents_that_are_named_replace_those_of_the_image() {
    let bench = Bench::new();
    let plain = Look { outcome: bench.build(bench.recipe("outputs: [oci]\n"), "default").unwrap(), bench: &bench };
    let before = plain.inode("boot/firmware/user-data");
    let recipe = bench.recipe("cloud_init: {network_config: {version: 2}}\n");
    let look = Look { outcome: bench.build(recipe, "default").unwrap(), bench: &bench };
    assert_eq!(look.text("boot/firmware/network-config"), "version: 2\n");
    assert!(look.text("boot/firmware/meta-data").starts_with("instance-id: aule-"));
    assert_eq!(look.inode("boot/firmware/user-data"), before);
}

/// What decides the step stands in its key: documents that are named, not only their bytes.
#[test]
fn a_named_document_and_one_that_is_made_up_are_told_apart() {
    let (shared, fresh) = (Bench::new(), Bench::new());
    let without = "cloud_init: {network_config: {version: 2}}\n";
    let with = "cloud_init: {network_config: {version: 2}, user_data: [ud.yaml]}\n";
    for bench in [&shared, &fresh] {
        std::fs::write(bench.path().join("ud.yaml"), "#cloud-config\n{}\n").unwrap();
    }
    shared.build(shared.recipe(without), "default").unwrap();
    let second = shared.build(shared.recipe(with), "default").unwrap().digest;
    assert_eq!(second, fresh.build(fresh.recipe(with), "default").unwrap().digest);
}

/// Filters of config.txt hold together until `[all]`.
#[test]
fn every_section_of_config_begins_with_all() {
    let bench = Bench::new();
    let recipe = bench.recipe("boot: {config: {pi5: [a=1], gpio4=1: [b=1], all: [c=1]}}\n");
    let look = Look { outcome: bench.build(recipe, "default").unwrap(), bench: &bench };
    let config = look.text("boot/firmware/config.txt");
    assert!(config.ends_with("\n[all]\n[pi5]\na=1\n\n[all]\n[gpio4=1]\nb=1\n\n[all]\nc=1\n\n[all]\n"), "{config}");
}

/// The order of a list that is a set does not show, not even where two units have the same alias; and the build can be
/// repeated from its source, where the lists are sorted.
#[test]
fn units_with_the_same_alias() {
    let bench = Bench::new();
    let unit = |name: &str| {
        format!("  /etc/systemd/system/{name}.service: {{content: \"[Install]\\nAlias=dm.service\\n\"}}\n")
    };
    let digests: Vec<_> = ["[zzz.service, aaa.service]", "[aaa.service, zzz.service]"]
        .map(|list| format!("files:\n{}{}services: {{enable: {list}}}\n", unit("zzz"), unit("aaa")))
        .iter()
        .map(|text| bench.build(bench.recipe(text), "default").unwrap().digest)
        .collect();
    assert_eq!(digests[0], digests[1]);
    assert_eq!(bench.rebuild(digests[0]).unwrap().digest, digests[0]);
}

/// A file that changes while a build runs: the build notices, and no later one takes over what it saw.
#[test]
fn an_input_that_changes_while_it_is_built_is_noticed() {
    use aule_build::{InputEntry, InputKind, Inputs, LocalInputs};
    struct Changing(std::path::PathBuf);
    impl Inputs for Changing {
        fn file(&self, path: &aule_recipe::LocalPath) -> std::io::Result<InputKind> {
            LocalInputs.file(path)
        }
        fn directory(&self, path: &aule_recipe::LocalPath) -> std::io::Result<Vec<InputEntry>> {
            let entries = LocalInputs.directory(path)?;
            for entry in &entries {
                if let InputKind::File { bytes, .. } = &entry.kind {
                    bytes.digest()?;
                }
            }
            std::fs::write(&self.0, "B")?;
            Ok(entries)
        }
    }
    let bench = Bench::new();
    let file = bench.path().join("o/file");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "A").unwrap();
    let recipe = bench.recipe("overlays: [o]\n");
    let error = bench.build_with_inputs(&Changing(file.clone()), &recipe).unwrap_err().to_string();
    assert!(error.contains("changed during"), "{error}");
    std::fs::write(&file, "A").unwrap();
    let look = Look { outcome: bench.build(recipe, "default").unwrap(), bench: &bench };
    assert_eq!(look.text("file"), "A");
    assert!(look.outcome.steps.iter().any(|step| step.name == "files" && !step.cached));
}

/// The same file verifies the base and lies in the image: it is an input all the same. And what kind of file a document
/// of the seed is does not show.
#[test]
fn the_source_has_every_input() {
    let bench = Bench::new();
    let image = common::golden().join("tiny.img.xz");
    let sums = format!("{}  tiny.img.xz\n", aule_tree::Digest::of(&std::fs::read(&image).unwrap()).hex());
    for (name, text) in [("sums", sums.as_str()), ("ud.yaml", "#cloud-config\n{}\n")] {
        std::fs::write(bench.path().join(name), text).unwrap();
    }
    let text = format!(
        "name: test\nbase: {{image: {}, checksums: sums}}\n\
         files: {{/etc/sums: {{source: sums}}}}\ncloud_init: {{user_data: [ud.yaml]}}\n",
        image.display()
    );
    let recipe = bench.path().join("keyed.yaml");
    std::fs::write(&recipe, text).unwrap();
    let digest = bench.build(&recipe, "default").unwrap().digest;
    assert_eq!(bench.rebuild(digest).unwrap().digest, digest);
    let program = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bench.path().join("ud.yaml"), program).unwrap();
    std::fs::remove_dir_all(bench.store().root().join("cache/steps")).unwrap();
    std::fs::create_dir(bench.store().root().join("cache/steps")).unwrap();
    assert_eq!(bench.build(&recipe, "default").unwrap().digest, digest);
}

/// A symlink in an overlay, or in the image, never leads out of the tree.
#[test]
fn symlinks_stay_in_the_tree() {
    let bench = Bench::new();
    let overlay = bench.path().join("o");
    std::fs::create_dir_all(overlay.join("srv")).unwrap();
    std::os::unix::fs::symlink("../../../../../../tmp", overlay.join("srv/out")).unwrap();
    let recipe = bench.recipe("overlays: [o]\nfiles: {/srv/out/inside: {content: x}}\n");
    let look = Look { outcome: bench.build(recipe, "default").unwrap(), bench: &bench };
    assert_eq!(look.text("tmp/inside"), "x");
    assert!(!std::path::Path::new("/tmp/inside").exists());
}
