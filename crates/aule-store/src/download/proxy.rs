//! Which proxy, if any, a URL is fetched through.
//!
//! The settings have the meaning that curl and wget give to `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`;
//! address ranges in `no_proxy` are those of curl 7.86 and Go.

use super::error::DownloadError;
use std::{fmt, net::IpAddr};
use url::{Host, Url};

/// Proxy settings, as values: reading the environment is the business of the command.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` URLs: `http://[USER:PASSWORD@]HOST[:PORT]`; a missing scheme is http. Empty is none.
    pub http: Option<String>,
    /// For `https://` URLs.
    pub https: Option<String>,
    /// For those of the two that have no setting of their own.
    pub all: Option<String>,
    /// Hosts that are reached directly; see [`Proxies::split_no_proxy`].
    pub no_proxy: Vec<String>,
}

/// Says only what is set, for proxy URLs hold passwords.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |setting: &Option<String>| setting.as_ref().map(|_| "(set)");
        f.debug_struct("Proxies")
            .field("http", &set(&self.http))
            .field("https", &set(&self.https))
            .field("all", &set(&self.all))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

impl Proxies {
    /// The entries of a `no_proxy` variable, which are separated by commas or blanks.
    ///
    /// An entry is `*` for all hosts; a host, which also stands for the hosts below it, with or without a dot before
    /// it; an address; or a range of addresses such as `10.0.0.0/8`. All but the last can have a `:PORT`.
    pub fn split_no_proxy(value: &str) -> Vec<String> {
        value.split([',', ' ', '\t']).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
    }

    /// The proxy to fetch `url` through, or none.
    pub(super) fn choose(&self, url: &Url) -> Result<Option<Url>, DownloadError> {
        let own = match url.scheme() {
            "http" => ("http", &self.http),
            _ => ("https", &self.https),
        };
        let set = [own, ("all", &self.all)].into_iter().find_map(|(scheme, setting)| match setting.as_deref() {
            None | Some("") => None,
            Some(text) => Some((scheme, text)),
        });
        match set {
            Some((scheme, text)) if !self.goes_directly(url) => parse(scheme, text).map(Some),
            _ => Ok(None),
        }
    }

    fn goes_directly(&self, url: &Url) -> bool {
        let Some(host) = url.host() else { return false };
        let port = url.port_or_known_default();
        self.no_proxy.iter().any(|entry| matches(entry, &host, port))
    }
}

/// The URL of a proxy.
fn parse(scheme: &'static str, text: &str) -> Result<Url, DownloadError> {
    let invalid = |reason: &str| DownloadError::InvalidProxy { scheme, reason: reason.to_owned() };
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&with_scheme).map_err(|error| invalid(&error.to_string()))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        other => Err(invalid(&format!("proxies of the kind `{other}` are not supported"))),
    }
}

/// Whether an entry of `no_proxy` stands for this host and port.
fn matches(entry: &str, host: &Host<&str>, port: Option<u16>) -> bool {
    if entry == "*" {
        return true;
    }
    match host {
        Host::Ipv4(address) => matches_address(entry, IpAddr::V4(*address), port),
        Host::Ipv6(address) => matches_address(entry, IpAddr::V6(*address), port),
        Host::Domain(name) => matches_name(entry, name, port),
    }
}

