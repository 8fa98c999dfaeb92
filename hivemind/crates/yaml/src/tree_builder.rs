//! From the parser's events to trees.

use std::{collections::HashMap, sync::Arc};

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag, options};
use hivemind_model::ErrorCode;

use crate::{
    ALIAS_BYTES_MAX, DEPTH_MAX,
    fault::Faults,
    hints,
    place::Place,
    source::Source,
    tree::{Entry, Node, Value},
};

/// What is read of YAML beside its core schema.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Tags that are kept at their nodes, such as `!reset`; all others are faults.
    pub tags: &'static [&'static str],
    /// Whether `<<` stands for the fields of other maps, as YAML 1.1 has it.
    pub merge_keys: bool,
}

/// The documents of `source` that could be read, and its faults. After a fault it goes on with the next document.
pub fn documents(source: &Source, faults: &mut Faults) -> Vec<Arc<Node>> {
    documents_with(source, Options::default(), faults)
}

/// As [`documents`], of a kind of documents that has more than the core schema.
pub fn documents_with(source: &Source, allowed: Options, faults: &mut Faults) -> Vec<Arc<Node>> {
    let text = match source.text() {
        Ok(text) => text,
        Err(fault) => {
            faults.add(|| *fault);
            return Vec::new();
        }
    };
    let options = options! {
        emit_comments: false,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
        simple_key_max_lookahead: 4_096,
    };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut reading = Reading { source, allowed, done: Vec::new(), faults };
    let mut document = Document::default();
    while let Some(next) = parser.next_event() {
        match next {
            Ok((event, span)) => reading.take(&mut document, &event, &span),
            Err(error) => {
                reading.scan_fault(&error);
                document = Document { spoilt: true, ..Document::default() };
                // A second error in looking for the next document says the same as the first.
                if !parser_goes_on(&mut parser) {
                    break;
                }
            }
        }
    }
    reading.done
}

fn parser_goes_on<'a>(parser: &mut Parser<'a, StrInput<'a>>) -> bool {
    parser.proceed_next_document().unwrap_or(false)
}

/// What was read of a source so far.
struct Reading<'a> {
    source: &'a Source,
    allowed: Options,
    done: Vec<Arc<Node>>,
    faults: &'a mut Faults,
}

/// A document that is being read.
#[derive(Default)]
struct Document {
    /// Lists and maps that are not closed yet, the outermost first.
    open: Vec<Open>,
    root: Option<Arc<Node>>,
    anchors: HashMap<usize, Arc<Node>>,
    alias_bytes: usize,
    /// It has a fault that leaves no tree.
    spoilt: bool,
}

struct Open {
    place: Place,
    anchor: usize,
    tag: Option<&'static str>,
    content: Content,
}

enum Content {
    List(Vec<Arc<Node>>),
    Map {
        entries: Vec<Entry>,
        /// The place of each key among the entries.
        known: HashMap<String, usize>,
        /// A key whose value has not come yet.
        key: Option<(Key, Place)>,
        /// What `<<` stands for, in the order of the text.
        merged: Vec<Arc<Node>>,
    },
}

/// What stands before the `:`.
enum Key {
    Text(String),
    /// `<<`
    Merge,
    /// Of a kind that cannot be a key.
    Refused,
}

