//! What begins a boot, who is taken for whom, and what is given out once.

#![allow(clippy::unwrap_used, reason = "a test panics when its own set-up is wrong")]

use super::*;
use crate::{export::Export, site::Serial};
use aule_store::{Store, layer::Contents};
use aule_tree::{Metadata, Timestamp, Tree};
use std::{net::Ipv4Addr, path::Path, thread};

const SITE: &str = "store: store
state: state
images: { stable: { ref: 'a:b' }, other: { ref: 'a:c' } }
nodes:
  - match: { serial: 0000000a }
    name: manwe
    image: stable
  - match: { mac: '52:00:00:00:00:01' }
    name: varda
    image: stable
  - match: { mac: '52:00:00:00:00:02' }
    name: 'ulmo-{{ serial }}'
    image: stable
";
const VARDA: Mac = Mac([0x52, 0, 0, 0, 0, 1]);
const ULMO: Mac = Mac([0x52, 0, 0, 0, 0, 2]);

/// Nodes with an image that is in no store.
struct Lab {
    site: Site,
    images: Images,
    nodes: Nodes,
    store: Arc<Store>,
    _directory: tempfile::TempDir,
}

impl Lab {
    /// `neighbours` tells the kernel's table.
    fn new(neighbours: Neighbours) -> Lab {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(directory.path()).unwrap());
        let images = Images::new(Arc::clone(&store), "test");
        let site = Site::parse(Path::new("site.yaml"), SITE.as_bytes()).unwrap();
        let lab = Lab { site, images, nodes: Nodes::new(neighbours), store, _directory: directory };
        lab.publish("first");
        lab
    }

    /// Lets the image stand for another build.
    fn publish(&self, name: &str) -> Arc<Published> {
        let (tree, digest) =
            (Tree::new(Metadata::root_owned(0o755, Timestamp::from_seconds(0))), Digest::of(name.as_bytes()));
        let (_, contents) = Contents::open(&self.store, &[]).unwrap();
        let root = Arc::new(Export::new(digest, &tree, contents));
        let (seed, blobs) = Default::default();
        let build = Arc::new(Published { digest, root, boot: None, seed, seed_digest: None, blobs });
        self.images.set("stable", &build);
        build
    }

    fn see(&self, host: u8, identity: &Identity, stage: Stage, what: &str) -> Result<Known, Unserved> {
        let seen =
            Seen { address: at(host), identity: identity.clone(), build: None, stage, what: what.into(), now: 1000 };
        self.nodes.see(&self.site, &self.images, seen)
    }

    /// A request for a boot file.
    fn file(&self, host: u8, identity: &Identity) -> Result<Known, Unserved> {
        self.see(host, identity, Stage::BootFiles, "vmlinuz")
    }
}

fn at(host: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, host).into()
}

fn nobody(_: IpAddr) -> Option<Mac> {
    None
}

fn serial(serial: u32) -> Identity {
    Identity { serial: Some(Serial(serial)), ..Identity::default() }
}

fn mac(mac: Mac) -> Identity {
    Identity { mac: Some(mac), ..Identity::default() }
}

const UNKNOWN: Identity = Identity { serial: None, mac: None, model: None };

#[test]
fn a_boot_keeps_its_build_until_the_next_begins() {
    let lab = Lab::new(nobody);
    let first = lab.file(1, &serial(10)).unwrap();
    assert_eq!((first.name.as_str(), first.boot.number, first.boot.began), ("manwe", 1, true));
    let second = lab.publish("second").digest;
    // More boot files, the mount, the seed: all of the same boot, also where it says no more who it is.
    for (stage, what) in [(Stage::BootFiles, "initrd.img"), (Stage::BootFiles, "vmlinuz"), (Stage::Seed, "user-data")] {
        let node = lab.see(1, &UNKNOWN, stage, what).unwrap();
        assert_eq!((node.boot.number, node.boot.build.digest), (1, first.boot.build.digest), "{what}");
        assert_eq!(node.identity, serial(10));
    }
    // It came beyond boot files and asks for one: it starts again.
    let node = lab.file(1, &serial(10)).unwrap();
    assert_eq!((node.boot.number, node.boot.build.digest, node.boot.stage), (2, second, Stage::BootFiles));
    assert_eq!(node.boot.events.len(), 1);
}

