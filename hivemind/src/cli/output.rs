//! Results on standard output: tables, JSON, YAML, names; once or as they change.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use futures::StreamExt;
use hivemind_client::{Selection, WatchItem};
use hivemind_model::{
    ErrorCode, JoinToken, List, Namespace, NetworkPolicy, Node, Resource, Token, WatchEvent, WatchKind,
};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    Session,
    fault::{Failure, fault},
    manifests::document,
    table::{self, Table},
};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// The API's JSON; with --watch one event a line.
    Json,
    /// The same as YAML; with --watch one document an event.
    Yaml,
    /// kind/name, one a line.
    Name,
}

impl Format {
    /// Whether a program reads it.
    pub(crate) fn is_for_programs(self) -> bool {
        matches!(self, Format::Json | Format::Yaml | Format::Name)
    }
}

/// The flag that says how to print.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct FormatArgs {
    /// How to print the result; errors too are JSON with json
    #[arg(long = "output", short = 'o', value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// The flags of commands that list.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) output: FormatArgs,
    /// Of all namespaces
    #[arg(long, short = 'A')]
    pub(crate) all_namespaces: bool,
    /// Go on and print every change as it comes, until Ctrl-C
    #[arg(long, short = 'w')]
    pub(crate) watch: bool,
}

/// An object that can be a row of a table.
pub(crate) trait Row {
    /// The header, without the namespace.
    fn header(wide: bool) -> Vec<&'static str>;
    /// The cells below it, as of `now`.
    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String>;
    /// Whether it concerns all namespaces, whichever it is kept in.
    fn is_cluster_wide(&self) -> bool {
        false
    }
}

/// Prints `text` as it is.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Tells something beside the result, on standard error; where it cannot be written nothing is lost.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// `value` as JSON over several lines.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => Ok(text + "\n"),
        Err(e) => Err(fault(ErrorCode::Internal, format!("the result cannot be written as JSON: {e}"), "")),
    }
}

/// `value` as YAML. It goes by way of JSON's values, so that both say the same.
pub(crate) fn yaml<T: Serialize>(value: &T) -> Result<String, Failure> {
    let wrong = |e: &dyn std::error::Error| {
        fault(ErrorCode::Internal, format!("the result cannot be written as YAML: {e}"), "use -o json")
    };
    let value = serde_json::to_value(value).map_err(|e| wrong(&e))?;
    serde_saphyr::to_string(&value).map_err(|e| wrong(&e))
}

/// One object in a format for programs, or as `human` tells it.
pub(crate) fn object<T: Resource>(
    object: &T,
    format: Format,
    human: impl FnOnce() -> String,
) -> Result<String, Failure> {
    match format {
        Format::Json => json(&document::of(object)?),
        Format::Yaml => yaml(&document::of(object)?),
        Format::Name => Ok(name_line(object)),
        Format::Table | Format::Wide => Ok(human()),
    }
}

/// `kind/name`, the kind as its command is called.
pub(crate) fn name_line<T: Resource>(object: &T) -> String {
    format!("{}/{}\n", T::ID_PREFIX, object.metadata().name)
}

/// Whether objects of a kind are in namespaces.
fn in_namespaces<T: Resource>() -> bool {
    ![Node::KIND, Namespace::KIND, Token::KIND, JoinToken::KIND].contains(&T::KIND)
}

/// The kind's plural for people.
fn plural<T: Resource>() -> &'static str {
    match T::KIND {
        NetworkPolicy::KIND => "policies",
        JoinToken::KIND => "join tokens",
        _ => T::PLURAL,
    }
}

/// How rows of one kind are made: with which columns besides its own.
#[derive(Clone, Copy, Debug)]
struct Columns {
    wide: bool,
    namespaces: bool,
    events: bool,
}

