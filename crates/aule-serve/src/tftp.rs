//! TFTP to the letter of what Raspberry Pi firmware and boot loaders do.

mod names;
mod packet;
mod server;
mod transfer;

pub(crate) use server::{serve, sockets};

/// Reads a packet; of a request also the name, and a transfer of as many bytes as the packet has, which is played with
/// acknowledgements taken from the packet. Panics where blocks are not those of the file.
pub(crate) fn play(bytes: &[u8]) {
    let Some(packet::Packet::Read(request)) = packet::Packet::parse(bytes) else { return };
    let _ = names::Name::parse(&request.name);
    let now = std::time::Instant::now();
    let size = bytes.len() as u64 * 1000;
    let (mut transfer, mut next) = transfer::Transfer::begin(size, &request.options, now);
    for pair in bytes.chunks_exact(2) {
        if let transfer::Next::Blocks(blocks) = &next {
            let (first, length) = transfer.span(blocks);
            assert!(first + length as u64 <= size && blocks.end() - blocks.start() < 64, "blocks lie in the file");
        }
        let number = u16::from_be_bytes(pair.try_into().unwrap_or_default());
        next = if number % 7 == 0 { transfer.expire(now) } else { transfer.acknowledge(number % 256, now) };
        if matches!(next, transfer::Next::Done | transfer::Next::GaveUp) {
            return;
        }
    }
}
