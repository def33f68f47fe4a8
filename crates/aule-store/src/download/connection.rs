//! One question to a server: proxy, TLS, redirects, and the body as it comes.

use super::{
    Request, Timeouts,
    error::{self, DownloadError},
    proxy::Proxies,
    response::{self, Resumption},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use percent_encoding::percent_decode_str;
use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use ureq::{
    Agent, BodyReader,
    config::Config,
    http::{HeaderMap, Uri, header},
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{
            Buffers, ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, RustlsConnector, TcpConnector,
            Transport,
        },
    },
};
use url::{Position, Url};

/// Redirects followed for one question, as many as curl and browsers find sensible and more.
const MOST_REDIRECTS: u32 = 10;

/// Asks servers, with the settings of one request.
pub(super) struct Client {
    proxies: Proxies,
    timeouts: Timeouts,
    tls: TlsConfig,
}

impl Client {
    /// Reads the extra roots of the request.
    pub(super) fn new(request: &Request) -> Result<Self, DownloadError> {
        let invalid = |reason: &str| DownloadError::InvalidRoots { reason: reason.to_owned() };
        let mut roots: Vec<Certificate<'static>> =
            webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|root| Certificate::from_der(root)).collect();
        let built_in = roots.len();
        for item in parse_pem(&request.extra_roots) {
            match item {
                Ok(PemItem::Certificate(root)) => roots.push(root),
                Ok(_) => {}
                Err(error) => return Err(invalid(&error.to_string())),
            }
        }
        if !request.extra_roots.is_empty() && roots.len() == built_in {
            return Err(invalid("there is no PEM certificate in them"));
        }
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::from(roots))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        Ok(Client { proxies: request.proxies.clone().unwrap_or_default(), timeouts: request.timeouts, tls })
    }

    /// Asks for `url`, or for the rest of it, and follows redirects.
    pub(super) fn get(&self, url: &Url, resumption: Option<&Resumption>) -> Result<Answer, DownloadError> {
        let mut current = url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.ask(&current, resumption)?;
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let mut next = target(&current, &answer.headers)?;
            // The user and password are for the server they were given for, and no other.
            if next.origin() == url.origin() && next.username().is_empty() && next.password().is_none() {
                let _ = next.set_username(url.username());
                let _ = next.set_password(url.password());
            }
            current = next;
        }
        Err(DownloadError::TooManyRedirects { url: error::shown(url), limit: MOST_REDIRECTS })
    }

    fn ask(&self, url: &Url, resumption: Option<&Resumption>) -> Result<Answer, DownloadError> {
        let shown = error::shown(url);
        let failed = |error: ureq::Error| DownloadError::network(&shown, error);
        let plain = without_user(url);
        let uri: Uri = plain
            .as_str()
            .parse()
            .map_err(|error: ureq::http::uri::InvalidUri| DownloadError::InvalidUrl { reason: error.to_string() })?;
        let proxy = self.proxies.choose(url)?;
        let (forward, tunnel) = match proxy {
            // Proxies often refuse to make tunnels to other ports than that of https: plain http is given to them in
            // the absolute form (RFC 9112 section 3.2.2). To a proxy that speaks TLS itself there is only the tunnel.
            Some(proxy) if url.scheme() == "http" && proxy.scheme() == "http" => (Some(proxy), None),
            other => (None, other),
        };
        let excess = Arc::new(AtomicBool::new(false));
        let observer = Observer {
            uri: uri.clone(),
            absolute_prefix: forward.is_some().then(|| plain[..Position::BeforePath].as_bytes().to_vec()),
            excess: Arc::clone(&excess),
        };
        let agent =
            self.agent(tunnel.as_ref(), forward.as_ref().map(without_user).as_ref(), observer).map_err(failed)?;
        let mut builder = agent
            .get(uri)
            .header(header::ACCEPT_ENCODING, "identity")
            // One question per connection, so that excess bytes can be told from a next answer.
            .header(header::CONNECTION, "close");
        if let Some(credentials) = basic_credentials(url) {
            builder = builder.header(header::AUTHORIZATION, credentials);
        }
        if let Some(credentials) = forward.as_ref().and_then(basic_credentials) {
            builder = builder.header(header::PROXY_AUTHORIZATION, credentials);
        }
        if let Some(Resumption { from, validator }) = resumption {
            builder =
                builder.header(header::RANGE, format!("bytes={from}-")).header(header::IF_RANGE, validator.text());
        }
        let (parts, body) = builder.call().map_err(failed)?.into_parts();
        let framing = match body.content_length() {
            Some(length) => Framing::Length(length),
            None if response::is_chunked(&parts.headers) => Framing::Chunked,
            // The client does not tell an empty body from none.
            None => response::announced_length(&parts.headers).map_or(Framing::UntilClose, Framing::Length),
        };
        let (status, headers, body) = (parts.status.as_u16(), parts.headers, body.into_reader());
        Ok(Answer { shown, status, headers, framing, body, excess })
    }

    fn agent(&self, tunnel: Option<&Url>, forward: Option<&Url>, observer: Observer) -> Result<Agent, ureq::Error> {
        let config = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("aule/", env!("CARGO_PKG_VERSION")))
            .tls_config(self.tls.clone())
            // Also with no proxy, for the default is what the environment says.
            .proxy(tunnel.map(|proxy| ureq::Proxy::new(proxy.as_str())).transpose()?)
            .timeout_resolve(Some(self.timeouts.connect))
            .timeout_connect(Some(self.timeouts.connect))
            .timeout_send_request(Some(self.timeouts.response))
            .timeout_recv_response(Some(self.timeouts.response))
            .timeout_per_read(Some(self.timeouts.idle))
            .max_idle_connections(0)
            .build();
        let resolver = match forward {
            Some(proxy) => Address::Of(proxy.as_str().parse().map_err(|_| ureq::Error::InvalidProxyUrl)?),
            None => Address::OfTarget,
        };
        let connector =
            ().chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default())
                .chain(RustlsConnector::default())
                .chain(observer);
        Ok(Agent::with_parts(config, connector, resolver))
    }
}

