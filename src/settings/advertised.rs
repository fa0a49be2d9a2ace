//! An address that others dial, checked before anybody is told of it.
//!
//! The check is of its form: whether anybody answers there is found out by dialling.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use packhorse_protocol::limits::ADDRESS_BYTES_MAX;

/// What others should dial: `HOST:PORT`, the host a name or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised(String);

impl Advertised {
    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address as it travels and is stored: `quic://HOST:PORT`.
    #[must_use]
    pub fn hint(&self) -> String {
        format!("{SCHEME}{}", self.0)
    }
}

impl Display for Advertised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// The one kind of link there is; it may be written before an address, as listings show it.
const SCHEME: &str = "quic://";

/// Why a text cannot be dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot be dialled: {reason}")]
pub struct AdvertisedError {
    text: String,
    reason: String,
}

impl FromStr for Advertised {
    type Err = AdvertisedError;

    fn from_str(text: &str) -> Result<Advertised, AdvertisedError> {
        let address = text.strip_prefix(SCHEME).unwrap_or(text);
        match check_dialable(address) {
            Ok(()) => Ok(Advertised(address.to_owned())),
            Err(reason) => Err(AdvertisedError {
                // It may hold anything, and goes to a terminal.
                text: text.escape_debug().to_string(),
                reason,
            }),
        }
    }
}

fn check_dialable(address: &str) -> Result<(), String> {
    let bytes = SCHEME.len() + address.len();
    if bytes > ADDRESS_BYTES_MAX {
        return Err(format!(
            "as `{SCHEME}` address it has {bytes} bytes, the limit is {ADDRESS_BYTES_MAX}"
        ));
    }
    let hint = "write HOST:PORT";
    // An IPv6 host stands in brackets; otherwise its last group would pass for the port.
    if address.parse::<Ipv6Addr>().is_ok()
        || address.matches(':').count() > 1 && !address.starts_with('[')
    {
        return Err("an IPv6 address stands in brackets: write [ADDRESS]:PORT".to_owned());
    }
    let Some((host, port)) = address
        .rsplit_once(':')
        .filter(|(_, port)| !port.ends_with(']'))
    else {
        return Err(format!("it has no port: {hint}"));
    };
    match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(inner) => match inner.parse::<Ipv6Addr>() {
            Err(_) => return Err(format!("`{}` is no IPv6 address", inner.escape_debug())),
            Ok(ip) if ip.is_unspecified() => return Err(format!("`{ip}` is no place: {hint}")),
            Ok(_) => {}
        },
        None if host.is_empty() => return Err(format!("it has no host: {hint}")),
        None if host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_unspecified()) => {
            return Err(format!("`{host}` is no place: {hint}"));
        }
        None => {
            let is_usable = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            if !host.chars().all(is_usable) {
                let host = host.escape_debug();
                return Err(format!("`{host}` is neither a name nor an address: {hint}"));
            }
        }
    }
    match port.parse::<u16>() {
        Ok(0) => Err("nobody can dial port 0: name the port that others reach".to_owned()),
        Ok(_) => Ok(()),
        Err(_) => Err(format!("`{}` is no port: 1 to 65535", port.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_dialled_is_advertised() {
        let longest = format!("{}:7433", "h".repeat(ADDRESS_BYTES_MAX - SCHEME.len() - 5));
        for usable in [
            "host:1",
            "10.0.0.1:65535",
            "[fe80::1]:7433",
            "a-b.example_c:7433",
            "quic://host:1",
            &longest,
        ] {
            assert!(usable.parse::<Advertised>().is_ok(), "{usable}");
        }
        let too_long = format!("h{longest}");
        for (unusable, reason) in [
            ("host", "it has no port: write HOST:PORT"),
            ("", "it has no port: write HOST:PORT"),
            ("[::1]", "it has no port: write HOST:PORT"),
            (":7433", "it has no host: write HOST:PORT"),
            (
                "host:0",
                "nobody can dial port 0: name the port that others reach",
            ),
            ("host:65536", "`65536` is no port: 1 to 65535"),
            ("host:", "`` is no port: 1 to 65535"),
            (
                "::1:7433",
                "an IPv6 address stands in brackets: write [ADDRESS]:PORT",
            ),
            (
                "::1",
                "an IPv6 address stands in brackets: write [ADDRESS]:PORT",
            ),
            ("[::g]:1", "`::g` is no IPv6 address"),
            ("[::]:1", "`::` is no place: write HOST:PORT"),
            ("0.0.0.0:1", "`0.0.0.0` is no place: write HOST:PORT"),
            (
                "a b:1",
                "`a b` is neither a name nor an address: write HOST:PORT",
            ),
            (
                "h/x:1",
                "`h/x` is neither a name nor an address: write HOST:PORT",
            ),
            (
                "a\nb:1",
                "`a\\nb` is neither a name nor an address: write HOST:PORT",
            ),
            (
                &too_long,
                "as `quic://` address it has 260 bytes, the limit is 259",
            ),
        ] {
            let error = unusable.parse::<Advertised>().expect_err(unusable);
            let text = format!("`{}` cannot be dialled: {reason}", unusable.escape_debug());
            assert_eq!(error.to_string(), text);
        }
    }
}
