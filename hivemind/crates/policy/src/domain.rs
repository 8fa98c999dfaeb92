//! Names of domains as policies write them: one name, or all below one.

use std::net::IpAddr;

/// What a pattern of all names below another begins with.
const BELOW: &str = "*.";
/// The most bytes of a name.
const NAME_BYTES_MAX: usize = 253;
/// The most bytes of a label of a name.
const LABEL_BYTES_MAX: usize = 63;

/// The form in which patterns are compared: lower case, without the last dot. `None` if it is no pattern: labels of letters,
/// digits, hyphens and underscores, two at least, with `*.` before them or not.
pub fn parse(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let name = text.strip_prefix(BELOW).unwrap_or(&text);
    let is_edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let is_label = |label: &str| {
        label.len() <= LABEL_BYTES_MAX
            && is_edge(label.bytes().next())
            && is_edge(label.bytes().last())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let is_name = name.contains('.') && name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label);
    is_name.then_some(text)
}

/// Whether `pattern`, as [`parse`] writes it, means `name`, in lower case and without the last dot.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix(BELOW) {
        None => pattern == name,
        Some(parent) => name
            .strip_suffix(parent)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|rest| !rest.is_empty()),
    }
}

/// Whether an address means something else on each machine or link, or nobody: no name opens those.
pub(crate) fn is_internal(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets()[0] == 0
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_all_below_one() {
        assert_eq!(parse("Example.ORG.").as_deref(), Some("example.org"));
        assert_eq!(parse("*.a_b.example.org").as_deref(), Some("*.a_b.example.org"));
        for bad in [
            "", "*", "*.", "org", "*.org.*", "a..b", "-a.org", "a-.org", "*a.org", "a.*.org", "a b.org",
            "ä.org",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        assert_eq!(parse(&format!("{}.org", "a".repeat(64))), None);
    }

    #[test]
    fn no_name_opens_what_is_of_a_machine_or_a_link() {
        for text in [
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "::1",
            "fe80::1",
            "ff02::1",
            "::",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_internal(text.parse().unwrap()), "{text}");
        }
        for text in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1"] {
            assert!(!is_internal(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_star_stands_for_one_label_or_more_and_never_for_part_of_one() {
        assert!(matches("example.org", "example.org") && !matches("example.org", "www.example.org"));
        for (name, is_meant) in [
            ("www.example.org", true),
            ("a.b.example.org", true),
            ("example.org", false),
            ("my-example.org", false),
            (".example.org", false),
        ] {
            assert_eq!(matches("*.example.org", name), is_meant, "{name}");
        }
    }
}
