//! Who has an address on the local network, as the kernel knows it: a Pi names its serial number in its requests, and its
//! Ethernet address only to who sees its frames.

use crate::site::Mac;
use std::{fs, net::IpAddr};

/// The Ethernet address of a neighbour (`/proc/net/arp`, proc(5)); `None` for who is not one.
pub(crate) fn ethernet_address(of: IpAddr) -> Option<Mac> {
    find(&fs::read_to_string("/proc/net/arp").ok()?, of)
}

fn find(table: &str, wanted: IpAddr) -> Option<Mac> {
    table.lines().skip(1).find_map(|line| {
        // IP address, HW type, Flags, HW address, Mask, Device
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let address: IpAddr = words.first()?.parse().ok()?;
        let ethernet: Mac = words.get(3)?.parse().ok()?;
        (address == wanted && words.get(1) == Some(&"0x1") && ethernet.0 != [0; 6]).then_some(ethernet)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device
192.168.1.7      0x1         0x2         dc:a6:32:00:00:01     *        eth0
192.168.1.8      0x1         0x0         00:00:00:00:00:00     *        eth0
";
        let at = |last| IpAddr::from([192, 168, 1, last]);
        assert_eq!(find(table, at(7)), Some(Mac([0xdc, 0xa6, 0x32, 0, 0, 1])));
        assert_eq!((find(table, at(8)), find(table, at(9))), (None, None));
        assert_eq!(find("", at(7)), None);
    }
}
