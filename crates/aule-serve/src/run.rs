//! Starting everything: sockets first, so that what cannot be had is told before a node is answered.

use crate::{
    dhcp, http,
    nfs::{self, NfsOptions, Service},
    server::Server,
    tftp,
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};

/// How often is looked whether an image's name stands for another build, and written down what nodes did.
const LOOK: Duration = Duration::from_millis(250);

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A port cannot be had.
    #[error("cannot listen for {what} on {address}: {source}")]
    Listen {
        /// Which part.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A part ended.
    #[error("{what} ended: {source}")]
    Ended {
        /// Which part.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Serves a site until `stop` is there.
///
/// # Errors
/// When a port cannot be had, or a part of the server ends.
pub async fn run(server: Arc<Server>, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let listen = server.site().listen.clone();
    let mut parts: JoinSet<(&'static str, io::Result<()>)> = JoinSet::new();
    let options = NfsOptions { port: listen.nfs.map_or(2049, |it| it.port()), ..NfsOptions::default() };
    let service = Arc::new(Service::new(Arc::clone(&server), options));
    for (what, address) in [("NFS", listen.nfs), ("portmap", listen.portmap)] {
        let Some(address) = address else { continue };
        let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { what, address, source })?;
        let service = Arc::clone(&service);
        parts.spawn(async move { (what, nfs::serve(listener, service).await) });
    }
    if let Some(address) = listen.tftp {
        let what = "TFTP";
        let sockets = tftp::sockets(address).map_err(|source| RunError::Listen { what, address, source })?;
        for socket in sockets {
            let (server, runtime) = (Arc::clone(&server), tokio::runtime::Handle::current());
            parts.spawn_blocking(move || (what, tftp::serve(socket, server, &runtime)));
        }
    }
    if let Some(address) = listen.http {
        let what = "HTTP";
        let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { what, address, source })?;
        let server = Arc::clone(&server);
        parts.spawn(async move { (what, http::serve(listener, server).await) });
    }
    if let Some(address) = listen.proxy_dhcp {
        let what = "ProxyDHCP";
        // Boot loaders of PXE's kind ask again on this port, which cannot be chosen (PXE 2.1, 2.2.3).
        for address in [address, SocketAddr::new(address.ip(), dhcp::BOOT_SERVER_PORT)] {
            let listen = |source| RunError::Listen { what, address, source };
            let socket = dhcp::socket(address).map_err(listen)?;
            let server = Arc::clone(&server);
            parts.spawn_blocking(move || (what, dhcp::serve(&socket, &server)));
        }
    }
    let looking = Arc::clone(&server);
    parts.spawn(async move {
        loop {
            tokio::time::sleep(LOOK).await;
            let server = Arc::clone(&looking);
            if tokio::task::spawn_blocking(move || server.look()).await.is_err() {
                return ("looking after images", Err(io::Error::other("it panicked")));
            }
        }
    });
    server.note("serving");
    tokio::pin!(stop);
    let ended = tokio::select! {
        () = &mut stop => Ok(()),
        ended = parts.join_next() => match ended {
            Some(Ok((what, Err(source)))) => Err(RunError::Ended { what, source }),
            Some(Ok((what, Ok(())))) => Err(RunError::Ended { what, source: io::Error::other("without a reason") }),
            _ => Err(RunError::Ended { what: "a part", source: io::Error::other("it panicked") }),
        },
    };
    server.close();
    ended
}
