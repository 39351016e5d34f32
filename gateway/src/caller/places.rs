//! How many connections there may be: of all callers together, and of each peer, so that one that opens them without
//! end shuts nobody else out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::{Denial, DenialCode};

/// Who is at the other end of a connection, as far as the system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    Address(IpAddr),
    /// A user, at the socket.
    User(Option<u32>),
}

impl Peer {
    /// The peer of an address. Whoever has one of IPv6 most often has a network of 64 bits, which counts as one.
    pub(crate) fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            address => address,
        })
    }
}

/// The places that there are for connections.
#[derive(Debug)]
pub(crate) struct Places {
    total_max: usize,
    of_peer_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    /// Peers without a connection are not in it.
    of_peers: HashMap<Peer, usize>,
}

/// A place that a connection has; dropped when it ends.
#[derive(Debug)]
pub(crate) struct Held {
    places: Arc<Places>,
    peer: Peer,
}

impl Places {
    pub(crate) fn new(total_max: usize, of_peer_max: usize) -> Self {
        Self { total_max, of_peer_max, taken: Mutex::default() }
    }

    /// Takes a place for a connection of `peer`.
    ///
    /// # Errors
    /// [`DenialCode::Overloaded`] when there is none.
    pub(crate) fn take(self: &Arc<Self>, peer: Peer) -> Result<Held, Denial> {
        let overloaded = |message, key| Err(Denial::new(DenialCode::Overloaded, message).with_hint(key));
        let mut taken = self.taken();
        if taken.total >= self.total_max {
            return overloaded("there are too many connections", "limits.connections in config.toml");
        }
        let of_peer = taken.of_peers.entry(peer).or_default();
        if *of_peer >= self.of_peer_max {
            let key = "limits.connections_per_peer in config.toml";
            return overloaded("there are too many connections from there", key);
        }
        *of_peer += 1;
        taken.total += 1;
        Ok(Held { places: self.clone(), peer })
    }

    /// Whether nobody has a place.
    pub(crate) fn are_free(&self) -> bool {
        self.taken().total == 0
    }

    /// Nothing under the lock is left half-changed by a panic.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.total -= 1;
        if let Some(of_peer) = taken.of_peers.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.of_peers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Peer {
        Peer::at(address.parse().unwrap())
    }

    #[test]
    fn a_peer_has_its_share_and_all_have_the_whole() {
        let places = Arc::new(Places::new(3, 2));
        let user = Peer::User(Some(1000));
        let mut first: Vec<Held> = (0..2).map(|_| places.take(at("127.0.0.1")).unwrap()).collect();
        assert!(places.take(at("127.0.0.1")).is_err());
        let other = places.take(user).unwrap();
        assert!(places.take(user).is_err(), "all places are taken");
        first.pop();
        assert!(places.take(user).is_ok());
        drop((first, other));
        let taken = places.taken();
        assert_eq!((taken.total, taken.of_peers.len()), (0, 0), "whoever has left is forgotten");
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
        assert_ne!(at("::1"), at("::2"));
    }
}
