//! Names of images, as Docker writes and completes them.
//!
//! The grammar is that of the `distribution/reference` package: `[registry/]repository[:tag][@digest]`, where the
//! first component is a registry only if it contains a dot, a colon, or is `localhost`.

use std::{fmt, str::FromStr};

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
const REPOSITORY_LENGTH_MAX: usize = 255;
const TAG_LENGTH_MAX: usize = 128;

/// The complete name of an image: `nginx` is `docker.io/library/nginx:latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a string is no image reference. Each variant says what to correct.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageReferenceError {
    /// There is no name.
    #[error("an image reference needs a name")]
    Empty,
    /// The registry's host or port is malformed.
    #[error("{0:?} is not a registry host with an optional port")]
    Registry(String),
    /// The repository has characters that no repository has.
    #[error(
        "{0:?} is not an image name: components are lower-case letters and digits, joined by '.', '_', '__' or '-'"
    )]
    Repository(String),
    /// The repository is longer than 255 characters.
    #[error("an image name has at most {REPOSITORY_LENGTH_MAX} characters")]
    TooLong,
    /// The tag is malformed.
    #[error(
        "{0:?} is not a tag: up to {TAG_LENGTH_MAX} letters, digits, '_', '.' and '-', not starting with '.' or '-'"
    )]
    Tag(String),
    /// The digest is not `sha256:` and 64 hexadecimal digits.
    #[error("{0:?} is not a digest: 'sha256:' and 64 lower-case hexadecimal digits")]
    Digest(String),
}

impl ImageReference {
    /// Registry host, with its port if one was given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path within the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Tag; `None` only where a digest was given without one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Digest of the manifest or index, if one was given; it then decides, whatever the tag says.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ImageReference {
    type Err = ImageReferenceError;

    fn from_str(text: &str) -> Result<Self, ImageReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_start..].split_once(':') {
            Some((last, tag)) => (&rest[..name_start + last.len()], Some(parse_tag(tag)?)),
            None => (rest, None),
        };
        let (registry, repository) = split_registry(name)?;
        let tag = if tag.is_none() && digest.is_none() { Some(DEFAULT_TAG.to_owned()) } else { tag };
        Ok(Self { registry, repository, tag, digest })
    }
}

fn split_registry(name: &str) -> Result<(String, String), ImageReferenceError> {
    if name.is_empty() {
        return Err(ImageReferenceError::Empty);
    }
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    if !is_registry(registry) {
        return Err(ImageReferenceError::Registry(registry.to_owned()));
    }
    let registry = match registry {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        other => other,
    };
    let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    if repository.len() > REPOSITORY_LENGTH_MAX {
        return Err(ImageReferenceError::TooLong);
    }
    if !repository.split('/').all(is_component) {
        return Err(ImageReferenceError::Repository(name.to_owned()));
    }
    Ok((registry.to_owned(), repository))
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// One path component: runs of lower-case letters and digits, joined by one dot, one or two underscores, or any
/// number of dashes.
fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    bytes.split(|&byte| alphanumeric(byte)).filter(|separator| !separator.is_empty()).all(|separator| {
        matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|&byte| byte == b'-')
    })
}

fn parse_tag(tag: &str) -> Result<String, ImageReferenceError> {
    let valid = (1..=TAG_LENGTH_MAX).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if valid { Ok(tag.to_owned()) } else { Err(ImageReferenceError::Tag(tag.to_owned())) }
}

fn parse_digest(digest: &str) -> Result<String, ImageReferenceError> {
    if is_sha256_digest(digest) {
        Ok(digest.to_owned())
    } else {
        Err(ImageReferenceError::Digest(digest.to_owned()))
    }
}

/// Whether `digest` is `sha256:` and 64 lower-case hexadecimal digits, the only form that is accepted anywhere.
pub fn is_sha256_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn complete(text: &str) -> String {
        text.parse::<ImageReference>().unwrap().to_string()
    }

    #[test]
    fn short_names_are_completed_as_docker_does() {
        for (short, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.25", "docker.io/library/nginx:1.25"),
            ("prom/prometheus:v2.30.3", "docker.io/prom/prometheus:v2.30.3"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("ghcr.io/o/r__x.y-z--w", "ghcr.io/o/r__x.y-z--w:latest"),
        ] {
            assert_eq!(complete(short), full);
        }
    }

    #[test]
    fn a_digest_needs_no_tag_and_keeps_one() {
        assert_eq!(complete(&format!("nginx@{DIGEST}")), format!("docker.io/library/nginx@{DIGEST}"));
        assert_eq!(complete(&format!("nginx:1@{DIGEST}")), format!("docker.io/library/nginx:1@{DIGEST}"));
    }

    #[test]
    fn a_complete_name_reads_back_as_itself() {
        for name in ["a", "r.io:1/a/b:c", &format!("x/y:z@{DIGEST}")] {
            let once: ImageReference = name.parse().unwrap();
            assert_eq!(once.to_string().parse::<ImageReference>().unwrap(), once);
        }
    }

    #[test]
    fn malformed_names_say_which_part_is_wrong() {
        use ImageReferenceError as E;
        let error = |text: &str| text.parse::<ImageReference>().unwrap_err();
        assert_eq!(error(""), E::Empty);
        assert_eq!(error(":tag"), E::Empty);
        for name in ["Nginx", "a//b", "-a", "a-", "a..b", "a___b", "a b", "/a", "a/", "a._b"] {
            assert!(matches!(error(name), E::Repository(_)), "{name}");
        }
        for name in ["a:", "a:-x", "a:.x", "a:x y", &format!("a:{}", "x".repeat(129))] {
            assert!(matches!(error(name), E::Tag(_)), "{name}");
        }
        for name in ["r.io:0/a", "r.io:x/a", "r.io:99999/a", "-r.io/a", "r..io/a", "[::x]:1/a"] {
            assert!(matches!(error(name), E::Registry(_)), "{name}");
        }
        for name in ["a@", "a@sha256:12", "a@md5:0", &format!("a@{}", DIGEST.to_uppercase())] {
            assert!(matches!(error(name), E::Digest(_)), "{name}");
        }
        assert_eq!(error(&format!("r.io/{}", "a".repeat(256))), E::TooLong);
    }
}
