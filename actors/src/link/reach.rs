//! Under which address others reach a listener, and whether this machine has a way to one.
//!
//! It asks the system's routing table, never the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::LinkError;

/// One listener's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Where it is bound.
    pub address: SocketAddr,
    /// A socket of IPv6 that leaves IPv4 on its port to another one.
    pub only_v6: bool,
}

/// The address from which this machine would send to the rest of the world, in the family of
/// `family`; `None` without a way there.
///
/// Connecting a UDP socket sends nothing; it asks the system which address it would send from.
pub(crate) fn routed_from(family: IpAddr) -> Option<IpAddr> {
    // Addresses for documentation, which no network has: only a way to everywhere leads there.
    let (bind, probe): (IpAddr, IpAddr) = match family {
        IpAddr::V4(_) => (
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(192, 0, 2, 1).into(),
        ),
        IpAddr::V6(_) => (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        ),
    };
    let socket = UdpSocket::bind((bind, 0)).ok()?;
    socket.connect((probe, 9)).ok()?;
    let from = socket.local_addr().ok()?.ip();
    (!from.is_unspecified()).then_some(from)
}

/// Whether this machine knows a way to an address at all.
///
/// The transport cannot tell: a packet that the system refuses to send looks to it like one that
/// the network lost. Connecting a UDP socket sends nothing.
///
/// # Errors
/// [`LinkError::NoRoute`] with what the system said.
pub(super) fn check_route(address: SocketAddr) -> Result<(), LinkError> {
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
