//! The sandbox with programs of this machine: what they see, what they may do, and what is given back of what they did.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use aule_sandbox::{Entry, Exit, Host, Program, Sandbox, SandboxError, View, What};
use aule_tree::{Metadata, Timestamp, TreePath, Xattrs};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

const TIME: Timestamp = Timestamp { seconds: 1_700_000_000, nanoseconds: 500 };

fn main() -> ExitCode {
    if let Some(code) = aule_sandbox::helper() {
        return code;
    }
    if std::env::args().nth(1).as_deref() == Some(PROBE) {
        return probe();
    }
    if std::env::args().any(|it| it == FOREIGN) {
        return emulate();
    }
    let tests: &[(&str, fn())] = &[
        ("a tree comes back as it was changed", changes),
        ("nothing of the host is there", confined),
        ("calls that no namespace confines are refused", refused),
        ("the host's emulator stays as it is", emulated),
        ("what a program is told may be long", told),
        ("a program that takes too long is ended", too_long),
        ("what a program leaves running is ended and told", left_running),
        ("a tree that leads out of itself is not mounted", hostile),
        ("a tree is there whole or not at all", half_a_tree),
        ("a helper that dies is an error", dies),
        ("the deepest directory can be removed", deep),
    ];
    let words: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let probe = Bench::new();
    if let Err(SandboxError::Missing { what, help }) = Sandbox::start(&probe.host) {
        println!("skipped: {what}; {help}");
        return ExitCode::SUCCESS;
    }
    for (name, test) in tests.iter().filter(|(name, _)| words.is_empty() || words.iter().any(|it| name.contains(&**it)))
    {
        println!("test {name}");
        test();
    }
    println!("test result: ok. {} passed; 0 failed", tests.len());
    ExitCode::SUCCESS
}

struct Bench {
    host: Host,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let host = Host {
            program: std::env::current_exe().unwrap(),
            directory: directory.path().to_owned(),
            search: ["/usr/bin", "/bin"].map(PathBuf::from).to_vec(),
        };
        Bench { host, _directory: directory }
    }
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn metadata(mode: u16, owner: u32) -> Metadata {
    Metadata { mode, uid: owner, gid: owner, mtime: TIME, xattrs: Xattrs::new() }
}

/// A tree with a shell of this machine and what it needs, and the entries that are given.
fn tree(more: &[(Entry, &[u8])]) -> Vec<(Entry, Vec<u8>)> {
    let mut files: BTreeMap<TreePath, (What, Vec<u8>)> = BTreeMap::new();
    // Both use the C library alone, which this program has loaded, with the loader.
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libraries = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let libraries =
        libraries.filter(|it| ["/libc.so", "/libc-", "/ld-", "/libgcc_s"].iter().any(|name| it.contains(name)));
    let needed: BTreeSet<&str> =
        libraries.chain(["/bin/sh", "/bin/sleep", "/bin/ln", "/bin/chmod", "/bin/rm"]).collect();
    for name in needed {
        let real = fs::canonicalize(name).unwrap();
        let bytes = fs::read(&real).unwrap();
        for place in [Path::new(name), &real] {
            let place = path(place.to_str().unwrap().trim_start_matches('/'));
            let what = What::File { metadata: metadata(0o755, 0), size: bytes.len() as u64 };
            files.insert(place, (what, bytes.clone()));
        }
    }
    // Where the programs look for their loader and library.
    for link in ["lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1", "lib/x86_64-linux-gnu/libc.so.6"] {
        if let Ok(bytes) = fs::read(format!("/{link}")) {
            let what = What::File { metadata: metadata(0o755, 0), size: bytes.len() as u64 };
            files.insert(path(link), (what, bytes));
        }
    }
    for name in ["proc", "dev", "run", "tmp", "sys", "etc"] {
        files.insert(path(name), (What::Directory { metadata: metadata(0o755, 0), opaque: false }, Vec::new()));
    }
    for (entry, bytes) in more {
        files.insert(entry.path.clone(), (entry.what.clone(), bytes.to_vec()));
    }
    let directories: BTreeSet<TreePath> =
        files.keys().flat_map(|path| std::iter::successors(path.parent(), TreePath::parent)).collect();
    for directory in directories {
        let what = What::Directory { metadata: metadata(0o755, 0), opaque: false };
        files.entry(directory).or_insert((what, Vec::new()));
    }
    files.into_iter().map(|(path, (what, bytes))| (Entry { path, what }, bytes)).collect()
}

