//! Redirects, proxies and TLS.

use super::{ETAG, fetch, fetch_equal, names, request};
use crate::server::{Server, Step, answer, content, cut, serve, tunnel};
use aule_store::download::{DownloadError, Proxies, Request, fetch_small};
use std::sync::Arc;

fn redirect(to: &str) -> Vec<Step> {
    vec![Step::Send(answer("302 Found", &[&format!("Location: {to}"), "Content-Length: 0"], b""))]
}

#[test]
fn redirects_are_followed_with_the_range() {
    let (file, into) = (content(5000), tempfile::tempdir().unwrap());
    let served = file.clone();
    let server = Server::start(move |number, head| match head.line.as_str() {
        "GET /a/b HTTP/1.1" => redirect("c?d"),
        "GET /a/c?d HTTP/1.1" => {
            let whole = serve(head, &served, ETAG);
            vec![Step::Send(if number < 2 { cut(whole, 1000) } else { whole })]
        }
        other => panic!("{other}"),
    });
    fetch_equal(&request(server.url("/a/b")), into.path(), &file);
    let range = Some("bytes=1000-".to_owned());
    assert_eq!(server.ranges(), [None, None, range.clone(), range]);
}

#[test]
fn a_loop_of_redirects_ends() {
    let into = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| redirect("/again"));
    let error = fetch(&request(server.url("/")), into.path()).unwrap_err();
    assert!(matches!(error, DownloadError::TooManyRedirects { limit: 10, .. }), "{error:?}");
    assert_eq!(server.heads().len(), 11);
    assert_eq!(names(into.path()), [""; 0]);
}

#[test]
fn redirects_to_files_are_refused() {
    let into = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| redirect("file:///etc/passwd"));
    let error = fetch(&request(server.url("/")), into.path()).unwrap_err();
    assert!(matches!(error, DownloadError::UnsupportedScheme { .. }), "{error:?}");
}

#[test]
fn a_password_goes_to_its_own_server_only() {
    let other = Server::start(|_, head| vec![Step::Send(serve(head, b"abc", ETAG))]);
    let elsewhere = other.url("/");
    let server = Server::start(move |_, head| match head.line.as_str() {
        "GET / HTTP/1.1" => redirect("/here"),
        _ => redirect(&elsewhere),
    });
    let request = request(format!("http://user:pass@{}/", server.address));
    assert_eq!(fetch_small(&request, 10).unwrap(), b"abc");
    assert!(server.heads().iter().all(|head| head.get("authorization").is_some()));
    assert_eq!(server.heads().len(), 2);
    assert_eq!(other.heads()[0].get("authorization"), None);
}

/// Through a proxy of its own, named by IP address or `localhost`.
fn through(proxy: &Server, url: &str, no_proxy: &str) -> Request {
    let mut request = request(url.into());
    let setting = Some(format!("http://me:sesame@{}", proxy.address));
    let no_proxy = Proxies::split_no_proxy(no_proxy);
    request.proxies = Some(Proxies { all: setting, no_proxy, ..Proxies::default() });
    request
}

#[test]
fn a_proxy_gets_the_absolute_form() {
    let (file, into) = (content(5000), tempfile::tempdir().unwrap());
    let served = file.clone();
    let proxy = Server::start(move |number, head| {
        let whole = serve(head, &served, ETAG);
        vec![Step::Send(if number == 0 { cut(whole, 1000) } else { whole })]
    });
    // Its name is not resolved here: there is no such host.
    fetch_equal(&through(&proxy, "http://user:pass@files.invalid:8080/a/b?c", ""), into.path(), &file);
    let heads = proxy.heads();
    assert_eq!(heads.len(), 2);
    for head in &heads {
        assert_eq!(head.line, "GET http://files.invalid:8080/a/b?c HTTP/1.1");
        assert_eq!(head.get("host"), Some("files.invalid:8080"));
        assert_eq!(head.get("proxy-authorization"), Some("Basic bWU6c2VzYW1l"));
        assert_eq!(head.get("authorization"), Some("Basic dXNlcjpwYXNz"));
    }
    assert_eq!(heads[1].get("range"), Some("bytes=1000-"));
}

