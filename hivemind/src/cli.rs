//! The command line: one file a noun. It talks to the daemon through its API and keeps nothing itself.
//!
//! Start with [`Command`]. Results go to standard output, everything else to standard error; how commands end is in
//! [`fault`].

pub(crate) mod app;
pub(crate) mod cluster;
pub(crate) mod completions;
mod compose;
pub(crate) mod context;
pub(crate) mod doctor;
pub(crate) mod fault;
mod files;
pub(crate) mod flows;
pub(crate) mod image;
mod labels;
mod lines;
mod manifests;
pub(crate) mod namespace;
mod near;
pub(crate) mod net;
pub(crate) mod node;
pub(crate) mod output;
mod place;
pub(crate) mod policy;
mod rows;
pub(crate) mod scheduler;
pub(crate) mod service;
mod session;
pub(crate) mod status;
mod table;
pub(crate) mod token;
pub(crate) mod ui;
mod units;
pub(crate) mod volume;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use hivemind_model::ErrorCode;

use fault::{Outcome, fault};
use output::Format;
pub(crate) use session::{DEFAULT_SOCKET, Given, GlobalArgs, Session};

/// The commands besides the daemon.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Bring up the project of a Compose file, and wait until all of it is well
    Up(Box<compose::up::UpArgs>),
    /// Delete what up made for a project
    Down(Box<compose::down::DownArgs>),
    /// List the replicas of a project, or of a namespace
    Ps(Box<compose::services::PsArgs>),
    /// Print what the replicas of a project, or of a namespace, wrote
    Logs(Box<compose::services::LogsArgs>),
    /// Run a command in a service of a project, or in an app of a namespace
    Exec(Box<compose::services::ExecArgs>),
    /// Replace the replicas of a project's services, or of a namespace's apps, one after the other
    Restart(Box<compose::services::RestartArgs>),
    /// Print the project of a Compose file as it is understood
    Config(Box<compose::config::ConfigArgs>),
    /// Apply the objects of files: all of them, or none if one is at fault
    Apply(manifests::apply::ApplyArgs),
    /// Show what applying files would do, object by object and field by field
    Plan(Box<manifests::PreviewArgs>),
    /// Show what applying files would change, line by line
    Diff(manifests::diff::DiffArgs),
    /// Delete the objects that files name
    Delete(manifests::delete::DeleteArgs),
    /// Tell what can be written in such files
    Explain(manifests::explain::ExplainArgs),
    /// Deploy apps, look at them, change and delete them
    #[command(subcommand)]
    App(app::AppCommand),
    /// Look at the names and addresses that stand in front of apps
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Say by rules who may speak to whom
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Show who speaks to whom, what was refused, and why
    Flows(flows::FlowsArgs),
    /// Follow a packet through the network, check that all of it works, and count what was dropped
    #[command(subcommand)]
    Net(net::NetCommand),
    /// Make, list, label and delete namespaces
    #[command(subcommand)]
    Namespace(namespace::NamespaceCommand),
    /// Make, list and delete volumes
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// List and import images
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Look at the machines, let them join, drain and remove them
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Look at the cluster as a whole
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Ask where replicas go, and why
    #[command(subcommand)]
    Scheduler(scheduler::SchedulerCommand),
    /// Make, list and revoke what lets in those who do not come over the socket
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Keep daemons elsewhere under names, and choose which one is meant
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// Open the dashboard in the browser
    Ui(ui::UiArgs),
    /// Show how the daemon and its machine are
    Status(status::StatusArgs),
    /// Check whether this machine has what Hivemind needs, and how to get it
    Doctor(doctor::DoctorArgs),
    /// Print a script that completes commands in your shell
    Completions(completions::CompletionsArgs),
}

/// An object's name: as it stands, or after --name.
#[derive(Args, Clone, Debug)]
pub(crate) struct NameArgs {
    /// Its name, or its id
    #[arg(value_name = "NAME", required_unless_present = "name_flag")]
    positional: Option<String>,
    /// Its name, or its id; the same as NAME
    #[arg(id = "name_flag", long = "name", value_name = "NAME", conflicts_with = "positional")]
    flag: Option<String>,
}

impl NameArgs {
    /// The name that was given.
    pub(crate) fn get(&self) -> &str {
        self.flag.as_deref().or(self.positional.as_deref()).unwrap_or_default()
    }
}

/// Names of several objects.
#[derive(Args, Clone, Debug)]
pub(crate) struct NamesArgs {
    /// Their names, or their ids
    #[arg(value_name = "NAME", required_unless_present = "name_flag")]
    positional: Vec<String>,
    /// The same as NAME; may be repeated
    #[arg(id = "name_flag", long = "name", value_name = "NAME")]
    flag: Vec<String>,
}

