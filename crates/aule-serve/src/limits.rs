//! How many connections there may be: in all, and from one address, so that nobody takes the places of the others.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// A peer that vanished is found so long after its last sign of life, at the latest.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The places of a listener.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    of_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    per_address: usize,
}

/// A connection's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _one: OwnedSemaphorePermit,
    of_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Places {
    /// So many in all, and so many for one address.
    pub(crate) fn new(all: usize, per_address: usize) -> Self {
        Places { all: Arc::new(Semaphore::new(all)), of_address: Arc::default(), per_address }
    }

    fn place(&self, one: OwnedSemaphorePermit, address: IpAddr) -> Option<Place> {
        let mut counts = self.of_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Place { _one: one, of_address: Arc::clone(&self.of_address), address })
    }

    /// A place for something of this address, when there is one; `None` when it has as many as it may have.
    pub(crate) async fn enter(&self, address: IpAddr) -> Option<Place> {
        // Of its own places first, so that who has too many does not wait among the others.
        let has = self.of_address.lock().unwrap_or_else(PoisonError::into_inner).get(&address).copied();
        if has.unwrap_or_default() >= self.per_address {
            return None;
        }
        let one = Arc::clone(&self.all).acquire_owned().await.ok()?;
        self.place(one, address)
    }

    /// The next connection that may have a place; those that may not are closed. Waits while all places are taken.
    pub(crate) async fn accept(
        &self,
        listener: &TcpListener,
        allows: impl Fn(IpAddr) -> bool,
    ) -> io::Result<(TcpStream, std::net::SocketAddr, Place)> {
        loop {
            let one = Arc::clone(&self.all).acquire_owned().await.map_err(io::Error::other)?;
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                // Out of file descriptors, or the client is gone again: neither is for good.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let address = peer.ip().to_canonical();
            if !allows(address) {
                continue;
            }
            let Some(place) = self.place(one, address) else { continue };
            let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
            // Without it a vanished peer keeps its place longer; no reason to refuse it.
            let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
            let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(KEEPALIVE));
            let _ = stream.set_nodelay(true);
            return Ok((stream, peer, place));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.of_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}
