//! Paths and queries of the API.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path below `/v1` with a query, every part encoded.
#[derive(Debug)]
pub(crate) struct ApiPath {
    text: String,
    has_query: bool,
}

impl ApiPath {
    /// `/v1/<plural>`.
    pub(crate) fn of(plural: &str) -> Self {
        ApiPath { text: format!("/v1/{plural}"), has_query: false }
    }

    /// `/v1/namespaces/<namespace>/<plural>`.
    pub(crate) fn within(namespace: &str, plural: &str) -> Self {
        ApiPath::of("namespaces").part(namespace).part(plural)
    }

    /// One more part.
    pub(crate) fn part(mut self, part: &str) -> Self {
        debug_assert!(!self.has_query, "parts come before the query");
        // A lone dot part would be taken out by whoever normalizes the path, and another object be meant.
        let encoded = match part {
            "." => "%2E".to_owned(),
            ".." => "%2E%2E".to_owned(),
            _ => utf8_percent_encode(part, RESERVED).to_string(),
        };
        self.text.push('/');
        self.text.push_str(&encoded);
        self
    }

    /// One more pair of the query.
    pub(crate) fn query(mut self, key: &str, value: &str) -> Self {
        let separator = if self.has_query { '&' } else { '?' };
        self.has_query = true;
        write!(self.text, "{separator}{key}={}", utf8_percent_encode(value, RESERVED))
            .expect("writing to a string cannot fail");
        self
    }

    /// The same with the pair if there is a value.
    pub(crate) fn query_if(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.query(key, value),
            None => self,
        }
    }

    /// The path as it stands in the request line.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_typed_cannot_leave_its_place_in_the_path() {
        let path = ApiPath::within("default", "apps").part("../volumes?x=1#").query("a", "b&c=d e");
        assert_eq!(path.as_str(), "/v1/namespaces/default/apps/..%2Fvolumes%3Fx%3D1%23?a=b%26c%3Dd%20e");
        assert_eq!(ApiPath::of("apps").part("..").as_str(), "/v1/apps/%2E%2E");
    }

    #[test]
    fn a_repeated_key_stays_repeated() {
        let path = ApiPath::of("x").query("command", "a").query_if("user", None).query("command", "b");
        assert_eq!(path.as_str(), "/v1/x?command=a&command=b");
    }
}
