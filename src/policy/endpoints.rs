//! Section `endpoints`: destinations other than phone numbers, their owners, and the clients that may reach them.

use core::net::IpAddr;
use std::collections::HashMap;

use super::definitions::Definitions;
use super::ids::check_labels;
use super::reader::{List, Members, Reader, document, words};
use super::teams::PartyId;
use super::text_bounds::is_origin;

document! {
    /// One endpoint, a destination other than a phone number.
    pub struct EndpointDocument {
        /// Id: 1 to 128 visible characters without a comma.
        id: String,
        /// Name in listings.
        name: Option<String>,
        /// Application it belongs to in listings.
        app: Option<String>,
        /// The team that owns it.
        team: String,
        /// Features it has.
        features: Members<bool>,
        /// State of the endpoint; default `active`.
        state: StateWord = StateWord::Active,
        /// The only origins a session may come from; absent: any.
        origins: Option<List<String>>,
        /// The only client addresses, as in `203.0.113.0/24`; absent: any.
        addresses: Option<List<String>>,
        /// Annotations, text to text; never judged.
        labels: Members<String>,
    }
}

words! {
    /// State of an endpoint.
    pub enum StateWord {
        /// New sessions are accepted.
        Active = "active",
        /// New sessions are refused with 409.
        Archived = "archived",
    }
}

/// Destination other than a phone number.
#[derive(Debug)]
pub struct Endpoint {
    /// Id, unique in the policy.
    pub id: String,
    /// Name in listings.
    pub name: Option<String>,
    /// Application it belongs to in listings.
    pub app: Option<String>,
    /// Team that owns it.
    pub owner: PartyId,
    /// Features it has.
    pub features: Vec<String>,
    /// True when it takes no new sessions.
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
    /// Reads an address or network, as in `192.0.2.0/24`; `None` when malformed or when bits behind the mask are set.
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

    /// Returns whether an address is in the network. An IPv4-mapped IPv6 address counts as IPv4.
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
pub struct Endpoints {
    list: Vec<Endpoint>,
    by_id: HashMap<String, usize>,
}

impl Endpoints {
    pub(super) fn new(mut list: Vec<Endpoint>) -> Self {
        list.sort_by(|one, other| one.id.cmp(&other.id));
        let by_id = list.iter().enumerate().map(|(index, endpoint)| (endpoint.id.clone(), index)).collect();
        Self { list, by_id }
    }

    /// Finds an endpoint by its id.
    pub fn get(&self, id: &str) -> Option<&Endpoint> {
        self.list.get(*self.by_id.get(id)?)
    }

    /// Returns all endpoints, sorted by id.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.list.iter()
    }
}

/// Compiles the endpoints.
pub(super) fn compile(
    documents: &List<EndpointDocument>,
    definitions: &Definitions<'_>,
    at: &Reader<'_>,
) -> Endpoints {
    let mut list: Vec<Endpoint> = Vec::new();
    for (index, (at, document)) in documents.each(at).enumerate() {
        let id = &document.id;
        if !(1..=128).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
            at.member("id").refuse("an endpoint's id is 1 to 128 visible characters without a comma");
        }
        let is_taken = documents.iter().take(index).any(|other| other.id == *id);
        at.member("id").check_unique("endpoint id", id, is_taken);
        list.extend(document.compile(definitions, &at));
    }
    Endpoints::new(list)
}

impl EndpointDocument {
    fn compile(&self, definitions: &Definitions<'_>, at: &Reader<'_>) -> Option<Endpoint> {
        check_labels(&self.labels, &at.member("labels"));
        definitions.platform.check_features(self.features.names(), &at.member("features"));
        let (origins_at, addresses_at) = (at.member("origins"), at.member("addresses"));
        for (at, origin) in self.origins.iter().flat_map(|list| list.each(&origins_at)) {
            if !is_origin(origin) {
                at.refuse("expected an origin as browsers write it: `https://example.com`");
            }
        }
        let network = |(at, text): (Reader<'_>, &String)| {
            let network = Network::parse(text);
            if network.is_none() {
                at.refuse("expected `203.0.113.7` or `203.0.113.0/24`");
            }
            network
        };
        let tree = definitions.tree;
        at.member("team").check_listed(&self.team, "teams", tree.team_ids());
        Some(Endpoint {
            owner: tree.team(&self.team)?,
            id: self.id.clone(),
            name: self.name.clone(),
            app: self.app.clone(),
            features: self.features.iter().filter(|(_, on)| *on).map(|(name, _)| name.clone()).collect(),
            is_archived: self.state == StateWord::Archived,
            origins: self.origins.as_deref().map(<[String]>::to_vec),
            addresses: self
                .addresses
                .as_ref()
                .map(|list| list.each(&addresses_at).filter_map(network).collect()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_with_bits_of_network_is_contained() {
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