#[test]
fn who_reads_its_root_does_not_begin_to_boot() {
    let lab = Lab::new(nobody);
    lab.file(1, &serial(10)).unwrap();
    lab.nodes.note(at(1), Stage::Mount, "/stable", 1001);
    lab.nodes.reads(at(1), 1002);
    lab.publish("second");
    let node = lab.file(1, &serial(10)).unwrap();
    assert_eq!((node.boot.number, node.boot.stage), (1, Stage::Mount));
    // Another machine cannot have the address of one that runs; where that one asked for an address, it starts again.
    assert_eq!(lab.file(1, &serial(11)).unwrap_err(), Unserved::Another);
    let both = Identity { mac: Some(ULMO), ..serial(10) };
    lab.nodes.ask(both, Some(at(1)), "DISCOVER", 1003);
    assert_eq!(lab.file(1, &serial(10)).unwrap().boot.number, 2);
}

#[test]
fn a_request_for_an_address_belongs_to_the_boot_that_follows() {
    let lab = Lab::new(nobody);
    lab.nodes.ask(mac(VARDA), None, "DISCOVER", 990);
    lab.nodes.ask(mac(VARDA), Some(at(1)), "REQUEST", 991);
    assert_eq!(lab.nodes.waiting().len(), 1);
    // It says nothing of itself; the address is the one that was asked for.
    let node = lab.file(1, &UNKNOWN).unwrap();
    assert_eq!((node.name.as_str(), node.identity.mac), ("varda", Some(VARDA)));
    let events: Vec<_> = node.boot.events.iter().map(|it| it.what.as_str()).collect();
    assert_eq!(events, ["DISCOVER", "REQUEST", "vmlinuz"]);
    assert_eq!(lab.nodes.waiting(), []);
    // One from long ago is nobody's.
    lab.nodes.ask(mac(VARDA), Some(at(2)), "REQUEST", 1000 - PATIENCE - 1);
    assert_eq!(lab.file(2, &UNKNOWN).unwrap_err(), Unserved::NoRule);
}

#[test]
fn another_machine_at_an_address_is_not_the_one_before() {
    let lab = Lab::new(nobody);
    lab.file(1, &serial(10)).unwrap();
    let other = lab.file(1, &mac(VARDA)).unwrap();
    // (A request that says only an Ethernet address could be of the machine with the serial number.)
    assert_eq!((other.name.as_str(), other.identity.serial), ("manwe", Some(Serial(10))));
    let other = lab.file(1, &Identity { mac: Some(VARDA), ..serial(11) }).unwrap();
    assert_eq!((other.name.as_str(), other.boot.number, other.identity.serial), ("varda", 1, Some(Serial(11))));
    assert_eq!(lab.file(3, &UNKNOWN).unwrap_err(), Unserved::NoRule);
    // The name of this rule needs what is not known.
    assert!(matches!(lab.file(4, &mac(ULMO)), Err(Unserved::Name(_))));
}

/// The node at an address was silent for longer than a pause.
fn rest(lab: &Lab, host: u8) {
    let known = lab.nodes.at(at(host)).unwrap();
    lab.nodes.restore(Known { heard: None, read: None, ..known });
}

