//! Seeds for cloud-init's NoCloud data source, made for the node that asks, and its report that it is done.

use super::{BODY_MAX, Ends, Shared};
use crate::{
    host_key,
    nodes::{Known, Stage},
    published::Published,
    render::{self, Place, SeedAddress},
    server::{Server, now},
    site::{HostKeys, Release},
};
use axum::{
    body::Body,
    extract::{ConnectInfo, Path, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use std::{collections::BTreeMap, fs, net::IpAddr, sync::Arc, time::Duration};

/// The documents of a seed (cloud-init, DataSourceNoCloud).
const DOCUMENTS: [&str; 4] = ["network-config", "meta-data", "user-data", "vendor-data"];
/// The most that is read of a secret.
pub(crate) const SECRET_MAX: usize = 64 << 10;

/// How long a report may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no document.
enum Refusal {
    /// Nobody here is called so, or there is nothing for them.
    NotFound(String),
    /// It holds secrets that may not be given now.
    Forbidden(String),
    /// It cannot be made.
    Failed(String),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Refusal::NotFound(text) => (StatusCode::NOT_FOUND, text),
            Refusal::Forbidden(text) => (StatusCode::FORBIDDEN, text),
            Refusal::Failed(text) => (StatusCode::INTERNAL_SERVER_ERROR, text),
        };
        (status, text + "\n").into_response()
    }
}

/// A document of a node's seed, from the build that its image stands for in this boot.
pub(super) async fn document(
    State(shared): State<Shared>,
    ends: ConnectInfo<Ends>,
    Path((name, document)): Path<(String, String)>,
    method: Method,
) -> Response {
    answer(shared, ends, name, None, document, method).await
}

