//! `policy apply`: all policies of some files, or none of them.

use std::path::PathBuf;

use clap::Args;
use hivemind_manifest::{Fault, Manifests, PolicyDocument};
use hivemind_model::{
    ApiError, AppliedPolicies, AppliedPolicy, ApplyPolicies, ErrorCode, NetworkPolicy, Problem, Problems,
};
use jiff::Timestamp;

use super::enforced;
use crate::cli::{
    Session,
    app::timeout,
    fault::{Colours, Failure, fault},
    manifests,
    output::{self, Format, FormatArgs, note},
    place,
};

/// Flags of `policy apply`.
#[derive(Args, Debug)]
#[command(
    after_help = "The files are YAML or JSON with documents of NetworkPolicy (networking.k8s.io/v1) and ClusterNetworkPolicy \
(policy.networking.k8s.io/v1beta1 or v1alpha2), as Kubernetes has them, of Policy (hivemind/v1), and Lists of these; at most 1,000. \
Every fault of every file is told with its line and column, and then nothing is applied. What is unusual but \
possible, such as a policy that cuts apps off from DNS, is told as a warning. The node's own processes, health \
probes among them, always reach replicas.

Examples:
  hivemind policy apply -f rules.yaml
  hivemind policy apply -f rules.yaml --dry-run         check, and show what would change
  hivemind policy apply -f policies/ -n shop            all .yaml, .yml and .json files of a folder
  kubectl get networkpolicy -o yaml | hivemind policy apply -f -

Exit codes: 0 in force, 2 a fault in a file, 6 the data path cannot take it, 7 no daemon, 8 not in force in time."
)]
pub(crate) struct ApplyArgs {
    /// A file, a folder, or - for the standard input; may be repeated
    #[arg(long = "file", visible_alias = "filename", short = 'f', value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Check it all, with what the daemon knows, but change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until the policies are in force
    #[arg(long)]
    no_wait: bool,
    /// How long to wait until they are in force
    #[arg(long, value_name = "TIME", default_value = "30s", allow_hyphen_values = true)]
    timeout: String,
    #[command(flatten)]
    pub(crate) output: FormatArgs,
}

pub(crate) async fn run(session: &Session, args: &ApplyArgs) -> Result<(), Failure> {
    let limit = timeout(&args.timeout).map_err(|problem| Failure::from(error_of(problem)))?;
    let documents = read(session, &args.files)?;
    let wanted = ApplyPolicies { items: documents.iter().map(|document| document.policy.clone()).collect() };
    let sent = if args.dry_run {
        session.client.try_policies(&wanted).await
    } else {
        session.client.apply_policies(&wanted).await
    };
    let mut applied = sent.map_err(|error| at_places(error, &documents))?;
    warn(&applied, &documents, args.output.format);
    let waited = match args.dry_run || args.no_wait {
        true => Ok(()),
        false => enforced::wait(session, &mut applied, limit).await,
    };
    output::print(&told(&applied, args)?)?;
    waited
}

/// The documents of all files; all faults of all of them at once.
pub(super) fn read(session: &Session, names: &[PathBuf]) -> Result<Vec<PolicyDocument>, Failure> {
    let (Manifests { policies, .. }, files) = manifests::read_by(hivemind_manifest::read, session, names)?;
    if policies.is_empty() {
        return Err(fault(
            ErrorCode::Malformed,
            format!("{}: there is no policy to apply", files.join(", ")),
            "write documents of kind NetworkPolicy, ClusterNetworkPolicy or Policy: see hivemind policy apply --help",
        ));
    }
    Ok(policies)
}

/// What the engine of policies finds wrong.
pub(crate) fn check(policy: &NetworkPolicy) -> Vec<Problem> {
    let mut problems = Problems::default();
    hivemind_policy::check("", policy, &mut problems);
    problems.into_result().err().map(ApiError::into_problems).unwrap_or_default()
}

fn error_of(Problem { code, field, message, hint }: Problem) -> ApiError {
    ApiError::new(code, message, hint).at(field)
}

/// The daemon's error at the places of the files, if all of it is about documents.
pub(crate) fn at_places(error: ApiError, documents: &[PolicyDocument]) -> Failure {
    let place = |problem: &Problem| {
        let (index, field) = item(&problem.field)?;
        Some(documents.get(index)?.fault(Problem { field: field.to_owned(), ..problem.clone() }))
    };
    let faults: Option<Vec<Fault>> = error.clone().into_problems().iter().map(place).collect();
    faults.map_or_else(|| error.into(), Failure::from)
}

/// The index and the rest of `items[3].spec.ingress`.
fn item(field: &str) -> Option<(usize, &str)> {
    let (index, rest) = field.strip_prefix("items[")?.split_once(']')?;
    Some((index.parse().ok()?, rest.strip_prefix('.').unwrap_or(rest)))
}

