//! HTTP: seeds for cloud-init, artifacts by digest, boot images for firmware, the OCI pull API, health, metrics, nodes.

mod blob;
mod boot_image;
mod files;
mod registry;
mod seed;
mod status;

pub(crate) use boot_image::read_key as read_signing_key;
pub(crate) use seed::SECRET_MAX;

use crate::{limits::Places, server::Server};
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    routing::{get, post},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::net::TcpListener;
use tower::ServiceExt;

/// The largest body that is taken: cloud-init reports some keys.
const BODY_MAX: usize = 64 << 10;
/// How many connections there may be, in all and from one address.
const CONNECTIONS: (usize, usize) = (8192, 64);
/// A client has so long for the head of a request, or for the next request.
const HEAD: Duration = Duration::from_secs(30);

/// What handlers share.
#[derive(Clone)]
struct Shared {
    server: Arc<Server>,
    files: Arc<files::Files>,
    images: Arc<boot_image::BootImages>,
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
struct Ends {
    peer: SocketAddr,
    /// The address of this machine that was asked.
    own: IpAddr,
}

/// Answers requests on a listener, for ever.
///
/// # Errors
/// When the listener fails for good.
pub(crate) async fn serve(listener: TcpListener, server: Arc<Server>) -> io::Result<()> {
    let shared = Shared { server: Arc::clone(&server), files: Arc::default(), images: Arc::default() };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(status::metrics))
        .route("/nodes", get(status::nodes))
        .route("/seed/{node}/{document}", get(seed::document))
        .route("/seed/{node}/{build}/{document}", get(seed::document_of_build))
        .route("/phone-home/{node}", post(seed::phone_home))
        .route("/artifacts/{digest}", get(blob::artifact))
        .route("/boot/{node}/boot.img", get(boot_image::image))
        .route("/boot/{node}/boot.sig", get(boot_image::signature))
        .route("/v2/", get(registry::version))
        .route("/v2/{*path}", get(registry::get))
        .with_state(shared);
    let places = Places::new(CONNECTIONS.0, CONNECTIONS.1);
    loop {
        let (stream, peer, place) = places.accept(&listener, |peer| server.site().allows(peer)).await?;
        // A connection that is gone already has no end here.
        let Ok(own) = stream.local_addr() else { continue };
        let (router, server) = (router.clone(), Arc::clone(&server));
        let ends = Ends { peer, own: own.ip().to_canonical() };
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                server.counters.http_requests.fetch_add(1, Ordering::Relaxed);
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(ends));
                router.clone().oneshot(request)
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(64 << 10)
                .serve_connection(TokioIo::new(stream), service);
            // A connection that breaks is the client's affair.
            let _ = connection.await;
            drop(place);
        });
    }
}