impl Columns {
    fn header<T: Row>(self) -> Vec<&'static str> {
        let mut header = Vec::new();
        header.extend(self.events.then_some("EVENT"));
        header.extend(self.namespaces.then_some("NAMESPACE"));
        header.extend(T::header(self.wide));
        header
    }

    fn cells<T: Row + Resource>(self, kind: WatchKind, object: &T, now: Timestamp) -> Vec<String> {
        let mut cells = Vec::new();
        cells.extend(self.events.then(|| event_name(kind).to_owned()));
        let namespace = || match object.is_cluster_wide() {
            true => "-".to_owned(),
            false => object.metadata().namespace.clone(),
        };
        cells.extend(self.namespaces.then(namespace));
        cells.extend(object.cells(self.wide, now));
        cells
    }
}

fn event_name(kind: WatchKind) -> &'static str {
    match kind {
        WatchKind::Added => "added",
        WatchKind::Modified => "modified",
        WatchKind::Deleted => "deleted",
    }
}

/// A list in `format`; with a column for the namespace if `namespaces`.
pub(crate) fn list<T: Row + Resource>(
    list: &List<T>,
    format: Format,
    namespaces: bool,
    now: Timestamp,
) -> Result<String, Failure> {
    match format {
        Format::Json => json(&documents(list)?),
        Format::Yaml => yaml(&documents(list)?),
        Format::Name => Ok(list.items.iter().map(name_line).collect()),
        Format::Table | Format::Wide => {
            let columns = Columns { wide: format == Format::Wide, namespaces, events: false };
            let mut table = Table::new(columns.header::<T>());
            for object in &list.items {
                table.row(columns.cells(WatchKind::Added, object, now));
            }
            Ok(table.render())
        }
    }
}

/// A list as `apply` takes it, if it is of a kind that files can say.
fn documents<T: Resource>(list: &List<T>) -> Result<serde_json::Value, Failure> {
    let items: Vec<_> = list.items.iter().map(document::of).collect::<Result<_, _>>()?;
    match document::can_be_said::<T>() {
        true => Ok(document::list(items, list.resource_version)),
        false => Ok(serde_json::json!({"resourceVersion": list.resource_version, "items": items})),
    }
}

/// One event in `format`, in columns of at least `widths`.
fn event<T: Row + Resource>(
    event: &WatchEvent<T>,
    format: Format,
    columns: Columns,
    widths: &[usize],
    now: Timestamp,
) -> Result<String, Failure> {
    match format {
        Format::Json => match serde_json::to_string(event) {
            Ok(line) => Ok(line + "\n"),
            Err(e) => Err(fault(ErrorCode::Internal, format!("an event cannot be written as JSON: {e}"), "")),
        },
        Format::Yaml => Ok(format!("---\n{}", yaml(event)?)),
        Format::Name => Ok(name_line(&event.object)),
        Format::Table | Format::Wide => {
            Ok(table::line(&columns.cells(event.kind, &event.object, now), widths))
        }
    }
}

/// Prints what was found in `namespace`, or in all; that it is nothing tells people on standard error.
pub(crate) fn print_found<T: Row + Resource>(
    found: &List<T>,
    namespace: Option<&str>,
    format: Format,
    namespaces: bool,
) -> Result<(), Failure> {
    if found.items.is_empty() && !format.is_for_programs() {
        let place = namespace.map(|n| format!(" in namespace {n:?}")).unwrap_or_default();
        note(&format!("no {}{place}", plural::<T>()));
        return Ok(());
    }
    print(&list(found, format, namespaces, Timestamp::now())?)
}

impl Session {
    /// Prints all objects of a kind, or watches them, as `args` say.
    pub(crate) async fn print_list<T: Row + Resource>(&self, args: ListArgs) -> Result<(), Failure> {
        let namespace = (!args.all_namespaces && in_namespaces::<T>()).then(|| self.namespace.clone());
        let selection = Selection { namespace, app: None };
        let format = args.output.format;
        let namespaces = args.all_namespaces && in_namespaces::<T>();
        if args.watch {
            return self.print_watch::<T>(&selection, format, namespaces, |_| true).await;
        }
        let found = self.client.list::<T>(&selection).await?;
        print_found(&found, selection.namespace.as_deref(), format, namespaces)
    }