/// Where a redirect leads.
fn target(from: &Url, headers: &HeaderMap) -> Result<Url, DownloadError> {
    let bad = |reason: &str| DownloadError::BadRedirect { url: error::shown(from), reason: reason.to_owned() };
    let location = headers.get(header::LOCATION).ok_or_else(|| bad("it does not say where to"))?;
    let location = location.to_str().map_err(|_| bad("it is not text"))?;
    let mut to = from.join(location).map_err(|error| bad(&error.to_string()))?;
    to.set_fragment(None);
    error::check_scheme(&to)?;
    if from.scheme() == "https" && to.scheme() != "https" {
        return Err(DownloadError::InsecureRedirect { from: error::shown(from), to: error::shown(&to) });
    }
    Ok(to)
}

fn without_user(url: &Url) -> Url {
    let mut plain = url.clone();
    // These fail for URLs without a host, which have no user information either.
    let _ = plain.set_username("");
    let _ = plain.set_password(None);
    plain
}

/// The value of `Authorization` for the user and password of a URL (RFC 7617).
fn basic_credentials(url: &Url) -> Option<String> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut pair: Vec<u8> = percent_decode_str(url.username()).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(url.password().unwrap_or_default()));
    Some(format!("Basic {}", BASE64_STANDARD.encode(pair)))
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// `Content-Length`.
    Length(u64),
    /// The last chunk is marked.
    Chunked,
    /// The connection ends: whether it ended too early cannot be known.
    UntilClose,
}

/// The answer of a server.
pub(super) struct Answer {
    /// The URL after redirects, for people.
    pub(super) shown: String,
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) framing: Framing,
    body: BodyReader<'static>,
    excess: Arc<AtomicBool>,
}

impl Answer {
    /// Bytes of the body, where the head says it.
    pub(super) fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }

    /// The next piece of the body; an empty one at its sound end. `received` of `expected` bytes were received before,
    /// for the error.
    pub(super) fn read<'b>(
        &mut self,
        buffer: &'b mut [u8],
        received: u64,
        expected: Option<u64>,
    ) -> Result<&'b [u8], DownloadError> {
        let read = loop {
            match self.body.read(buffer).map_err(ureq::Error::from) {
                Ok(read) => break read,
                Err(ureq::Error::Io(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(ureq::Error::Io(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(DownloadError::Incomplete { url: self.shown.clone(), received, expected });
                }
                Err(error) => return Err(DownloadError::network(&self.shown, error)),
            }
        };
        match self.length() {
            Some(length) if read == 0 && self.excess.load(Ordering::Relaxed) => {
                Err(DownloadError::Excess { url: self.shown.clone(), length })
            }
            _ => Ok(buffer.get(..read).unwrap_or_default()),
        }
    }

    /// The error for a status that is none of the expected ones.
    pub(super) fn unexpected_status(self) -> DownloadError {
        let retry_after = response::retry_after(&self.headers);
        DownloadError::Status { url: self.shown, status: self.status, retry_after }
    }
}

/// Resolves the name of the server, or of the proxy that everything is given to.
#[derive(Debug)]
enum Address {
    OfTarget,
    Of(Uri),
}

impl Resolver for Address {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let uri = match self {
            Address::OfTarget => uri,
            Address::Of(proxy) => proxy,
        };
        DefaultResolver::default().resolve(uri, config, timeout)
    }
}

