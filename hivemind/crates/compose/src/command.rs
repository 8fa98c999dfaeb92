//! What is run: in containers, and to see whether they are well.

use std::ops::Deref;

use hivemind_model::ErrorCode;

use crate::{
    print::Out,
    reader::{At, Reader, shown},
    record::{Yaml, only_as_map, record},
    spot::Located,
    tree::Value,
    value::{Duration, Variables, Within},
};

/// Words of a command: a list, or a text that is split as a shell would. Without words it stands for nothing being run in the
/// image's place, which is something else than a command that is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command(pub Vec<String>);

impl Deref for Command {
    type Target = [String];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Yaml for Command {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        match &at.node.value {
            Value::List(_) => words(reader, at).map(Command),
            _ => {
                let text = reader.text(at)?;
                let words = shlex::split(&text);
                if words.is_none() {
                    let message = format!("{} has a quote that is not closed", shown(&text));
                    reader.fault(at, ErrorCode::Malformed, message, "close it, or write a list of words");
                }
                words.map(Command)
            }
        }
    }

    fn print(&self) -> Out {
        Out::texts(&self.0)
    }
}

/// All words of a list; none if one of them is no text.
fn words(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Vec<String>> {
    let words: Vec<Option<String>> = reader.list(at).iter().map(|word| reader.text(word)).collect();
    words.into_iter().collect()
}

/// What is run to see whether a container is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthTest {
    /// Nothing, whatever the image says.
    None,
    /// These words.
    Command(Vec<String>),
    /// This text, by the container's shell.
    Shell(String),
}

impl Yaml for HealthTest {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        if let Value::Scalar { .. } = at.node.value {
            return reader.text(at).map(HealthTest::Shell);
        }
        let words = words(reader, at)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["NONE"] => Some(HealthTest::None),
            ["CMD", rest @ ..] if !rest.is_empty() => {
                Some(HealthTest::Command(rest.iter().map(|word| (*word).to_owned()).collect()))
            }
            ["CMD-SHELL", text] => Some(HealthTest::Shell((*text).to_owned())),
            ["CMD" | "CMD-SHELL", ..] => {
                let message = format!(
                    "{} wants {}",
                    words[0],
                    if words[0] == "CMD" { "a command" } else { "one text" }
                );
                let hint =
                    "write [\"CMD\", \"program\", \"argument\"] or [\"CMD-SHELL\", \"program argument\"]";
                reader.fault(at, ErrorCode::Malformed, message, hint);
                None
            }
            _ => {
                let message = "a test begins with CMD, CMD-SHELL or NONE".to_owned();
                let hint = "write [\"CMD\", \"program\", \"argument\"], or a text for the container's shell";
                reader.fault(at, ErrorCode::Malformed, message, hint);
                None
            }
        }
    }

    fn print(&self) -> Out {
        let text = |text: &str| Out::Text(text.to_owned());
        match self {
            HealthTest::None => Out::List(vec![text("NONE")]),
            HealthTest::Command(words) => {
                Out::List(std::iter::once(text("CMD")).chain(words.iter().map(|word| text(word))).collect())
            }
            HealthTest::Shell(command) => Out::List(vec![text("CMD-SHELL"), text(command)]),
        }
    }
}

record! {
    /// How it is found out whether a container is well.
    pub struct Healthcheck {
        /// What is run.
        test: Option<Located<HealthTest>>,
        /// How long after one run the next begins.
        interval: Option<Located<Duration>>,
        /// How long a run may take.
        timeout: Option<Located<Duration>>,
        /// How many runs in a row have to fail.
        retries: Option<Located<Within<0, 1_000_000>>>,
        /// How long after the start runs that fail do not count.
        start_period: Option<Located<Duration>>,
        /// How long after one run the next begins in that time.
        start_interval: Option<Located<Duration>>,
        /// Whether nothing is run, whatever the image says.
        disable: Option<Located<bool>>,
    }
}

record! {
    /// What is run in a container when it has started, or before it is stopped.
    pub struct Hook {
        /// The command.
        command: Option<Located<Command>>,
        /// Who runs it.
        user: Option<Located<String>>,
        /// Whether it may do everything.
        privileged: Option<Located<bool>>,
        /// The directory in which it starts.
        working_dir: Option<Located<String>>,
        /// Its variables.
        environment: Variables,
    }
}

only_as_map!(Healthcheck, Hook);
