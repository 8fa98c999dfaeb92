//! `app logs`: what an app's replicas wrote, as one.

use std::{collections::BTreeSet, time::Duration};

use clap::Args;
use futures::StreamExt;
use hivemind_client::{LogOptions, Selection, Watch, WatchItem};
use hivemind_model::{App, ErrorCode, LogLine, Replica, WatchKind};

use super::merge::Merge;
use crate::cli::{
    NameArgs, Session,
    fault::{Colours, Failure, fault},
    output::{self, Format, FormatArgs},
};

/// How long a line is held back for earlier ones of other replicas while following.
const ORDER_WINDOW: Duration = Duration::from_millis(100);

/// Colours of prefixes (ANSI): cyan, yellow, green, magenta, blue.
const PREFIX_COLOURS: [&str; 5] = ["36", "33", "32", "35", "34"];

/// Flags of `app logs`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hivemind app logs web-app --tail 100
  hivemind app logs web-app --follow --timestamps
  hivemind app logs web-app --replica web-app-k3f9q -o json")]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Of this replica only
    #[arg(long, value_name = "REPLICA")]
    replica: Option<String>,
    /// Of this container of each replica only [default: of all]
    #[arg(long, short = 'c', value_name = "CONTAINER")]
    container: Option<String>,
    /// Go on with new lines as they come, also of replicas that come later, until Ctrl-C
    #[arg(long, short = 'f')]
    follow: bool,
    /// Of what is there already, only the last N lines of each replica
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// Print when each line was written
    #[arg(long, short = 't')]
    timestamps: bool,
    #[command(flatten)]
    pub(crate) output: FormatArgs,
}

/// Which lines of an app are wanted, and how they are shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Of this replica only.
    pub(crate) replica: Option<String>,
    /// Of this container only.
    pub(crate) container: Option<String>,
    pub(crate) follow: bool,
    pub(crate) tail: Option<u64>,
    pub(crate) timestamps: bool,
    pub(crate) format: Format,
}

pub(crate) async fn run(session: &Session, args: &LogsArgs) -> Result<(), Failure> {
    let app = session.app(args.name.get()).await?;
    let wanted = Wanted {
        replica: args.replica.clone(),
        container: args.container.clone(),
        follow: args.follow,
        tail: args.tail,
        timestamps: args.timestamps,
        format: args.output.format,
    };
    print(session, &[app], &wanted).await
}

/// Prints what the replicas of some apps of one namespace wrote, as one.
pub(crate) async fn print(session: &Session, apps: &[App], wanted: &Wanted) -> Result<(), Failure> {
    let mut reader = Reader::new(session, apps, wanted);
    if wanted.follow && wanted.replica.is_none() {
        return reader.follow_all().await;
    }
    let replicas = reader.replicas(wanted.replica.as_deref()).await?;
    reader.printer.prefixed = replicas.len() > 1;
    for replica in &replicas {
        reader.add(replica, wanted.tail, wanted.follow).await?;
    }
    while let Some(line) = reader.merge.next().await {
        reader.printer.print(&line?)?;
    }
    Ok(())
}

struct Reader<'a> {
    session: &'a Session,
    apps: &'a [App],
    container: Option<String>,
    tail: Option<u64>,
    merge: Merge,
    printer: Printer,
    /// Replicas whose logs are read or were read.
    known: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    fn new(session: &'a Session, apps: &'a [App], wanted: &Wanted) -> Self {
        Reader {
            session,
            apps,
            container: wanted.container.clone(),
            tail: wanted.tail,
            merge: Merge::new(wanted.follow.then_some(ORDER_WINDOW)),
            printer: Printer {
                timestamps: wanted.timestamps,
                format: wanted.format,
                prefixed: false,
                colours: Colours::for_stdout(),
                seen: Vec::new(),
            },
            known: BTreeSet::new(),
        }
    }

    /// The replicas of the only app, or of all apps of the namespace.
    fn selection(&self) -> Selection {
        match self.apps {
            [app] => Selection::app(&app.metadata.namespace, &app.metadata.name),
            _ => Selection::namespace(self.namespace()),
        }
    }

    fn namespace(&self) -> &str {
        self.apps.first().map_or(&self.session.namespace, |app| &app.metadata.namespace)
    }

    fn is_of_apps(&self, replica: &Replica) -> bool {
        self.apps.iter().any(|app| app.metadata.name == replica.spec.app)
    }

    /// The replicas to read.
    async fn replicas(&self, only: Option<&str>) -> Result<Vec<Replica>, Failure> {
        let list = self.session.client.list::<Replica>(&self.selection()).await?;
        let chosen = |r: &Replica| self.is_of_apps(r) && only.is_none_or(|word| r.metadata.answers_to(word));
        let replicas: Vec<_> = list.items.into_iter().filter(chosen).collect();
        let app = self.apps.first().map_or("it", |app| &app.metadata.name);
        match only {
            _ if !replicas.is_empty() => Ok(replicas),
            Some(word) => Err(no_such_replica(app, word)),
            None => Err(nothing_there(app)),
        }
    }

    /// Adds the logs of the container that was named, or of all.
    async fn add(&mut self, replica: &Replica, tail: Option<u64>, follow: bool) -> Result<(), Failure> {
        let name = &replica.metadata.name;
        self.known.insert(name.clone());
        let all: Vec<_> = replica.spec.template.all_containers().map(|c| c.name.clone()).collect();
        let containers = match &self.container {
            Some(container) => vec![Some(container.clone())],
            None if all.len() > 1 => all.into_iter().map(Some).collect(),
            None => vec![None],
        };
        self.printer.prefixed |= containers.len() > 1;
        for container in containers {
            let options = LogOptions { container, tail, follow };
            let logs = self.session.client.logs(self.namespace(), name, options).await?;
            self.merge.add(logs);
        }
        Ok(())
    }

    /// Follows the replicas that are there and those that come, until the app is deleted.
    async fn follow_all(&mut self) -> Result<(), Failure> {
        self.printer.prefixed = self.apps.len() > 1 || self.apps.iter().any(|app| app.spec.replicas > 1);
        let mut watch = self.session.client.watch::<Replica>(&self.selection()).await?;
        let mut synced = false;
        loop {
            tokio::select! {
                line = self.merge.next(), if !self.merge.is_empty() => if let Some(line) = line {
                    self.printer.print(&line?)?;
                },
                item = watch_next(&mut watch) => match item? {
                    WatchItem::Event(event) if event.kind != WatchKind::Deleted => {
                        if self.is_of_apps(&event.object) && !self.known.contains(&event.object.metadata.name) {
                            let tail = if synced { None } else { self.tail };
                            self.add_if_there(&event.object, tail).await?;
                            self.printer.prefixed |= self.known.len() > 1;
                        }
                    }
                    WatchItem::Event(event) => drop(self.known.remove(&event.object.metadata.name)),
                    WatchItem::Synced { .. } => synced = true,
                },
            }
        }
    }

    /// A replica may be gone again before its log was asked for.
    async fn add_if_there(&mut self, replica: &Replica, tail: Option<u64>) -> Result<(), Failure> {
        match self.add(replica, tail, true).await {
            Err(Failure::Told(told)) if told.error.code == ErrorCode::ReplicaNotFound => Ok(()),
            other => other,
        }
    }
}