/// The last link of the chain that makes connections: puts an [`Observed`] around the one to `uri`.
#[derive(Debug)]
struct Observer {
    uri: Uri,
    absolute_prefix: Option<Vec<u8>>,
    excess: Arc<AtomicBool>,
}

impl<In: Transport> Connector<In> for Observer {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(inner) = chained else { return Ok(None) };
        // The chain also makes the connection to a proxy, which then carries that to the server.
        if details.uri != &self.uri {
            return Ok(Some(Box::new(inner)));
        }
        let (absolute_prefix, excess) = (self.absolute_prefix.clone(), Arc::clone(&self.excess));
        Ok(Some(Box::new(Observed { inner, absolute_prefix, excess })))
    }
}

/// A connection that writes the request in the absolute form where it goes to a proxy, and notes when it is closed
/// with bytes that are no part of the answer.
#[derive(Debug)]
struct Observed<In: Transport> {
    inner: In,
    /// `http://HOST:PORT`, to be inserted before the path of the request line that has not been sent yet.
    absolute_prefix: Option<Vec<u8>>,
    excess: Arc<AtomicBool>,
}

impl<In: Transport> Transport for Observed<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let amount = match self.absolute_prefix.take() {
            Some(prefix) => make_absolute(self.inner.buffers().output(), amount, &prefix)
                .ok_or_else(|| ureq::Error::Other("the request does not fit the buffer".into()))?,
            None => amount,
        };
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

impl<In: Transport> Drop for Observed<In> {
    fn drop(&mut self) {
        if !self.inner.buffers().input().is_empty() {
            self.excess.store(true, Ordering::Relaxed);
        }
    }
}

/// Makes `GET /path …` in the first `amount` bytes of `output` to `GET http://host/path …`; returns the new amount.
fn make_absolute(output: &mut [u8], amount: usize, prefix: &[u8]) -> Option<usize> {
    const METHOD: &[u8] = b"GET ";
    let longer = amount.checked_add(prefix.len())?;
    let request = output.get_mut(..longer)?;
    if !request.starts_with(METHOD) || amount < METHOD.len() {
        return None;
    }
    request.copy_within(METHOD.len()..amount, METHOD.len() + prefix.len());
    request.get_mut(METHOD.len()..METHOD.len() + prefix.len())?.copy_from_slice(prefix);
    Some(longer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines_become_absolute() {
        let mut output = [0; 40];
        let line = b"GET /a HTTP/1.1\r\n";
        output[..line.len()].copy_from_slice(line);
        let amount = make_absolute(&mut output, line.len(), b"http://h:1").unwrap();
        assert_eq!(&output[..amount], b"GET http://h:1/a HTTP/1.1\r\n");
        assert_eq!(make_absolute(&mut output, 35, b"http://h:1"), None, "there is no room");
        assert_eq!(make_absolute(&mut [b'x'; 40], 17, b"http://h:1"), None, "it is no request");
    }

    #[test]
    fn credentials_are_decoded_once() {
        let credentials = |url: &str| basic_credentials(&Url::parse(url).unwrap());
        assert_eq!(credentials("http://example.org/"), None);
        // The example of RFC 7617 section 2.
        let expected = Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==".to_owned());
        assert_eq!(credentials("http://Aladdin:open%20sesame@example.org/"), expected);
    }

    #[test]
    fn redirects_lead_to_http_only_from_http() {
        let to = |from: &str, location: &str| {
            let headers = [(header::LOCATION, location.parse().unwrap())].into_iter().collect();
            target(&Url::parse(from).unwrap(), &headers)
        };
        for (from, location, expected) in [
            ("http://a/b/c?d", "e", "http://a/b/e"),
            ("http://a/b/c?d", "/e?f#g", "http://a/e?f"),
            ("http://a/b", "//c/d", "http://c/d"),
            ("http://a/b", "https://c/d", "https://c/d"),
            ("https://a/b", "https://c/d", "https://c/d"),
        ] {
            assert_eq!(to(from, location).unwrap().as_str(), expected);
        }
        assert!(matches!(to("https://a/b", "http://a/b"), Err(DownloadError::InsecureRedirect { .. })));
        assert!(matches!(to("http://a/b", "file:///etc/passwd"), Err(DownloadError::UnsupportedScheme { .. })));
        assert!(matches!(to("http://a/b", "http://"), Err(DownloadError::BadRedirect { .. })));
        assert!(target(&Url::parse("http://a/").unwrap(), &HeaderMap::new()).is_err());
    }
}
