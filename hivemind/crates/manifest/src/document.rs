//! Documents and the objects that they hold.

use std::{collections::HashMap, sync::Arc};

use hivemind_model::{
    ClusterNetworkPolicySpec, ErrorCode, ExtendedPolicySpec, Metadata, NetworkPolicy, NetworkPolicySpec,
    NetworkPolicyStatus, PolicyKind, PolicySpec, Problem, SYSTEM_NAMESPACE, check_name,
};

use hivemind_yaml::{Fault, Faults, Node, Place, Source, Value};

use crate::{
    DOCUMENTS_MAX, FILE_BYTES_MAX, TOTAL_BYTES_MAX, fields,
    kind::{Shape, Within},
    reader::{At, Reader, shown},
};

/// How to read.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The namespace of documents that name none, save for those of the whole cluster, which are in [`SYSTEM_NAMESPACE`].
    pub namespace: &'a str,
    /// Whether documents that name another namespace are at fault.
    pub only_this_namespace: bool,
}

/// What was read.
#[derive(Debug)]
pub struct Manifests {
    /// The policies, in the order of their documents. Only those without faults may be used, and where there are faults
    /// none should.
    pub policies: Vec<PolicyDocument>,
    /// All faults, in the order of the files and of their lines; at most [`crate::FAULTS_MAX`].
    pub faults: Vec<Fault>,
    /// How many faults there are besides.
    pub more_faults: usize,
}

/// A policy, and where its parts stand.
#[derive(Debug)]
pub struct PolicyDocument {
    /// The policy.
    pub policy: NetworkPolicy,
    source: Source,
    root: Arc<Node>,
}

impl PolicyDocument {
    /// A fault that someone else found, at the place of its field; `problem.field` is a path such as
    /// `spec.ingress[0].from[1].ipBlock.cidr`.
    pub fn fault(&self, problem: Problem) -> Fault {
        let Problem { code, field, message, hint } = problem;
        self.source.fault(self.root.place_of(&field), code, &field, message, hint)
    }

    /// `rules.yaml:3:9`, where it begins.
    pub fn position(&self) -> String {
        format!("{}:{}:{}", self.source.name(), self.root.place.line, self.root.place.column)
    }
}

/// Reads all documents of all sources. `check` tells what is wrong with a policy beyond its form.
pub fn read(
    sources: &[Source],
    options: Options<'_>,
    check: &dyn Fn(&NetworkPolicy) -> Vec<Problem>,
) -> Manifests {
    let mut reading = Reading { options, check, policies: Vec::new(), seen: HashMap::new(), documents: 0 };
    let mut faults = Faults::default();
    let mut total = 0;
    for source in sources {
        total += source.bytes_len();
        let limit = if source.bytes_len() > FILE_BYTES_MAX { FILE_BYTES_MAX } else { TOTAL_BYTES_MAX };
        let mut found = Faults::default();
        if source.bytes_len() > FILE_BYTES_MAX || total > TOTAL_BYTES_MAX {
            let message = format!("more than {} MiB", limit >> 20);
            found.add(|| {
                source.fault(
                    TOP,
                    ErrorCode::OutOfRange,
                    "",
                    message,
                    "split it, and apply one part after the other",
                )
            });
        } else {
            reading.source(source, &mut found);
        }
        found.list.sort_by_key(|fault| (fault.line, fault.column));
        found.list.dedup();
        faults.more += found.more;
        found.list.into_iter().for_each(|fault| faults.add(|| fault));
    }
    Manifests { policies: reading.policies, faults: faults.list, more_faults: faults.more }
}

const TOP: Place = Place { line: 1, column: 1, width: 1 };

struct Reading<'a> {
    options: Options<'a>,
    check: &'a dyn Fn(&NetworkPolicy) -> Vec<Problem>,
    policies: Vec<PolicyDocument>,
    /// Where the policy of a namespace and name stands, and its kind.
    seen: HashMap<(String, String), (PolicyKind, String)>,
    documents: usize,
}

