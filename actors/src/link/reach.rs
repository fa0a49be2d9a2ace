//! Under which address others reach a listener.
//!
//! It asks the system's routing table, never the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// What others can dial when this node listens on every address of the machine.
///
/// Connecting a UDP socket sends nothing; it asks the system which address it would send from.
#[must_use]
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let (bind, probe): (IpAddr, IpAddr) = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(192, 0, 2, 1).into(),
        ),
        IpAddr::V6(ip) if ip.is_unspecified() => (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        ),
        _ => return address,
    };
    let asked = UdpSocket::bind((bind, 0)).and_then(|socket| {
        socket
            .connect((probe, 9))
            .and_then(|()| socket.local_addr())
    });
    let loopback: IpAddr = match bind {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(asked.map_or(loopback, |found| found.ip()), address.port())
}