fn file(name: &str, metadata: Metadata, bytes: &'static [u8]) -> (Entry, &'static [u8]) {
    (Entry { path: path(name), what: What::File { metadata, size: bytes.len() as u64 } }, bytes)
}

fn unpack(sandbox: &mut Sandbox, entries: Vec<(Entry, Vec<u8>)>) -> Result<(), SandboxError> {
    sandbox.unpack("tree", |unpacker| {
        for (entry, bytes) in entries {
            unpacker.entry(entry)?;
            unpacker.bytes(&bytes)?;
        }
        Ok(())
    })
}

fn view(architecture: &str) -> View<'_> {
    View { trees: &["tree"], changes: "changes", shown: None, architecture, native: None }
}

fn opened(bench: &Bench, more: &[(Entry, &[u8])]) -> Sandbox {
    let mut sandbox = Sandbox::start(&bench.host).unwrap();
    unpack(&mut sandbox, tree(more)).unwrap();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    sandbox.open(&view(architecture)).unwrap();
    sandbox
}

fn shell(sandbox: &mut Sandbox, script: &str, limit: u64) -> (Exit, String) {
    let mut printed = Vec::new();
    let environment = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]);
    let arguments = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let exit =
        sandbox.run(&Program { arguments, environment, limit }, &mut |bytes| printed.extend_from_slice(bytes)).unwrap();
    (exit, String::from_utf8_lossy(&printed).into_owned())
}

fn captured(sandbox: &mut Sandbox) -> BTreeMap<String, (What, Vec<u8>)> {
    let mut found = BTreeMap::new();
    sandbox
        .capture(|entry, bytes| {
            let mut content = Vec::new();
            bytes.read_to_end(&mut content).map_err(SandboxError::Output)?;
            found.insert(entry.path.to_string(), (entry.what, content));
            Ok::<_, SandboxError>(())
        })
        .unwrap();
    found
}

fn changes() {
    let bench = Bench::new();
    // A capability set of version 2: cap_net_raw (capabilities(7), "File capability extended attribute").
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut capable = metadata(0o755, 0);
    capable.xattrs.insert(b"security.capability".to_vec(), capability.to_vec());
    capable.xattrs.insert(b"user.note".to_vec(), b"\xff\x00x".to_vec());
    let mut sandbox = opened(
        &bench,
        &[
            file("etc/goes", metadata(0o644, 0), b"goes"),
            file("etc/grows", metadata(0o640, 42), b"one\n"),
            file("etc/stays", metadata(0o600, 65_534), b"stays"),
            file("bin/capable", capable.clone(), b"capable"),
            file("bin/setuid", metadata(0o4755, 7), b"setuid"),
            (Entry { path: path("etc/pipe"), what: What::Fifo { metadata: metadata(0o644, 0) } }, b""),
        ],
    );
    let script = "set -e; echo two >>/etc/grows; rm /etc/goes; ln /etc/grows /etc/again; ln -s nowhere /etc/link; \
                  chmod 600 /etc/pipe; chmod 4711 /bin/setuid; chmod 755 /bin/capable; >/run/gone; >/tmp/gone";
    let (exit, printed) = shell(&mut sandbox, script, 60);
    assert!(exit.success() && printed.is_empty(), "{exit:?} {printed}");
    let found = captured(&mut sandbox);
    let names: Vec<&str> = found.keys().map(String::as_str).filter(|it| !it.is_empty()).collect();
    let wanted = [
        "/",
        "/bin",
        "/bin/capable",
        "/bin/setuid",
        "/etc",
        "/etc/again",
        "/etc/goes",
        "/etc/grows",
        "/etc/link",
        "/etc/pipe",
    ];
    assert_eq!(names, wanted);
    let What::File { metadata: again, .. } = &found["/etc/again"].0 else { panic!("{found:?}") };
    assert_eq!((again.mode, again.uid, &*found["/etc/again"].1), (0o640, 42, &b"one\ntwo\n"[..]));
    assert_eq!(found["/etc/grows"].0, What::Link(path("etc/again")));
    assert_eq!(found["/etc/goes"].0, What::Gone);
    assert!(matches!(&found["/etc/link"].0, What::Symlink { target, .. } if target == b"nowhere"));
    assert!(matches!(&found["/etc/pipe"].0, What::Fifo { .. }));
    let What::File { metadata: found_capable, .. } = &found["/bin/capable"].0 else { panic!("{found:?}") };
    assert_eq!(found_capable, &capable, "attributes, a capability of version 2 among them, come back as they were");
    let What::File { metadata: setuid, .. } = &found["/bin/setuid"].0 else { panic!("{found:?}") };
    assert_eq!((setuid.mode, setuid.uid, setuid.mtime), (0o4711, 7, TIME));
    sandbox.close().unwrap();
    sandbox.remove("changes").unwrap();
    assert!(sandbox.has("tree").unwrap() && !sandbox.has("changes").unwrap());
}

