//! What names, hostnames, labels and image references may look like.

use crate::{
    error::{ErrorCode, Problems},
    image::ImageReference,
};

/// The namespace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A DNS label (RFC 1123): 1 to 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit. `max` may be
/// smaller where something is appended to the name.
pub fn check_name(field: &str, name: &str, max: usize, problems: &mut Problems) {
    let label = !name.is_empty()
        && name.len() <= max
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !label {
        problems.add(
            ErrorCode::InvalidName,
            field,
            format!("{name:?} is not a valid name"),
            format!("use 1 to {max} of a-z, 0-9 and '-', beginning and ending with a letter or digit"),
        );
    }
}

/// The most characters of a port's name.
const PORT_NAME_CHARS_MAX: usize = 15;

/// The name of a port (RFC 6335, in lower case): 1 to 15 of a-z, 0-9 and `-`, a letter among them, beginning and ending with
/// a letter or digit, and never two `-` one after the other.
pub fn check_port_name(field: &str, name: &str, problems: &mut Problems) {
    let is_name = (1..=PORT_NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if !is_name {
        problems.add(
            ErrorCode::InvalidName,
            field,
            format!("{name:?} is not the name of a port"),
            format!(
                "use 1 to {PORT_NAME_CHARS_MAX} of a-z, 0-9 and single '-', a letter among them, for example http"
            ),
        );
    }
}

/// A hostname of one or more DNS labels, 253 characters at most, such as `web.local`; a final dot is accepted.
pub fn check_hostname(field: &str, name: &str, problems: &mut Problems) {
    let bare = name.strip_suffix('.').unwrap_or(name);
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if bare.len() > 253 || !bare.split('.').all(label_ok) {
        problems.add(
            ErrorCode::InvalidName,
            field,
            format!("{name:?} is not a hostname"),
            "use labels of letters, digits and '-' joined by dots, for example web.local",
        );
    } else if bare.parse::<std::net::Ipv4Addr>().is_ok() {
        problems.add(
            ErrorCode::InvalidName,
            field,
            format!("{name:?} is an address, not a hostname"),
            "use a name, for example web.local",
        );
    }
}

/// The form in which hostnames are compared and stored: lower case, no final dot.
pub fn normalize_hostname(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Whether `key` can be a label's key: `name` or `domain/name`, as Kubernetes has it.
pub fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((domain, name)) => {
            domain.len() <= 253 && domain.split('.').all(is_label_part) && is_label_part(name)
        }
        None => is_label_part(key),
    }
}

/// Whether `value` can be a label's value: nothing, or up to 63 characters of letters, digits, `-`, `_`, `.`
pub fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_label_part(value)
}

fn is_label_part(s: &str) -> bool {
    (1..=63).contains(&s.len())
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && s.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && s.bytes().last().is_some_and(|b| b.is_ascii_alphanumeric())
}

/// Label keys and values: see [`is_label_key`] and [`is_label_value`].
pub fn check_label(field: &str, key: &str, value: &str, problems: &mut Problems) {
    if !is_label_key(key) {
        problems.add(
            ErrorCode::InvalidLabel,
            field,
            format!("{key:?} is not a label key"),
            "use letters, digits, '-', '_' and '.', for example tier or example.com/tier",
        );
    }
    if !is_label_value(value) {
        problems.add(
            ErrorCode::InvalidLabel,
            field,
            format!("{value:?} is not a label value"),
            "use up to 63 letters, digits, '-', '_' and '.'",
        );
    }
}

/// Whether `image` is an image reference.
pub fn check_image(field: &str, image: &str, problems: &mut Problems) {
    if let Err(error) = image.parse::<ImageReference>() {
        let hint = "use [registry/]name[:tag], for example nginx:latest";
        problems.add(ErrorCode::InvalidImage, field, format!("{image:?}: {error}"), hint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(check: impl Fn(&mut Problems)) -> usize {
        let mut problems = Problems::default();
        check(&mut problems);
        problems.len()
    }

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "web-app", "w3b"] {
            assert_eq!(faults(|p| check_name("name", good, 63, p)), 0, "{good}");
        }
        for bad in ["", "-a", "a-", "Web", "a.b", "a_b", "a b", &"a".repeat(64)] {
            assert_eq!(faults(|p| check_name("name", bad, 63, p)), 1, "{bad}");
        }
    }

    #[test]
    fn hostnames_are_labels_joined_by_dots() {
        for good in ["web.local", "web", "a.b.c.", "WEB.local"] {
            assert_eq!(faults(|p| check_hostname("service", good, p)), 0, "{good}");
        }
        for bad in ["", ".", "a..b", "-a.b", "10.0.0.1", "a b", &format!("{}.x", "a".repeat(64))] {
            assert_eq!(faults(|p| check_hostname("service", bad, p)), 1, "{bad}");
        }
        assert_eq!(normalize_hostname("Web.Local."), "web.local");
    }

    #[test]
    fn a_malformed_image_is_told_once() {
        for good in ["nginx", "nginx:latest", "127.0.0.1:5000/team/app:v1.2"] {
            assert_eq!(faults(|p| check_image("image", good, p)), 0, "{good}");
        }
        for bad in ["", "ng inx", "Nginx", "docker.io/Library/x", "nginx;rm", "nginx@sha256:0123"] {
            assert_eq!(faults(|p| check_image("image", bad, p)), 1, "{bad}");
        }
    }
}
