//! Reads the metadata of documents, of all kinds alike.

use hivemind_model::{DEFAULT_NAMESPACE, ErrorCode, Metadata, PolicyKind, SYSTEM_NAMESPACE, check_name};

use crate::{
    document::Options,
    fields,
    kind::Kind,
    reader::{At, Reader, shown},
};

impl Kind {
    /// A name that an object of that kind might have.
    pub(crate) const fn example(self) -> &'static str {
        match self {
            Kind::Policy(_) => "allow-web",
            Kind::App => "web",
            Kind::Namespace => "shop",
            Kind::Volume => "data",
        }
    }
}

impl Reader<'_> {
    /// Metadata with a name; none without one.
    pub(crate) fn metadata(&mut self, at: &At<'_>, kind: Kind, options: Options<'_>) -> Option<Metadata> {
        if !self.map(at, fields::METADATA) {
            return None;
        }
        let mut metadata = Metadata::new(self.namespace(at, kind, options), "");
        metadata.labels =
            at.get("labels").map(|at| self.labels(&at, ErrorCode::InvalidLabel)).unwrap_or_default();
        metadata.annotations = at.get("annotations").map(|at| self.texts(&at)).unwrap_or_default();
        let name =
            self.required(at, "name", &format!("give it a name, for example name: {}", kind.example()))?;
        metadata.name = self.text(&name)?;
        self.checked(name.node.place, &name.path, |problems| check_name("", &metadata.name, 63, problems));
        Some(metadata)
    }

    fn namespace(&mut self, at: &At<'_>, kind: Kind, options: Options<'_>) -> String {
        let own = match kind {
            Kind::Namespace => DEFAULT_NAMESPACE,
            _ if kind.is_cluster_wide() => SYSTEM_NAMESPACE,
            _ => options.namespace,
        };
        let Some(namespace) = at.get("namespace") else { return own.to_owned() };
        if kind == Kind::Policy(PolicyKind::ClusterNetworkPolicy) {
            let message = format!("a {} is of the whole cluster, and in no namespace", kind.name());
            let hint = "leave it out: spec.subject says whom the policy applies to";
            self.fault(&namespace, ErrorCode::Unsupported, message, hint);
            return own.to_owned();
        }
        let Some(text) = self.text(&namespace) else { return own.to_owned() };
        if kind == Kind::Namespace {
            // What the server prints names one, for the sake of other kinds.
            if text != own {
                let message = "a namespace is in no namespace".to_owned();
                self.fault(
                    &namespace,
                    ErrorCode::Unsupported,
                    message,
                    "leave it out: metadata.name is its name",
                );
            }
            return own.to_owned();
        }
        let place = namespace.node.place;
        self.checked(place, &namespace.path, |problems| check_name("", &text, 63, problems));
        if options.only_this_namespace && text != options.namespace {
            let message =
                format!("namespace {} is not the one of --namespace, {:?}", shown(&text), options.namespace);
            self.fault(&namespace, ErrorCode::Unsupported, message, "leave out one of the two");
        }
        text
    }
}