    /// Prints the objects that `wanted` takes and their changes, until Ctrl-C or until the daemon stops.
    pub(crate) async fn print_watch<T: Row + Resource>(
        &self,
        selection: &Selection,
        format: Format,
        namespaces: bool,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<(), Failure> {
        let columns = Columns { wide: format == Format::Wide, namespaces, events: true };
        let mut watch = self.client.watch::<T>(selection).await?;
        let mut first = Table::new(columns.header::<T>());
        let mut widths = None;
        while let Some(item) = watch.next().await {
            let now = Timestamp::now();
            match item? {
                // The rows that are there already decide how wide the columns are.
                WatchItem::Event(e) if widths.is_none() && !format.is_for_programs() => {
                    if wanted(&e.object) {
                        first.row(columns.cells(e.kind, &e.object, now));
                    }
                }
                WatchItem::Event(e) => {
                    if wanted(&e.object) {
                        print(&event(&e, format, columns, widths.as_deref().unwrap_or_default(), now)?)?;
                    }
                }
                WatchItem::Synced { .. } => {
                    widths = Some(first.widths());
                    if !format.is_for_programs() {
                        print(&first.render())?;
                    }
                }
            }
        }
        Err(fault(ErrorCode::DaemonUnreachable, "the daemon ended the watch", "run the command again"))
    }
}

#[cfg(test)]
mod tests {
    use hivemind_model::{Metadata, Volume, VolumeSpec, VolumeStatus};

    use super::*;

    fn volume(name: &str) -> Volume {
        let mut metadata = Metadata::new("shop", name);
        metadata.creation_timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        Volume { metadata, spec: VolumeSpec { node: "n1".into() }, status: VolumeStatus { ready: true } }
    }

    fn volumes() -> List<Volume> {
        List { resource_version: 9, items: vec![volume("data"), volume("grafana-data")] }
    }

    fn now() -> Timestamp {
        "2026-01-01T00:03:00Z".parse().unwrap()
    }

    #[test]
    fn a_list_is_a_table_with_the_namespace_only_where_it_varies() {
        assert_eq!(
            list(&volumes(), Format::Table, false, now()).unwrap(),
            "NAME           NODE   READY   AGE\n\
             data           n1     yes     3m\n\
             grafana-data   n1     yes     3m\n"
        );
        assert_eq!(
            list(&volumes(), Format::Table, true, now()).unwrap().lines().nth(1).unwrap(),
            "shop        data           n1     yes     3m"
        );
    }

    #[test]
    fn a_list_is_names_for_loops_and_the_apis_json_for_programs() {
        assert_eq!(
            list(&volumes(), Format::Name, false, now()).unwrap(),
            "volume/data\nvolume/grafana-data\n"
        );
        let json = list(&volumes(), Format::Json, false, now()).unwrap();
        assert_eq!(serde_json::from_str::<List<Volume>>(&json).unwrap(), volumes());
    }

    #[test]
    fn yaml_reads_back_as_what_it_was() {
        let mut odd = volumes();
        odd.items[0].metadata.annotations.insert("yes".into(), "no: \"1e3\"\n# two lines\n".into());
        odd.items[0].metadata.annotations.insert("version".into(), "1.10".into());
        odd.items[0].metadata.labels.insert("empty".into(), String::new());
        let yaml = list(&odd, Format::Yaml, false, now()).unwrap();
        assert_eq!(serde_saphyr::from_str::<List<Volume>>(&yaml).unwrap(), odd);
    }

    #[test]
    fn a_change_is_a_row_below_those_before_it() {
        let columns = Columns { wide: false, namespaces: false, events: true };
        let change = WatchEvent { kind: WatchKind::Deleted, object: volume("data") };
        assert_eq!(
            event(&change, Format::Table, columns, &[8, 12, 4, 5, 3], now()).unwrap(),
            "deleted    data           n1     yes     3m\n"
        );
        assert_eq!(event(&change, Format::Json, columns, &[], now()).unwrap().lines().count(), 1);
    }
}