impl Reading<'_> {
    fn take(&mut self, document: &mut Document, event: &Event<'_>, span: &Span) {
        let place = Place::of_span(span);
        match event {
            Event::DocumentStart(..) => *document = Document::default(),
            Event::DocumentEnd => {
                let document = std::mem::take(document);
                self.done.extend(document.root.filter(|root| !document.spoilt && !root.is_null()));
            }
            Event::Scalar(text, style, anchor, tag) => {
                let kept = self.kept_tag(tag.as_deref());
                let tagged = tag.as_deref().filter(|_| kept.is_none());
                let tagged = self.check_tag(tagged, place);
                let plain = matches!(style, ScalarStyle::Plain) && tagged != Some("str");
                // The parser gives a value that is left out as `~`.
                let text = if plain && span.is_empty() { String::new() } else { text.to_string() };
                let node = Node { tag: kept, ..Node::new(place, Value::Scalar { text, plain }) };
                self.close(document, Arc::new(node), *anchor);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(document, Content::List(Vec::new()), place, *anchor, tag.as_deref());
            }
            Event::MappingStart(_, anchor, tag) => {
                let (entries, known) = (Vec::new(), HashMap::new());
                let content = Content::Map { entries, known, key: None, merged: Vec::new() };
                self.open(document, content, place, *anchor, tag.as_deref());
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { mut place, anchor, tag, content }) = document.open.pop() {
                    let value = match content {
                        Content::List(items) => Value::List(items),
                        Content::Map { mut entries, mut known, merged, .. } => {
                            merged.iter().for_each(|node| self.merge(node, &mut entries, &mut known));
                            // A map in block style begins with its first key, and is pointed at by it.
                            place = entries
                                .first()
                                .map(|e| e.key_place)
                                .filter(|k| k.begins(place))
                                .unwrap_or(place);
                            Value::Map(entries)
                        }
                    };
                    self.close(document, Arc::new(Node { tag, ..Node::new(place, value) }), anchor);
                }
            }
            Event::Alias(anchor) => self.alias(document, *anchor, place),
            _ => {}
        }
    }

    fn open(
        &mut self,
        document: &mut Document,
        content: Content,
        place: Place,
        anchor: usize,
        tag: Option<&Tag>,
    ) {
        let kept = self.kept_tag(tag);
        if kept.is_none() {
            self.check_tag(tag, place);
        }
        document.open.push(Open { place, anchor, tag: kept, content });
    }

    /// Adds the fields of what `<<` stands for, save for those that are there.
    fn merge(&mut self, node: &Arc<Node>, entries: &mut Vec<Entry>, known: &mut HashMap<String, usize>) {
        match &node.value {
            Value::Map(merged) => {
                for Entry { key, key_place, value } in merged.iter().filter(|e| !known.contains_key(&e.key)) {
                    entries.push(Entry { key: key.clone(), key_place: *key_place, value: value.clone() });
                }
                known.extend(merged.iter().map(|e| (e.key.clone(), 0)));
            }
            Value::List(items) if items.iter().all(|item| matches!(item.value, Value::Map(_))) => {
                items.iter().for_each(|item| self.merge(item, entries, known));
            }
            _ => {
                let message = "what '<<' stands for is neither a map nor a list of maps".to_owned();
                self.add(node.place, ErrorCode::WrongType, message, "give it an alias of a map: <<: *name");
            }
        }
    }

    /// Puts a whole node where it belongs.
    fn close(&mut self, document: &mut Document, node: Arc<Node>, anchor: usize) {
        if anchor != 0 {
            document.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = document.open.last_mut() else {
            document.root = Some(node);
            return;
        };
        match &mut parent.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, known, key, merged } => match key.take() {
                None => *key = Some((self.key(&node), node.place)),
                Some((Key::Refused, _)) => {}
                Some((Key::Merge, _)) => merged.push(node),
                Some((Key::Text(text), key_place)) => {
                    if let Some(first) = known.get(&text) {
                        let line = entries.get(*first).map_or(0, |e| e.key_place.line);
                        let message = format!("{text:?} stands twice in one map, first in line {line}");
                        self.add(key_place, ErrorCode::Repeated, message, "leave one of the two");
                        return;
                    }
                    // What is left out is told at its key: there is nothing else to point at.
                    let value = if node.is_empty() { Arc::new(empty_at(key_place)) } else { node };
                    known.insert(text.clone(), entries.len());
                    entries.push(Entry { key: text, key_place, value });
                }
            },
        }
    }

    fn key(&mut self, node: &Node) -> Key {
        let Value::Scalar { text, plain } = &node.value else {
            let message = "a list or map cannot be a key here".to_owned();
            self.add(node.place, ErrorCode::WrongType, message, "write a name and ':' before the value");
            return Key::Refused;
        };
        match (text.as_str(), self.allowed.merge_keys) {
            ("<<", true) if *plain => Key::Merge,
            ("<<", false) => {
                let message = "merge keys are not supported: YAML 1.2 has none".to_owned();
                self.add(node.place, ErrorCode::Unsupported, message, "write the fields out");
                Key::Refused
            }
            _ => Key::Text(text.clone()),
        }
    }

    fn alias(&mut self, document: &mut Document, anchor: usize, place: Place) {
        let target = match document.anchors.get(&anchor) {
            None => Err("an alias within what it stands for"),
            Some(node) if document.open.len() + node.height > DEPTH_MAX => Err("aliases nested too deep"),
            Some(node) if document.alias_bytes.saturating_add(node.weight) > ALIAS_BYTES_MAX => {
                Err("aliases that stand for too much")
            }
            Some(node) => Ok(node.clone()),
        };
        match target {
            Ok(node) => {
                document.alias_bytes += node.weight;
                self.close(document, node, 0);
            }
            Err(message) => {
                if !document.spoilt {
                    self.add(place, ErrorCode::OutOfRange, message.to_owned(), "write it out instead");
                }
                document.spoilt = true;
                self.close(document, Arc::new(empty_at(place)), 0);
            }
        }
    }

    /// The tag, if it is one of those that are kept.
    fn kept_tag(&self, tag: Option<&Tag>) -> Option<&'static str> {
        let name = tag?.original();
        self.allowed.tags.iter().copied().find(|kept| *kept == name)
    }

    /// The name of a tag of YAML's core schema; a fault at any other.
    fn check_tag<'t>(&mut self, tag: Option<&'t Tag>, place: Place) -> Option<&'t str> {
        let tag = tag?;
        let name = tag.core_suffix();
        if name.is_none() {
            let message = format!("the tag {:?} is not supported", tag.original());
            self.add(place, ErrorCode::Unsupported, message, "leave it out");
        }
        name
    }

    fn scan_fault(&mut self, error: &ScanError) {
        let place = Place::of_marker(error.marker());
        let (message, hint) = hints::of_syntax(error.kind());
        self.add(place, ErrorCode::Malformed, message, hint);
    }

    fn add(&mut self, place: Place, code: ErrorCode, message: String, hint: &str) {
        self.faults.add(|| self.source.fault(place, code, "", message, hint));
    }
}

fn empty_at(place: Place) -> Node {
    Node::new(place, Value::Scalar { text: String::new(), plain: true })
}