fn deep() {
    let bench = Bench::new();
    let at = |name: &str| bench.host.directory.join(name);
    fs::create_dir(at("a")).unwrap();
    for number in 0..3000 {
        fs::create_dir(at("p")).unwrap();
        fs::write(at("p").join("file"), b"").unwrap();
        if number % 1000 == 0 {
            // What is moved up finds its name taken.
            fs::create_dir_all(at("p").join("aule-1/x")).unwrap();
            fs::write(at("p").join("aule-2"), b"").unwrap();
        }
        fs::rename(at("a"), at("p").join("a")).unwrap();
        fs::rename(at("p"), at("a")).unwrap();
    }
    let mut sandbox = Sandbox::start(&bench.host).unwrap();
    assert!(sandbox.has("a").unwrap());
    sandbox.remove("a").unwrap();
    assert!(!at("a").exists());
}

fn confined() {
    let bench = Bench::new();
    // What whoever started this program left open, to be inherited.
    let _open = rustix::fs::open("/", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    let mut sandbox = opened(&bench, &[]);
    let script = "set -e; cd /; echo *; echo /dev/*; echo /proc/[0-9]*; while read line; do echo \"$line\"; done </proc/net/dev; \
                  read name </proc/sys/kernel/hostname; echo host=$name; echo path=$PATH; umask; \
                  while read name value; do case $name in CapBnd:|NoNewPrivs:) echo $name$value;; esac; done </proc/self/status; \
                  (echo x >/proc/sys/kernel/core_pattern) 2>/dev/null && echo WRITTEN; \
                  (echo 1 >/proc/self/oom_score_adj) 2>/dev/null && echo WRITTEN; \
                  for number in 3 4 5 6 7 8 9 10 11 12 13 14; do [ ! -d /proc/self/fd/$number/. ] || echo WRITTEN; done; \
                  read number </dev/random && echo WRITTEN || :; \
                  read most </proc/sys/user/max_user_namespaces || :; echo namespaces=$most; echo end";
    let (exit, printed) = shell(&mut sandbox, script, 60);
    assert!(exit.success(), "{exit:?} {printed}");
    let lines: Vec<&str> = printed.lines().collect();
    assert!(
        lines[0]
            .split(' ')
            .all(|it| ["bin", "dev", "etc", "lib", "lib64", "proc", "run", "sys", "tmp", "usr"].contains(&it)),
        "{printed}"
    );
    assert_eq!(
        lines[1],
        "/dev/fd /dev/full /dev/null /dev/ptmx /dev/pts /dev/random /dev/shm /dev/stderr /dev/stdin /dev/stdout /dev/urandom /dev/zero"
    );
    assert_eq!(lines[2].split(' ').count(), 2, "the helper and the shell: {printed}");
    let interfaces: Vec<&str> = lines.iter().copied().filter(|it| it.contains(':') && it.contains(" 0 ")).collect();
    assert!(interfaces.iter().all(|it| it.trim().starts_with("lo:")), "{interfaces:?}");
    for wanted in ["host=localhost", "namespaces=0", "path=/bin", "0022", "NoNewPrivs:1", "end"] {
        assert!(lines.contains(&wanted), "{wanted}: {printed}");
    }
    assert!(!lines.contains(&"WRITTEN"));
    let bounding = lines.iter().find_map(|it| it.strip_prefix("CapBnd:")).unwrap();
    // chown, dac_override, dac_read_search, fowner, fsetid, kill, setgid, setuid, sys_chroot, setfcap.
    assert_eq!(u64::from_str_radix(bounding, 16).unwrap(), 0x8004_00ff, "{bounding}");
}

/// The argument that makes this program, in a tree of its own, ask for what is refused.
const PROBE: &str = "probe";

fn probe() -> ExitCode {
    use rustix::net::{AddressFamily, SocketType, socket};
    let families = [AddressFamily::UNIX, AddressFamily::INET, AddressFamily::INET6, AddressFamily::NETLINK];
    for family in families.into_iter().chain([AddressFamily::PACKET, AddressFamily::VSOCK]) {
        let kind = if family == AddressFamily::UNIX { SocketType::STREAM } else { SocketType::DGRAM };
        println!("{family:?}: {:?}", socket(family, kind, None).map(drop).map_err(|error| error.raw_os_error()));
    }
    let ring = linux_keyutils::KeyRing::from_special_id(linux_keyutils::KeyRingIdentifier::Session, true);
    println!("ring: {:?}", ring.map(drop));
    ExitCode::SUCCESS
}

fn refused() {
    let bench = Bench::new();
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    let what = What::File { metadata: metadata(0o755, 0), size: own.len() as u64 };
    let mut sandbox = opened(&bench, &[(Entry { path: path("bin/probe"), what }, &own)]);
    let (exit, printed) = shell(&mut sandbox, "/bin/probe probe", 60);
    assert!(exit.success(), "{exit:?} {printed}");
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines[..4].iter().all(|it| it.ends_with("Ok(())")), "what the network namespace holds: {printed}");
    // (Without the filter: no permission for the first, and for the second whatever the machine has.)
    for line in &lines[4..6] {
        assert!(line.ends_with("Err(97)"), "EAFNOSUPPORT: {printed}");
    }
    assert_eq!(lines[6], "ring: Err(Unknown(38))", "ENOSYS: {printed}");
}

