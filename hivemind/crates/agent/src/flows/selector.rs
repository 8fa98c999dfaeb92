//! Which end of a flow somebody means.

use hivemind_model::{ApiError, ErrorCode, FlowEnd};
use ipnet::IpNet;

/// The kinds of ends that are no replicas.
const KINDS: [&str; 4] = ["host", "dns", "world", "unknown"];

/// One end, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    /// The replicas of the apps of this name, or the replica of this name; in one namespace or in all.
    App { namespace: Option<String>, name: String },
    /// What is no replica.
    Kind(String),
    /// These addresses.
    Addresses(IpNet),
}

impl Selector {
    /// Reads a word: `app`, `namespace/app`, `host`, `dns`, `world`, `unknown`, an address or a CIDR.
    ///
    /// # Errors
    /// `Malformed`, at `field`.
    pub(crate) fn parse(field: &str, word: &str) -> Result<Self, ApiError> {
        if KINDS.contains(&word) {
            return Ok(Selector::Kind(word.to_owned()));
        }
        if let Ok(net) = word.parse::<IpNet>() {
            return Ok(Selector::Addresses(net));
        }
        if let Ok(address) = word.parse::<std::net::IpAddr>() {
            return Ok(Selector::Addresses(address.into()));
        }
        let (namespace, name) = match word.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, word),
        };
        let is_name = |word: &str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        };
        if !is_name(name) || namespace.as_deref().is_some_and(|namespace| !is_name(namespace)) {
            let what = format!("{word:?} is no end of a flow");
            let hint = "use an app, NAMESPACE/APP, an address, a block such as 10.0.0.0/8, or host, dns, world, unknown";
            return Err(ApiError::new(ErrorCode::Malformed, what, hint).at(field));
        }
        Ok(Selector::App { namespace, name: name.to_owned() })
    }

    /// Whether it means `end`.
    pub(crate) fn selects(&self, end: &FlowEnd) -> bool {
        match self {
            Selector::App { namespace, name } => {
                namespace.as_ref().is_none_or(|namespace| *namespace == end.namespace)
                    && (end.app == *name || end.replica == *name)
            }
            Selector::Kind(kind) => end.kind == *kind,
            Selector::Addresses(net) => end.address.is_some_and(|address| net.contains(&address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> FlowEnd {
        FlowEnd {
            kind: "replica".into(),
            namespace: "shop".into(),
            app: "web".into(),
            replica: "web-k3f9q".into(),
            node: "n1".into(),
            identity: 300,
            address: Some([10, 200, 0, 7].into()),
            port: Some(80),
        }
    }

    #[test]
    fn an_end_is_meant_by_its_names_its_kind_and_its_address() {
        let selects = |word: &str| Selector::parse("from", word).unwrap().selects(&end());
        for word in ["web", "shop/web", "web-k3f9q", "10.200.0.7", "10.200.0.0/16"] {
            assert!(selects(word), "{word}");
        }
        for word in ["we", "default/web", "host", "world", "10.200.0.8", "fd00::/8"] {
            assert!(!selects(word), "{word}");
        }
        let host = FlowEnd { kind: "host".into(), ..FlowEnd::default() };
        assert!(Selector::parse("from", "host").unwrap().selects(&host));
    }

    #[test]
    fn what_cannot_be_an_end_is_refused_with_its_field() {
        for word in ["", "Web", "a/b/c", "10.0.0.0/33", "/web", "shop/"] {
            let error = Selector::parse("to", word).unwrap_err();
            assert_eq!((error.code, error.field.as_deref()), (ErrorCode::Malformed, Some("to")), "{word:?}");
        }
    }
}
