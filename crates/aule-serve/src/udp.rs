//! A UDP socket that answers from the address at which it was asked. A machine with several addresses, or one that is
//! shared by replicas, would else answer from another one, and firmware drops what comes from somebody it did not ask.

use nix::{
    cmsg_space, libc,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockaddrLike, SockaddrStorage, recvmsg, sendmsg,
        setsockopt, sockopt,
    },
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

/// As much as the kernel gives: many nodes ask at once.
const BUFFER: usize = 4 << 20;
/// A datagram has at most so many bytes (IPv4), and the kernel cuts at most so many out of one call.
const TOGETHER: usize = 65_000;
const TOGETHER_MAX: usize = 64;

/// Who else may listen at the same port of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Nobody.
    None,
    /// Another program, such as a DHCP server: what is sent to everybody comes to both.
    Program,
    /// More sockets of this program: the kernel gives each client to one of them.
    Threads,
}

/// The socket. Whoever receives waits, in a thread of its own: between two packets of one client nothing is faster.
#[derive(Debug)]
pub(crate) struct Datagrams {
    socket: UdpSocket,
}

impl Datagrams {
    /// Listens at an address; waits at most `patience` for a datagram.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(crate) fn bind(address: SocketAddr, sharing: Sharing, patience: Duration) -> io::Result<Datagrams> {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        match sharing {
            Sharing::None => {}
            Sharing::Program => {
                socket.set_reuse_address(true)?;
                socket.set_broadcast(true)?;
            }
            Sharing::Threads => socket.set_reuse_port(true)?,
        }
        match address {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
        // Smaller ones lose packets, which are sent again.
        let _ = socket.set_recv_buffer_size(BUFFER);
        let _ = socket.set_send_buffer_size(BUFFER);
        socket.set_read_timeout(Some(patience))?;
        socket.bind(&address.into())?;
        Ok(Datagrams { socket: socket.into() })
    }

    /// Where it listens.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits for a datagram: its length, who sent it, and to which address of this machine.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when none came in time.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
        let mut control = cmsg_space!(libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let received =
            recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
        let own = received.cmsgs()?.find_map(|message| match message {
            // The address of the interface: for what was sent to everybody, too.
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes())),
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
            _ => None,
        });
        let from = received.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
        Ok((received.bytes, from, own))
    }

    /// Sends a datagram from this address of the machine, without waiting.
    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
        self.send_in_parts(bytes, None, to, from)
    }

    /// Sends datagrams of `part` bytes each, the last of what is left, that stand behind each other in `bytes`.
    pub(crate) fn send_all(&self, bytes: &[u8], part: usize, to: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
        let together = (TOGETHER / part.max(1)).clamp(1, TOGETHER_MAX);
        for several in bytes.chunks(part.max(1) * together) {
            let many = several.len() > part;
            let size = u16::try_from(part).ok().filter(|_| many);
            let sent = if many && size.is_none() {
                Err(io::ErrorKind::Unsupported.into())
            } else {
                self.send_in_parts(several, size, to, from)
            };
            match sent {
                Err(error) if many && error.kind() != io::ErrorKind::WouldBlock => {
                    // Larger than what the interface carries, or a kernel that cannot cut: one after the other.
                    several.chunks(part.max(1)).try_for_each(|it| self.send(it, to, from))?;
                }
                sent => sent?,
            }
        }
        Ok(())
    }

    fn send_in_parts(&self, bytes: &[u8], part: Option<u16>, to: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
        let info_v4;
        let info_v6;
        let mut control = Vec::with_capacity(2);
        match from {
            Some(IpAddr::V4(from)) if to.is_ipv4() => {
                let from = libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) };
                info_v4 =
                    libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: from, ipi_addr: libc::in_addr { s_addr: 0 } };
                control.push(ControlMessage::Ipv4PacketInfo(&info_v4));
            }
            Some(IpAddr::V6(from)) if to.is_ipv6() => {
                let from = libc::in6_addr { s6_addr: from.octets() };
                info_v6 = libc::in6_pktinfo { ipi6_addr: from, ipi6_ifindex: 0 };
                control.push(ControlMessage::Ipv6PacketInfo(&info_v6));
            }
            _ => {}
        }
        if let Some(part) = &part {
            control.push(ControlMessage::UdpGsoSegments(part));
        }
        let to = SockaddrStorage::from(to);
        let parts = [IoSlice::new(bytes)];
        sendmsg(self.socket.as_raw_fd(), &parts, &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
        Ok(())
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    match storage.family()? {
        AddressFamily::Inet => storage.as_sockaddr_in().map(|it| SocketAddr::V4((*it).into())),
        AddressFamily::Inet6 => storage.as_sockaddr_in6().map(|it| SocketAddr::V6((*it).into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket as StdSocket;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn received(socket: &Datagrams) -> (Vec<u8>, SocketAddr, Option<IpAddr>) {
        let mut buffer = [0; 2048];
        let (length, from, own) = socket.receive(&mut buffer).unwrap();
        (buffer[..length].to_vec(), from, own)
    }

    #[test]
    fn answers_come_from_the_address_that_was_asked() {
        let server = Datagrams::bind("0.0.0.0:0".parse().unwrap(), Sharing::None, PATIENCE).unwrap();
        let port = server.local_address().unwrap().port();
        let client = StdSocket::bind("127.0.0.1:0").unwrap();
        for asked in ["127.0.0.1", "127.0.0.77"] {
            let asked: IpAddr = asked.parse().unwrap();
            client.send_to(b"hello", (asked, port)).unwrap();
            let (bytes, from, own) = received(&server);
            assert_eq!((bytes.as_slice(), from, own), (&b"hello"[..], client.local_addr().unwrap(), Some(asked)));
            server.send_all(b"aaabbbcc", 3, from, own).unwrap();
            let mut buffer = [0; 16];
            for wanted in [&b"aaa"[..], b"bbb", b"cc"] {
                let (length, from) = client.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..length], from), (wanted, SocketAddr::new(asked, port)));
            }
        }
    }

    #[test]
    fn ipv6_too() {
        let Ok(server) = Datagrams::bind("[::1]:0".parse().unwrap(), Sharing::None, PATIENCE) else { return };
        let client = StdSocket::bind("[::1]:0").unwrap();
        client.send_to(b"hello", server.local_address().unwrap()).unwrap();
        let (_, from, own) = received(&server);
        assert_eq!(own, Some("::1".parse().unwrap()));
        server.send(b"there", from, own).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(client.recv_from(&mut buffer).unwrap().0, 5);
    }
}
