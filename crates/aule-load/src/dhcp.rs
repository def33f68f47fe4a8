//! DHCP (RFC 2131) as the boot loader of a Raspberry Pi speaks it to a ProxyDHCP server: a DISCOVER, and what an OFFER says.

use crate::failure::{Doing, Result, failure};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

/// Where DHCP answers go.
const CLIENT_PORT: u16 = 68;
/// A Pi 4 and 5 ask anew for up to 45 seconds.
const TIMEOUT: Duration = Duration::from_secs(2);
const RETRIES: u32 = 15;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Where the options begin.
const HEAD: usize = 240;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Its Ethernet address.
    pub(crate) mac: [u8; 6],
    /// The last 32 bits of its serial number.
    pub(crate) serial: u32,
    /// Whether it is a Pi 5, else a Pi 4.
    pub(crate) pi5: bool,
}

/// The DISCOVER of a machine that can be reached at an address already: an answer to a broadcast would not find it where
/// many machines share one.
fn discover(machine: &Machine, transaction: u32, address: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![1, 1, 6, 0];
    packet.extend_from_slice(&transaction.to_be_bytes());
    packet.extend_from_slice(&[0; 4]);
    packet.extend_from_slice(&address.octets());
    packet.resize(28, 0);
    packet.extend_from_slice(&machine.mac);
    packet.resize(236, 0);
    packet.extend_from_slice(&COOKIE);
    let mut option = |number: u8, value: &[u8]| {
        packet.extend_from_slice(&[number, value.len() as u8]);
        packet.extend_from_slice(value);
    };
    option(53, &[1]);
    // Subnet mask, router, vendor's, vendor class, TFTP server, boot file, and 128 to 135 as PXE asks for them.
    option(55, &[1, 3, 43, 60, 66, 67, 128, 129, 130, 131, 132, 133, 134, 135]);
    option(57, &1472_u16.to_be_bytes());
    option(60, b"PXEClient:Arch:00000:UNDI:002001");
    option(93, &[0, 0]);
    option(94, &[1, 2, 1]);
    // Type 0; then four words as an ARM has them in memory: the model, the board's revision, the end of the Ethernet address
    // and the serial number.
    let revision: u32 = if machine.pi5 { 0x00c0_4170 } else { 0x00c0_3114 };
    let mut identity = vec![0];
    identity.extend_from_slice(if machine.pi5 { b"RPi5" } else { b"RPi4" });
    identity.extend_from_slice(&revision.to_le_bytes());
    identity.extend(machine.mac.iter().rev().take(4));
    identity.extend_from_slice(&machine.serial.to_le_bytes());
    option(97, &identity);
    packet.push(255);
    packet
}

/// Whether this is the OFFER that was asked for, and names a TFTP server as the firmware looks for one.
fn is_offer(packet: &[u8], transaction: u32) -> Result<bool> {
    if packet.len() < HEAD || packet.first() != Some(&2) || packet.get(4..8) != Some(&transaction.to_be_bytes()) {
        return Ok(false);
    }
    let mut rest = packet.get(HEAD..).unwrap_or_default();
    let (mut kind, mut pxe, mut server, mut pi) = (None, false, false, false);
    while let Some((number, after)) = rest.split_first() {
        if *number == 0 {
            rest = after;
            continue;
        }
        let Some((length, after)) = after.split_first().filter(|_| *number != 255) else { break };
        let Some((value, after)) = after.split_at_checked(usize::from(*length)) else {
            return failure("DHCP: an option of the OFFER is cut");
        };
        match number {
            53 => kind = value.first().copied(),
            60 => pxe = value.starts_with(b"PXEClient"),
            54 | 66 => server = true,
            43 => pi = value.windows(17).any(|it| it == b"Raspberry Pi Boot"),
            _ => {}
        }
        rest = after;
    }
    // 2 is OFFER; what comes from port 4011 may be an ACK.
    if !matches!(kind, Some(2 | 5)) {
        return failure(format!("DHCP: a message of type {kind:?} in place of an OFFER"));
    }
    match (pxe, server, pi) {
        (true, true, true) => Ok(true),
        _ => failure("DHCP: the OFFER lacks PXEClient, the server, or `Raspberry Pi Boot`"),
    }
}

/// Asks until there is an OFFER; gives how often it had to be asked again.
///
/// # Errors
/// When there is none.
pub(crate) async fn offer(address: Ipv4Addr, server: SocketAddr, machine: &Machine) -> Result<u64> {
    // Without the right to port 68 only servers answer that reply to where a packet came from.
    let socket = match tokio::net::UdpSocket::bind((address, CLIENT_PORT)).await {
        Ok(socket) => socket,
        Err(_) => tokio::net::UdpSocket::bind((address, 0)).await.doing("bind")?,
    };
    let transaction = machine.serial;
    let packet = discover(machine, transaction, address);
    let mut buffer = [0; 1500];
    for asked in 0..RETRIES {
        socket.send_to(&packet, server).await.doing("DHCP")?;
        let answer = tokio::time::timeout(TIMEOUT, async {
            loop {
                let length = socket.recv(&mut buffer).await.doing("DHCP")?;
                if is_offer(buffer.get(..length).unwrap_or_default(), transaction)? {
                    return Ok(());
                }
            }
        });
        match answer.await {
            Ok(Ok(())) => return Ok(asked.into()),
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
    }
    failure("DHCP: no OFFER")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { mac: [0xdc, 0xa6, 0x32, 1, 2, 3], serial: 0x5a1d_3c2b, pi5: true };

    #[test]
    fn a_discover_says_who_asks() {
        let packet = discover(&MACHINE, 7, Ipv4Addr::new(127, 1, 0, 1));
        assert_eq!(
            (packet[..4].to_vec(), &packet[12..16], &packet[28..34]),
            (vec![1, 1, 6, 0], &[127, 1, 0, 1][..], &MACHINE.mac[..])
        );
        assert_eq!(packet[236..240], COOKIE);
        let has = |bytes: &[u8]| packet.windows(bytes.len()).any(|it| it == bytes);
        assert!(has(b"\x3c\x20PXEClient:Arch:00000:UNDI:002001"));
        assert!(has(b"\x61\x11\0RPi5\x70\x41\xc0\0\x03\x02\x01\x32\x2b\x3c\x1d\x5a\xff"));
    }

    #[test]
    fn offers_are_looked_at() {
        let offer = |transaction: u32, options: &[u8]| {
            let mut packet = discover(&MACHINE, transaction, Ipv4Addr::LOCALHOST);
            packet[0] = 2;
            packet.truncate(HEAD);
            packet.extend_from_slice(options);
            packet
        };
        let good = b"\x35\x01\x02\x3c\x09PXEClient\x36\x04\x7f\0\0\x01\x2b\x13\x09\x11Raspberry Pi Boot\xff";
        assert_eq!(is_offer(&offer(7, good), 7), Ok(true));
        assert_eq!(is_offer(&offer(8, good), 7), Ok(false), "of somebody else");
        assert!(is_offer(&offer(7, b"\x35\x01\x02\x3c\x09PXEClient\x36\x04\x7f\0\0\x01\xff"), 7).is_err());
        assert!(is_offer(&offer(7, b"\x35\x01\x06\xff"), 7).is_err());
        assert!(is_offer(&offer(7, b"\x35\x09\x06"), 7).is_err());
    }
}
