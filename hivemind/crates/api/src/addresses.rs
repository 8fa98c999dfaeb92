//! Which addresses and which number a new service gets: a pure function of what the others have.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use hivemind_model::{ApiError, ErrorCode, ServiceSpec};
use ipnet::{Ipv4Net, Ipv6Net};
use jiff::Timestamp;

/// The first addresses of the ranges, kept free for what is to come (the ranges' network addresses come on top).
const RESERVED: u64 = 10;

/// Where services' addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRanges {
    /// IPv4, by default 10.204.0.0/16; a /28 or larger.
    pub ipv4: Ipv4Net,
    /// IPv6, a /112 of the cluster's ULA; a /124 or larger.
    pub ipv6: Ipv6Net,
}

/// What a service is reached at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceAddresses {
    /// The data path's number for it, never 0.
    pub number: u32,
    /// At the same place in its range as [`Self::ipv6`], so that people recognise it.
    pub ipv4: Ipv4Addr,
    /// At the same place in its range as [`Self::ipv4`].
    pub ipv6: Ipv6Addr,
}

/// Chooses what no service of `existing` has. The search starts at a hash of the name, so that an app that is made anew
/// mostly gets what it had, and what was just released is mostly not handed to another.
///
/// # Errors
/// `AddressesExhausted` when every address is in use.
pub fn choose_addresses<'a>(
    ranges: &ServiceRanges,
    namespace: &str,
    name: &str,
    existing: impl IntoIterator<Item = &'a ServiceSpec>,
) -> Result<ServiceAddresses, ApiError> {
    let (mut numbers, mut v4, mut v6) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (number, ipv4, ipv6) in existing.into_iter().filter_map(ServiceSpec::balanced) {
        numbers.insert(number);
        v4.insert(ipv4);
        v6.insert(ipv6);
    }
    let hash = fnv1a(namespace.bytes().chain([b'/']).chain(name.bytes()));
    let (ipv4, ipv6) = usable(ranges, hash)
        .map(|place| at(ranges, place))
        .find(|(ipv4, ipv6)| !v4.contains(ipv4) && !v6.contains(ipv6))
        .ok_or_else(|| exhausted(ranges))?;
    let number = free_number(hash, &numbers, NUMBER_MAX);
    Ok(ServiceAddresses { number, ipv4, ipv6 })
}

/// The addresses of the service of a check of the network: of those that no service is given.
pub fn check_addresses(ranges: &ServiceRanges) -> (Ipv4Addr, Ipv6Addr) {
    at(ranges, RESERVED)
}

/// The places that may be given, all of them once, beginning at one that `hash` says.
fn usable(ranges: &ServiceRanges, hash: u64) -> impl Iterator<Item = u64> {
    let host_bits = (32 - ranges.ipv4.prefix_len()).min(128 - ranges.ipv6.prefix_len());
    let first = RESERVED + 1;
    // The last address of the smaller range is the broadcast address of the IPv4 one.
    let count = (1_u64 << host_bits).saturating_sub(1 + first);
    (0..count).map(move |step| first + (hash % count + step) % count)
}

fn at(ranges: &ServiceRanges, place: u64) -> (Ipv4Addr, Ipv6Addr) {
    // `place` is below 2^32: the IPv4 range has no more.
    let v4 = u32::from(ranges.ipv4.network()).wrapping_add(place as u32);
    let v6 = u128::from(ranges.ipv6.network()).wrapping_add(u128::from(place));
    (Ipv4Addr::from(v4), Ipv6Addr::from(v6))
}

/// The highest number: an app's workload identity, of 24 bits, is 256 more than its service's number.
const NUMBER_MAX: u32 = (1 << 24) - 1 - 256;

/// A number from 1 to `max` that is not `taken`, for what is made at a time under a namespace and a name; at another time
/// mostly another. There are fewer taken than numbers: callers bound how many.
pub(crate) fn choose_number(
    (namespace, name): (&str, &str),
    time: Timestamp,
    taken: &HashSet<u32>,
    max: u32,
) -> u32 {
    let place = namespace.bytes().chain([b'/']).chain(name.bytes());
    free_number(fnv1a(place.chain(time.as_nanosecond().to_le_bytes())), taken, max)
}

