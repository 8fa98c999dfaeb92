//! Which kind of policy, or list of policies, a document is.

use hivemind_model::{ErrorCode, PolicyKind};
use hivemind_yaml::{Node, Value, nearest};

use crate::{
    fields,
    reader::{At, Reader, shown},
};

/// The list of anything, and its version.
const LIST: &str = "List";
const LIST_VERSION: &str = "v1";
const LIST_SUFFIX: &str = "List";

/// Kinds that ClusterNetworkPolicy has taken the place of, each with what it is there.
const FORMER: &[(&str, &str)] =
    &[("AdminNetworkPolicy", "Admin"), ("BaselineAdminNetworkPolicy", "Baseline")];

/// What a list says of the entries that do not say it themselves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Within {
    /// Of which kind they are; `None` if they may be of any.
    kind: Option<PolicyKind>,
    /// Whether they need not say in which version.
    has_version: bool,
}

/// What a document is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// A policy.
    Policy(PolicyKind),
    /// A list of policies.
    List(Within),
}

/// The text of a scalar; empty for all else.
fn scalar(node: &Node) -> &str {
    match &node.value {
        Value::Scalar { text, .. } => text,
        _ => "",
    }
}

fn kind_of(text: &str) -> Option<PolicyKind> {
    PolicyKind::ALL.into_iter().find(|kind| kind.name() == text)
}

impl Reader<'_> {
    /// What the document is; if it is nothing that is read, why has been told.
    pub(crate) fn shape(&mut self, at: &At<'_>, within: Within) -> Option<Shape> {
        if !matches!(at.node.value, Value::Map(_)) {
            self.map(at, fields::DOCUMENT);
            return None;
        }
        let Some(kind) = at.get("kind") else { return Some(self.unsaid(at, within)) };
        let text = self.text(&kind)?;
        if let Some(shape) = self.list_shape(at, &text) {
            return Some(shape);
        }
        let Some(found) = kind_of(&text) else {
            self.refuse_kind(at, &kind, &text);
            return None;
        };
        if let Some(of) = within.kind.filter(|of| *of != found) {
            let message = format!("{} stands in a list of {}", found.name(), of.name());
            self.fault(&kind, ErrorCode::Unsupported, message, "make it a List of v1, which may hold any");
            return None;
        }
        self.version(at, found, within);
        Some(Shape::Policy(found))
    }

    /// A document that does not say its kind.
    fn unsaid(&mut self, at: &At<'_>, within: Within) -> Shape {
        let version = at.get("apiVersion").map(|version| scalar(version.node).to_owned());
        let by_version = |kind: &PolicyKind| {
            version.as_deref().is_some_and(|version| kind.api_versions().contains(&version))
        };
        let found = within.kind.or_else(|| PolicyKind::ALL.into_iter().find(by_version)).unwrap_or_default();
        self.version(at, found, within);
        if within.kind.is_none() {
            self.required(at, "kind", &format!("write kind: {}", found.name()));
        }
        Shape::Policy(found)
    }

    fn list_shape(&mut self, at: &At<'_>, text: &str) -> Option<Shape> {
        let kind = match text {
            LIST => None,
            _ => Some(text.strip_suffix(LIST_SUFFIX).and_then(kind_of)?),
        };
        let versions: &[&str] = kind.map_or(&[LIST_VERSION], PolicyKind::api_versions);
        if let Some(version) = at.get("apiVersion")
            && let Some(said) = self.text(&version)
            && !versions.contains(&said.as_str())
        {
            self.refuse_version(&version, &said, text, versions);
        }
        let has_version = kind.is_some() && at.get("apiVersion").is_some();
        Some(Shape::List(Within { kind, has_version }))
    }

    /// Tells a version that the kind does not have, or that none is said.
    fn version(&mut self, at: &At<'_>, kind: PolicyKind, within: Within) {
        if within.has_version && at.get("apiVersion").is_none() {
            return;
        }
        let version = self.required(at, "apiVersion", &format!("write apiVersion: {}", kind.api_version()));
        if let Some(version) = version
            && let Some(said) = self.text(&version)
            && !kind.api_versions().contains(&said.as_str())
        {
            self.refuse_version(&version, &said, kind.name(), kind.api_versions());
        }
    }

    fn refuse_version(&mut self, at: &At<'_>, said: &str, kind: &str, versions: &[&str]) {
        let message = format!("apiVersion {} of {kind} is not supported", shown(said));
        let hint = format!("write apiVersion: {}", versions.join(" or "));
        self.fault(at, ErrorCode::Unsupported, message, hint);
    }

    fn refuse_kind(&mut self, at: &At<'_>, kind: &At<'_>, text: &str) {
        let of = at.get("apiVersion").map(|v| format!(" of {}", shown(scalar(v.node)))).unwrap_or_default();
        let message = format!("kind {}{of} is not supported", shown(text));
        let names = PolicyKind::ALL.map(PolicyKind::name);
        let newest = PolicyKind::ClusterNetworkPolicy;
        let former = FORMER.iter().find(|(name, _)| *name == text);
        let hint = match (former, nearest(text, &names)) {
            (Some((_, tier)), _) => {
                format!("write it as {} of {} with tier: {tier}", newest.name(), newest.api_version())
            }
            (None, Some(name)) => format!("did you mean {name:?}?"),
            (None, None) => {
                let all = PolicyKind::ALL.map(|kind| format!("{} of {}", kind.name(), kind.api_version()));
                format!("what can be applied is {}, and List of such", all.join(", "))
            }
        };
        self.fault(kind, ErrorCode::Unsupported, message, hint);
    }
}
