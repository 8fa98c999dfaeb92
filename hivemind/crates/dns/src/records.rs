//! The table of local names.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use hickory_proto::ProtoError;
use hickory_proto::rr::{LowerName, Name};
use ipnet::IpNet;
use thiserror::Error;

use crate::limits::ALIASES_MAX;

/// The names we answer for: name to addresses, servers of services and texts, and address to name.
///
/// A table is filled, then handed to [`DnsServer::publish`](crate::DnsServer::publish), which replaces the
/// whole of the previous one at once; a query sees one or the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    entries: HashMap<LowerName, Entry>,
    pointers: HashMap<IpAddr, Name>,
    /// Networks of ours: an address in one of them has the name that is given here, or none.
    networks: Vec<Network>,
    /// Every proper ancestor of a name in `entries`: such a name exists, without data (RFC 8020).
    ancestors: HashSet<LowerName>,
}

/// What a name has. With nothing, it exists and has no data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) servers: Vec<Server>,
    pub(crate) texts: Vec<String>,
    /// The name that it stands for; whatever else it has does not count then (RFC 1034 section 3.6.2).
    pub(crate) alias: Option<Name>,
}

/// Where a service is served (RFC 2782). All of ours are of one priority and weight: behind each is the service's
/// balancing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) target: Name,
    pub(crate) port: u16,
}

/// A network of ours, and the zone of its reverse names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Network {
    net: IpNet,
    zone: LowerName,
}

/// The longest text of a TXT record in bytes (RFC 1035 section 3.3).
const TEXT_BYTES_MAX: usize = 255;

/// Why a name was not taken; the table is as it was before.
#[derive(Debug, Error)]
pub enum NameError {
    /// Not a domain name: a label is empty or over 63 bytes, the name over 255, or a character is not allowed.
    /// Correct the name.
    #[error("`{name}` is not a domain name")]
    Invalid {
        /// The name as it was given.
        name: String,
        /// What is wrong with it.
        source: ProtoError,
    },
    /// The empty name or the root, which cannot be ours. Name something below it.
    #[error("the root is not a name for a service")]
    Root,
    /// A text of more than 255 bytes, which no TXT record holds. Shorten it.
    #[error("the text for `{name}` is longer than {TEXT_BYTES_MAX} bytes")]
    LongText {
        /// The name as it was given.
        name: String,
    },
}

/// A name stands for a name that stands for a name, and so on for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EndlessAlias;

