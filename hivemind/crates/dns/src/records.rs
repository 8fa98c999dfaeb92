//! The table of local names.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use hickory_proto::ProtoError;
use hickory_proto::rr::{LowerName, Name};
use thiserror::Error;

/// The names we answer for: name to addresses, and address to name.
///
/// A table is filled, then handed to [`DnsServer::publish`](crate::DnsServer::publish), which replaces the
/// whole of the previous one at once; a query sees one or the other.
#[derive(Clone, Debug, Default)]
pub struct Records {
    addresses: HashMap<LowerName, Vec<IpAddr>>,
    pointers: HashMap<IpAddr, Name>,
    /// Every proper ancestor of a name in `addresses`: such a name exists, without data (RFC 8020).
    ancestors: HashSet<LowerName>,
}

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
}

/// What the table knows of a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A name of ours with its addresses, of which there may be none.
    Addresses(&'a [IpAddr]),
    /// The reverse name of an address, and the name that the address has.
    Pointer(&'a Name),
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
        let name = LowerName::new(&parse_name(name)?);
        self.insert_ancestors(&name);
        let known = self.addresses.entry(name).or_default();
        for address in addresses {
            if !known.contains(&address) {
                known.push(address);
            }
        }
        Ok(())
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
        self.addresses.len()
    }

    /// Whether the table has neither names nor reverse names.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.pointers.is_empty()
    }

    pub(crate) fn find(&self, name: &LowerName) -> Found<'_> {
        if let Some(addresses) = self.addresses.get(name) {
            return Found::Addresses(addresses);
        }
        if let Some(pointer) = reverse_address(name).and_then(|address| self.pointers.get(&address)) {
            return Found::Pointer(pointer);
        }
        if self.ancestors.contains(name) { Found::Ancestor } else { Found::Nothing }
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

/// The address whose reverse name this is; none for a network's name.
fn reverse_address(name: &Name) -> Option<IpAddr> {
    if name.iter().next_back() != Some(b"arpa") {
        return None;
    }
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
        assert_eq!(records.find(&lower("WEB.LOCAL")), Found::Addresses(&expected));
        assert_eq!(records.len(), 1);
    }

    #[test]
    fn what_lies_between_a_name_and_the_root_exists_without_data() {
        let mut records = Records::new();
        records.insert("a.b.c", []).unwrap();
        assert_eq!(records.find(&lower("a.b.c")), Found::Addresses(&[]));
        assert_eq!(records.find(&lower("b.c")), Found::Ancestor);
        assert_eq!(records.find(&lower("c")), Found::Ancestor);
        assert_eq!(records.find(&lower("x.b.c")), Found::Nothing);
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