#[test]
fn who_gets_the_address_of_another_machine_gets_nothing_else_of_it() {
    // Nobody on the local network: after a pause only what a request says counts.
    let lab = Lab::new(nobody);
    lab.file(1, &serial(10)).unwrap();
    assert_eq!(lab.file(1, &UNKNOWN).unwrap().name, "manwe", "it says no more who it is, a moment later");
    rest(&lab, 1);
    assert_eq!(lab.file(1, &UNKNOWN).unwrap_err(), Unserved::NoRule);
    let again = lab.file(1, &serial(10)).unwrap();
    assert_eq!((again.name.as_str(), again.boot.number), ("manwe", 2));
    // The local network says that it is another machine, or the same one.
    let lab = Lab::new(|_| Some(VARDA));
    lab.nodes.restore(Known { heard: None, ..manwe(&lab) });
    let other = lab.file(1, &UNKNOWN).unwrap();
    assert_eq!((other.name.as_str(), other.identity, other.boot.number), ("varda", mac(VARDA), 1));
    rest(&lab, 1);
    assert_eq!(lab.file(1, &UNKNOWN).unwrap().boot.number, 2);
    // Another machine asked for the address, and the one before is not silent for long yet.
    let lab = Lab::new(nobody);
    lab.file(1, &Identity { mac: Some(ULMO), ..serial(10) }).unwrap();
    lab.nodes.ask(mac(VARDA), Some(at(1)), "REQUEST", 1000);
    let other = lab.file(1, &UNKNOWN).unwrap();
    assert_eq!((other.name.as_str(), other.identity, other.boot.number), ("varda", mac(VARDA), 1));
}

#[test]
fn the_local_network_says_who_asks_where_the_request_does_not() {
    // A machine goes, and another gets its address a moment later.
    let lab = Lab::new(|_| Some(VARDA));
    lab.nodes.restore(manwe(&lab));
    lab.nodes.note(at(1), Stage::Root, "first read", 1000);
    let other = lab.file(1, &UNKNOWN).unwrap();
    assert_eq!((other.name.as_str(), other.boot.number), ("varda", 1));
    assert!(lab.nodes.release(&other, "user-data"));
}

#[test]
fn a_node_whose_new_address_was_anothers_has_its_own_boot_there() {
    fn network(address: IpAddr) -> Option<Mac> {
        (address == at(2) || address == at(1)).then_some(VARDA)
    }
    let lab = Lab::new(network);
    lab.file(1, &UNKNOWN).unwrap();
    let old = Known { address: at(2), ..manwe(&Lab::new(nobody)) };
    lab.nodes.restore(old);
    lab.nodes.note(at(2), Stage::Mount, "/stable", 1001);
    lab.nodes.reads(at(2), 1001);
    let node = lab.see(2, &mac(VARDA), Stage::Seed, "user-data").unwrap();
    assert_eq!((node.name.as_str(), node.boot.stage, node.boot.began), ("varda", Stage::Seed, true));
    assert_eq!(lab.nodes.all().len(), 1);
    // Nobody else is known to have the machine's boot: nothing of the other's counts either.
    let lab = Lab::new(|_| Some(VARDA));
    lab.nodes.restore(manwe(&lab));
    lab.nodes.reads(at(1), 1001);
    let node = lab.see(1, &mac(VARDA), Stage::Seed, "user-data").unwrap();
    assert_eq!((node.name.as_str(), node.boot.began), ("varda", false));
}

#[test]
fn a_node_that_starts_over_and_over_gets_the_repaired_build() {
    let lab = Lab::new(nobody);
    let first = lab.file(1, &serial(10)).unwrap();
    lab.see(1, &serial(10), Stage::BootFiles, "initrd.img").unwrap();
    let repaired = lab.publish("repaired").digest;
    // The firmware reads some files twice.
    let node = lab.file(1, &serial(10)).unwrap();
    assert_eq!((node.boot.number, node.boot.build.digest), (1, first.boot.build.digest));
    let heard = Instant::now().checked_sub(LOOP + Duration::from_secs(1));
    lab.nodes.restore(Known { heard, ..node });
    let node = lab.see(1, &serial(10), Stage::BootFiles, "initrd.img").unwrap();
    assert_eq!(node.boot.number, 1, "a later file comes late");
    lab.nodes.restore(Known { heard, ..node });
    let node = lab.file(1, &serial(10)).unwrap();
    assert_eq!((node.boot.number, node.boot.build.digest), (2, repaired));
}

