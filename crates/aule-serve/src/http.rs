//! HTTP: seeds for cloud-init, artifacts by digest, health, metrics, nodes.

use crate::{
    nodes::{Known, Stage},
    render,
    server::Server,
    site::Release,
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::net::TcpListener;

/// The largest body that is taken: cloud-init reports some keys.
const BODY_MAX: usize = 64 << 10;
/// The documents of a seed (cloud-init, DataSourceNoCloud).
const DOCUMENTS: [&str; 4] = ["network-config", "meta-data", "user-data", "vendor-data"];

/// Answers requests on a listener, for ever.
///
/// # Errors
/// When the listener fails for good.
pub(crate) async fn serve(listener: TcpListener, server: Arc<Server>) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .route("/nodes", get(nodes))
        .route("/seed/{node}/{document}", get(seed))
        .route("/phone-home/{node}", post(phone_home))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&server), only_allowed))
        .with_state(server);
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await
}

async fn only_allowed(
    State(server): State<Arc<Server>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match server.site().allows(peer.ip()) {
        true => next.run(request).await,
        false => StatusCode::FORBIDDEN.into_response(),
    }
}

/// A document of a node's seed: 200, and empty where there is nothing, as cloud-init asks ten times for what it does not get.
async fn seed(
    State(server): State<Arc<Server>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path((name, document)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if !DOCUMENTS.contains(&document.as_str()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let node = match server.see(peer.ip(), Default::default(), Stage::Seed, &document) {
        Ok(node) => node,
        Err(error) => return (StatusCode::NOT_FOUND, format!("{error}\n")).into_response(),
    };
    // A node gets its own seed only: the name in the path is what its command line told it.
    if node.name != name {
        server.warn(format!("{} is {} and asked for the seed of {name}", node.address, node.name));
        return StatusCode::FORBIDDEN.into_response();
    }
    let reached = headers.get(header::HOST).and_then(|it| it.to_str().ok()).and_then(host_address);
    let reached = reached.unwrap_or_else(|| crate::server::own_address(node.address));
    let task = tokio::task::spawn_blocking(move || make(&server, &node, &document, reached));
    match task.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response(),
        Ok(Err(message)) => (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], message).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn host_address(host: &str) -> Option<IpAddr> {
    host.parse::<SocketAddr>().map(|it| it.ip()).or_else(|_| host.parse()).ok()
}

fn make(server: &Server, node: &Known, document: &str, reached: IpAddr) -> Result<String, String> {
    let place = server.place(reached);
    let empty = Vec::new();
    let bytes = node.boot.build.seed.get(document).unwrap_or(&empty);
    let text = String::from_utf8_lossy(bytes);
    let failed = |error: String| {
        server.warn(format!("{document} of {}: {error}", node.name));
        format!("{error}\n")
    };
    let secrets = match text.contains("secrets") {
        true => secrets(server, node).map_err(failed)?,
        false => BTreeMap::new(),
    };
    let rendered = match text.trim_start().starts_with("## template: jinja") {
        // That is cloud-init's own business, on the node.
        true => text.into_owned(),
        false => render::text(&text, node, &place, &secrets).map_err(|error| failed(error.to_string()))?,
    };
    match document {
        "meta-data" => render::meta_data(&rendered, node).map_err(|error| failed(error.to_string())),
        _ => Ok(rendered),
    }
}

/// The secrets that the node may have now.
fn secrets(server: &Server, node: &Known) -> Result<BTreeMap<String, String>, String> {
    let site = server.site();
    if site.release == Release::Once && !server.nodes.release(node.address) {
        return Err("the secrets of this boot were given out already".into());
    }
    let read = |file: &std::path::Path| {
        let text = std::fs::read_to_string(file).map_err(|error| format!("a secret cannot be read: {}", error.kind()));
        text.map(|text| text.trim_end_matches('\n').to_owned())
    };
    site.secrets.iter().map(|(name, it)| Ok((name.clone(), read(&it.file)?))).collect()
}

/// cloud-init's report that it is done (`phone_home`).
async fn phone_home(
    State(server): State<Arc<Server>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(name): Path<String>,
    _body: Bytes,
) -> Response {
    server.nodes.note(peer.ip().to_canonical(), Stage::Done, &name, crate::server::now());
    StatusCode::NO_CONTENT.into_response()
}

/// All nodes with their timelines, as JSON.
async fn nodes(State(server): State<Arc<Server>>) -> Response {
    let nodes: Vec<_> = server
        .nodes
        .all()
        .into_iter()
        .map(|node| {
            serde_json::json!({
                "name": node.name,
                "address": node.address,
                "identity": node.identity,
                "image": node.boot.image,
                "digest": node.boot.build.digest,
                "boot": node.boot.number,
                "stage": node.boot.stage,
                "since": node.boot.since,
                "last": node.last,
                "hint": node.boot.stage.hint(),
                "events": node.boot.events,
            })
        })
        .collect();
    let body = Body::from(serde_json::json!({ "nodes": nodes }).to_string());
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// What Prometheus asks for (text exposition format 0.0.4).
async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let nodes = server.nodes.all();
    let mut text = String::from("# HELP aule_nodes Nodes by how far their boot came.\n# TYPE aule_nodes gauge\n");
    for stage in Stage::ALL {
        let count = nodes.iter().filter(|node| node.boot.stage == stage).count();
        text.push_str(&format!("aule_nodes{{stage=\"{}\"}} {count}\n", stage.name()));
    }
    text.push_str("# HELP aule_cache_bytes Decompressed files in memory.\n# TYPE aule_cache_bytes gauge\n");
    text.push_str(&format!("aule_cache_bytes {}\n", server.cache.bytes()));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
