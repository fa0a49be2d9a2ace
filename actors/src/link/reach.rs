//! Under which address others reach a listener, and whether this machine has a way to one.
//!
//! It asks the system's routing table, never the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::LinkError;

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

/// Whether this machine knows a way to an address at all.
///
/// The transport cannot tell: a packet that the system refuses to send looks to it like one that
/// the network lost. Connecting a UDP socket sends nothing.
///
/// # Errors
/// [`LinkError::NoRoute`] with what the system said.
pub fn check_route(address: SocketAddr) -> Result<(), LinkError> {
    let bind: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((bind, 0))
        .and_then(|socket| socket.connect(address))
        .map_err(|error| LinkError::NoRoute {
            address,
            reason: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_way_to_this_machine_and_none_to_where_nothing_can_be() {
        assert!(check_route(([127, 0, 0, 1], 9).into()).is_ok());
        // Port and network that no routing table has: the multicast-less class E broadcast.
        let nowhere = SocketAddr::from(([255, 255, 255, 255], 9));
        assert!(matches!(
            check_route(nowhere),
            Err(LinkError::NoRoute { .. })
        ));
    }
}