#[test]
fn dhcp_is_believed_by_its_ethernet_address() {
    let lab = Lab::new(|_| Some(ULMO));
    // The firmware writes its serial number in an order of its own, and the boot loader tells another model.
    let model = |model: &str| Identity { mac: Some(ULMO), model: Some(model.into()), ..serial(0x0a00_0000) };
    lab.nodes.ask(model("RPi4"), None, "DISCOVER", 995);
    let node = lab.file(1, &serial(10)).unwrap();
    assert_eq!((node.name.as_str(), node.identity.model.as_deref()), ("manwe", Some("RPi4")));
    assert_eq!((node.identity.serial, node.identity.mac), (Some(Serial(10)), Some(ULMO)));
    assert_eq!(lab.nodes.waiting(), []);
    lab.nodes.ask(model("uefi-arm64"), Some(at(1)), "REQUEST", 999);
    let node = lab.see(1, &UNKNOWN, Stage::BootFiles, "pxelinux.cfg/default").unwrap();
    assert_eq!((node.name.as_str(), node.identity.model.as_deref(), node.boot.number), ("manwe", Some("RPi4"), 2));
}

fn manwe(lab: &Lab) -> Known {
    let both = Identity { mac: Some(ULMO), ..serial(10) };
    lab.file(1, &both).unwrap()
}

#[test]
fn a_boot_keeps_what_the_site_said_when_it_began() {
    let mut lab = Lab::new(nobody);
    let first = lab.file(1, &serial(10)).unwrap();
    assert!(lab.nodes.release(&first, "user-data"));
    let other = lab.publish("other");
    lab.images.set("other", &other);
    let changed =
        SITE.replace("name: manwe\n    image: stable", "name: aule\n    image: other\n    vars: { new: true }");
    lab.site = Site::parse(Path::new("site.yaml"), changed.as_bytes()).unwrap();
    for (stage, what) in [(Stage::BootFiles, "initrd.img"), (Stage::Seed, "user-data")] {
        let node = lab.see(1, &UNKNOWN, stage, what).unwrap();
        assert_eq!((node.name.as_str(), node.boot.number, node.vars.len()), ("manwe", 1, 0), "{what}");
        assert_eq!((node.boot.image.as_str(), node.boot.build.digest), ("stable", first.boot.build.digest));
        assert!(!lab.nodes.release(&node, "user-data"));
    }
    let next = lab.file(1, &serial(10)).unwrap();
    assert_eq!((next.name.as_str(), next.boot.number, next.boot.build.digest), ("aule", 2, other.digest));
    assert_eq!(next.vars.len(), 1);
}

#[test]
fn a_name_says_which_machine_only_if_it_holds_its_number() {
    let identity = Identity { mac: Some(VARDA), ..serial(10) };
    for (matches, name, wanted) in [
        ("any: true", "box", false),
        ("any: true", "box-{{ vars.role }}", false),
        ("any: true", "box-{{ serial[-2:] }}", false),
        ("any: true", "box-{{ serial }}", true),
        ("any: true", "{{ mac | replace(':', '-') }}", true),
        ("any: true", "{{ mac | replace(':', '') }}", true),
        ("serial: 0000000a", "box", true),
        ("mac: '52:00:00:00:00:01'", "box", true),
    ] {
        let site = format!(
            "store: a\nstate: b\nimages: {{ a: {{ ref: a }} }}\nnodes:\n  - match: {{ {matches} }}\n    name: \"{name}\"\n    image: a\n    vars: {{ role: x }}\n"
        );
        let site: Site = serde_saphyr::from_str(&site).unwrap();
        let rule = &site.nodes[0].value;
        let rendered = render::name(rule, &identity, at(1)).unwrap();
        assert_eq!(is_named(rule, &identity, &rendered), wanted, "{matches}, {name}");
    }
    // Two machines of one name are still two.
    let lab = Lab::new(nobody);
    let node = |identity| Known { identity, named: false, name: "box".into(), ..manwe(&lab) };
    let (one, other) = (node(serial(1)), node(serial(2)));
    assert_ne!(render::machine_id(&one), render::machine_id(&other));
    assert_ne!(render::instance_id(&one), render::instance_id(&other));
}

#[test]
fn a_right_that_could_not_be_written_down_is_given_back() {
    let lab = Lab::new(nobody);
    let node = lab.file(1, &serial(10)).unwrap();
    assert!(lab.nodes.release(&node, "user-data"));
    lab.nodes.take_back(&node, "user-data");
    assert!(lab.nodes.release(&node, "user-data"));
    lab.nodes.changed();
    lab.nodes.again(at(1));
    assert_eq!(lab.nodes.changed(), BTreeSet::from([at(1)]));
}

