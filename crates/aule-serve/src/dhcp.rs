//! ProxyDHCP: somebody else gives the addresses, this server adds where the boot files are (PXE specification 2.1, 2.2).

mod packet;
mod server;

pub(crate) use server::{BOOT_SERVER_PORT, serve, socket};
