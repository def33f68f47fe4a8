//! TFTP to the letter of what Raspberry Pi firmware and boot loaders do.

mod packet;
mod transfer;
