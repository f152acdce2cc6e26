//! The directory of endpoints: what can be called, whose it is, and from where.

use core::net::IpAddr;
use std::collections::HashMap;

use super::team::PartyId;

/// Something that can be called, beside phone numbers.
#[derive(Debug)]
pub struct Endpoint {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: Option<String>,
    /// The application it belongs to.
    pub app: Option<String>,
    /// The team it belongs to.
    pub owner: PartyId,
    /// What it is capable of.
    pub features: Vec<String>,
    /// Whether it takes no new sessions any more.
    pub is_archived: bool,
    /// The origins a page may open sessions from; `None` = any.
    pub origins: Option<Vec<String>>,
    /// The addresses a client may open sessions from; `None` = any.
    pub addresses: Option<Vec<Network>>,
}

/// An address, or all that share its first bits (RFC 4632 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Reads `192.0.2.7`, `192.0.2.0/24` or the like in IPv6; `None` also when bits behind the mask are set.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let width = width(address);
        let bits = match bits {
            None => width,
            Some(text) => {
                text.parse().ok().filter(|bits: &u32| *bits <= width && bits.to_string() == text)?
            }
        };
        let network = Self { address, bits };
        (network.masked(address) == value(address)).then_some(network)
    }

    /// Whether an address is in it; an IPv4 address that came as IPv6 is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        width(address) == width(self.address) && self.masked(address) == value(self.address)
    }

    fn masked(&self, address: IpAddr) -> u128 {
        let host_bits = width(address).saturating_sub(self.bits);
        value(address).checked_shr(host_bits).and_then(|bits| bits.checked_shl(host_bits)).unwrap_or(0)
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn value(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// All endpoints, sorted by id.
#[derive(Debug, Default)]
pub struct Directory {
    list: Vec<Endpoint>,
    by_id: HashMap<String, usize>,
}

impl Directory {
    pub(super) fn new(mut list: Vec<Endpoint>) -> Self {
        list.sort_by(|one, other| one.id.cmp(&other.id));
        let by_id = list.iter().enumerate().map(|(index, endpoint)| (endpoint.id.clone(), index)).collect();
        Self { list, by_id }
    }

    /// Finds an endpoint.
    pub fn get(&self, id: &str) -> Option<&Endpoint> {
        self.list.get(*self.by_id.get(id)?)
    }

    /// All of them, sorted by id.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.list.iter()
    }

    /// Whether an endpoint asks where its client is.
    pub fn asks_for_address(&self) -> bool {
        self.list.iter().any(|endpoint| endpoint.addresses.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_what_shares_its_bits() {
        let holds = |network: &str, address: &str| {
            Network::parse(network).unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("203.0.113.0/24", "203.0.113.255"));
        assert!(!holds("203.0.113.0/24", "203.0.114.0"));
        assert!(holds("203.0.113.7", "203.0.113.7") && !holds("203.0.113.7", "203.0.113.8"));
        assert!(holds("203.0.113.7", "::ffff:203.0.113.7"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1") && !holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("0.0.0.0/0", "8.8.8.8") && !holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("::/0", "2001:db8::1"));
        for text in ["", "203.0.113.1/24", "203.0.113.0/33", "203.0.113.0/+8", "203.0.113", "host"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