#[test]
fn an_image_that_is_gone_is_told() {
    let lab = Lab::new(nobody);
    lab.images.set("other", &lab.publish("other"));
    assert_eq!(lab.file(1, &serial(10)).unwrap_err(), Unserved::NoImage("stable".into()));
    assert_eq!(lab.nodes.all().len(), 0);
}

#[test]
fn what_is_not_there_begins_nothing_and_is_remembered() {
    let lab = Lab::new(nobody);
    let ask = |what: &str| {
        let seen = Seen {
            address: at(1),
            identity: serial(10),
            build: None,
            stage: Stage::BootFiles,
            what: what.into(),
            now: 1000,
        };
        lab.nodes.see_if(&lab.site, &lab.images, seen, |_| None::<()>).unwrap_err()
    };
    assert_eq!(ask("recovery.elf"), Unserved::NoFile);
    assert_eq!(lab.nodes.all().len(), 0);
    let node = lab.file(1, &serial(10)).unwrap();
    assert_eq!(node.boot.hint(), Stage::BootFiles.hint());
    assert_eq!(ask("kernel9.img"), Unserved::NoFile);
    let node = lab.nodes.at(at(1)).unwrap();
    assert!(node.boot.hint().contains("asked last for kernel9.img"), "{}", node.boot.hint());
    assert_eq!(node.boot.events.len(), 1);
    assert_eq!(lab.file(1, &serial(10)).unwrap().boot.hint(), Stage::BootFiles.hint());
}

#[test]
fn a_node_with_another_address_under_linux_is_found_by_its_neighbour() {
    fn varda(address: IpAddr) -> Option<Mac> {
        [at(1), at(2)].contains(&address).then_some(VARDA)
    }
    let lab = Lab::new(varda);
    let first = lab.file(1, &UNKNOWN).unwrap();
    assert_eq!(first.name, "varda");
    lab.nodes.note(at(2), Stage::Mount, "/stable", 1001);
    let all = lab.nodes.all();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].address, all[0].boot.stage, all[0].boot.number), (at(2), Stage::Mount, 1));
    assert_eq!(lab.nodes.changed(), BTreeSet::from([at(1), at(2)]));
    assert_eq!(lab.nodes.changed(), BTreeSet::new());
}

#[test]
fn secrets_are_given_once_in_a_boot_that_was_seen_to_begin() {
    let lab = Lab::new(nobody);
    let node = lab.file(1, &serial(10)).unwrap();
    assert!(lab.nodes.release(&node, "user-data"));
    assert!(!lab.nodes.release(&node, "user-data"));
    assert!(lab.nodes.release(&node, "vendor-data"));
    // The next boot has rights of its own, and the one before none any more.
    lab.nodes.note(at(1), Stage::Root, "first read", 1001);
    let next = lab.file(1, &serial(10)).unwrap();
    assert!(!lab.nodes.release(&node, "network-config"));
    assert!(lab.nodes.release(&next, "user-data"));
    // One that was not seen to begin has none.
    let node = lab.see(2, &mac(VARDA), Stage::Seed, "user-data").unwrap();
    assert_eq!((node.boot.began, lab.nodes.release(&node, "user-data")), (false, false));
    // Of a hundred that ask at once, one gets it.
    let node = lab.file(3, &Identity { mac: Some(ULMO), ..serial(12) }).unwrap();
    let given: usize = thread::scope(|scope| {
        let ask = |_| scope.spawn(|| usize::from(lab.nodes.release(&node, "user-data")));
        (0..100).map(ask).collect::<Vec<_>>().into_iter().map(|it| it.join().unwrap()).sum()
    });
    assert_eq!(given, 1);
}