/// Tells warnings on standard error; programs find them in the result.
pub(crate) fn warn(applied: &AppliedPolicies, documents: &[PolicyDocument], format: Format) {
    if format.is_for_programs() && format != Format::Name {
        return;
    }
    let colours = Colours::for_stderr();
    for (index, AppliedPolicy { warnings, .. }) in applied.items.iter().enumerate() {
        for warning in warnings {
            let field = item(&warning.field).map_or(warning.field.as_str(), |(_, field)| field).to_owned();
            let Some(document) = documents.get(index) else { continue };
            let warning = document.fault(Problem { field, ..warning.clone() });
            note(place::render(&warning, "warning", "1;33", colours).trim_end());
        }
    }
}

fn told(applied: &AppliedPolicies, args: &ApplyArgs) -> Result<String, Failure> {
    match args.output.format {
        Format::Json => output::json(applied),
        Format::Yaml => output::yaml(applied),
        Format::Name => Ok(applied.items.iter().map(|item| output::name_line(&item.policy)).collect()),
        Format::Table | Format::Wide => {
            Ok(applied.items.iter().map(|item| line(item, args.dry_run)).collect())
        }
    }
}

pub(crate) fn line(item: &AppliedPolicy, dry_run: bool) -> String {
    let NetworkPolicy { metadata, status, .. } = &item.policy;
    let done = manifests::done(item.action, dry_run);
    let place = match item.policy.spec.kind().is_cluster_wide() {
        true => " for the whole cluster".to_owned(),
        false => manifests::place(&metadata.namespace),
    };
    let state = match dry_run {
        true => String::new(),
        false if item.policy.spec.has_ended(Timestamp::now()) => ", has ended".to_owned(),
        false if enforced::is(&item.policy) => match status.replicas {
            0 => ", in force, selects no replica yet".to_owned(),
            1 => ", in force for 1 replica".to_owned(),
            count => format!(", in force for {count} replicas"),
        },
        false => ", not in force yet".to_owned(),
    };
    format!("policy/{} {done}{place}{state}\n", metadata.name)
}

#[cfg(test)]
mod tests {
    use hivemind_manifest::{Options, Source};
    use hivemind_model::{ApplyAction, Metadata, NetworkPolicyStatus, PolicySpec};

    use super::*;

    fn applied(namespace: &str, action: ApplyAction, enforced: u64, replicas: u32) -> AppliedPolicy {
        let mut metadata = Metadata::new(namespace, "web");
        metadata.generation = 2;
        let status =
            NetworkPolicyStatus { enforced_generation: enforced, replicas, ..NetworkPolicyStatus::default() };
        let policy = NetworkPolicy { metadata, spec: PolicySpec::default(), status };
        AppliedPolicy { action, policy, warnings: Vec::new() }
    }

    #[test]
    fn what_was_done_is_told_in_a_line_each() {
        use ApplyAction::{Changed, Created, Unchanged};
        let until = Some(Timestamp::UNIX_EPOCH);
        let mut ended = applied("default", Unchanged, 2, 0);
        ended.policy.spec = hivemind_model::ExtendedPolicySpec { until, ..Default::default() }.into();
        for (item, dry_run, text) in [
            (applied("default", Created, 2, 3), false, "policy/web created, in force for 3 replicas\n"),
            (
                applied("shop", Changed, 1, 3),
                false,
                "policy/web changed in namespace shop, not in force yet\n",
            ),
            (
                applied("default", Unchanged, 2, 0),
                false,
                "policy/web unchanged, in force, selects no replica yet\n",
            ),
            (applied("default", Changed, 1, 3), true, "policy/web would be changed\n"),
            (ended, false, "policy/web unchanged, has ended\n"),
        ] {
            assert_eq!(line(&item, dry_run), text);
        }
    }

    #[test]
    fn what_the_daemon_finds_is_told_at_its_line_if_it_is_in_a_file() {
        let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {podSelector: {}}\n";
        let options = Options { namespace: "default", only_this_namespace: false };
        let read = hivemind_manifest::read(&[Source::new("r.yaml", text.into())], options, &check);
        let error =
            ApiError::new(ErrorCode::Deleting, "it is being deleted", "wait").at("items[0].metadata.name");
        let Failure::Told(told) = at_places(error, &read.policies) else { panic!() };
        assert_eq!(told.error.field.as_deref(), Some("r.yaml:3:18"));
        let error = ApiError::new(ErrorCode::StoreFailed, "the store failed", "see");
        let Failure::Told(told) = at_places(error.clone(), &read.policies) else { panic!() };
        assert_eq!((told.error, told.faults.len()), (error, 0));
    }
}
