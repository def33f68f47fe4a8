//! DHCP packets (RFC 2131, 2132, 4578). Bytes in, values out: no I/O. Only what a boot server needs is read; an option that
//! cannot be understood is passed over, as firmware sends odd ones.

use crate::{nodes::Identity, site::Mac, site::Serial};
use std::net::Ipv4Addr;

/// What stands before the options: BOOTP's fields and the magic number.
const HEAD: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// BOOTP's smallest packet; some clients drop shorter ones.
const SMALLEST: usize = 300;

/// Option numbers.
mod option {
    pub(super) const VENDOR: u8 = 43;
    pub(super) const REQUESTED_ADDRESS: u8 = 50;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const CLASS: u8 = 60;
    pub(super) const TFTP_SERVER: u8 = 66;
    pub(super) const BOOT_FILE: u8 = 67;
    pub(super) const ARCHITECTURE: u8 = 93;
    pub(super) const MACHINE: u8 = 97;
    pub(super) const PAD: u8 = 0;
    pub(super) const END: u8 = 255;
}

/// What a client says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Who gives me an address?
    Discover,
    /// I take this one; or, on the port of boot servers: what do I boot?
    Request,
    /// I have one: what do I boot?
    Inform,
}

/// A packet of a client that wants to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// What it says.
    pub(crate) kind: Kind,
    /// Given back in the answer.
    pub(crate) transaction: u32,
    /// Seconds since it began, and flags; given back.
    pub(crate) flags: [u8; 2],
    /// The address that it has.
    pub(crate) address: Ipv4Addr,
    /// The address that it takes.
    pub(crate) requested: Option<Ipv4Addr>,
    /// Whom the answer goes to, when a relay stands between.
    pub(crate) relay: Ipv4Addr,
    /// Its Ethernet address.
    pub(crate) mac: Mac,
    /// Option 60.
    pub(crate) class: Vec<u8>,
    /// Option 93: the first of the architectures (RFC 4578, 2.1).
    pub(crate) architecture: Option<u16>,
    /// Option 97, which must be given back.
    pub(crate) machine: Option<Vec<u8>>,
}

/// What kind of client it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// Firmware of a Raspberry Pi; the older kind (up to the Pi 3) wants its boot service named with three spaces.
    Pi {
        /// Whether it is of the older kind.
        old: bool,
    },
    /// UEFI or U-Boot on 64-bit ARM.
    Arm64,
    /// Something else.
    Other,
}

impl Request {
    /// Reads a packet; `None` when it is not from a client that wants to boot over the network.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Request> {
        let (head, mut rest) = bytes.split_at_checked(HEAD)?;
        let address = |at: usize| head.get(at..at + 4)?.try_into().ok().map(|it: [u8; 4]| Ipv4Addr::from(it));
        // A request over Ethernet.
        if head.get(..3)? != [1, 1, 6] || head.get(236..240)? != MAGIC {
            return None;
        }
        let mut request = Request {
            kind: Kind::Inform,
            transaction: u32::from_be_bytes(head.get(4..8)?.try_into().ok()?),
            flags: head.get(10..12)?.try_into().ok()?,
            address: address(12)?,
            requested: None,
            relay: address(24)?,
            mac: Mac(head.get(28..34)?.try_into().ok()?),
            class: Vec::new(),
            architecture: None,
            machine: None,
        };
        let mut kind = None;
        while let Some((&code, after)) = rest.split_first() {
            if code == option::PAD {
                rest = after;
                continue;
            }
            if code == option::END {
                break;
            }
            // An option that is cut off ends the list.
            let Some((&length, after)) = after.split_first() else { break };
            let Some((value, after)) = after.split_at_checked(length.into()) else { break };
            rest = after;
            match (code, value) {
                (option::MESSAGE_TYPE, [1]) => kind = Some(Kind::Discover),
                (option::MESSAGE_TYPE, [3]) => kind = Some(Kind::Request),
                (option::MESSAGE_TYPE, [8]) => kind = Some(Kind::Inform),
                (option::REQUESTED_ADDRESS, [a, b, c, d]) => request.requested = Some([*a, *b, *c, *d].into()),
                (option::CLASS, class) => request.class = class.to_vec(),
                (option::ARCHITECTURE, [high, low, ..]) => {
                    request.architecture = Some(u16::from_be_bytes([*high, *low]));
                }
                (option::MACHINE, machine) if !machine.is_empty() => request.machine = Some(machine.to_vec()),
                _ => {}
            }
        }
        request.kind = kind?;
        let boots = [&b"PXEClient"[..], b"U-Boot"].iter().any(|it| request.class.starts_with(it));
        (boots || request.architecture.is_some()).then_some(request)
    }

    /// What kind of client it is: Pis say architecture 0, as old PCs do, and are told by the owner of their Ethernet address.
    pub(crate) fn client(&self) -> Client {
        let owners = [
            [0x28, 0xcd, 0xc1],
            [0x2c, 0xcf, 0x67],
            [0x88, 0xa2, 0x9e],
            [0xb8, 0x27, 0xeb],
            [0xd8, 0x3a, 0xdd],
            [0xdc, 0xa6, 0x32],
            [0xe4, 0x5f, 0x01],
        ];
        let [a, b, c, ..] = self.mac.0;
        let new = self.pi().is_some();
        match self.architecture {
            Some(11) => Client::Arm64,
            _ if self.class.starts_with(b"U-Boot.armv8") => Client::Arm64,
            _ if new || owners.contains(&[a, b, c]) => Client::Pi { old: !new },
            _ => Client::Other,
        }
    }

    /// Model and serial number of a Pi 4 or later: option 97 holds a zero, the model in four letters, the revision of the
    /// board, the end of the Ethernet address and the serial number, each of four bytes (raspberrypi/documentation,
    /// `DHCP_OPTION97`).
    fn pi(&self) -> Option<(&str, Serial)> {
        let guid = self.machine.as_deref()?.strip_prefix(&[0])?;
        let model = std::str::from_utf8(guid.get(..4)?).ok().filter(|it| it.starts_with("RPi"))?;
        Some((model, Serial(u32::from_le_bytes(guid.get(12..16)?.try_into().ok()?))))
    }

    /// Who asks.
    pub(crate) fn identity(&self) -> Identity {
        let pi = self.pi();
        let model = match (pi, self.client()) {
            (Some((model, _)), _) => Some(model),
            (None, Client::Arm64) => Some("uefi-arm64"),
            (None, Client::Pi { .. } | Client::Other) => None,
        };
        Identity { serial: pi.map(|(_, serial)| serial), mac: Some(self.mac), model: model.map(str::to_owned) }
    }
}

