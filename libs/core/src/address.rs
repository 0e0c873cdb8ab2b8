//! Which addresses a webhook may be at: those of the public internet.
//!
//! A webhook's URL is a tenant's to choose, and the request is made from inside the cluster. Without this rule
//! it could reach what only the cluster may: databases, the node, a cloud's metadata.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is none of the public internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotPublic(&'static str);

/// Where no public host is: IANA's registry of special-purpose addresses (RFC 6890), multicast, and the
/// one public address behind which a cloud (Azure) keeps a service for its machines.
const SPECIAL_V4: [([u8; 4], u32, NotPublic); 18] = [
    ([0, 0, 0, 0], 8, NotPublic("an address of this host")),
    ([10, 0, 0, 0], 8, NotPublic("a private address")),
    ([100, 64, 0, 0], 10, NotPublic("a carrier's shared address")),
    ([127, 0, 0, 0], 8, NotPublic("a loopback address")),
    ([168, 63, 129, 16], 32, NotPublic("a cloud's metadata address")),
    ([169, 254, 0, 0], 16, NotPublic("a link-local address")),
    ([172, 16, 0, 0], 12, NotPublic("a private address")),
    ([192, 0, 0, 0], 24, NotPublic("a reserved address")),
    ([192, 0, 2, 0], 24, NotPublic("a documentation address")),
    ([192, 31, 196, 0], 24, NotPublic("a reserved address")),
    ([192, 52, 193, 0], 24, NotPublic("a reserved address")),
    ([192, 88, 99, 0], 24, NotPublic("a reserved address")),
    ([192, 168, 0, 0], 16, NotPublic("a private address")),
    ([192, 175, 48, 0], 24, NotPublic("a reserved address")),
    ([198, 18, 0, 0], 15, NotPublic("a benchmarking address")),
    ([198, 51, 100, 0], 24, NotPublic("a documentation address")),
    ([203, 0, 113, 0], 24, NotPublic("a documentation address")),
    // Multicast (224/4), reserved (240/4) and broadcast.
    ([224, 0, 0, 0], 3, NotPublic("a multicast or reserved address")),
];

/// Global unicast (`2000::/3`) is public, but for these of it.
const SPECIAL_V6: [([u16; 3], u32, NotPublic); 4] = [
    // Teredo, ORCHID, benchmarking and others.
    ([0x2001, 0, 0], 23, NotPublic("a reserved address")),
    ([0x2001, 0xdb8, 0], 32, NotPublic("a documentation address")),
    ([0x2002, 0, 0], 16, NotPublic("a 6to4 address")),
    ([0x3fff, 0, 0], 20, NotPublic("a documentation address")),
];

/// Whether a host of the public internet may have `address`.
///
/// An IPv4 address inside of an IPv6 one is refused, whichever it is, because some systems connect to it as if
/// it stood alone; the exception is NAT64 (`64:ff9b::/96`), by which networks without IPv4 reach public hosts: there
/// the embedded address decides.
///
/// # Errors
///
/// [`NotPublic`]: what kind of address it is instead, for people.
pub fn check_public(address: IpAddr) -> Result<(), NotPublic> {
    match address {
        IpAddr::V4(address) => check_v4(address),
        IpAddr::V6(address) => check_v6(address),
    }
}

fn check_v4(address: Ipv4Addr) -> Result<(), NotPublic> {
    let bits = address.to_bits();
    let special = SPECIAL_V4.iter().find(|(network, length, _)| {
        let differing = bits ^ u32::from_be_bytes(*network);
        differing.leading_zeros() >= *length
    });
    special.map_or(Ok(()), |(.., why)| Err(*why))
}

fn check_v6(address: Ipv6Addr) -> Result<(), NotPublic> {
    let [first, second, third, .., seventh, eighth] = address.segments();
    let bits = address.to_bits();
    if bits >> 32 == 0x0064_ff9b_0000_0000_0000_0000 {
        return check_v4(Ipv4Addr::from_bits(u32::from(seventh) << 16 | u32::from(eighth)));
    }
    if first & 0xe000 != 0x2000 {
        return Err(NotPublic(match first {
            0 if address.is_unspecified() => "an address of this host",
            0 if address.is_loopback() => "a loopback address",
            0 => "an IPv4 address inside of an IPv6 one",
            0xfc00..=0xfdff => "a private address",
            0xfe80..=0xfebf => "a link-local address",
            0xff00..=0xffff => "a multicast address",
            _ => "a reserved address",
        }));
    }
    let start = u64::from(first) << 32 | u64::from(second) << 16 | u64::from(third);
    let special = SPECIAL_V6.iter().find(|(network, length, _)| {
        let [first, second, third] = network.map(u64::from);
        let differing = start ^ (first << 32 | second << 16 | third);
        // The first 48 bits of a number of 64.
        differing.leading_zeros() - 16 >= *length
    });
    special.map_or(Ok(()), |(.., why)| Err(*why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(address: &str) -> Result<(), NotPublic> {
        check_public(address.parse().unwrap())
    }

    #[test]
    fn hosts_of_the_public_internet_are() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2606:4700:4700::1111",
            "2a00:1450:4001::1",
            "64:ff9b::1.1.1.1",
        ] {
            assert_eq!(check(address), Ok(()), "{address}");
        }
    }

    #[test]
    fn whatever_only_a_network_of_ones_own_reaches_is_not() {
        for address in [
            // this host
            "0.0.0.0",
            "0.255.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "::",
            "::1",
            // private, and shared by a carrier
            "10.0.0.0",
            "10.255.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.168.0.0",
            "192.168.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "fc00::1",
            "fdff:ffff::1",
            "fec0::1",
            // link-local, and clouds' metadata
            "169.254.169.254",
            "169.254.170.2",
            "168.63.129.16",
            "192.0.0.192",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            // multicast, reserved, broadcast
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "4000::1",
            "100::1",
            // for benchmarks and documentation
            "198.18.0.1",
            "198.19.255.255",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "2001:2::1",
            "2001:db8::1",
            "3fff::1",
            // with another address inside
            "::ffff:127.0.0.1",
            "::ffff:1.1.1.1",
            "::7f00:1",
            "::1.1.1.1",
            "2002:7f00:1::",
            "2001:0:1:2::1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::1.1.1.1",
        ] {
            assert!(check(address).is_err(), "{address}");
        }
        assert_eq!(check("169.254.169.254").unwrap_err().to_string(), "a link-local address");
    }

    proptest! {
        #[test]
        fn no_form_of_an_ipv4_address_gets_around_the_rule(bits in any::<u32>()) {
            let address = Ipv4Addr::from_bits(bits);
            prop_assert!(check_public(address.to_ipv6_mapped().into()).is_err());
            prop_assert!(check_public(address.to_ipv6_compatible().into()).is_err());
            let nat64 = Ipv6Addr::from_bits(0x0064_ff9b << 96 | u128::from(bits));
            prop_assert_eq!(check_public(nat64.into()), check_public(address.into()));
        }

        #[test]
        fn what_the_standard_library_knows_to_be_special_is_not_public(bits in any::<u128>(), v4 in any::<u32>()) {
            let v6 = Ipv6Addr::from_bits(bits);
            let local = v6.is_loopback() || v6.is_multicast() || v6.is_unspecified()
                || v6.is_unique_local() || v6.is_unicast_link_local();
            prop_assert!(!local || check_public(v6.into()).is_err(), "{}", v6);
            let v4 = Ipv4Addr::from_bits(v4);
            let local = v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
            prop_assert!(!local || check_public(v4.into()).is_err(), "{}", v4);
        }
    }
}
