//! `namespace`: what names are unique within, and what policies select by labels.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use hivemind_model::{ErrorCode, NAMESPACE_NAME_LABEL, Namespace, NamespaceSpec, Problems, check_name};
use jiff::Timestamp;

use super::{
    NameArgs, NamesArgs, Session,
    fault::{Failure, Outcome, fault},
    labels,
    output::{self, Format, FormatArgs, ListArgs, Row},
    units::age,
};

/// Commands on namespaces.
#[derive(Subcommand, Debug)]
pub(crate) enum NamespaceCommand {
    /// Make a namespace; an app that is deployed into one that does not exist makes it too
    #[command(after_help = "Examples:
  hivemind namespace create shop
  hivemind namespace create shop --label team=front")]
    Create(CreateArgs),
    /// List the namespaces
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Set and remove labels of a namespace, by which policies select it
    #[command(after_help = "KEY=VALUE sets a label, KEY- removes it. All of it is done, or nothing.

Examples:
  hivemind namespace label shop team=front
  hivemind namespace label shop team- stage=test")]
    Label(LabelArgs),
    /// Say what the apps of a namespace may besides what all may; it is made if it is not there
    #[command(
        after_help = "Each of these lets a container reach beyond itself. What runs goes on with what it has when a permission is \
taken away.

Examples:
  hivemind namespace permit shop --host-path /srv/shop
  hivemind namespace permit vpn --capability NET_ADMIN
  hivemind namespace permit shop --host-path /srv/shop --revoke"
    )]
    Permit(PermitArgs),
    /// Delete namespaces in which nothing is
    #[command(visible_alias = "rm")]
    Delete(NamesArgs),
}

/// Flags of `namespace create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    name: NameArgs,
    /// A label; may be repeated
    #[arg(long = "label", short = 'l', value_name = "KEY=VALUE")]
    labels: Vec<String>,
    #[command(flatten)]
    permissions: PermissionArgs,
    #[command(flatten)]
    output: FormatArgs,
}

/// What apps may.
#[derive(Args, Debug)]
pub(crate) struct PermissionArgs {
    /// A path of nodes that containers may mount, with all below it; may be repeated
    #[arg(long = "host-path", value_name = "/PATH")]
    host_paths: Vec<String>,
    /// A capability that containers may have besides the usual ones, or ALL; may be repeated
    #[arg(long = "capability", value_name = "CAPABILITY")]
    capabilities: Vec<String>,
    /// Containers may run privileged: as root of the node, in all but name
    #[arg(long)]
    privileged: bool,
}

/// Flags of `namespace permit`.
#[derive(Args, Debug)]
pub(crate) struct PermitArgs {
    /// The namespace
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    permissions: PermissionArgs,
    /// Take the permissions away
    #[arg(long)]
    revoke: bool,
    #[command(flatten)]
    output: FormatArgs,
}

/// Flags of `namespace label`.
#[derive(Args, Debug)]
pub(crate) struct LabelArgs {
    /// The namespace
    #[arg(value_name = "NAME")]
    name: String,
    /// Labels to set and to remove
    #[arg(value_name = "KEY=VALUE|KEY-", required = true)]
    changes: Vec<String>,
    #[command(flatten)]
    output: FormatArgs,
}

