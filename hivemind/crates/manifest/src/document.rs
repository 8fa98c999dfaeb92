//! Documents and the objects that they hold.

use std::{collections::HashMap, sync::Arc};

use hivemind_model::{ErrorCode, Metadata, NetworkPolicy, NetworkPolicyStatus, Problem, check_name};

use crate::{
    DOCUMENTS_MAX, FILE_BYTES_MAX, TOTAL_BYTES_MAX,
    fault::{Fault, Faults},
    fields, hints,
    place::Place,
    reader::{At, Reader, shown},
    source::Source,
    tree::{Node, Value},
    tree_builder,
};

const API_VERSION: &str = "networking.k8s.io/v1";
const KIND: &str = "NetworkPolicy";
const LIST_KINDS: &[&str] = &["List", "NetworkPolicyList"];

/// How to read.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The namespace of documents that name none.
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
        total += source.len();
        let limit = if source.len() > FILE_BYTES_MAX { FILE_BYTES_MAX } else { TOTAL_BYTES_MAX };
        let mut found = Faults { list: Vec::new(), more: 0 };
        if source.len() > FILE_BYTES_MAX || total > TOTAL_BYTES_MAX {
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
    /// Where the policy of a namespace and name stands.
    seen: HashMap<(String, String), String>,
    documents: usize,
}

impl Reading<'_> {
    fn source(&mut self, source: &Source, faults: &mut Faults) {
        for root in tree_builder::documents(source, faults) {
            self.document(source, root, faults);
        }
    }

    fn document(&mut self, source: &Source, root: Arc<Node>, faults: &mut Faults) {
        self.documents += 1;
        if self.documents > DOCUMENTS_MAX {
            if self.documents == DOCUMENTS_MAX + 1 {
                let message = format!("more than {DOCUMENTS_MAX} documents");
                let hint = "apply one part after the other";
                faults.add(|| source.fault(root.place, ErrorCode::OutOfRange, "", message, hint));
            }
            return;
        }
        let mut reader = Reader { source, faults };
        let at = At { node: &root, path: String::new() };
        if at.get("kind").is_some_and(|kind| LIST_KINDS.contains(&scalar(kind.node))) {
            reader.map(&at, fields::LIST);
            let items = at.get("items").map(|items| (reader.list(&items), items));
            if let Some((_, At { node: Node { value: Value::List(items), .. }, .. })) = items {
                for item in items {
                    self.document(source, item.clone(), faults);
                }
            }
            return;
        }
        // Documents of a kind that is not read are told as such, not field by field.
        if reader.is_policy(&at) {
            self.policy(source, root, faults);
        }
    }

    fn policy(&mut self, source: &Source, root: Arc<Node>, faults: &mut Faults) {
        let before = faults.list.len();
        let mut reader = Reader { source, faults };
        let at = At { node: &root, path: String::new() };
        reader.map(&at, fields::DOCUMENT);
        let metadata = reader
            .required(&at, "metadata", "give it a name: metadata: {name: allow-web}")
            .and_then(|metadata| reader.metadata(&metadata, self.options));
        let hint = "say whom it selects: spec: {podSelector: {matchLabels: {app: web}}}";
        let spec = reader.required(&at, "spec", hint).map(|spec| reader.policy_spec(&spec));
        let named = metadata.is_some();
        let policy = NetworkPolicy {
            metadata: metadata.unwrap_or_else(|| Metadata::new(self.options.namespace, "")),
            spec: spec.clone().unwrap_or_default().into(),
            status: NetworkPolicyStatus::default(),
        };
        if named {
            self.note_name(source, &root, &policy, faults);
        }
        let document = PolicyDocument { policy, source: source.clone(), root };
        if spec.is_some() {
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
        if let Some(first) = self.seen.get(&(namespace.clone(), name.clone())) {
            let message =
                format!("policy {name:?} of namespace {namespace:?} stands twice, first at {first}");
            let hint = "leave one of the two, or give one another name";
            faults.add(|| source.fault(place, ErrorCode::Repeated, "metadata.name", message, hint));
            return;
        }
        self.seen.insert((namespace.clone(), name.clone()), position);
    }
}

fn scalar(node: &Node) -> &str {
    match &node.value {
        Value::Scalar { text, .. } => text,
        _ => "",
    }
}

impl Reader<'_> {
    /// Whether the document is to be read as a policy; if not, why has been told.
    fn is_policy(&mut self, at: &At<'_>) -> bool {
        if !matches!(at.node.value, Value::Map(_)) {
            self.map(at, fields::DOCUMENT);
            return false;
        }
        let kind = at.get("kind").and_then(|kind| Some((self.text(&kind)?, kind)));
        if let Some((text, kind)) = &kind
            && text != KIND
        {
            let of =
                at.get("apiVersion").map(|v| format!(" of {}", shown(scalar(v.node)))).unwrap_or_default();
            let message = format!("kind {}{of} is not supported", shown(text));
            let hint = match hints::nearest(text, &[KIND]) {
                Some(name) => format!("did you mean {name:?}?"),
                None => format!("what can be applied is {KIND} of {API_VERSION}, and List of such"),
            };
            self.fault(kind, ErrorCode::Unsupported, message, hint);
            return false;
        }
        let version = self.required(at, "apiVersion", "write apiVersion: networking.k8s.io/v1");
        if at.get("kind").is_none() {
            self.required(at, "kind", "write kind: NetworkPolicy");
        }
        let version_text = version.as_ref().map(|version| self.text(version));
        if let (Some(Some(text)), Some(version)) = (&version_text, &version)
            && text != API_VERSION
        {
            let message = format!("apiVersion {} of {KIND} is not supported", shown(text));
            self.fault(version, ErrorCode::Unsupported, message, format!("write apiVersion: {API_VERSION}"));
        }
        true
    }

    /// Metadata with a name; none without one.
    fn metadata(&mut self, at: &At<'_>, options: Options<'_>) -> Option<Metadata> {
        if !self.map(at, fields::METADATA) {
            return None;
        }
        let mut metadata = Metadata::new(options.namespace, "");
        if let Some(namespace) = at.get("namespace")
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
