//! Whose connections are counted together, and how many one peer may have.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// Bits of an IPv6 address that name a network: one customer has at least all addresses of one.
const V6_NETWORK_BITS: u32 = 64;

/// `FLAGMETER_TRUSTED_PROXIES`: where connections come from that carry many clients' requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl FromStr for TrustedProxies {
    type Err = &'static str;

    /// Addresses and networks, such as `10.42.0.7, 10.42.0.0/16, fd00::/8`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let network =
            |part: &str| part.parse().or_else(|_| part.parse().map(|address: IpAddr| address.into()));
        parts
            .map(network)
            .collect::<Result<_, _>>()
            .map(Self)
            .map_err(|_| "it is a list of addresses and networks, such as 10.42.0.7,10.42.0.0/16,fd00::/8")
    }
}

/// How many connections a peer may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers {
    limit: usize,
    trusted: TrustedProxies,
}

impl Peers {
    /// At most `limit` each, where 0 is no limit; `trusted` may have any number.
    #[must_use]
    pub fn new(limit: usize, trusted: TrustedProxies) -> Self {
        Self { limit, trusted }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// As whose a connection from `address` counts; `None` if it is not counted.
    pub(super) fn counted(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        if self.limit == 0 || self.trusted.0.iter().any(|network| network.contains(&address)) {
            return None;
        }
        Some(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => {
                let network = u128::from(address) & (u128::MAX << (128 - V6_NETWORK_BITS));
                Ipv6Addr::from(network).into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_an_ipv4_address_or_a_network_of_ipv6_and_trusted_proxies_are_not_counted() {
        let peers = Peers::new(7, "10.42.0.0/16, 192.0.2.1,fd00::/8".parse().unwrap());
        let counted = |address: &str| peers.counted(address.parse().unwrap()).map(|peer| peer.to_string());
        for (address, peer) in [
            ("198.51.100.7", Some("198.51.100.7")),
            ("::ffff:198.51.100.7", Some("198.51.100.7")),
            ("2001:db8:1:2:3:4:5:6", Some("2001:db8:1:2::")),
            ("2001:db8:1:2:ffff::1", Some("2001:db8:1:2::")),
            ("2001:db8:1:3::1", Some("2001:db8:1:3::")),
            ("10.42.255.1", None),
            ("::ffff:10.42.0.1", None),
            ("192.0.2.1", None),
            ("192.0.2.2", Some("192.0.2.2")),
            ("fd12:3456::1", None),
        ] {
            assert_eq!(counted(address).as_deref(), peer, "{address}");
        }
        assert_eq!(Peers::new(0, TrustedProxies::default()).counted("198.51.100.7".parse().unwrap()), None);
        for wrong in ["10.42.0.0/33", "proxy.example", "10.42.0.0/16;fd00::/8"] {
            assert!(wrong.parse::<TrustedProxies>().is_err(), "{wrong}");
        }
    }
}