/// A document of a node's seed at the address that the node was told when it began to boot.
pub(super) async fn document_of_build(
    State(shared): State<Shared>,
    ends: ConnectInfo<Ends>,
    Path((name, address, document)): Path<(String, String, String)>,
    method: Method,
) -> Response {
    match shared.server.seed_address(&address, &name) {
        Some(address) => answer(shared, ends, name, Some(address), document, method).await,
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// 200, and empty where there is nothing, as cloud-init asks ten times for what it does not get.
async fn answer(
    shared: Shared,
    ConnectInfo(Ends { peer, own }): ConnectInfo<Ends>,
    name: String,
    address: Option<SeedAddress>,
    document: String,
    method: Method,
) -> Response {
    let Some(document) = DOCUMENTS.into_iter().find(|it| *it == document) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    // Who only looks whether it is there must not take the right to its secrets.
    if method == Method::HEAD {
        return StatusCode::OK.into_response();
    }
    let made = tokio::task::spawn_blocking(move || {
        let server = &shared.server;
        let (identity, build) = address.map(|it| (it.identity, it.build)).unzip();
        let identity = identity.unwrap_or_default();
        let node = server
            .see_build(peer.ip(), identity, build, Stage::Seed, document)
            .map_err(|error| Refusal::NotFound(error.to_string()))?;
        // A node gets its own seed only: the name in the path is what its command line told it.
        if node.name != name {
            let asked: String = name.chars().take(64).collect();
            let message = format!("{} asked for the seed of {asked} and is {}", node.address, node.name);
            server.refuse(node.address, message);
            return Err(Refusal::NotFound(format!("{} is {}", node.address, node.name)));
        }
        let place = server.place(own);
        make(server, &node, &place, document)
    });
    match made.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response(),
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn make(server: &Server, node: &Known, place: &Place, document: &str) -> Result<String, Refusal> {
    let build: &Arc<Published> = &node.boot.build;
    let text = build.seed.get(document).map(|bytes| String::from_utf8_lossy(bytes)).unwrap_or_default();
    let failed = |error: String| {
        server.warn(format!("{document} of {}: {error}", node.name));
        Refusal::Failed(error)
    };
    let site = server.site();
    // What begins so is cloud-init's own business, on the node.
    let is_template = !text.trim_start().starts_with("## template: jinja");
    let wants_secrets = is_template && render::names(&text, "secrets").map_err(|error| failed(error.to_string()))?;
    let secrets = if wants_secrets { secrets(server).map_err(failed)? } else { BTreeMap::new() };
    let mut made = match is_template {
        true => render::text(&text, node, place, &secrets).map_err(|error| failed(error.to_string()))?,
        false => text.into_owned(),
    };
    // Everything is made before the right is taken: what fails on the way costs nothing.
    let may = || match site.release {
        Release::Always => Ok(()),
        Release::Once => server.release(node, document),
    };
    match document {
        "meta-data" => made = render::meta_data(&made, node).map_err(|error| failed(error.to_string()))?,
        "vendor-data" => {
            let keys = match site.ssh_host_keys {
                HostKeys::Derived => Some(server.host_key(node).map_err(|error| failed(error.to_string()))?),
                HostKeys::Off => None,
            };
            let allowed = wants_secrets || keys.is_some();
            let allowed = if allowed { may().map(|()| true) } else { Ok(false) };
            return match allowed {
                Ok(_) => Ok(vendor_data(node, place, keys.as_ref(), &made)),
                Err(error) if wants_secrets => Err(forbidden(server, node, document, error)),
                // Without its host key the node makes one of its own; better than no vendor-data.
                Err(error) => {
                    server.refuse(node.address, format!("{} makes SSH host keys of its own: {error}", node.name));
                    Ok(vendor_data(node, place, None, &made))
                }
            };
        }
        _ => {}
    }
    if wants_secrets {
        may().map_err(|error| forbidden(server, node, document, error))?;
    }
    Ok(made)
}

fn forbidden(server: &Server, node: &Known, document: &str, error: String) -> Refusal {
    server.refuse(node.address, format!("{document} was refused to {} ({}): {error}", node.name, node.address));
    Refusal::Forbidden(error)
}

/// The secrets of the site, as their files are now.
fn secrets(server: &Server) -> Result<BTreeMap<String, String>, String> {
    let read = |name: &str, file: &std::path::Path| {
        let text = fs::read_to_string(file)
            .map_err(|error| format!("the secret `{name}` cannot be read ({})", error.kind()))?;
        if text.len() > SECRET_MAX {
            return Err(format!("the secret `{name}` has more than {SECRET_MAX} bytes"));
        }
        Ok(text.trim_end_matches('\n').to_owned())
    };
    server.site().secrets.iter().map(|(name, it)| Ok((name.clone(), read(name, &it.file)?))).collect()
}

/// The seed's own vendor-data with the node's SSH host key and the address to report to. The seed's own comes last, so it
/// wins, and a person's user-data wins over both.
fn vendor_data(node: &Known, place: &Place, key: Option<&host_key::HostKey>, own: &str) -> String {
    let mut post = vec!["instance_id", "hostname"];
    let mut config = serde_json::Map::new();
    if let Some(key) = key {
        config.insert("ssh_keys".into(), json!({ "ed25519_private": key.private, "ed25519_public": key.public }));
        post.push("pub_key_ed25519");
    }
    let url = format!("{}/phone-home/{}", render::origin(place), node.name);
    config.insert("phone_home".into(), json!({ "url": url, "post": post, "tries": 10 }));
    // JSON is YAML.
    let ours = format!("#cloud-config\n{}\n", serde_json::Value::Object(config));
    let start = own.trim_start();
    if start.is_empty() {
        return ours;
    }
    // A document of several parts cannot be a part.
    if start.starts_with("Content-Type:")
        || start.starts_with("MIME-Version:")
        || start.starts_with("#cloud-config-archive")
    {
        return own.to_owned();
    }
    let parts = json!([{ "type": "text/cloud-config", "content": ours }, { "content": own }]);
    format!("#cloud-config-archive\n{parts}\n")
}

/// cloud-init's report that it is done (`phone_home`).
pub(super) async fn phone_home(
    State(shared): State<Shared>,
    ConnectInfo(Ends { peer, .. }): ConnectInfo<Ends>,
    Path(name): Path<String>,
    body: Body,
) -> Response {
    // What it says is of no use here, but a client that is interrupted while it writes tries ten times.
    let read = axum::body::to_bytes(body, BODY_MAX);
    if !matches!(tokio::time::timeout(PATIENCE, read).await, Ok(Ok(_))) {
        return StatusCode::REQUEST_TIMEOUT.into_response();
    }
    let address: IpAddr = peer.ip().to_canonical();
    if !shared.server.nodes.all().iter().any(|it| it.address == address && it.name == name) {
        return StatusCode::NOT_FOUND.into_response();
    }
    shared.server.nodes.note(address, Stage::Done, "phone_home", now());
    StatusCode::NO_CONTENT.into_response()
}
