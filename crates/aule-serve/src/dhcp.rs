//! ProxyDHCP: somebody else gives the addresses, this server adds where the boot files are (PXE specification 2.1, 2.2).

mod packet;
mod server;

pub(crate) use server::{BOOT_SERVER_PORT, serve, socket};

/// Reads a packet and writes an answer, whoever asks.
pub(crate) fn reply(bytes: &[u8]) -> Option<Vec<u8>> {
    let request = packet::Request::parse(bytes)?;
    let _ = request.identity();
    let server = std::net::Ipv4Addr::LOCALHOST;
    Some(packet::Answer { request: &request, server, file: Some("bootaa64.efi".into()) }.write())
}