fn matches_name(entry: &str, name: &str, port: Option<u16>) -> bool {
    let (pattern, entry_port) = match entry.rsplit_once(':') {
        Some((pattern, digits)) => match digits.parse::<u16>() {
            Ok(number) => (pattern, Some(number)),
            Err(_) => return false,
        },
        None => (entry, None),
    };
    if entry_port.is_some() && entry_port != port {
        return false;
    }
    let pattern = pattern.strip_prefix('*').unwrap_or(pattern);
    let pattern = pattern.strip_prefix('.').unwrap_or(pattern).trim_end_matches('.').to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    if pattern.is_empty() {
        return false;
    }
    // A match ends at a label: `example.org` is for `www.example.org`, not for `badexample.org`.
    name.strip_suffix(pattern.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn matches_address(entry: &str, address: IpAddr, port: Option<u16>) -> bool {
    if let Some((network, bits)) = entry.split_once('/') {
        return match (network.parse(), bits.parse()) {
            (Ok(network), Ok(bits)) => in_range(address, network, bits),
            _ => false,
        };
    }
    if let Ok(socket) = entry.parse::<std::net::SocketAddr>() {
        return socket.ip() == address && Some(socket.port()) == port;
    }
    entry.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok_and(|entry| entry == address)
}

/// Whether the first `bits` bits of the two addresses are the same.
fn in_range(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (difference, width) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits() ^ b.to_bits()), 32_u32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits(), 128),
        _ => return false,
    };
    match width.checked_sub(bits) {
        None => false,
        // A shift by the full width is not defined; zero bits are all addresses.
        Some(rest) => difference.checked_shr(rest).unwrap_or(0) == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_entries() {
        for (entry, url, expected) in [
            ("*", "http://anything.example/", true),
            ("example.org", "http://example.org/", true),
            ("example.org", "http://www.example.org/", true),
            ("Example.ORG", "http://www.example.org/", true),
            (".example.org", "http://www.example.org/", true),
            ("*.example.org", "http://www.example.org/", true),
            (".example.org", "http://example.org/", true),
            ("example.org", "http://badexample.org/", false),
            ("example.org", "http://example.org.evil.example/", false),
            ("example.org.", "http://example.org/", true),
            ("example.org:8080", "http://example.org:8080/", true),
            ("example.org:8080", "http://example.org/", false),
            ("example.org:443", "https://example.org/", true),
            (".", "http://example.org/", false),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "http://11.1.2.3/", false),
            ("10.0.0.0/33", "http://10.1.2.3/", false),
            ("0.0.0.0/0", "http://10.1.2.3/", true),
            ("::/0", "http://[2001:db8::1]/", true),
            ("2001:db8::/32", "http://[2001:db8::1]/", true),
            ("2001:db8::/32", "http://[2001:db9::1]/", false),
            ("127.0.0.1", "http://127.0.0.1:8080/", true),
            ("127.0.0.1:8080", "http://127.0.0.1:8080/", true),
            ("127.0.0.1:8081", "http://127.0.0.1:8080/", false),
            ("[::1]", "http://[::1]/", true),
            ("::1", "http://[::1]/", true),
            ("0.1", "http://10.0.0.1/", false),
        ] {
            let proxies = Proxies { no_proxy: vec![entry.into()], ..Proxies::default() };
            assert_eq!(proxies.goes_directly(&Url::parse(url).unwrap()), expected, "{entry} for {url}");
        }
    }

    #[test]
    fn the_setting_of_the_scheme_comes_before_that_for_all() {
        let proxies = Proxies {
            http: Some("one:3128".into()),
            https: Some(String::new()),
            all: Some("http://two".into()),
            no_proxy: Proxies::split_no_proxy("localhost, 127.0.0.1,\t.internal"),
        };
        for (url, expected) in [
            ("http://example.org/", Some("http://one:3128/")),
            ("https://example.org/", Some("http://two/")),
            ("https://a.internal/", None),
            ("http://127.0.0.1/", None),
        ] {
            let proxy = proxies.choose(&Url::parse(url).unwrap()).unwrap();
            assert_eq!(proxy.as_ref().map(Url::as_str), expected, "{url}");
        }
    }

    #[test]
    fn an_unusable_proxy_is_told_without_its_password() {
        for text in ["socks5://user:secret@host:1080", "http://user:secret@", "http://user:secret@host:99999"] {
            let proxies = Proxies { all: Some(text.into()), ..Proxies::default() };
            let error = proxies.choose(&Url::parse("http://example.org/").unwrap()).unwrap_err();
            assert!(!format!("{error} {error:?} {proxies:?}").contains("secret"), "{error}");
        }
    }
}