#[test]
fn hosts_of_no_proxy_are_reached_directly() {
    let proxy = Server::start(|_, head| vec![Step::Send(serve(head, b"proxy", ETAG))]);
    let server = Server::start(|_, head| vec![Step::Send(serve(head, b"server", ETAG))]);
    for (no_proxy, expected) in [("", "proxy"), ("127.0.0.0/8", "server"), ("example.org,*", "server")] {
        let request = through(&proxy, &server.url("/"), no_proxy);
        assert_eq!(fetch_small(&request, 10).unwrap(), expected.as_bytes(), "{no_proxy}");
    }
    assert_eq!(server.heads()[0].line, "GET / HTTP/1.1");
    assert_eq!(server.heads()[0].get("proxy-authorization"), None);
    assert_eq!(proxy.heads().len(), 1);
}

#[test]
fn https_goes_through_a_proxy_in_a_tunnel() {
    let proxy = Server::start(|_, _| vec![Step::Send(answer("403 Forbidden", &["Content-Length: 0"], b""))]);
    let error = fetch_small(&through(&proxy, "https://files.invalid/a", ""), 10).unwrap_err();
    assert!(error.to_string().contains("403") && error.to_string().contains("proxy"), "{error}");
    let heads = proxy.heads();
    assert_eq!(heads.len(), 1);
    assert_eq!(heads[0].line, "CONNECT files.invalid:443 HTTP/1.1");
    assert_eq!(heads[0].get("proxy-authorization"), Some("Basic bWU6c2VzYW1l"));
}

/// A TLS server for `localhost`, and the PEM root that it is to be believed with.
fn tls() -> (Arc<rustls::ServerConfig>, Vec<u8>) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), certified.cert.pem().into_bytes())
}

#[test]
fn https_wants_a_certificate_of_a_known_root() {
    let (file, into) = (content(300_000), tempfile::tempdir().unwrap());
    let (config, root) = tls();
    let served = file.clone();
    let server = Server::start_tls(config, move |number, head| {
        let whole = serve(head, &served, ETAG);
        vec![Step::Send(if number == 0 { cut(whole, 1000) } else { whole })]
    });
    let mut request = request(format!("https://localhost:{}/", server.address.port()));
    let error = fetch(&request, into.path()).unwrap_err();
    assert!(matches!(error, DownloadError::Network { may_pass: false, .. }), "{error:?}");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(server.heads().len(), 0);
    request.extra_roots = root;
    fetch_equal(&request, into.path(), &file);
    assert_eq!(server.ranges(), [None, Some("bytes=1000-".into())]);
    for roots in ["nothing of the kind", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
        request.extra_roots = roots.into();
        assert!(matches!(fetch(&request, into.path()), Err(DownloadError::InvalidRoots { .. })), "{roots}");
    }
}

#[test]
fn a_tunnel_carries_tls_to_the_server() {
    let (file, into) = (content(300_000), tempfile::tempdir().unwrap());
    let (config, root) = tls();
    let served = file.clone();
    let server = Server::start_tls(config, move |_, head| vec![Step::Send(serve(head, &served, ETAG))]);
    let mut request = request(format!("https://localhost:{}/a", server.address.port()));
    request.extra_roots = root;
    request.proxies = Some(Proxies { https: Some(tunnel(server.address).to_string()), ..Proxies::default() });
    fetch_equal(&request, into.path(), &file);
    assert_eq!(server.heads()[0].line, "GET /a HTTP/1.1");
    assert_eq!(server.heads().len(), 1);
}

#[test]
fn https_is_not_left_for_http() {
    let (config, root) = tls();
    let plain = Server::start(|_, head| vec![Step::Send(serve(head, b"abc", ETAG))]);
    let to = plain.url("/?sesame");
    let secure = Server::start_tls(config, move |_, _| redirect(&to));
    let there = format!("https://localhost:{}/", secure.address.port());
    // Also not where http had led to https.
    let first = Server::start(move |_, _| redirect(&there));
    let mut request = request(first.url("/"));
    request.extra_roots = root;
    let error = fetch_small(&request, 10).unwrap_err();
    assert!(matches!(error, DownloadError::InsecureRedirect { .. }), "{error:?}");
    assert!(!error.to_string().contains("sesame"));
    assert_eq!((secure.heads().len(), plain.heads().len()), (1, 0));
}
