//! TFTP to the letter of what Raspberry Pi firmware and boot loaders do.

mod names;
mod packet;
mod server;
mod transfer;

pub(crate) use server::{serve, sockets};
