//! What this node tells others to dial.
//!
//! Either what somebody said with `--advertise`, which never changes, or what follows from the
//! bound listeners and the machine's own addresses, which changes when the machine moves.
//! Nothing here tells anybody: who asks [`Announced::look`] and hears of a change does.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use packhorse_protocol::{
    limits::ADDRESSES_MAX,
    text::{self, TextError},
};

use crate::{
    env::Env,
    link::{Listening, routed_from},
};

/// The address hints of this node.
#[derive(Debug)]
pub struct Announced {
    /// What the hints follow from; empty when they were given.
    listening: Vec<Listening>,
    current: Mutex<Vec<String>>,
}

impl Announced {
    /// What was advertised, or what follows from the listeners when nothing was.
    ///
    /// # Errors
    /// An advertised hint that breaks a limit of the protocol.
    pub(crate) fn new(
        listening: Vec<Listening>,
        advertise: Vec<String>,
        env: &Env,
    ) -> Result<Self, TextError> {
        text::check_addresses(&advertise)?;
        if !advertise.is_empty() {
            return Ok(Self {
                listening: Vec::new(),
                current: Mutex::new(advertise),
            });
        }
        let current = Mutex::new(hints(&listening, env.addresses().as_ref(), routed_from).0);
        Ok(Self { listening, current })
    }

    /// What others should dial now; nothing when this node listens nowhere.
    #[must_use]
    pub fn current(&self) -> Vec<String> {
        self.lock().clone()
    }

    /// Works it out anew, after the machine's addresses changed. Whether it is something else.
    ///
    /// A machine that is in no network for now keeps announcing what it had: nobody hears it
    /// anyway, and it often comes back to the same place.
    pub(crate) fn look(&self, env: &Env) -> bool {
        if self.listening.is_empty() {
            return false;
        }
        let (hints, is_reachable) = hints(&self.listening, env.addresses().as_ref(), routed_from);
        let mut current = self.lock();
        if !is_reachable || *current == hints {
            return false;
        }
        *current = hints;
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        // Replaced as a whole, so a panic leaves it before or after.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hints of all listeners, and whether any of them leads here from another machine.
fn hints(
    listening: &[Listening],
    own: Option<&BTreeSet<IpAddr>>,
    routed_from: impl Fn(IpAddr) -> Option<IpAddr>,
) -> (Vec<String>, bool) {
    let mut hints: Vec<String> = Vec::new();
    let mut is_reachable = false;
    for listening in listening {
        for address in reachable(*listening, own, &routed_from) {
            let hint = format!("quic://{address}");
            if hints.len() < ADDRESSES_MAX && !hints.contains(&hint) {
                is_reachable |= !address.ip().is_loopback();
                hints.push(hint);
            }
        }
    }
    // A node that listens on the loopback only is where it said it is.
    let is_local = listening
        .iter()
        .all(|listening| !listening.address.ip().is_unspecified());
    (hints, is_reachable || is_local)
}

/// What others can dial to reach one listener.
///
/// Of a machine with a way to everywhere, the address that way begins at; in a network without
/// one, every address there is. So a machine with many bridges announces one address, and one
/// behind a switch without a router is found all the same.
fn reachable(
    listening: Listening,
    own: Option<&BTreeSet<IpAddr>>,
    routed_from: impl Fn(IpAddr) -> Option<IpAddr>,
) -> Vec<SocketAddr> {
    let Listening { address, only_v6 } = listening;
    if !address.ip().is_unspecified() {
        return vec![address];
    }
    let families: &[IpAddr] = match (address.is_ipv4(), only_v6) {
        (true, _) => &[IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        (false, true) => &[IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        (false, false) => &[
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        ],
    };
    let mut found = Vec::new();
    for family in families {
        match routed_from(*family).filter(|ip| !ip.is_loopback()) {
            Some(ip) => found.push(ip),
            None => {
                let same = |ip: &&IpAddr| ip.is_ipv4() == family.is_ipv4();
                found.extend(own.into_iter().flatten().filter(same).copied());
            }
        }
    }
    if found.is_empty() {
        found.push(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let at_port = |ip| SocketAddr::new(ip, address.port());
    found.into_iter().map(at_port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(address: &str) -> Listening {
        Listening {
            address: address.parse().unwrap(),
            only_v6: false,
        }
    }

    fn own(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn check(listen: &[Listening], addresses: &[&str], v4: Option<&str>, expected: &[&str]) {
        let routed = |family: IpAddr| {
            let ip = v4.filter(|_| family.is_ipv4())?;
            Some(ip.parse().unwrap())
        };
        let (hints, _) = hints(listen, Some(&own(addresses)), routed);
        let expected: Vec<_> = expected
            .iter()
            .map(|text| format!("quic://{text}"))
            .collect();
        assert_eq!(hints, expected);
    }

    #[test]
    fn a_listener_is_announced_where_others_find_it() {
        let any4 = listening("0.0.0.0:7");
        let any6 = listening("[::]:7");
        let only6 = Listening {
            only_v6: true,
            ..any6
        };
        let machine = ["10.0.0.1", "10.0.0.2", "2001:db8::1"];
        check(
            &[listening("192.0.2.9:7")],
            &machine,
            None,
            &["192.0.2.9:7"],
        );
        // The way to everywhere beats what else the machine has.
        check(&[any4], &machine, Some("10.0.0.2"), &["10.0.0.2:7"]);
        check(&[any4], &machine, None, &["10.0.0.1:7", "10.0.0.2:7"]);
        // One socket for both families.
        let both = ["[2001:db8::1]:7", "10.0.0.1:7", "10.0.0.2:7"];
        check(&[any6], &machine, None, &both);
        check(&[only6], &machine, None, &["[2001:db8::1]:7"]);
        check(
            &[any4, only6],
            &machine,
            None,
            &["10.0.0.1:7", "10.0.0.2:7", "[2001:db8::1]:7"],
        );
        // Nowhere to be found: at least by itself.
        check(&[any4], &[], None, &["127.0.0.1:7"]);
        check(&[any6], &[], None, &["[::1]:7"]);
        check(&[], &machine, None, &[]);
    }

    #[test]
    fn more_than_the_limit_is_not_announced() {
        let machine = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"];
        let first = ["10.0.0.1:7", "10.0.0.2:7", "10.0.0.3:7", "10.0.0.4:7"];
        check(&[listening("0.0.0.0:7")], &machine, None, &first);
    }
}
