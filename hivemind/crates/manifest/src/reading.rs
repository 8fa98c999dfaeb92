//! Goes through texts, documents and lists, and reads what they hold.

mod object;
mod policy;

use std::{collections::HashMap, sync::Arc};

use hivemind_model::{ErrorCode, NetworkPolicy, Problem};
use hivemind_yaml::{Fault, Faults, Node, Place, Source, Value};

use crate::{
    DOCUMENTS_MAX, FILE_BYTES_MAX, TOTAL_BYTES_MAX,
    document::{Manifests, Options},
    fields,
    kind::{Holds, Kind, Within},
    reader::{At, Reader, is_within},
    schema::Schema,
};

/// Reads all documents of all sources, which have to be policies. `check` tells what is wrong with a policy beyond its form.
pub fn read(
    sources: &[Source],
    options: Options<'_>,
    check: &dyn Fn(&NetworkPolicy) -> Vec<Problem>,
) -> Manifests {
    read_kinds(&Kind::POLICIES, sources, options, check)
}

/// Reads all documents of all sources, of whichever kind. `check` tells what is wrong with a policy beyond its form.
pub fn read_all(
    sources: &[Source],
    options: Options<'_>,
    check: &dyn Fn(&NetworkPolicy) -> Vec<Problem>,
) -> Manifests {
    read_kinds(&Kind::ALL, sources, options, check)
}

fn read_kinds(
    kinds: &[Kind],
    sources: &[Source],
    options: Options<'_>,
    check: &dyn Fn(&NetworkPolicy) -> Vec<Problem>,
) -> Manifests {
    let mut reading = Reading::new(kinds, options, check);
    let mut faults = Faults::default();
    let mut total = 0;
    for source in sources {
        total += source.bytes_len();
        let limit = if source.bytes_len() > FILE_BYTES_MAX { FILE_BYTES_MAX } else { TOTAL_BYTES_MAX };
        let mut found = Faults::default();
        if source.bytes_len() > FILE_BYTES_MAX || total > TOTAL_BYTES_MAX {
            let message = format!("more than {} MiB", limit >> 20);
            let hint = "split it, and apply one part after the other";
            found.add(|| source.fault(TOP, ErrorCode::OutOfRange, "", message, hint));
        } else {
            reading.source(source, &mut found);
        }
        found.list.sort_by_key(|fault| (fault.line, fault.column));
        found.list.dedup();
        faults.more += found.more;
        found.list.into_iter().for_each(|fault| faults.add(|| fault));
    }
    Manifests { faults: faults.list, more_faults: faults.more, ..reading.read }
}

const TOP: Place = Place { line: 1, column: 1, width: 1 };

/// What objects of a kind are known by: policies of all kinds are one namespace's. Namespace and name.
type Known = (std::mem::Discriminant<Kind>, String, String);

struct Reading<'a> {
    kinds: &'a [Kind],
    options: Options<'a>,
    check: &'a dyn Fn(&NetworkPolicy) -> Vec<Problem>,
    read: Manifests,
    /// Where the object of a namespace and name stands, and its kind.
    seen: HashMap<Known, (Kind, String)>,
    /// The schemas of the kinds that were met.
    schemas: HashMap<Kind, Arc<Schema>>,
    documents: usize,
}

impl<'a> Reading<'a> {
    fn new(
        kinds: &'a [Kind],
        options: Options<'a>,
        check: &'a dyn Fn(&NetworkPolicy) -> Vec<Problem>,
    ) -> Self {
        let read = Manifests {
            namespaces: Vec::new(),
            volumes: Vec::new(),
            policies: Vec::new(),
            apps: Vec::new(),
            faults: Vec::new(),
            more_faults: 0,
        };
        Reading { kinds, options, check, read, seen: HashMap::new(), schemas: HashMap::new(), documents: 0 }
    }

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
        let mut reader = Reader { source, home: &|_, _| None, faults };
        let at = At { node: &root, path: String::new() };
        // Documents of a kind that is not read are told as such, not field by field.
        match reader.holds(&at, within, self.kinds) {
            Some(Holds::One(Kind::Policy(kind))) => self.policy(source, root, kind, faults),
            Some(Holds::One(kind)) => self.object(source, root, kind, faults),
            Some(Holds::List(within)) => {
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

    /// Tells an object that stands twice.
    fn note_name(
        &mut self,
        source: &Source,
        root: &Node,
        kind: Kind,
        object: [&str; 2],
        faults: &mut Faults,
    ) {
        let [namespace, name] = object;
        let place = root.place_of("metadata.name");
        let position = format!("{}:{}:{}", source.name(), place.line, place.column);
        let known = (std::mem::discriminant(&kind), namespace.to_owned(), name.to_owned());
        let Some((other, first)) = self.seen.get(&known) else {
            self.seen.insert(known, (kind, position));
            return;
        };
        let of = match kind {
            Kind::Namespace => String::new(),
            _ if kind.is_cluster_wide() => " of the whole cluster".to_owned(),
            _ => format!(" of namespace {namespace:?}"),
        };
        let word = match kind {
            Kind::Namespace => "namespace",
            Kind::Volume => "volume",
            Kind::Policy(_) => "policy",
            Kind::App => "app",
        };
        let message = match *other == kind {
            true => format!("{word} {name:?}{of} stands twice, first at {first}"),
            false => {
                format!("the name of {} {name:?}{of} is that of the {} at {first}", kind.name(), other.name())
            }
        };
        let hint = "leave one of the two, or give one another name";
        faults.add(|| source.fault(place, ErrorCode::Repeated, "metadata.name", message, hint));
    }
}

/// Adds `problems` at the places that `fault` knows, save for what follows from a fault that was told already: one of `faults`
/// from the one with the index `before` on.
fn add_new(problems: Vec<Problem>, fault: impl Fn(Problem) -> Fault, before: usize, faults: &mut Faults) {
    let told: Vec<String> = faults.list.iter().skip(before).map(|fault| fault.field.clone()).collect();
    for problem in problems {
        let is_told = |told: &String| is_within(told, &problem.field) || is_within(&problem.field, told);
        if !told.iter().any(is_told) {
            faults.add(|| fault(problem));
        }
    }
}
