//! What the environment says, read in this one place: the store, proxies, certificates, the clock, the processors.

use crate::failure::Failure;
use aule_build::{Network, SandboxTools};
use aule_deb::sources::{deb822, first_mirror, one_line};
use aule_store::Store;
use aule_tree::Timestamp;
use std::{
    env, fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Opens the store: `--store`, else `$AULE_STORE`, else `$XDG_DATA_HOME/aule/store`, else `~/.local/share/aule/store`.
pub(crate) fn store(argument: Option<PathBuf>) -> Result<Store, Failure> {
    Ok(Store::open(store_path(argument)?)?)
}

/// The same store, which is then only looked at: nothing is made or changed.
pub(crate) fn store_to_look(argument: Option<PathBuf>) -> Result<Store, Failure> {
    Ok(Store::open_to_look(store_path(argument)?)?)
}

fn store_path(argument: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = argument
        .or_else(|| variable("AULE_STORE"))
        .or_else(|| variable("XDG_DATA_HOME").map(|home| home.join("aule/store")))
        .or_else(|| variable("HOME").map(|home| home.join(".local/share/aule/store")));
    path.ok_or_else(|| {
        Failure::new("there is no place for the store: neither $AULE_STORE nor $HOME is set")
            .hint("say where it should be with `--store DIR`")
    })
}

/// How many threads work when nothing is said.
pub(crate) fn jobs(argument: Option<usize>) -> usize {
    argument.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).clamp(1, 256)
}

/// The time by which signatures are judged.
pub(crate) fn now() -> Option<Timestamp> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_seconds(i64::try_from(since.as_secs()).ok()?))
}

/// What packages are installed with: this program itself, and programs on `$PATH` and where administrators' programs are.
/// `emulate_all`: nothing of this machine's architecture stands in for programs of the image.
pub(crate) fn sandbox(emulate_all: bool) -> Option<SandboxTools> {
    let program = env::current_exe().ok()?;
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin"].map(PathBuf::from);
    // A relative directory would mean another one in the sandbox's.
    let search = env::split_paths(&path).filter(|it| it.is_absolute()).chain(usual).collect();
    Some(SandboxTools { program, search, emulate_all })
}

/// Proxies from `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, the certificates that the system trusts, and the
/// archive of Debian packages: `--mirror`, else that of this machine's apt.
pub(crate) fn network(mirror: Option<&str>) -> Network {
    let mirror = mirror.map(str::to_owned).or_else(|| machine_mirror(Path::new("/etc/apt")));
    Network { proxies: proxies(), extra_roots: certificates(), mirror }
}

/// The first archive that an apt with this directory of settings has of a whole release: updates and security fixes lie
/// elsewhere. What cannot be read is no source.
fn machine_mirror(apt: &Path) -> Option<String> {
    let parts = fs::read_dir(apt.join("sources.list.d")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = parts.collect();
    files.sort();
    files.push(apt.join("sources.list"));
    let lists = files.into_iter().flat_map(|path| {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let read = match path.extension().and_then(|it| it.to_str()) {
            Some("sources") => deb822(&text),
            Some("list") => one_line(&text),
            _ => Ok(Vec::new()),
        };
        read.unwrap_or_default()
    });
    // None with a password: it would get into locks and artifacts.
    lists.filter(|list| !list.suite.contains(['-', '/'])).find_map(|list| {
        let list = match list.mirror_list() {
            Some(file) => list.at(first_mirror(&fs::read_to_string(file).ok()?)?),
            None => list,
        };
        let uri = Some(list.uri).filter(|_| !list.has_secret)?;
        uri.parse::<aule_recipe::Url>().is_ok().then_some(uri)
    })
}

fn proxies() -> Option<aule_store::download::Proxies> {
    let variable = |name: &str| {
        let value = env::var(name).or_else(|_| env::var(name.to_ascii_uppercase())).ok()?;
        (!value.is_empty()).then_some(value)
    };
    let (http, https, all) = (variable("http_proxy"), variable("https_proxy"), variable("all_proxy"));
    if http.is_none() && https.is_none() && all.is_none() {
        return None;
    }
    let no_proxy = variable("no_proxy").unwrap_or_default();
    Some(aule_store::download::Proxies {
        http,
        https,
        all,
        no_proxy: aule_store::download::Proxies::split_no_proxy(&no_proxy),
    })
}

fn certificates() -> Vec<u8> {
    let candidates = [
        env::var_os("SSL_CERT_FILE").map(PathBuf::from),
        Some("/etc/ssl/certs/ca-certificates.crt".into()),
        Some("/etc/pki/tls/certs/ca-bundle.crt".into()),
        Some("/etc/ssl/cert.pem".into()),
    ];
    candidates.into_iter().flatten().find_map(|path| std::fs::read(path).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::machine_mirror;
    use std::fs;

    #[test]
    fn the_mirror_of_apt() {
        let apt = tempfile::tempdir().unwrap();
        let parts = apt.path().join("sources.list.d");
        fs::create_dir(&parts).unwrap();
        assert_eq!(machine_mirror(apt.path()), None);
        fs::write(
            apt.path().join("sources.list"),
            "deb http://a:b@own.example/debian trixie main\ndeb http://old.example/debian trixie main\n",
        )
        .unwrap();
        assert_eq!(machine_mirror(apt.path()).as_deref(), Some("http://old.example/debian"));
        let mirrors = apt.path().join("mirrors");
        fs::write(&mirrors, "# first\n\nhttps://near.example/debian/\tpriority:1\nhttp://far.example/debian\n")
            .unwrap();
        let text = format!(
            "Types: deb\nURIs: http://security.example/\nSuites: trixie-security\nComponents: main\n\n\
             Types: deb\nURIs: mirror+file:{}\nSuites: trixie trixie-updates\nComponents: main\n",
            mirrors.display()
        );
        fs::write(parts.join("debian.sources"), text).unwrap();
        assert_eq!(machine_mirror(apt.path()).as_deref(), Some("https://near.example/debian"));
    }
}