#[test]
fn the_build_that_a_node_names_counts() {
    let lab = Lab::new(nobody);
    let first = lab.file(1, &serial(10)).unwrap().boot.build;
    let second = lab.publish("second");
    let seen = |build| Seen {
        address: at(1),
        identity: serial(10),
        build: Some(build),
        stage: Stage::Seed,
        what: "user-data".into(),
        now: 1001,
    };
    // It runs from what it began with: the same boot. From another: this server did not see that one begin.
    let same = lab.nodes.see(&lab.site, &lab.images, seen(first)).unwrap();
    assert_eq!((same.boot.number, same.boot.began), (1, true));
    let other = lab.nodes.see(&lab.site, &lab.images, seen(Arc::clone(&second))).unwrap();
    assert_eq!((other.boot.number, other.boot.began, other.boot.build.digest), (2, false, second.digest));
}

#[test]
fn a_clock_that_jumps_changes_only_what_is_shown() {
    let lab = Lab::new(nobody);
    let at_time = |now: u64, stage, what: &str| {
        let (identity, what) = (serial(10), what.to_owned());
        lab.nodes.see(&lab.site, &lab.images, Seen { address: at(1), identity, build: None, stage, what, now })
    };
    let first = at_time(u64::MAX, Stage::BootFiles, "config.txt").unwrap();
    for (now, what) in [(0, "cmdline.txt"), (u64::MAX, "vmlinuz"), (5, "initrd.img"), (1 << 40, "start4.elf")] {
        lab.publish(what);
        let node = at_time(now, Stage::BootFiles, what).unwrap();
        assert_eq!((node.boot.number, node.boot.build.digest), (1, first.boot.build.digest), "{what}");
    }
    for now in [u64::MAX, 0, 7, u64::MAX] {
        lab.nodes.ask(mac(VARDA), Some(at(2)), "REQUEST", now);
        lab.nodes.note(at(1), Stage::Root, "first read", now);
        lab.nodes.reads(at(1), now);
        lab.nodes.touch(at(1), now);
    }
    assert_eq!(lab.nodes.waiting().len(), 1);
    assert_eq!(lab.nodes.at(at(1)).unwrap().boot.stage, Stage::Root);
}

#[test]
fn addresses_are_forgotten_beyond_a_limit_and_running_nodes_last() {
    let lab = Lab::new(nobody);
    lab.file(1, &serial(10)).unwrap();
    lab.nodes.note(at(1), Stage::Root, "first read", 1);
    for number in 0..NODES_MAX as u32 + 10 {
        let address = Ipv4Addr::from(0x0a00_0000 + number).into();
        let (identity, what) = (mac(VARDA), String::from("vmlinuz"));
        let seen =
            Seen { address, identity, build: None, stage: Stage::BootFiles, what, now: 1200 + u64::from(number) };
        lab.nodes.see(&lab.site, &lab.images, seen).unwrap();
    }
    assert_eq!(lab.nodes.all().len(), NODES_MAX);
    assert_eq!(lab.nodes.at(at(1)).unwrap().name, "manwe");
    for number in 0..NODES_MAX as u32 + 10 {
        let [a, b, c, d] = number.to_be_bytes();
        lab.nodes.ask(mac(Mac([2, 0, a, b, c, d])), None, "DISCOVER", 1200);
    }
    assert_eq!(lab.nodes.waiting().len(), NODES_MAX);
}

#[test]
fn a_timeline_stays_small_and_in_order() {
    let lab = Lab::new(nobody);
    for number in 0..1000 {
        lab.see(1, &serial(10), Stage::BootFiles, &format!("overlays/{number}{}", "x".repeat(200))).unwrap();
    }
    lab.nodes.note(at(1), Stage::Mount, "/stable", 1001);
    lab.nodes.note(at(1), Stage::Done, "phone_home", 1003);
    lab.nodes.note(at(1), Stage::Root, "first read", 1004);
    let boot = lab.nodes.at(at(1)).unwrap().boot;
    assert!(boot.events.len() <= EVENTS_LIMIT && boot.events.iter().all(|it| it.what.chars().count() <= 64));
    assert_eq!((boot.stage, boot.since), (Stage::Done, 1003), "a late read of the root is no step back");
    assert!(boot.events.iter().any(|it| it.stage == Stage::Mount));
}

const EVENTS_LIMIT: usize = 128 + Stage::ALL.len();