/// A program of another architecture, and what this program does when it is its emulator.
const FOREIGN: &str = "/bin/foreign";

fn emulate() -> ExitCode {
    let changed = fs::set_permissions("/proc/self/exe", std::os::unix::fs::PermissionsExt::from_mode(0o4755));
    println!(
        "changed: {}, written: {}",
        changed.is_ok(),
        fs::OpenOptions::new().write(true).open("/proc/self/exe").is_ok()
    );
    ExitCode::SUCCESS
}

fn emulated() {
    use std::os::unix::fs::PermissionsExt;
    let mut bench = Bench::new();
    let (name, architecture, machine) = if cfg!(target_arch = "aarch64") {
        ("qemu-x86_64-static", "amd64", 0x3e)
    } else {
        ("qemu-aarch64-static", "arm64", 0xb7)
    };
    let search = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let emulator = search.path().join(name);
    fs::copy(std::env::current_exe().unwrap(), &emulator).unwrap();
    fs::set_permissions(&emulator, fs::Permissions::from_mode(0o755)).unwrap();
    bench.host.search.insert(0, search.path().to_owned());
    // The first bytes of a program (ELF specification, "ELF Header").
    let mut foreign = [0; 64];
    foreign[..20].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, machine, 0]);
    let what = What::File { metadata: metadata(0o755, 0), size: 64 };
    let mut sandbox = Sandbox::start(&bench.host).unwrap();
    unpack(&mut sandbox, tree(&[(Entry { path: path(FOREIGN.trim_start_matches('/')), what }, &foreign)])).unwrap();
    match sandbox.open(&view(architecture)) {
        Err(SandboxError::Missing { what, .. }) => return println!("skipped: {what}"),
        other => other.unwrap(),
    }
    let (exit, printed) = shell(&mut sandbox, FOREIGN, 60);
    assert!(exit.success() && printed.starts_with("changed: "), "{exit:?} {printed}");
    assert!(printed.ends_with("written: false\n"), "{printed}");
    assert_eq!(fs::metadata(&emulator).unwrap().permissions().mode() & 0o7777, 0o755, "{printed}");
}

fn told() {
    let bench = Bench::new();
    let mut sandbox = opened(&bench, &[]);
    let words = vec!["a word of some length".to_owned(); 20_000];
    let arguments =
        ["/bin/sh", "-c", "read line || :; echo $#$line", "sh"].map(str::to_owned).into_iter().chain(words).collect();
    let mut said = Vec::new();
    let program = Program { arguments, environment: BTreeMap::new(), limit: 60 };
    let exit = sandbox.run(&program, &mut |bytes| said.extend_from_slice(bytes)).unwrap();
    assert!(exit.success(), "{exit:?}");
    assert_eq!(String::from_utf8_lossy(&said), "20000\n", "nothing of it is left on standard input");
}

fn too_long() {
    let bench = Bench::new();
    let mut sandbox = opened(&bench, &[]);
    let start = Instant::now();
    let (exit, printed) = shell(&mut sandbox, "echo begins; sleep 1000", 1);
    assert!(exit.timed_out && !exit.success() && printed == "begins\n", "{exit:?} {printed}");
    assert!(start.elapsed().as_secs() < 60);
    let (exit, printed) = shell(&mut sandbox, "echo /proc/[0-9]*", 60);
    assert!(exit.success() && printed.split(' ').count() == 2, "something is left: {printed}");
}

