//! Which kind of object, or list of objects, a document is.

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

/// What can be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A namespace.
    Namespace,
    /// A volume.
    Volume,
    /// A policy.
    Policy(PolicyKind),
    /// An app.
    App,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 6] = [
        Kind::Policy(PolicyKind::NetworkPolicy),
        Kind::Policy(PolicyKind::ClusterNetworkPolicy),
        Kind::Policy(PolicyKind::Policy),
        Kind::App,
        Kind::Namespace,
        Kind::Volume,
    ];

    /// Those that are policies.
    pub const POLICIES: [Kind; 3] = [
        Kind::Policy(PolicyKind::NetworkPolicy),
        Kind::Policy(PolicyKind::ClusterNetworkPolicy),
        Kind::Policy(PolicyKind::Policy),
    ];

    /// The word in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Namespace => "Namespace",
            Kind::Volume => "Volume",
            Kind::Policy(kind) => kind.name(),
            Kind::App => "App",
        }
    }

    /// The same in lower case, as commands have it.
    pub(crate) fn word(self) -> String {
        self.name().to_lowercase()
    }

    /// Every `apiVersion` that is read, the newest first.
    pub const fn api_versions(self) -> &'static [&'static str] {
        match self {
            Kind::Policy(kind) => kind.api_versions(),
            Kind::Namespace | Kind::Volume | Kind::App => &["hivemind/v1"],
        }
    }

    /// The newest `apiVersion`.
    pub const fn api_version(self) -> &'static str {
        match self {
            Kind::Policy(kind) => kind.api_version(),
            Kind::Namespace | Kind::Volume | Kind::App => "hivemind/v1",
        }
    }

    /// Whether it is in no namespace of its author's choice.
    pub const fn is_cluster_wide(self) -> bool {
        match self {
            Kind::Policy(kind) => kind.is_cluster_wide(),
            Kind::Namespace => true,
            Kind::Volume | Kind::App => false,
        }
    }

    /// What only documents of that kind have below `spec`.
    const fn telltale(self) -> Option<&'static str> {
        match self {
            Kind::App => Some("template"),
            Kind::Volume => Some("node"),
            Kind::Policy(_) | Kind::Namespace => None,
        }
    }
}

/// What a list says of the entries that do not say it themselves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Within {
    /// Of which kind they are; `None` if they may be of any.
    kind: Option<Kind>,
    /// Whether they need not say in which version.
    has_version: bool,
}

/// What a document holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Holds {
    /// An object.
    One(Kind),
    /// A list of objects.
    List(Within),
}

/// The text of a scalar; empty for all else.
fn scalar(node: &Node) -> &str {
    match &node.value {
        Value::Scalar { text, .. } => text,
        _ => "",
    }
}

fn kind_of(text: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.name() == text)
}

impl Reader<'_> {
    /// What the document holds, which may be of the kinds `allowed`; if it is nothing that is read, why has been told.
    pub(crate) fn holds(&mut self, at: &At<'_>, within: Within, allowed: &[Kind]) -> Option<Holds> {
        if !matches!(at.node.value, Value::Map(_)) {
            self.map(at, fields::DOCUMENT);
            return None;
        }
        let Some(kind) = at.get("kind") else { return Some(self.unsaid(at, within, allowed)) };
        let text = self.text(&kind)?;
        if let Some(list) = self.list_of(at, &text) {
            return Some(list);
        }
        let Some(found) = kind_of(&text).filter(|kind| allowed.contains(kind)) else {
            self.refuse_kind(at, &kind, &text, allowed);
            return None;
        };
        if let Some(of) = within.kind.filter(|of| *of != found) {
            let message = format!("{} stands in a list of {}", found.name(), of.name());
            self.fault(&kind, ErrorCode::Unsupported, message, "make it a List of v1, which may hold any");
            return None;
        }
        self.version(at, found, within);
        Some(Holds::One(found))
    }

    /// A document that does not say its kind.
    fn unsaid(&mut self, at: &At<'_>, within: Within, allowed: &[Kind]) -> Holds {
        let version = at.get("apiVersion").map(|version| scalar(version.node).to_owned());
        let by_version =
            |kind: &Kind| version.as_deref().is_some_and(|version| kind.api_versions().contains(&version));
        let spec = at.get("spec");
        let by_field = |kind: &Kind| {
            let field = kind.telltale();
            field.is_some_and(|field| spec.as_ref().is_some_and(|spec| spec.get(field).is_some()))
        };
        let mut kinds = allowed.iter().copied();
        let found = within
            .kind
            .or_else(|| kinds.clone().find(by_field))
            .or_else(|| kinds.find(by_version))
            .unwrap_or(Kind::Policy(PolicyKind::default()));
        self.version(at, found, within);
        if within.kind.is_none() {
            self.required(at, "kind", &format!("write kind: {}", found.name()));
        }
        Holds::One(found)
    }

    fn list_of(&mut self, at: &At<'_>, text: &str) -> Option<Holds> {
        let kind = match text {
            LIST => None,
            _ => Some(text.strip_suffix(LIST_SUFFIX).and_then(kind_of)?),
        };
        let versions: &[&str] = kind.map_or(&[LIST_VERSION], Kind::api_versions);
        if let Some(version) = at.get("apiVersion")
            && let Some(said) = self.text(&version)
            && !versions.contains(&said.as_str())
        {
            self.refuse_version(&version, &said, text, versions);
        }
        let has_version = kind.is_some() && at.get("apiVersion").is_some();
        Some(Holds::List(Within { kind, has_version }))
    }

    /// Tells a version that the kind does not have, or that none is said.
    fn version(&mut self, at: &At<'_>, kind: Kind, within: Within) {
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

    fn refuse_kind(&mut self, at: &At<'_>, kind: &At<'_>, text: &str, allowed: &[Kind]) {
        if let Some(other) = kind_of(text) {
            let message = format!("kind {} is no policy", shown(other.name()));
            self.fault(
                kind,
                ErrorCode::Unsupported,
                message,
                "what is of any kind is applied by hivemind apply -f",
            );
            return;
        }
        let of = at.get("apiVersion").map(|v| format!(" of {}", shown(scalar(v.node)))).unwrap_or_default();
        let message = format!("kind {}{of} is not supported", shown(text));
        let names: Vec<&str> = allowed.iter().map(|kind| kind.name()).collect();
        let newest = PolicyKind::ClusterNetworkPolicy;
        let former = FORMER.iter().find(|(name, _)| *name == text);
        let hint = match (former, nearest(text, &names)) {
            (Some((_, tier)), _) => {
                format!("write it as {} of {} with tier: {tier}", newest.name(), newest.api_version())
            }
            (None, Some(name)) => format!("did you mean {name:?}?"),
            (None, None) => {
                let one = |kind: &Kind| format!("{} of {}", kind.name(), kind.api_version());
                let all: Vec<String> = allowed.iter().map(one).collect();
                format!("what can be applied is {}, and List of such", all.join(", "))
            }
        };
        self.fault(kind, ErrorCode::Unsupported, message, hint);
    }
}