/// What a boot server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    /// To whom.
    pub(crate) request: &'a Request,
    /// Where boot files are.
    pub(crate) server: Ipv4Addr,
    /// The first boot file, for clients that do not know it.
    pub(crate) file: Option<String>,
}

impl Answer<'_> {
    /// The packet: an offer to who discovers, an acknowledgement to who asks the boot server. It gives no address.
    pub(crate) fn write(&self) -> Vec<u8> {
        let request = self.request;
        let mut packet = vec![0; HEAD];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = packet.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(0, &[2, 1, 6, 0]);
        put(4, &request.transaction.to_be_bytes());
        put(10, &request.flags);
        put(12, &request.address.octets());
        put(20, &self.server.octets());
        put(24, &request.relay.octets());
        put(28, &request.mac.0);
        if let Some(file) = self.file.as_ref().filter(|it| it.len() < 128) {
            put(108, file.as_bytes());
        }
        put(236, &MAGIC);
        let mut add = |code: u8, value: &[u8]| {
            // Every value here is far shorter than 256 bytes, but for what a client sent and is given back.
            let value = value.get(..value.len().min(255)).unwrap_or_default();
            packet.extend([code, value.len() as u8]);
            packet.extend_from_slice(value);
        };
        add(option::MESSAGE_TYPE, &[if request.kind == Kind::Discover { 2 } else { 5 }]);
        add(option::SERVER, &self.server.octets());
        add(option::CLASS, b"PXEClient");
        if let Some(machine) = &request.machine {
            add(option::MACHINE, machine);
        }
        add(option::TFTP_SERVER, self.server.to_string().as_bytes());
        if let Some(file) = &self.file {
            add(option::BOOT_FILE, file.as_bytes());
        }
        add(option::VENDOR, &self.vendor());
        packet.push(option::END);
        packet.resize(packet.len().max(SMALLEST), 0);
        packet
    }

    /// Option 43. To a Pi: no discovery by multicast or broadcast, a prompt, and a menu of one boot service by whose name
    /// the firmware knows that the answer is for it. To others: take the boot file that is named, and ask nobody.
    fn vendor(&self) -> Vec<u8> {
        let Client::Pi { old } = self.request.client() else { return vec![6, 1, 8, option::END] };
        let service: &[u8] = if old { b"Raspberry Pi Boot   " } else { b"Raspberry Pi Boot" };
        let mut vendor = vec![6, 1, 3, 10, 4, 0, b'P', b'X', b'E'];
        vendor.extend([9, service.len() as u8 + 3, 0, 0, service.len() as u8]);
        vendor.extend_from_slice(service);
        vendor.push(option::END);
        vendor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet as a client sends it.
    fn packet(mac: [u8; 6], options: &[&[u8]]) -> Vec<u8> {
        let mut packet = vec![0; HEAD];
        packet[..3].copy_from_slice(&[1, 1, 6]);
        packet[4..8].copy_from_slice(&[1, 2, 3, 4]);
        packet[10] = 0x80;
        packet[28..34].copy_from_slice(&mac);
        packet[236..].copy_from_slice(&MAGIC);
        options.iter().for_each(|it| packet.extend_from_slice(it));
        packet.push(255);
        packet
    }

    const PI4: [u8; 6] = [0xdc, 0xa6, 0x32, 0, 0, 1];
    const CLASS: &[u8] = b"\x3c\x20PXEClient:Arch:00000:UNDI:002001";
    const MACHINE: &[u8] = b"\x61\x11\0RPi4\x11\x31\xc0\0\x32\0\0\x01\x2b\x3c\x1d\x5a";

    #[test]
    fn a_pi_is_known_and_answered() {
        let bytes = packet(PI4, &[b"\x35\x01\x01", CLASS, b"\x5d\x02\0\0", MACHINE]);
        let request = Request::parse(&bytes).unwrap();
        assert_eq!((request.kind, request.client()), (Kind::Discover, Client::Pi { old: false }));
        let wanted = Identity { serial: Some(Serial(0x5a1d_3c2b)), mac: Some(Mac(PI4)), model: Some("RPi4".into()) };
        assert_eq!(request.identity(), wanted);
        let answer = Answer { request: &request, server: Ipv4Addr::new(192, 168, 1, 59), file: None }.write();
        assert_eq!(&answer[..12], &[2, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0x80, 0]);
        assert_eq!((&answer[16..20], &answer[20..24]), (&[0; 4][..], &[192, 168, 1, 59][..]));
        let vendor = b"\x06\x01\x03\x0a\x04\0PXE\x09\x14\0\0\x11Raspberry Pi Boot\xff";
        let has = |wanted: &[u8]| answer.windows(wanted.len()).any(|it| it == wanted);
        assert!(has(&[&[43, vendor.len() as u8], &vendor[..]].concat()));
        assert!(has(b"\x35\x01\x02") && has(b"\x42\x0c192.168.1.59") && has(MACHINE) && has(b"\x3c\x09PXEClient"));
        assert!(answer.len() >= SMALLEST);
    }

    #[test]
    fn older_pis_and_uefi() {
        let request = Request::parse(&packet([0xb8, 0x27, 0xeb, 0, 0, 1], &[b"\x35\x01\x01", CLASS])).unwrap();
        assert_eq!(request.client(), Client::Pi { old: true });
        let answer = Answer { request: &request, server: Ipv4Addr::LOCALHOST, file: None }.write();
        assert!(answer.windows(20).any(|it| it == b"Raspberry Pi Boot   "));

        let request = Request::parse(&packet([2, 0, 0, 0, 0, 1], &[b"\x35\x01\x03", b"\x5d\x02\0\x0b"])).unwrap();
        assert_eq!((request.client(), request.kind), (Client::Arm64, Kind::Request));
        assert_eq!(request.identity().model.as_deref(), Some("uefi-arm64"));
        let u_boot = packet(PI4, &[b"\x35\x01\x01", b"\x3c\x0cU-Boot.armv8"]);
        assert_eq!(Request::parse(&u_boot).unwrap().client(), Client::Arm64);
        let file = Some("bootaa64.efi".to_owned());
        let answer = Answer { request: &request, server: Ipv4Addr::LOCALHOST, file }.write();
        assert_eq!(&answer[108..121], b"bootaa64.efi\0");
        assert!(answer.windows(3).any(|it| it == b"\x35\x01\x05"));
    }

    #[test]
    fn others_are_left_alone() {
        // An operating system, a reply, no Ethernet, no message type, nothing.
        assert_eq!(Request::parse(&packet(PI4, &[b"\x35\x01\x01", b"\x3c\x04dhcp"])), None);
        let mut reply = packet(PI4, &[b"\x35\x01\x01", CLASS]);
        reply[0] = 2;
        assert_eq!(Request::parse(&reply), None);
        assert_eq!(Request::parse(&packet(PI4, &[CLASS])), None);
        let whole = packet(PI4, &[b"\x35\x01\x01", CLASS, MACHINE]);
        for length in 0..HEAD + 3 {
            assert_eq!(Request::parse(&whole[..length]), None, "cut to {length}");
        }
        // A PC is read, and known to be none of ours.
        let request = Request::parse(&packet([0, 1, 2, 3, 4, 5], &[b"\x35\x01\x01", CLASS])).unwrap();
        assert_eq!(request.client(), Client::Other);
    }
}