impl NamespaceCommand {
    pub(crate) fn format(&self) -> Format {
        match self {
            NamespaceCommand::Create(args) => args.output.format,
            NamespaceCommand::Ls(args) => args.output.format,
            NamespaceCommand::Label(args) => args.output.format,
            NamespaceCommand::Permit(args) => args.output.format,
            NamespaceCommand::Delete(_) => Format::Table,
        }
    }

    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        match self {
            NamespaceCommand::Create(args) => create(session, args).await?,
            NamespaceCommand::Ls(args) => session.print_list::<Namespace>(*args).await?,
            NamespaceCommand::Label(args) => label(session, args).await?,
            NamespaceCommand::Permit(args) => permit(session, args).await?,
            NamespaceCommand::Delete(names) => {
                for namespace in session.find_all::<Namespace>(None, &names.get()).await? {
                    let name = &namespace.metadata.name;
                    session.client.delete_namespace(name).await?;
                    output::print(&format!("namespace/{name} deleted\n"))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The label by which policies select a namespace by its name.
fn reserved(key: &str) -> Option<String> {
    (key == NAMESPACE_NAME_LABEL)
        .then(|| format!("the label {key} is always there, and is the namespace's name"))
}

async fn create(session: &Session, args: &CreateArgs) -> Result<(), Failure> {
    let name = args.name.get();
    let mut problems = Problems::default();
    check_name("--name", name, 63, &mut problems);
    let changes = labels::changes("--label", &args.labels, false, reserved, &mut problems);
    problems.into_result()?;
    let mut wanted = Namespace::new(name);
    wanted.metadata.labels.extend(changes.into_iter().filter_map(|(key, value)| Some((key, value?))));
    args.permissions.grant(&mut wanted.spec);
    let namespace = session.client.create_namespace(&wanted).await?;
    let told = || format!("namespace/{name} created\n");
    output::print(&output::object(&namespace, args.output.format, told)?)
}

impl PermissionArgs {
    fn grant(&self, spec: &mut NamespaceSpec) {
        let add = |list: &mut Vec<String>, more: &[String]| {
            for item in more.iter().filter(|item| !list.contains(item)).cloned().collect::<Vec<_>>() {
                list.push(item);
            }
        };
        add(&mut spec.host_paths, &self.host_paths);
        add(&mut spec.capabilities, &names_of(&self.capabilities));
        spec.privileged |= self.privileged;
    }

    fn revoke(&self, spec: &mut NamespaceSpec) {
        spec.host_paths.retain(|path| !self.host_paths.contains(path));
        spec.capabilities.retain(|name| !names_of(&self.capabilities).contains(name));
        spec.privileged &= !self.privileged;
    }

    fn is_empty(&self) -> bool {
        self.host_paths.is_empty() && self.capabilities.is_empty() && !self.privileged
    }
}

/// Capabilities as the server calls them.
fn names_of(capabilities: &[String]) -> Vec<String> {
    let name = |given: &String| given.to_ascii_uppercase().trim_start_matches("CAP_").to_owned();
    capabilities.iter().map(name).collect()
}

async fn permit(session: &Session, args: &PermitArgs) -> Result<(), Failure> {
    if args.permissions.is_empty() {
        return Err(fault(
            ErrorCode::OutOfRange,
            "nothing is said of what apps may",
            "give --host-path, --capability or --privileged",
        ));
    }
    let found = match session.find_all::<Namespace>(None, &[&args.name]).await {
        // The first app of a namespace may need a permission before there is a namespace.
        Err(Failure::Told(told)) if told.error.code == ErrorCode::NamespaceNotFound && !args.revoke => {
            vec![session.client.create_namespace(&Namespace::new(&args.name)).await?]
        }
        found => found?,
    };
    for mut namespace in found {
        let before = namespace.spec.clone();
        match args.revoke {
            true => args.permissions.revoke(&mut namespace.spec),
            false => args.permissions.grant(&mut namespace.spec),
        }
        if namespace.spec != before {
            namespace = session.client.replace_namespace(&namespace).await?;
        }
        let told = || {
            let may = permissions(&namespace.spec);
            let may = if may.is_empty() { "nothing besides what all may".to_owned() } else { may };
            format!("apps of namespace {} may have {may}\n", namespace.metadata.name)
        };
        output::print(&output::object(&namespace, args.output.format, told)?)?;
    }
    Ok(())
}

/// What apps may, in words.
fn permissions(spec: &NamespaceSpec) -> String {
    let mut parts: Vec<String> = spec.host_paths.iter().map(|path| format!("host path {path}")).collect();
    parts.extend(spec.capabilities.iter().cloned());
    parts.extend(spec.privileged.then(|| "privileged containers".to_owned()));
    parts.join(", ")
}

async fn label(session: &Session, args: &LabelArgs) -> Result<(), Failure> {
    let mut problems = Problems::default();
    let changes = labels::changes("", &args.changes, true, reserved, &mut problems);
    problems.into_result()?;
    let found = session.find_all::<Namespace>(None, &[&args.name]).await?;
    for mut namespace in found {
        let before = namespace.clone();
        labels::apply(&changes, &mut namespace.metadata.labels);
        let changed = namespace.metadata.labels != before.metadata.labels;
        if changed {
            namespace = session.client.replace_namespace(&namespace).await?;
        }
        let told = || {
            let done = if changed { "labelled" } else { "unchanged" };
            format!("namespace/{} {done}: {}\n", namespace.metadata.name, labels::text(namespace.labels()))
        };
        output::print(&output::object(&namespace, args.output.format, told)?)?;
    }
    Ok(())
}

impl Row for Namespace {
    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NAME", "LABELS", "AGE"];
        header.extend(wide.then_some(["PERMITS", "ID"]).into_iter().flatten());
        header
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let mut cells = vec![
            self.metadata.name.clone(),
            labels::text(self.labels()),
            age(self.metadata.creation_timestamp, now),
        ];
        if wide {
            cells.extend([permissions(&self.spec), self.metadata.id.clone()]);
        }
        cells
    }
}
