//! Loading: the vocabulary, `extends`, variants, origins, and what people read when something is wrong.

mod common;

use std::path::Path;

use aule_recipe::{Base, Document, FileKind, Input, Output, Principal, RootOver, Writes};
use common::{errors, files, load_files, one};

const BASE: &str = "name: t\nbase: {image: base.img.xz}\n";

#[test]
fn the_whole_vocabulary() {
    let merged = one(r#"
name: ainur
base:
  image: https://example.org/releases/24.04/pi.img.xz
  checksums: https://example.org/releases/24.04/SHA256SUMS
  signature: https://example.org/releases/24.04/SHA256SUMS.gpg
  keyring: keys/cdimage.asc
date: 2025-11-01T00:00:00Z
packages: {install: [nfs-common], remove: [snapd]}
overlays: [../overlays/base, ../overlays/k3s]
files:
  /etc/hostname: { content: "valar\n" }
  /usr/local/bin/k3s: { url: "https://example.org/k3s-arm64", mode: "0755" }
  /etc/update-motd.d: { remove: true }
  /etc/localtime: { symlink: /usr/share/zoneinfo/UTC }
  /etc/issue.net: { source: ../overlays/issue.net, template: true, owner: root, group: 4 }
  /var/lib/k3s: { directory: true, mode: "0700" }
services:
  enable: [ssh-prepare.service, nvme-prepare.service]
  disable: [motd-news.timer]
  mask: [apt-daily.timer]
boot:
  cmdline: { set: { console: tty1, panic: 10 }, add: [rootwait], remove: [quiet, splash] }
  config:
    pi5: [dtparam=pciex1_gen=3]
    all: [arm_boost=1, arm_boost=1]
  size: 512M
cloud_init:
  user_data: [../overlays/ci/base.yaml, {runcmd: [[touch, 0644, yes]]}]
  meta_data: { local-hostname: valar }
  vendor_data: [../overlays/ci/vendor.yaml]
  network_config: ../overlays/ci/network.yaml
root: { over: nfs, writes: tmpfs, server: 192.168.1.59, path: /srv/root, seed: "http://192.168.1.59/seed/" }
outputs: [boot, nfs-root, oci, boot]
"#)
    .unwrap();
    let recipe = &merged.recipe;
    assert_eq!(recipe.name, "ainur");
    assert_eq!(merged.variant, "default");
    assert_eq!(recipe.base.image().unwrap().image.name(), "https://example.org/releases/24.04/pi.img.xz");
    assert_eq!(recipe.base.image().unwrap().keyring.as_ref().unwrap().path(), Path::new("recipes/keys/cdimage.asc"));
    assert_eq!(recipe.date.unwrap().to_string(), "2025-11-01T00:00:00Z");
    assert_eq!(recipe.packages.install, ["nfs-common"]);
    let overlays: Vec<_> = recipe.overlays.iter().map(|o| (o.path().to_str().unwrap(), o.name())).collect();
    assert_eq!(overlays, [("overlays/base", "../overlays/base"), ("overlays/k3s", "../overlays/k3s")]);
    assert_eq!(recipe.files.len(), 6);
    let issue = &recipe.files["/etc/issue.net"];
    assert!(issue.template);
    assert_eq!(
        (issue.owner.clone(), issue.group.clone()),
        (Some(Principal::Name("root".into())), Some(Principal::Id(4)))
    );
    assert_eq!(recipe.files["/etc/update-motd.d"].kind, FileKind::Remove);
    assert_eq!(recipe.files["/usr/local/bin/k3s"].mode.unwrap().bits(), 0o755);
    assert_eq!(recipe.files["/etc/hostname"].kind, FileKind::Content("valar\n".into()));
    assert_eq!(recipe.services.mask, ["apt-daily.timer"]);
    let set: Vec<_> = recipe.boot.cmdline.set.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(set, ["console=tty1", "panic=10"]);
    let config: Vec<_> = recipe.boot.config.iter().map(|(k, v)| format!("{k}: {}", v.join(","))).collect();
    assert_eq!(config, ["pi5: dtparam=pciex1_gen=3", "all: arm_boost=1,arm_boost=1"]);
    assert_eq!(recipe.boot.size, Some(512 << 20));
    assert_eq!(recipe.cloud_init.user_data.len(), 2);
    let inline = "#cloud-config\nruncmd:\n  - - touch\n    - 0644\n    - yes\n";
    assert_eq!(recipe.cloud_init.user_data[1], Document::Inline(inline.into()));
    assert_eq!(recipe.cloud_init.meta_data, Some(Document::Inline("local-hostname: valar\n".into())));
    let root = recipe.root.as_ref().unwrap();
    assert_eq!((root.over, root.writes), (RootOver::Nfs, Some(Writes::Tmpfs)));
    assert_eq!(root.server.unwrap().to_string(), "192.168.1.59");
    assert_eq!(recipe.outputs, [Output::Boot, Output::NfsRoot, Output::Oci]);
    assert_eq!(recipe.local_inputs().len(), 7);
    assert_eq!(recipe.fetched_files().count(), 1);
}

#[test]
fn defaults() {
    let merged = one(BASE).unwrap();
    assert!(matches!(merged.recipe.base.image().unwrap().image, Input::Local(_)));
    assert_eq!(merged.recipe.outputs, [Output::Oci]);
    assert_eq!(merged.recipe.root, None);
    let root = one("name: t\nbase: {image: b}\nroot: {over: nfs}\n").unwrap().recipe.root.unwrap();
    assert_eq!(root.writes, Some(Writes::Tmpfs));
}

#[test]
fn variants_and_extends_merge() {
    let files = files(&[
        (
            "recipes/main.yaml",
            "name: child\nextends: lib/parent.yaml\noverlays: [own]\nfiles:\n  /etc/a: {source: a, template: true}\n\
             services: {mask: [x.timer, y.timer]}\nboot: {cmdline: {set: {console: tty2}}}\n\
             variants:\n  netboot:\n    services: {mask: [x.timer, z.timer]}\n    overlays: !replace [only]\n  \
             disk: {root: {over: disk}}\n",
        ),
        (
            "recipes/lib/parent.yaml",
            "name: parent\nbase: {image: ../img/b.img, sha256: \
             0000000000000000000000000000000000000000000000000000000000000001}\noverlays: [ov]\n\
             files:\n  /etc/a: {content: x, mode: \"0600\"}\n  /etc/b: {content: b}\n\
             services: {mask: [w.timer]}\nboot: {cmdline: {set: {console: tty1, quiet2: a}}}\n\
             variants:\n  netboot: {root: {over: nfs}, files: {/etc/c: {content: c}}}\n",
        ),
    ]);
    let set = load_files(&files, "recipes/main.yaml").unwrap();
    assert_eq!(set.name(), "child");
    assert_eq!(set.variants(), ["netboot", "disk"]);
    let read: Vec<_> = set.sources_read().iter().map(|p| p.to_str().unwrap()).collect();
    assert_eq!(read, ["recipes/main.yaml", "recipes/lib/parent.yaml"]);

    let disk = set.variant("disk").unwrap();
    let overlays: Vec<_> = disk.recipe.overlays.iter().map(|o| (o.path().to_str().unwrap(), o.name())).collect();
    assert_eq!(overlays, [("recipes/lib/ov", "lib/ov"), ("recipes/own", "own")]);
    assert_eq!(disk.recipe.base.image().unwrap().image.name(), "img/b.img");
    // The whole entry is replaced: no mode is left from the parent's.
    assert_eq!(disk.recipe.files["/etc/a"].mode, None);
    assert_eq!(disk.recipe.services.mask, ["w.timer", "x.timer", "y.timer"]);
    let set_arguments: Vec<_> = disk.recipe.boot.cmdline.set.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(set_arguments, ["console=tty2", "quiet2=a"]);

    let netboot = set.variant("netboot").unwrap();
    assert_eq!(netboot.recipe.root.as_ref().unwrap().over, RootOver::Nfs);
    assert_eq!(netboot.recipe.overlays[0].name(), "only");
    assert_eq!(netboot.recipe.overlays.len(), 1);
    assert_eq!(netboot.recipe.files.len(), 3);
    assert_eq!(netboot.recipe.services.mask, ["w.timer", "x.timer", "y.timer", "z.timer"]);

    let at = |key: &str| netboot.origins.get(key).unwrap().to_string();
    assert_eq!(at("files./etc/a"), "recipes/main.yaml:5:3");
    assert_eq!(at("files./etc/b"), "recipes/lib/parent.yaml:6:3");
    assert_eq!(at("files./etc/b.mode"), "recipes/lib/parent.yaml:6:3");
    assert_eq!(at("services.mask[0]"), "recipes/lib/parent.yaml:7:19");
    assert_eq!(at("services.mask[3]"), "recipes/main.yaml:10:32");
    assert_eq!(at("boot.cmdline.set.console"), "recipes/main.yaml:7:24");
    assert_eq!(at("overlays[0]"), "recipes/main.yaml:11:25");
    assert_eq!(netboot.origins.get("nothing"), None);

    let unknown = set.variant("netbot").unwrap_err().to_string();
    assert!(unknown.contains("no variant `netbot`") && unknown.contains("did you mean `netboot`?"), "{unknown}");
    assert!(set.variant("default").is_err());
}

#[test]
fn a_replace_in_an_inherited_variant_holds() {
    let files = files(&[
        ("m.yaml", "extends: p.yaml\nvariants: {v: {overlays: [c]}}\n"),
        ("p.yaml", "name: t\nbase: {image: b}\noverlays: [a]\nvariants: {v: {overlays: !replace [b]}}\n"),
    ]);
    let merged = load_files(&files, "m.yaml").unwrap().variant("v").unwrap();
    let names: Vec<_> = merged.recipe.overlays.iter().map(|o| o.name()).collect();
    assert_eq!(names, ["b", "c"]);
}

#[test]
fn an_error_shows_line_place_expectation_and_suggestion() {
    let text = errors(&[("recipes/main.yaml", "name: t\nbase: {image: b}\noverlay: [a]\n")]);
    let expected = "\
error: unknown key `overlay` in the recipe
 --> recipes/main.yaml:3:1
  |
3 | overlay: [a]
  | ^^^^^^^ expected one of: name, extends, base, date, packages, overlays, files, services, boot, cloud_init, root, \
outputs, variants
  = help: did you mean `overlays`?";
    assert_eq!(text, expected);
}

#[test]
fn mistakes_are_reported_together() {
    let text = errors(&[(
        "recipes/main.yaml",
        "name: T\nbse: {}\ndate: yesterday\nfiles: {etc/x: {content: a}, /etc/y: {content: a, mode: 0644}}\n\
         variants: {v: {outputs: [nfs_root]}}\n",
    )]);
    let count = text.matches("error: ").count();
    assert_eq!(count, 6, "{text}");
    for part in ["did you mean `base`?", "did you mean `/etc/x`?", "did you mean `nfs-root`?", "a string: \"0644\""] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

/// Each line: what is added to a recipe that is right, then what the message says.
#[test]
fn mistakes() {
    let cases: &[(&str, &[&str])] = &[
        ("name: u", &["`name` is given twice", "first given here"]),
        ("date: 2025-13-01T00:00:00Z", &["the date is not valid", "such as 2025-11-01T00:00:00Z"]),
        ("overlays: a", &["`overlays` must be a list", "a list of one is written [a]"]),
        ("overlays:", &["`overlays` must be a list", "not nothing", "leave the key out"]),
        ("overlays: [/abs]", &["an absolute path", "relative to this file"]),
        ("overlays: [\"\"]", &["is empty"]),
        ("overlays: [https://x/y]", &["a path, not a URL"]),
        ("overlays: [\"a\\0b\"]", &["NUL"]),
        ("overlays: [12]", &["must be a string, not a number", "\"12\""]),
        ("packages: [a]", &["`packages` must be a map"]),
        ("packages: {install: [Vim]}", &["`Vim` cannot stand in `packages.install`"]),
        ("packages: {install: [vim], remove: [vim]}", &["both `packages.install` and `packages.remove`"]),
        ("services: {enable: [ssh]}", &["such as ssh.service"]),
        ("services: {enable: [a.service], mask: [a.service]}", &["stands in both", "and here", "!replace"]),
        ("services: {start: [a.service]}", &["unknown key `start`"]),
        ("files: {/etc/x: {}}", &["does not say what it is"]),
        ("files: {/etc/x: {content: a, url: \"https://x/\"}}", &["several things: content, url"]),
        ("files: {/etc/x: {remove: true, mode: \"0644\"}}", &["`mode` has no meaning for `remove`"]),
        ("files: {/etc/x: {symlink: y, template: true}}", &["`template` has no meaning for `symlink`"]),
        ("files: {/etc/x: {content: a, sha256: b}}", &["`sha256` has no meaning for `content`"]),
        ("files: {/etc/x: {remove: false}}", &["`remove: false` says nothing"]),
        ("files: {/etc/x: {remove: yes}}", &["must be true or false"]),
        ("files: {/etc/x: {symlink: \"\"}}", &["a link needs a target"]),
        ("files: {/etc/x: {url: \"ftp://x/\"}}", &["https:// or http://"]),
        ("files: {/etc/x: {url: \"https://x/\", sha256: 12}}", &["64 hexadecimal digits"]),
        ("files: {/etc/x: {content: a, mode: \"0999\"}}", &["the mode is not valid", "octal"]),
        ("files: {/etc/x: {content: a, owner: \"a b\"}}", &["the owner is not valid"]),
        ("files: {/etc/x: {content: [a]}}", &["`content` must be a string, not a list"]),
        ("files: {/etc/../x: {content: a}}", &["cannot hold `..`", "did you mean `/x`?"]),
        ("files: {/etc/x/: {content: a}}", &["did you mean `/etc/x`?"]),
        ("files: {/: {directory: true}}", &["`/` itself"]),
        ("boot: {cmdline: {set: {quiet: }}}", &["`add: [quiet]`"]),
        ("boot: {cmdline: {set: {a b: c}}}", &["cannot be the name of a kernel argument"]),
        ("boot: {cmdline: {set: {a: b c}}}", &["expected a value without blanks"]),
        ("boot: {cmdline: {add: [\"a\\nb\"]}}", &["one kernel argument"]),
        ("boot: {config: {pi6x: [a=1]}}", &["unknown filter `pi6x`"]),
        ("boot: {config: {all: [\"[pi4]\"]}}", &["a filter is a key"]),
        ("boot: {config: {all: [\"a=1\\nb=2\"]}}", &["one line"]),
        ("boot: {size: 1.5G}", &["the size is not valid"]),
        ("cloud_init: {user_data: x.yaml}", &["must be a list"]),
        ("cloud_init: {user_data: [[a]]}", &["holds a list"]),
        ("cloud_init: {user_data: [{a: !replace [b]}]}", &["`!replace` has no meaning here"]),
        ("root: {over: nsf}", &["unknown transport `nsf`", "did you mean `nfs`?"]),
        ("root: {writes: tmpfs}", &["where it comes from"]),
        ("root: {over: disk, writes: tmpfs}", &["no meaning for a root on disk"]),
        ("root: {over: nfs, server: 10.0.0.1}", &["expected `path` beside it"]),
        ("root: {over: nfs, path: /a}", &["expected `server` beside it"]),
        ("root: {over: nfs, server: nas, path: /a}", &["expected an IPv4 address"]),
        ("root: {over: nfs, server: 10.0.0.1, path: \"/a b\"}", &["no exported directory"]),
        ("root: {over: nfs, seed: \"http://x/seed\"}", &["ends with `/`"]),
        ("outputs: [iso]", &["unknown output `iso`", "boot, nfs-root, oci, disk"]),
        ("variants: {v: {name: x}}", &["unknown key `name` in the variant"]),
        ("variants: {V: {}}", &["cannot be the name of a variant"]),
        ("variants: {v: [a]}", &["the variant must be a map"]),
        ("overlays: !foo [a]", &["this tag has no meaning here"]),
        ("overlays: !!set [a]", &["this tag has no meaning here"]),
        ("<<: {a: b}", &["no YAML merge keys"]),
        ("overlays: [a", &["not valid YAML"]),
        ("--- \na: b", &["a second YAML document"]),
        ("extends: missing.yaml", &["cannot read the recipe `recipes/missing.yaml`", "it is extended here"]),
        ("extends: main.yaml", &["in a circle: recipes/main.yaml -> recipes/main.yaml"]),
        ("extends: https://x/y.yaml", &["cannot be extended"]),
        ("extends: [a]", &["`extends` must be a string"]),
    ];
    for (added, parts) in cases {
        let text = errors(&[("recipes/main.yaml", &format!("{BASE}{added}\n"))]);
        for part in *parts {
            assert!(text.contains(part), "{added}\nlacks: {part}\n{text}");
        }
        assert!(text.contains("recipes/main.yaml:"), "{added}: no place\n{text}");
    }
}

#[test]
fn mistakes_of_the_base() {
    let digest = "0".repeat(64);
    let cases: &[(&str, &str)] = &[
        ("", "the recipe has no base image"),
        ("base: {sha256: 0}", "64 hexadecimal digits"),
        ("base: {keyring: k}", "the recipe has no base image"),
        ("base: {image: \"https://x/y\"}", "nothing verifies the fetched base image"),
        ("base: {image: i, sha256: DIGEST, checksums: c}", "both a digest and a checksums file"),
        ("base: {image: i, signature: s}", "a signature needs what it signs"),
        ("base: {image: i, checksums: c, signature: s}", "a signature needs what it signs"),
        ("base: {image: i, keyring: k}", "a keyring needs what was signed"),
        ("base: {image: i, checksums: c, keyring: \"https://x/k\"}", "must be a local file"),
        ("base: {image: \"https://u:p@h/i\"}", "without user name or password"),
    ];
    for (base, part) in cases {
        let text = errors(&[("recipes/main.yaml", &format!("name: t\n{}\n", base.replace("DIGEST", &digest)))]);
        assert!(text.contains(part), "{base}\n{text}");
    }
    // An absolute path is allowed here, and is not spread.
    let merged = one("name: t\nbase: {image: /data/pi.img, checksums: /data/SUMS, keyring: /k/k.asc}\n").unwrap();
    assert_eq!(merged.recipe.base.image().unwrap().image.name(), "pi.img");
    assert_eq!(merged.recipe.base.image().unwrap().image.as_local().unwrap().path(), Path::new("/data/pi.img"));
    let text = errors(&[("m.yaml", "base: {image: i}\n")]);
    assert!(text.contains("the recipe has no name"), "{text}");
}

#[test]
fn files_that_are_no_recipes() {
    for (bytes, part) in [
        (&b""[..], "is empty"),
        (b"# nothing\n", "is empty"),
        (b"- a\n", "must be a map"),
        (b"just text\n", "must be a map"),
        (b"a: \xff\n", "is not UTF-8 text, see line 1"),
        (b"a: b\n\x00", "not valid YAML"),
    ] {
        let read = |_: &Path| -> std::io::Result<Vec<u8>> { Ok(bytes.to_vec()) };
        let text = aule_recipe::load(&read, Path::new("m.yaml")).unwrap_err().to_string();
        assert!(text.contains(part) && text.contains("m.yaml"), "{part}\n{text}");
    }
    let read = |_: &Path| -> std::io::Result<Vec<u8>> { Err(std::io::ErrorKind::NotFound.into()) };
    let text = aule_recipe::load(&read, Path::new("m.yaml")).unwrap_err().to_string();
    assert_eq!(text, "error: cannot read the recipe `m.yaml`: entity not found");
}

#[test]
fn long_chains_and_many_variants_are_refused() {
    let endless = |path: &Path| -> std::io::Result<Vec<u8>> {
        let number: u32 = path.to_str().unwrap().parse().unwrap();
        Ok(format!("extends: \"{}\"\n", number + 1).into_bytes())
    };
    let text = aule_recipe::load(&endless, Path::new("0")).unwrap_err().to_string();
    assert!(text.contains("more than 16 recipes"), "{text}");
    let variants: String = (0..65).map(|n| format!("  v{n}: {{}}\n")).collect();
    let text = errors(&[("m.yaml", &format!("{BASE}variants:\n{variants}"))]);
    assert!(text.contains("65 variants, at most 64"), "{text}");
}

#[test]
fn diagnostics_as_json() {
    let files = files(&[("m.yaml", "name: t\nbase: {image: b}\noverlay: []\n")]);
    let diagnostics = load_files(&files, "m.yaml").unwrap_err();
    let json = serde_json::to_value(&diagnostics).unwrap();
    assert_eq!(json[0]["message"], "unknown key `overlay` in the recipe");
    assert_eq!(json[0]["at"]["file"], "m.yaml");
    assert_eq!((json[0]["at"]["line"].as_u64(), json[0]["at"]["column"].as_u64()), (Some(3), Some(1)));
    assert_eq!(json[0]["at"]["text"], "overlay: []");
    assert_eq!(json[0]["help"][0], "did you mean `overlays`?");
    assert_eq!(diagnostics.first().unwrap().location().unwrap().line, 3);
}

#[test]
fn terminals_are_not_steered() {
    let text = errors(&[("m.yaml", "name: t\nbase: {image: b}\n\"a\\e[31m\\u202E\": 1\n")]);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
}

#[test]
fn a_base_of_packages() {
    let merged = one(
        "name: t\nbase:\n  packages:\n    uri: https://example.org/debian\n    suite: trixie\n    components: [main, contrib]\n    \
         key: keys/debian.asc\n    architecture: armhf\n    include: [systemd-sysv, apt]\n",
    )
    .unwrap();
    let Base::Packages { packages } = &merged.recipe.base else { panic!("{:?}", merged.recipe.base) };
    assert_eq!(packages.uri.as_ref().unwrap().as_str(), "https://example.org/debian");
    assert_eq!((packages.suite.as_str(), packages.architecture.as_str()), ("trixie", "armhf"));
    assert_eq!((&*packages.components.join(" "), &*packages.include.join(" ")), ("main contrib", "systemd-sysv apt"));
    assert_eq!(packages.key.path(), Path::new("recipes/keys/debian.asc"));
    assert!(merged.recipe.base.image().is_none());
    let least = one("name: t\nbase: {packages: {suite: trixie, key: k.asc}}\n").unwrap();
    let Base::Packages { packages } = &least.recipe.base else { panic!() };
    assert_eq!((packages.components.as_slice(), packages.architecture.as_str()), (&["main".to_owned()][..], "arm64"));
    assert!(packages.uri.is_none() && packages.include.is_empty());
}

#[test]
fn a_base_of_packages_is_inherited_key_by_key() {
    let set = files(&[
        ("r/a.yaml", "name: a\nbase: {packages: {suite: trixie, key: ../k.asc, include: [apt]}}\n"),
        ("r/b.yaml", "name: b\nextends: a.yaml\nbase: {packages: {include: [nano, apt]}}\n"),
        ("r/c.yaml", "name: c\nextends: a.yaml\nbase: {image: x.img}\n"),
        ("r/d.yaml", "name: d\nextends: a.yaml\nbase: !replace {image: x.img}\n"),
    ]);
    let merged = load_files(&set, "r/b.yaml").unwrap().variant("default").unwrap();
    let Base::Packages { packages } = &merged.recipe.base else { panic!() };
    assert_eq!((packages.suite.as_str(), packages.include.join(" ").as_str()), ("trixie", "apt nano"));
    let both = load_files(&set, "r/c.yaml").unwrap_err().to_string();
    assert!(both.contains("the base is both an image and made of packages"), "{both}");
    let replaced = load_files(&set, "r/d.yaml").unwrap().variant("default").unwrap();
    assert_eq!(replaced.recipe.base.image().unwrap().image.name(), "x.img");
}

#[test]
fn what_a_base_of_packages_must_have() {
    for (text, wanted) in [
        ("{packages: {key: k.asc}}", "the base of packages has no `suite`"),
        ("{packages: {suite: trixie}}", "the base of packages has no `key`"),
        ("{packages: {suite: 'tri xie', key: k.asc}}", "tri xie"),
        ("{packages: {suite: trixie, key: k.asc, architecture: '../x'}}", "`../x` is no architecture"),
        ("{packages: {suite: trixie, key: k.asc, include: [Nano]}}", "Nano"),
        ("{packages: {suite: trixie, key: k.asc, uri: 'file:///x'}}", "file:///x"),
        ("{packages: {suite: trixie, key: k.asc, mirror: x}}", "mirror"),
        ("{}", "the recipe has no base image"),
    ] {
        let error = one(&format!("name: t\nbase: {text}\n")).unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains("2:"), "{text}: {error}");
    }
}