/// What the table knows of a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A name of ours with what it has.
    Entry(&'a Entry),
    /// The reverse name of an address, and the name that the address has.
    Pointer(&'a Name),
    /// A reverse name in a network of ours of which there is nothing, an address's or not; with the network's zone.
    NoPointer(&'a LowerName),
    /// The reverse name of a part of a network of ours, or of all of it; with the network's zone.
    ReverseZone(&'a LowerName),
    /// Names below it are ours.
    Ancestor,
    /// Not in the table.
    Nothing,
}

impl Records {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `addresses` to `name`, which is taken as fully qualified with or without the final dot, in any
    /// case. A name may be below the cluster domain or not; with no addresses it exists and has no data.
    /// Answers keep the order of insertion; an address that the name has already is not added again.
    ///
    /// # Errors
    /// [`NameError`] if it is not a name.
    pub fn insert(
        &mut self,
        name: &str,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), NameError> {
        let known = &mut self.entry(name)?.addresses;
        for address in addresses {
            if !known.contains(&address) {
                known.push(address);
            }
        }
        Ok(())
    }

    /// Adds a server to `name`, which is then that of a service (`_http._tcp.…`, RFC 2782): `target` serves it at `port`.
    /// Answers carry the target's addresses, too, if they are in the table. One that is there already is not added again.
    ///
    /// # Errors
    /// [`NameError`] if one of them is not a name.
    pub fn insert_server(&mut self, name: &str, target: &str, port: u16) -> Result<(), NameError> {
        let server = Server { target: parse_name(target)?.to_lowercase(), port };
        let known = &mut self.entry(name)?.servers;
        if !known.contains(&server) {
            known.push(server);
        }
        Ok(())
    }

    /// Adds a text of at most 255 bytes to `name`.
    ///
    /// # Errors
    /// [`NameError`] if it is not a name, or the text is too long.
    pub fn insert_text(&mut self, name: &str, text: &str) -> Result<(), NameError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(NameError::LongText { name: name.to_owned() });
        }
        self.entry(name)?.texts.push(text.to_owned());
        Ok(())
    }

    /// Lets `name` stand for `target`, ours or not (CNAME), in place of what it stood for before. Answers carry what the target
    /// has, too.
    ///
    /// # Errors
    /// [`NameError`] if one of them is not a name.
    pub fn insert_alias(&mut self, name: &str, target: &str) -> Result<(), NameError> {
        let target = parse_name(target)?.to_lowercase();
        self.entry(name)?.alias = Some(target);
        Ok(())
    }

    /// What a name stands for, link by link: what each is an alias of. Empty if it is none.
    ///
    /// # Errors
    /// That there are more than [`ALIASES_MAX`], as there are without an end if they stand for one another.
    pub(crate) fn aliases(&self, name: &LowerName) -> Result<Vec<&Name>, EndlessAlias> {
        let mut found: Vec<&Name> = Vec::new();
        let mut at = self.alias(name);
        while let Some(target) = at {
            if found.len() == ALIASES_MAX {
                return Err(EndlessAlias);
            }
            found.push(target);
            at = self.alias(&LowerName::new(target));
        }
        Ok(found)
    }

    fn alias(&self, name: &LowerName) -> Option<&Name> {
        self.entries.get(name)?.alias.as_ref()
    }

    /// Makes the reverse names of a network ours: an address in it that has no name here has none, and nobody else is
    /// asked. The zone is that of the nearest whole label (RFC 1035 section 3.5, RFC 3596 section 2.5): a /14 is four
    /// zones of /16, of which the one asked for is named.
    pub fn own_network(&mut self, net: IpNet) {
        let bits = match net {
            IpNet::V4(_) => 8,
            IpNet::V6(_) => 4,
        };
        let length = net.prefix_len().div_ceil(bits) * bits;
        let Ok(parts) = net.subnets(length) else { return };
        for part in parts {
            let labels = usize::from(length / bits);
            let whole = Name::from(part.network());
            let zone = LowerName::new(&whole.trim_to(labels + ARPA_LABELS));
            self.networks.push(Network { net: part, zone });
        }
    }

    fn entry(&mut self, name: &str) -> Result<&mut Entry, NameError> {
        let name = LowerName::new(&parse_name(name)?);
        self.insert_ancestors(&name);
        Ok(self.entries.entry(name).or_default())
    }

    /// The addresses of a name.
    pub(crate) fn addresses(&self, name: &Name) -> &[IpAddr] {
        self.entries.get(&LowerName::new(name)).map_or(&[], |entry| &entry.addresses)
    }

    /// Lets the reverse lookup of `address` give `name`, in place of what it gave before.
    ///
    /// # Errors
    /// [`NameError`] if it is not a name.
    pub fn insert_reverse(&mut self, address: IpAddr, name: &str) -> Result<(), NameError> {
        let name = parse_name(name)?;
        self.pointers.insert(address, name.to_lowercase());
        Ok(())
    }

    /// How many names have an entry, reverse ones not counted.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the table has neither names nor reverse names.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.pointers.is_empty()
    }

    pub(crate) fn find(&self, name: &LowerName) -> Found<'_> {
        if let Some(entry) = self.entries.get(name) {
            return Found::Entry(entry);
        }
        if name.iter().next_back() == Some(b"arpa") {
            return self.find_reverse(name);
        }
        if self.ancestors.contains(name) { Found::Ancestor } else { Found::Nothing }
    }

    fn find_reverse(&self, name: &LowerName) -> Found<'_> {
        let address = reverse_address(name);
        if let Some(pointer) = address.and_then(|address| self.pointers.get(&address)) {
            return Found::Pointer(pointer);
        }
        if let Some(address) = address {
            let network = self.networks.iter().find(|network| network.net.contains(&address));
            return network.map_or(Found::Nothing, |network| Found::NoPointer(&network.zone));
        }
        let Some(network) = self.networks.iter().find(|network| network.zone.zone_of(name)) else {
            return Found::Nothing;
        };
        // A part of an address has addresses below it; any other word is nobody's.
        let is_part = name.parse_arpa_name().is_ok();
        if is_part { Found::ReverseZone(&network.zone) } else { Found::NoPointer(&network.zone) }
    }

    fn insert_ancestors(&mut self, name: &LowerName) {
        let mut ancestor = name.base_name();
        // An ancestor that is known already has its own ancestors in the table.
        while !ancestor.is_root() && self.ancestors.insert(ancestor.clone()) {
            ancestor = ancestor.base_name();
        }
    }
}

/// Parses a name that is meant to be fully qualified.
pub(crate) fn parse_name(text: &str) -> Result<Name, NameError> {
    let mut name =
        Name::from_ascii(text).map_err(|source| NameError::Invalid { name: text.to_owned(), source })?;
    if name.is_root() || name.iter().next().is_none() {
        return Err(NameError::Root);
    }
    name.set_fqdn(true);
    Ok(name)
}

/// `in-addr.arpa` and `ip6.arpa` have two labels.
const ARPA_LABELS: usize = 2;