/// The first of all numbers from 1 to `max` that is not `taken`, beginning at one that `hash` says.
fn free_number(hash: u64, taken: &HashSet<u32>, max: u32) -> u32 {
    let start = u32::try_from(hash >> 32).expect("the upper half of 64 bits is 32 bits") % max;
    (0..max)
        .map(|step| 1 + (start + step) % max)
        .find(|number| !taken.contains(number))
        .expect("there are more numbers than objects fit into memory")
}

fn exhausted(ranges: &ServiceRanges) -> ApiError {
    let what = format!("all service addresses of {} and {} are in use", ranges.ipv4, ranges.ipv6);
    ApiError::new(
        ErrorCode::AddressesExhausted,
        what,
        "delete apps, or give the daemon larger service ranges",
    )
}

/// 64-bit FNV-1a (draft-eastlake-fnv), with the final mix of MurmurHash3, since the upper bits of FNV change little with
/// short names.
fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(v4: &str, v6: &str) -> ServiceRanges {
        ServiceRanges { ipv4: v4.parse().unwrap(), ipv6: v6.parse().unwrap() }
    }

    fn spec(addresses: ServiceAddresses) -> ServiceSpec {
        let ServiceAddresses { number, ipv4, ipv6 } = addresses;
        ServiceSpec { number, ipv4: Some(ipv4), ipv6: Some(ipv6), ..ServiceSpec::default() }
    }

    #[test]
    fn a_range_is_given_out_whole_and_then_is_exhausted() {
        let ranges = ranges("10.204.0.0/27", "fd00::/112");
        let mut existing = Vec::new();
        for i in 0..20 {
            let chosen = choose_addresses(&ranges, "default", &format!("app-{i}"), &existing).unwrap();
            existing.push(spec(chosen));
        }
        let mut last: Vec<_> = existing.iter().map(|service| service.ipv4.unwrap().octets()[3]).collect();
        last.sort_unstable();
        assert_eq!(last, (11..=30).collect::<Vec<_>>(), "no network, broadcast or reserved address");
        let error = choose_addresses(&ranges, "default", "one-more", &existing).unwrap_err();
        assert_eq!(error.code, ErrorCode::AddressesExhausted);
    }

    #[test]
    fn an_address_that_was_released_is_found_again() {
        let ranges = ranges("10.204.0.0/28", "fd00::/112");
        let mut existing = Vec::new();
        for i in 0..4 {
            existing.push(spec(choose_addresses(&ranges, "a", &i.to_string(), &existing).unwrap()));
        }
        let released = existing.swap_remove(1);
        assert_eq!(choose_addresses(&ranges, "b", "new", &existing).unwrap().ipv4, released.ipv4.unwrap());
    }

    #[test]
    fn a_range_too_small_for_any_service_is_exhausted_from_the_start() {
        for (v4, v6) in [("10.204.0.0/29", "fd00::/112"), ("10.204.0.0/16", "fd00::/126")] {
            let chosen = choose_addresses(&ranges(v4, v6), "default", "web", []);
            assert_eq!(chosen.unwrap_err().code, ErrorCode::AddressesExhausted);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_ever_given_twice(names in proptest::collection::hash_set("[a-z]{1,8}", 1..60)) {
            let ranges = ranges("10.204.0.0/22", "fd00:1:2::/112");
            let mut existing: Vec<ServiceSpec> = Vec::new();
            for name in &names {
                let chosen = choose_addresses(&ranges, "default", name, &existing).unwrap();
                prop_assert!(ranges.ipv4.contains(&chosen.ipv4) && ranges.ipv6.contains(&chosen.ipv6));
                prop_assert!((1..=NUMBER_MAX).contains(&chosen.number));
                let is_other = |(number, ipv4, ipv6)| {
                    ipv4 != chosen.ipv4 && ipv6 != chosen.ipv6 && number != chosen.number
                };
                prop_assert!(existing.iter().filter_map(ServiceSpec::balanced).all(is_other));
                existing.push(spec(chosen));
            }
        }

        #[test]
        fn the_same_name_gets_the_same_again(name in "[a-z]{1,20}") {
            let ranges = ranges("10.204.0.0/16", "fd00:1:2::/112");
            let chosen = choose_addresses(&ranges, "default", &name, []).unwrap();
            prop_assert_eq!(choose_addresses(&ranges, "default", &name, []).unwrap(), chosen);
        }
    }
}