async fn watch_next(watch: &mut Watch<Replica>) -> Result<WatchItem<Replica>, Failure> {
    match watch.next().await {
        Some(item) => Ok(item?),
        None => {
            Err(fault(ErrorCode::DaemonUnreachable, "the daemon ended the watch", "run the command again"))
        }
    }
}

/// The app has no replica at all.
pub(crate) fn nothing_there(app: &str) -> Failure {
    fault(
        ErrorCode::NothingRunning,
        format!("{app} has no replica"),
        format!("give it one: hivemind app scale {app} --replicas 1"),
    )
}

/// The app has no replica that answers to `word`.
pub(crate) fn no_such_replica(app: &str, word: &str) -> Failure {
    fault(
        ErrorCode::ReplicaNotFound,
        format!("{app} has no replica named {word:?}"),
        format!("see its replicas: hivemind app info {app}"),
    )
}

/// How lines are printed.
struct Printer {
    timestamps: bool,
    format: Format,
    prefixed: bool,
    colours: Colours,
    /// Replicas and containers in the order in which they were first seen; their place decides their colour. As many as one session sees.
    seen: Vec<String>,
}

impl Printer {
    fn print(&mut self, line: &LogLine) -> Result<(), Failure> {
        output::print(&self.text(line)?)
    }

    fn text(&mut self, line: &LogLine) -> Result<String, Failure> {
        match self.format {
            Format::Json => match serde_json::to_string(line) {
                Ok(text) => return Ok(text + "\n"),
                Err(e) => {
                    return Err(fault(
                        ErrorCode::Internal,
                        format!("a line cannot be written as JSON: {e}"),
                        "",
                    ));
                }
            },
            Format::Yaml => return Ok(format!("---\n{}", output::yaml(line)?)),
            Format::Table | Format::Wide | Format::Name => {}
        }
        let mut text = String::new();
        if self.prefixed {
            let who = match &line.container {
                Some(container) => format!("{}/{container}", line.replica),
                None => line.replica.clone(),
            };
            let place = self.seen.iter().position(|seen| *seen == who).unwrap_or_else(|| {
                self.seen.push(who.clone());
                self.seen.len() - 1
            });
            let prefix = format!("{who} |");
            text.push_str(&self.colours.paint(PREFIX_COLOURS[place % PREFIX_COLOURS.len()], &prefix));
            text.push(' ');
        }
        if self.timestamps {
            text.push_str(&format!("{:.3} ", line.time));
        }
        text.push_str(&line.message);
        text.push('\n');
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printer(format: Format) -> Printer {
        Printer { timestamps: false, format, prefixed: false, colours: Colours::Off, seen: Vec::new() }
    }

    fn line() -> LogLine {
        LogLine {
            replica: "web-k3f9q".into(),
            container: None,
            time: "2026-01-01T00:00:00.123456Z".parse().unwrap(),
            stream: "stdout".into(),
            message: "GET /".into(),
        }
    }

    #[test]
    fn lines_stand_alone_and_are_prefixed_only_where_several_replicas_write() {
        let mut printer = printer(Format::Table);
        assert_eq!(printer.text(&line()).unwrap(), "GET /\n");
        printer.prefixed = true;
        printer.timestamps = true;
        assert_eq!(printer.text(&line()).unwrap(), "web-k3f9q | 2026-01-01T00:00:00.123Z GET /\n");
        printer.colours = Colours::On;
        assert!(printer.text(&line()).unwrap().starts_with("\u{1b}[36mweb-k3f9q |\u{1b}[0m "));
        let named = LogLine { container: Some("proxy".into()), ..line() };
        assert!(printer.text(&named).unwrap().starts_with("\u{1b}[33mweb-k3f9q/proxy |\u{1b}[0m "));
    }

    #[test]
    fn for_programs_a_line_is_an_object() {
        let text = printer(Format::Json).text(&line()).unwrap();
        assert_eq!(serde_json::from_str::<LogLine>(&text).unwrap(), line());
    }
}
