//! Whom an address stands for, as far as bounds per neighbour go.
//!
//! An IPv4 address is one neighbour; of IPv6 a household gets a /56, so that one machine cannot
//! be 2^64 neighbours. The machine's own loopback address is nobody's neighbour and has a word of
//! its own; the rest of 127.0.0.0/8 counts like any other address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The part of an address that bounds are kept by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prefix {
    /// 127.0.0.1 or ::1: this machine.
    Here,
    /// One IPv4 address.
    V4(Ipv4Addr),
    /// The first 56 bits of an IPv6 address.
    V6([u8; 7]),
}

impl Prefix {
    /// The prefix of an address. An IPv4 address written as IPv6 counts as what it is.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST) => Self::Here,
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g])
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("this machine"),
            Self::V4(address) => address.fmt(f),
            Self::V6([a, b, c, d, e, f_, g]) => {
                let address =
                    Ipv6Addr::from([*a, *b, *c, *d, *e, *f_, *g, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                write!(f, "{address}/56")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Prefix {
        Prefix::of(address.parse().expect("an address"))
    }

    #[test]
    fn only_the_loopback_address_itself_is_this_machine() {
        assert_eq!(of("127.0.0.1"), Prefix::Here);
        assert_eq!(of("::1"), Prefix::Here);
        assert_eq!(of("::ffff:127.0.0.1"), Prefix::Here);
        assert_ne!(of("127.0.0.2"), Prefix::Here);
        assert_eq!(of("127.0.0.2").to_string(), "127.0.0.2");
    }

    #[test]
    fn ipv4_addresses_stand_alone_and_ipv6_addresses_share_56_bits() {
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
        assert_eq!(of("2001:db8:1:2ab::9"), of("2001:db8:1:2cd:ffff::1"));
        assert_ne!(of("2001:db8:1:2ab::9"), of("2001:db8:1:3ab::9"));
        assert_eq!(of("2001:db8:1:2ab::9").to_string(), "2001:db8:1:200::/56");
    }
}