fn left_running() {
    let bench = Bench::new();
    let mut sandbox = opened(&bench, &[]);
    let (exit, printed) = shell(&mut sandbox, "sleep 1000 & sleep 1001 >/dev/null 2>&1 & sleep 1; echo done", 60);
    assert_eq!(
        (exit.success(), exit.left.as_slice(), &*printed),
        (true, &["sleep".to_owned(), "sleep".into()][..], "done\n")
    );
    let (exit, _) = shell(&mut sandbox, "exit 3", 60);
    assert_eq!((exit.code, exit.left.len()), (Some(3), 0));
    let (exit, _) = shell(&mut sandbox, "kill -11 $$", 60);
    assert_eq!((exit.code, exit.signal), (None, Some(11)));
    let arguments = vec!["/bin/not-there".to_owned()];
    let mut said = Vec::new();
    let program = Program { arguments, environment: BTreeMap::new(), limit: 60 };
    let exit = sandbox.run(&program, &mut |bytes| said.extend_from_slice(bytes)).unwrap();
    assert!(exit.code == Some(126) && String::from_utf8_lossy(&said).contains("/bin/not-there"), "{exit:?}");
}

fn hostile() {
    let bench = Bench::new();
    for (name, target) in [("proc", "/etc"), ("dev", "../../../../dev"), ("run", "/"), ("tmp", "/var/tmp")] {
        let what = What::Symlink { metadata: metadata(0o777, 0), target: target.into() };
        let mut sandbox = Sandbox::start(&bench.host).unwrap();
        sandbox.remove("tree").unwrap();
        sandbox.remove("changes").unwrap();
        unpack(&mut sandbox, tree(&[(Entry { path: path(name), what }, b"")])).unwrap();
        let error = sandbox.open(&view(if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(&format!("/{name}")), "{error}");
    }
    let mut sandbox = Sandbox::start(&bench.host).unwrap();
    for name in ["../x", "a/b", "/etc", "..", "a:b", "a,b", ""] {
        assert!(sandbox.remove(name).is_err(), "{name}");
        assert!(sandbox.has(name).is_err(), "{name}");
    }
}

fn half_a_tree() {
    let bench = Bench::new();
    let mut sandbox = Sandbox::start(&bench.host).unwrap();
    let failed = sandbox.unpack("tree", |unpacker| {
        unpacker.entry(Entry {
            path: TreePath::root(),
            what: What::Directory { metadata: metadata(0o755, 0), opaque: false },
        })?;
        Err(SandboxError::Broken("the input ended".into()))
    });
    assert!(failed.unwrap_err().to_string().contains("the input ended"));
    drop(sandbox);
    let mut sandbox = Sandbox::start(&bench.host).unwrap();
    assert!(!sandbox.has("tree").unwrap());
    // An entry below a symlink is an error that names it: it would be anywhere.
    let entries = tree(&[file("etc/a", metadata(0o644, 0), b"a"), file("etc/a/b", metadata(0o644, 0), b"b")]);
    let mut entries: Vec<_> = entries.into_iter().collect();
    for (entry, bytes) in &mut entries {
        if entry.path == path("etc/a") {
            (entry.what, *bytes) =
                (What::Symlink { metadata: metadata(0o777, 0), target: b"/etc".to_vec() }, Vec::new());
        }
    }
    let error = unpack(&mut sandbox, entries).unwrap_err().to_string();
    assert!(error.contains("/etc/a/b") && !Path::new("/etc/b").exists(), "{error}");
    let mut sandbox = Sandbox::start(&bench.host).unwrap();
    sandbox.remove("tree").unwrap();
    sandbox.remove("tree.part").unwrap();
    assert_eq!(fs::read_dir(&bench.host.directory).unwrap().count(), 0);
}

fn dies() {
    let bench = Bench::new();
    let mut sandbox = opened(&bench, &[]);
    let arguments = ["/bin/sh", "-c", "kill -9 1; sleep 1; echo still here"].map(str::to_owned).to_vec();
    let environment = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]);
    // A signal from within does not reach the first process; it lives.
    let mut said = Vec::new();
    let exit = sandbox
        .run(&Program { arguments, environment, limit: 60 }, &mut |bytes| said.extend_from_slice(bytes))
        .unwrap();
    assert!(exit.success() && said == b"still here\n", "{exit:?}");
}
