//! The pods' addresses: one loopback address each. Linux answers for the whole of 127.0.0.0/8.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

/// A pool of 65,534 addresses.
#[derive(Debug)]
pub struct Addresses {
    base: u32,
    pool: Mutex<Pool>,
}

#[derive(Debug, Default)]
struct Pool {
    last: u16,
    used: BTreeSet<u16>,
}

/// An address in use; it returns to the pool when dropped.
#[derive(Debug)]
pub struct Address {
    ip: Ipv4Addr,
    number: u16,
    addresses: Arc<Addresses>,
}

impl Addresses {
    /// All addresses of `base`/16 but the first and the last.
    #[must_use]
    pub fn new(base: Ipv4Addr) -> Arc<Self> {
        Arc::new(Self { base: base.to_bits() & 0xffff_0000, pool: Mutex::default() })
    }

    /// The next address that is free, or `None` if all are in use. One that was just given back comes
    /// last, so that nobody who remembers it reaches the wrong pod.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Option<Address> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let after = (pool.last..u16::MAX).skip(1);
        let number = after.chain(1..=pool.last).find(|number| !pool.used.contains(number))?;
        pool.last = number;
        pool.used.insert(number);
        Some(Address {
            ip: Ipv4Addr::from_bits(self.base | u32::from(number)),
            number,
            addresses: Arc::clone(self),
        })
    }
}

impl Address {
    /// The address itself.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        let mut pool = self.addresses.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.used.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_not_given_twice_while_in_use_and_comes_back_last() {
        let addresses = Addresses::new(Ipv4Addr::new(127, 64, 3, 9));
        let first = addresses.take().unwrap();
        let second = addresses.take().unwrap();
        assert_eq!(first.ip(), Ipv4Addr::new(127, 64, 0, 1));
        assert_eq!(second.ip(), Ipv4Addr::new(127, 64, 0, 2));

        drop(first);
        let rest: Vec<_> = std::iter::from_fn(|| addresses.take()).collect();
        assert_eq!(rest.len(), 65_533);
        assert_eq!(rest[0].ip(), Ipv4Addr::new(127, 64, 0, 3));
        assert_eq!(rest[65_531].ip(), Ipv4Addr::new(127, 64, 255, 254));
        assert_eq!(rest[65_532].ip(), Ipv4Addr::new(127, 64, 0, 1));
        assert!(addresses.take().is_none());
    }
}