impl NamesArgs {
    /// The names that were given, each once.
    pub(crate) fn get(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for name in self.positional.iter().chain(&self.flag) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }
}

/// Runs a command to its end. `program` is the whole command line, for the completions.
pub(crate) fn run(command: Command, global: GlobalArgs, program: clap::Command) -> ExitCode {
    let as_json = command.format() == Format::Json;
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(command.run(global, program));
            // A file or terminal that is still being read must not keep the program from ending.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(fault(
            ErrorCode::Internal,
            format!("the program cannot wait for input: {error}"),
            "free file descriptors",
        )),
    };
    outcome.unwrap_or_else(|failure| fault::report_failure(&failure, as_json))
}

impl Command {
    async fn run(self, global: GlobalArgs, program: clap::Command) -> Outcome {
        let command = match self {
            Command::Completions(args) => return args.run(program),
            Command::Explain(args) => return args.run(),
            Command::Config(args) => return compose::config::run(&args).map(|()| ExitCode::SUCCESS),
            Command::Doctor(args) => return args.run(&Session::local(global)).await,
            Command::Context(command) => return command.run(&global).await,
            other => other,
        };
        let session = Session::new(global)?;
        match command {
            Command::Up(args) => compose::up::run(&session, &args).await.map(|()| ExitCode::SUCCESS),
            Command::Down(args) => compose::down::run(&session, &args).await.map(|()| ExitCode::SUCCESS),
            Command::Ps(args) => compose::services::ps(&session, &args).await.map(|()| ExitCode::SUCCESS),
            Command::Logs(args) => compose::services::logs(&session, &args).await.map(|()| ExitCode::SUCCESS),
            Command::Exec(args) => compose::services::exec(&session, &args).await,
            Command::Restart(args) => compose::services::restart(&session, &args).await,
            Command::Apply(args) => manifests::apply::run(&session, &args).await.map(|()| ExitCode::SUCCESS),
            Command::Plan(args) => manifests::preview(&session, &args).await,
            Command::Diff(args) => manifests::diff::run(&session, &args).await,
            Command::Delete(args) => {
                manifests::delete::run(&session, &args).await.map(|()| ExitCode::SUCCESS)
            }
            Command::App(command) => command.run(&session).await,
            Command::Service(command) => command.run(&session).await,
            Command::Policy(command) => command.run(&session).await,
            Command::Flows(args) => args.run(&session).await,
            Command::Net(command) => command.run(&session).await,
            Command::Namespace(command) => command.run(&session).await,
            Command::Volume(command) => command.run(&session).await,
            Command::Image(command) => command.run(&session).await,
            Command::Node(command) => command.run(&session).await,
            Command::Cluster(command) => command.run(&session).await,
            Command::Scheduler(command) => command.run(&session).await,
            Command::Token(command) => command.run(&session).await,
            Command::Ui(args) => args.run(&session).await,
            Command::Status(args) => args.run(&session).await,
            Command::Completions(_)
            | Command::Doctor(_)
            | Command::Context(_)
            | Command::Config(_)
            | Command::Explain(_) => Ok(ExitCode::SUCCESS),
        }
    }

    /// How the command prints its result; decides how it prints an error.
    fn format(&self) -> Format {
        match self {
            Command::Up(args) => args.output.format,
            Command::Ps(args) => args.output.format,
            Command::Logs(args) => args.output.format,
            Command::Down(_) | Command::Exec(_) | Command::Restart(_) | Command::Config(_) => Format::Table,
            Command::Apply(args) => args.output.format,
            Command::Plan(args) => args.output.format,
            Command::Explain(args) => args.output.format,
            Command::Diff(_) | Command::Delete(_) => Format::Table,
            Command::App(command) => command.format(),
            Command::Service(command) => command.format(),
            Command::Policy(command) => command.format(),
            Command::Flows(args) => args.error_format(),
            Command::Net(command) => command.format(),
            Command::Namespace(command) => command.format(),
            Command::Volume(command) => command.format(),
            Command::Image(command) => command.format(),
            Command::Node(command) => command.format(),
            Command::Cluster(command) => command.format(),
            Command::Scheduler(command) => command.format(),
            Command::Token(command) => command.format(),
            Command::Context(command) => command.format(),
            Command::Ui(_) => Format::Table,
            Command::Status(args) => args.output.format,
            Command::Doctor(args) => args.output.format,
            Command::Completions(_) => Format::Table,
        }
    }
}