/// The address whose reverse name this is; none for a network's name.
fn reverse_address(name: &Name) -> Option<IpAddr> {
    let network = name.parse_arpa_name().ok()?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lower(name: &str) -> LowerName {
        LowerName::new(&parse_name(name).unwrap())
    }

    #[test]
    fn a_name_is_found_in_any_case_and_with_or_without_the_final_dot() {
        let mut records = Records::new();
        records.insert("Web.Local", ["10.0.0.1".parse().unwrap()]).unwrap();
        records.insert("web.local.", ["10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap()]).unwrap();
        let expected: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let entry = Entry { addresses: expected.to_vec(), ..Entry::default() };
        assert_eq!(records.find(&lower("WEB.LOCAL")), Found::Entry(&entry));
        assert_eq!(records.len(), 1);
    }

    #[test]
    fn what_lies_between_a_name_and_the_root_exists_without_data() {
        let mut records = Records::new();
        records.insert("a.b.c", []).unwrap();
        assert_eq!(records.find(&lower("a.b.c")), Found::Entry(&Entry::default()));
        assert_eq!(records.find(&lower("b.c")), Found::Ancestor);
        assert_eq!(records.find(&lower("c")), Found::Ancestor);
        assert_eq!(records.find(&lower("x.b.c")), Found::Nothing);
    }

    #[test]
    fn an_alias_is_followed_to_its_end_and_not_for_ever() {
        let mut records = Records::new();
        for (name, target) in [("a.b", "C.b"), ("c.b", "db.example.com"), ("x.b", "y.b"), ("y.b", "x.b")] {
            records.insert_alias(name, target).unwrap();
        }
        let names = |list: Vec<&Name>| list.iter().map(|name| name.to_ascii()).collect::<Vec<_>>();
        assert_eq!(names(records.aliases(&lower("A.b")).unwrap()), ["c.b.", "db.example.com."]);
        assert!(records.aliases(&lower("db.example.com")).unwrap().is_empty());
        assert_eq!(records.aliases(&lower("x.b")), Err(EndlessAlias));
        assert!(records.insert_alias("a.b", "").is_err());
    }

    #[test]
    fn an_address_is_found_by_its_reverse_name_and_its_network_is_not() {
        let mut records = Records::new();
        records.insert_reverse("10.204.0.7".parse().unwrap(), "web.local").unwrap();
        records.insert_reverse("fd00::7".parse().unwrap(), "web.local").unwrap();
        let web = parse_name("web.local").unwrap();
        assert_eq!(records.find(&lower("7.0.204.10.in-addr.arpa")), Found::Pointer(&web));
        assert_eq!(records.find(&lower("0.204.10.in-addr.arpa")), Found::Nothing);
        let v6 = Name::from("fd00::7".parse::<IpAddr>().unwrap());
        assert_eq!(records.find(&LowerName::new(&v6)), Found::Pointer(&web));
    }

    #[test]
    fn an_address_in_a_network_of_ours_has_its_name_or_none_and_nobody_else_is_asked() {
        let mut records = Records::new();
        records.own_network("10.200.0.0/14".parse().unwrap());
        records.own_network("fd00:1::/48".parse().unwrap());
        records.insert_reverse("10.200.0.7".parse().unwrap(), "web.local").unwrap();
        let web = parse_name("web.local").unwrap();
        let zone = lower("201.10.in-addr.arpa");
        assert_eq!(records.find(&lower("7.0.200.10.in-addr.arpa")), Found::Pointer(&web));
        assert_eq!(records.find(&lower("8.0.201.10.in-addr.arpa")), Found::NoPointer(&zone));
        assert_eq!(records.find(&lower("0.201.10.in-addr.arpa")), Found::ReverseZone(&zone));
        assert_eq!(records.find(&lower("201.10.in-addr.arpa")), Found::ReverseZone(&zone));
        assert_eq!(
            records.find(&lower("x.201.10.in-addr.arpa")),
            Found::NoPointer(&zone),
            "no part of an address"
        );
        assert_eq!(records.find(&lower("10.in-addr.arpa")), Found::Nothing, "that is everybody's");
        assert_eq!(records.find(&lower("7.0.204.10.in-addr.arpa")), Found::Nothing);
        let v6 = Name::from("fd00:1::9".parse::<IpAddr>().unwrap());
        assert!(matches!(records.find(&LowerName::new(&v6)), Found::NoPointer(_)));
    }

    #[test]
    fn a_text_that_no_record_holds_is_refused() {
        let mut records = Records::new();
        assert!(matches!(records.insert_text("a.b", &"x".repeat(256)), Err(NameError::LongText { .. })));
        assert!(records.insert_text("a.b", &"x".repeat(255)).is_ok());
    }

    #[test]
    fn what_is_no_name_is_refused_and_changes_nothing() {
        let mut records = Records::new();
        for bad in ["a..b", "a b", &"x".repeat(64), &"abcdefg.".repeat(40)] {
            assert!(matches!(records.insert(bad, []), Err(NameError::Invalid { .. })), "{bad}");
        }
        for root in ["", "."] {
            assert!(matches!(records.insert_reverse("::1".parse().unwrap(), root), Err(NameError::Root)));
        }
        assert!(records.is_empty());
    }

    #[test]
    fn service_labels_with_underscores_are_names() {
        assert!(Records::new().insert("_http._tcp.web.local", []).is_ok());
    }
}
