//! The sockets of ProxyDHCP: each packet of a client that the site has a rule for is noted and answered once.

use super::packet::{Answer, Client, Kind, Request};
use crate::{
    nodes,
    server::{Server, now},
    udp::{Datagrams, Sharing},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

/// Where boot servers are asked (PXE 2.1, 2.2.3).
pub(crate) const BOOT_SERVER_PORT: u16 = 4011;
/// Where servers and clients of DHCP listen.
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// The longest packet that is read: one Ethernet frame.
const PACKET_MAX: usize = 1500;
/// First boot files that a UEFI client can be sent to, in lower case.
const LOADERS: [&str; 4] = ["bootaa64.efi", "efi/boot/bootaa64.efi", "grubnetaa64.efi", "grubaa64.efi"];

/// A socket that can share its port with a DHCP server on the same machine, and send to everybody.
///
/// # Errors
/// When it cannot be had.
pub(crate) fn socket(address: SocketAddr) -> io::Result<Datagrams> {
    Datagrams::bind(address, Sharing::Program, Duration::from_secs(3600))
}

/// Answers on a socket, for ever.
///
/// # Errors
/// When the socket fails for good.
pub(crate) fn serve(socket: &Datagrams, server: &Server) -> io::Result<()> {
    let port = socket.local_address()?.port();
    let mut buffer = [0; PACKET_MAX];
    loop {
        // What an earlier packet met at a client that is gone is no reason to stop.
        let Ok((length, from, _)) = socket.receive(&mut buffer) else { continue };
        let Some(request) = buffer.get(..length).and_then(Request::parse) else { continue };
        if !from.ip().is_unspecified() && !server.site().allows(from.ip()) {
            continue;
        }
        if let Some((answer, to)) = answer(server, &request, from, port) {
            send(server, socket, &answer, to);
        }
    }
}

/// What is answered, and to whom.
fn answer(server: &Server, request: &Request, from: SocketAddr, port: u16) -> Option<(Vec<u8>, SocketAddr)> {
    let identity = request.identity();
    let said = match request.kind {
        Kind::Discover => "DISCOVER",
        Kind::Request => "REQUEST",
        Kind::Inform => "INFORM",
    };
    let site = server.site();
    let rule = nodes::rule(&site, &identity);
    let client = request.client();
    // A machine that only happens to boot over the network here is neither noted nor answered.
    if client == Client::Other || rule.is_none() && site.nodes.is_empty() {
        return None;
    }
    let taken = request.requested.into_iter().chain([request.address]).find(|it| !it.is_unspecified());
    server.nodes.ask(identity, taken.map(IpAddr::V4), said, now());
    let Some(rule) = rule else {
        server.refuse(from.ip(), format!("{} asked for an address, and no rule of the site matches it", request.mac));
        return None;
    };
    // The request of an address is for who gives addresses.
    let boot_server = port == BOOT_SERVER_PORT;
    if (request.kind == Kind::Discover) == boot_server {
        return None;
    }
    if !boot_server && request.kind != Kind::Discover {
        return None;
    }
    let own = site.address?;
    let file = match client {
        Client::Pi { .. } | Client::Other => None,
        Client::Arm64 => {
            let published = server.images.current(&rule.image)?;
            let boot = published.boot.as_ref()?;
            LOADERS.iter().find_map(|name| Some(boot.find(name.as_bytes())?.path.to_string()))
        }
    };
    let to = match (request.relay, request.address) {
        (relay, _) if !relay.is_unspecified() => SocketAddr::from((relay, SERVER_PORT)),
        // It was asked from an address: on the port of boot servers, and by clients that have one.
        _ if !from.ip().is_unspecified() => from,
        (_, address) if !address.is_unspecified() => SocketAddr::from((address, CLIENT_PORT)),
        _ => SocketAddr::from((Ipv4Addr::BROADCAST, CLIENT_PORT)),
    };
    // The packet says where its answer goes to: that must not be anywhere.
    let may = to.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) || site.allows(to.ip());
    may.then(|| (Answer { request, server: own, file }.write(), to))
}

/// Sends an answer from the address that nodes are told. To everybody it goes out where that address is: Linux takes the
/// interface of a packet to 255.255.255.255 from its source. A replica that does not have the address now stays silent.
fn send(server: &Server, socket: &Datagrams, answer: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send(answer, to, server.site().address.map(IpAddr::V4)) {
        server.refuse(to.ip(), format!("an answer to a DHCP client cannot be sent: {error}"));
    }
}