impl Reading<'_> {
    fn source(&mut self, source: &Source, faults: &mut Faults) {
        for root in hivemind_yaml::documents(source, faults) {
            self.document(source, root, Within::default(), faults);
        }
    }

    fn document(&mut self, source: &Source, root: Arc<Node>, within: Within, faults: &mut Faults) {
        self.documents += 1;
        if self.documents > DOCUMENTS_MAX {
            if self.documents == DOCUMENTS_MAX + 1 {
                let message = format!("more than {DOCUMENTS_MAX} documents");
                let hint = "apply one part after the other";
                faults.add(|| source.fault(root.place, ErrorCode::OutOfRange, "", message, hint));
            }
            return;
        }
        let mut reader = Reader { source, kind: PolicyKind::default(), faults };
        let at = At { node: &root, path: String::new() };
        // Documents of a kind that is not read are told as such, not field by field.
        match reader.shape(&at, within) {
            Some(Shape::Policy(kind)) => self.policy(source, root, kind, faults),
            Some(Shape::List(within)) => {
                reader.map(&at, fields::LIST);
                let items = at.get("items").map(|items| (reader.list(&items), items));
                if let Some((_, At { node: Node { value: Value::List(items), .. }, .. })) = items {
                    for item in items {
                        self.document(source, item.clone(), within, faults);
                    }
                }
            }
            None => {}
        }
    }

    fn policy(&mut self, source: &Source, root: Arc<Node>, kind: PolicyKind, faults: &mut Faults) {
        let before = faults.list.len();
        let mut reader = Reader { source, kind, faults };
        let at = At { node: &root, path: String::new() };
        reader.map(&at, fields::DOCUMENT);
        let metadata = reader
            .required(&at, "metadata", "give it a name: metadata: {name: allow-web}")
            .and_then(|metadata| reader.metadata(&metadata, self.options));
        let hint = match kind {
            PolicyKind::ClusterNetworkPolicy => {
                "say what it decides: spec: {tier: Admin, priority: 1, subject: …}"
            }
            _ => "say whom it selects: spec: {podSelector: {matchLabels: {app: web}}}",
        };
        let spec = reader.required(&at, "spec", hint).map(|spec| reader.policy_spec(&spec));
        let (named, specified) = (metadata.is_some(), spec.is_some());
        let policy = NetworkPolicy {
            metadata: metadata.unwrap_or_else(|| Metadata::new(self.options.namespace, "")),
            spec: spec.unwrap_or_else(|| empty(kind)),
            status: NetworkPolicyStatus::default(),
        };
        if named {
            self.note_name(source, &root, &policy, faults);
        }
        let document = PolicyDocument { policy, source: source.clone(), root };
        if specified {
            self.check(&document, before, faults);
        }
        self.policies.push(document);
    }

    /// Adds what the check of policies finds, save for what follows from a fault that was told already.
    fn check(&self, document: &PolicyDocument, before: usize, faults: &mut Faults) {
        let told: Vec<String> = faults.list.iter().skip(before).map(|fault| fault.field.clone()).collect();
        for problem in (self.check)(&document.policy) {
            let within = |inner: &str, outer: &str| {
                inner.strip_prefix(outer).is_some_and(|r| r.is_empty() || r.starts_with(['.', '[']))
            };
            if !told.iter().any(|t| within(t, &problem.field) || within(&problem.field, t)) {
                faults.add(|| document.fault(problem));
            }
        }
    }

    fn note_name(&mut self, source: &Source, root: &Node, policy: &NetworkPolicy, faults: &mut Faults) {
        let Metadata { namespace, name, .. } = &policy.metadata;
        let place = root.place_of("metadata.name");
        let position = format!("{}:{}:{}", source.name(), place.line, place.column);
        let kind = policy.spec.kind();
        if let Some((other, first)) = self.seen.get(&(namespace.clone(), name.clone())) {
            let of = match kind.is_cluster_wide() {
                true => "of the whole cluster".to_owned(),
                false => format!("of namespace {namespace:?}"),
            };
            let message = match *other == kind {
                true => format!("policy {name:?} {of} stands twice, first at {first}"),
                false => format!(
                    "the name of {} {name:?} {of} is that of the {} at {first}",
                    kind.name(),
                    other.name()
                ),
            };
            let hint = "leave one of the two, or give one another name";
            faults.add(|| source.fault(place, ErrorCode::Repeated, "metadata.name", message, hint));
            return;
        }
        self.seen.insert((namespace.clone(), name.clone()), (kind, position));
    }
}

fn empty(kind: PolicyKind) -> PolicySpec {
    match kind {
        PolicyKind::NetworkPolicy => NetworkPolicySpec::default().into(),
        PolicyKind::ClusterNetworkPolicy => ClusterNetworkPolicySpec::default().into(),
        PolicyKind::Policy => ExtendedPolicySpec::default().into(),
    }
}

impl Reader<'_> {
    /// Metadata with a name; none without one.
    fn metadata(&mut self, at: &At<'_>, options: Options<'_>) -> Option<Metadata> {
        if !self.map(at, fields::METADATA) {
            return None;
        }
        let is_cluster_wide = self.kind.is_cluster_wide();
        let mut metadata =
            Metadata::new(if is_cluster_wide { SYSTEM_NAMESPACE } else { options.namespace }, "");
        if let Some(namespace) = at.get("namespace").filter(|_| is_cluster_wide) {
            let message = format!("a {} is of the whole cluster, and in no namespace", self.kind.name());
            let hint = "leave it out: spec.subject says whom the policy applies to";
            self.fault(&namespace, ErrorCode::Unsupported, message, hint);
        } else if let Some(namespace) = at.get("namespace")
            && let Some(text) = self.text(&namespace)
        {
            let place = namespace.node.place;
            self.checked(place, &namespace.path, |problems| check_name("", &text, 63, problems));
            if options.only_this_namespace && text != options.namespace {
                let message = format!(
                    "namespace {} is not the one of --namespace, {:?}",
                    shown(&text),
                    options.namespace
                );
                self.fault(&namespace, ErrorCode::Unsupported, message, "leave out one of the two");
            }
            metadata.namespace = text;
        }
        metadata.labels =
            at.get("labels").map(|at| self.labels(&at, ErrorCode::InvalidLabel)).unwrap_or_default();
        metadata.annotations = at.get("annotations").map(|at| self.texts(&at)).unwrap_or_default();
        let name = self.required(at, "name", "give it a name, for example name: allow-web")?;
        metadata.name = self.text(&name)?;
        self.checked(name.node.place, &name.path, |problems| check_name("", &metadata.name, 63, problems));
        Some(metadata)
    }
}
