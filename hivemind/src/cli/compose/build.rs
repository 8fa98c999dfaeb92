//! Images that a project builds before it comes up: by docker or buildah, whichever the machine has.
//!
//! What is built is handed to the daemon as an archive. Nothing is built here.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
};

use hivemind_compose::{
    Build, Context, Fault, HostAddress, Limit, Located, Plan, PlannedBuild, Project, Spot,
};
use hivemind_model::{ErrorCode, ImageReference};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::cli::{
    Session,
    fault::{Failure, fault},
    output::note,
};

/// A program that builds images.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Builder {
    Docker(PathBuf),
    Buildah(PathBuf),
}

/// What is to be built, in which form a builder takes it.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    arguments: Vec<OsString>,
    /// A Dockerfile that is in the project's file itself.
    dockerfile: Option<String>,
}

/// Images that have to be built: those that the daemon does not have, or all if `all`.
///
/// # Errors
/// All that no builder can be asked for, at its place; that there is no builder.
pub(super) async fn missing<'p>(
    session: &Session,
    project: &Project,
    plan: &'p Plan,
    all: bool,
) -> Result<Vec<&'p PlannedBuild>, Failure> {
    if plan.builds.is_empty() {
        return Ok(Vec::new());
    }
    let there = session.client.images().await?;
    let there: BTreeSet<String> = there.into_iter().map(|image| image.reference).collect();
    let is_there = |image: &str| {
        image.parse::<ImageReference>().is_ok_and(|reference| there.contains(&reference.to_string()))
    };
    let missing: Vec<_> = plan.builds.values().filter(|planned| all || !is_there(&planned.image)).collect();
    let mut faults: Vec<Fault> =
        missing.iter().flat_map(|planned| refused(project, &planned.build)).collect();
    if !missing.is_empty() && builder().is_none() {
        faults.extend(missing.iter().map(|planned| {
            let hint = format!(
                "install one: apt install buildah; or build {0} elsewhere and bring it: docker save {0} | hivemind image import -",
                planned.image
            );
            let message = "this machine has neither docker nor buildah to build images with".to_owned();
            project.sources.fault(&planned.build.spot.of_key(), ErrorCode::Unsupported, message, hint)
        }));
    }
    if faults.is_empty() { Ok(missing) } else { Err(faults.into()) }
}

/// Builds images one after the other, and brings them to the daemon.
pub(super) async fn build(session: &Session, missing: &[&PlannedBuild]) -> Result<(), Failure> {
    let Some(builder) = builder() else { return Ok(()) };
    for planned in missing {
        note(&format!("building {}", planned.image));
        run(&builder, &order(&planned.image, &planned.build)).await?;
        bring(session, &builder, &planned.image).await?;
    }
    Ok(())
}

/// The first builder of the PATH; docker before buildah, since its cache is likely to have earlier builds of the project.
fn builder() -> Option<Builder> {
    let path = std::env::var_os("PATH")?;
    let find = |name: &str| std::env::split_paths(&path).map(|d| d.join(name)).find(|file| is_program(file));
    find("docker").map(Builder::Docker).or_else(|| find("buildah").map(Builder::Buildah))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// What of a build cannot be asked for in a way that both builders take.
fn refused(project: &Project, build: &Build) -> Vec<Fault> {
    let remote = |context: &Located<Context>| {
        matches!(context.value, Context::Remote(_)).then(|| context.spot.clone())
    };
    let said = [
        (build.context.as_ref().and_then(remote), "a context that is not a directory of this machine"),
        (build.secrets.first().map(|grant| grant.spot.clone()), "secrets of a build"),
        (build.ssh.0.values().next().map(|key| key.spot.clone()), "keys of a build"),
        (first(&build.entitlements), "entitlements of a build"),
        (build.privileged.as_ref().filter(|p| p.value).map(|p| p.spot.clone()), "a privileged build"),
        (build.isolation.as_ref().map(|isolation| isolation.spot.clone()), "isolation of a build"),
    ];
    let fault = |(spot, what): (Option<Spot>, &str)| {
        let message = format!("{what} cannot be handed on");
        let hint = "build the image by hand, name it as image: and leave build: out";
        Some(project.sources.fault(&spot?.of_key(), ErrorCode::Unsupported, message, hint))
    };
    said.into_iter().filter_map(fault).collect()
}

fn first(list: &[Located<String>]) -> Option<Spot> {
    list.first().map(|item| item.spot.clone())
}

/// The words of `docker build` and `buildah build`, which are the same.
fn order(image: &str, build: &Build) -> Order {
    let mut words: Vec<OsString> = Vec::new();
    let mut add = |flag: &str, value: OsString| words.extend([OsString::from(flag), value]);
    add("--tag", image.into());
    for tag in &build.tags {
        add("--tag", tag.value.clone().into());
    }
    let context = match build.context.as_ref().map(|context| &context.value) {
        Some(Context::Directory(path)) => path.clone(),
        // Refused before.
        Some(Context::Remote(_)) | None => PathBuf::from("."),
    };
    match (&build.dockerfile_inline, &build.dockerfile) {
        (Some(_), _) => add("--file", "-".into()),
        (None, Some(file)) => add("--file", context.join(&file.value).into()),
        (None, None) => {}
    }
    for (name, value) in build.args.iter() {
        add("--build-arg", format!("{name}={}", value.value.0).into());
    }
    for (name, value) in build.labels.iter() {
        add("--label", format!("{name}={}", value.value.0).into());
    }
    if let Some(target) = &build.target {
        add("--target", target.value.clone().into());
    }
    for platform in &build.platforms {
        add("--platform", platform.value.clone().into());
    }
    for (name, context) in &build.additional_contexts.0 {
        let place = match &context.value {
            Context::Directory(path) => path.display().to_string(),
            Context::Remote(text) => text.clone(),
        };
        add("--build-context", format!("{name}={place}").into());
    }
    for from in &build.cache_from {
        add("--cache-from", from.value.clone().into());
    }
    for to in &build.cache_to {
        add("--cache-to", to.value.clone().into());
    }
    if let Some(network) = &build.network {
        add("--network", network.value.clone().into());
    }
    for host in build.extra_hosts.iter() {
        let address = match host.address {
            HostAddress::Ip(address) => address.to_string(),
            HostAddress::Gateway => "host-gateway".to_owned(),
        };
        add("--add-host", format!("{}:{address}", host.name).into());
    }
    if let Some(size) = &build.shm_size {
        add("--shm-size", size.value.0.to_string().into());
    }
    for (name, ulimit) in &build.ulimits {
        let text = |limit: hivemind_compose::Amount| match limit {
            Limit::Most(number) => (*number).to_string(),
            Limit::Unlimited => "-1".to_owned(),
        };
        add("--ulimit", format!("{name}={}:{}", text(ulimit.soft), text(ulimit.hard)).into());
    }
    if build.no_cache.as_ref().is_some_and(|no_cache| no_cache.value) {
        words.push("--no-cache".into());
    }
    if build.pull.as_ref().is_some_and(|pull| pull.value) {
        words.push("--pull".into());
    }
    words.push(context.into());
    Order { arguments: words, dockerfile: build.dockerfile_inline.as_ref().map(|text| text.value.clone()) }
}

async fn run(builder: &Builder, order: &Order) -> Result<(), Failure> {
    let (Builder::Docker(program) | Builder::Buildah(program)) = builder;
    let mut command = Command::new(program);
    command.arg("build").args(&order.arguments).stdout(std::io::stderr());
    command.stdin(if order.dockerfile.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().map_err(|error| not_run(program, &error.to_string()))?;
    if let (Some(text), Some(mut stdin)) = (&order.dockerfile, child.stdin.take()) {
        // One that ends without reading tells why by its code.
        let _ = stdin.write_all(text.as_bytes()).await;
    }
    ended(program, child.wait().await)
}

/// Hands the image to the daemon.
async fn bring(session: &Session, builder: &Builder, image: &str) -> Result<(), Failure> {
    match builder {
        Builder::Docker(program) => {
            let mut command = Command::new(program);
            command.args(["save", image]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
            let mut child = command.spawn().map_err(|error| not_run(program, &error.to_string()))?;
            let Some(archive) = child.stdout.take() else { return Err(not_run(program, "it has no output")) };
            let imported = session.client.import(archive).await;
            ended(program, child.wait().await)?;
            imported?;
        }
        Builder::Buildah(program) => {
            let directory = tempfile::tempdir()?;
            let archive = directory.path().join("image.tar");
            let to = format!("docker-archive:{}:{image}", archive.display());
            let mut command = Command::new(program);
            command.args(["push", image, &to]).stdin(Stdio::null()).stdout(std::io::stderr());
            ended(program, command.status().await)?;
            session.client.import(tokio::fs::File::open(&archive).await?).await?;
        }
    }
    Ok(())
}

fn not_run(program: &Path, why: &str) -> Failure {
    let message = format!("{} cannot be run: {why}", program.display());
    fault(ErrorCode::CommandFailed, message, "see whether it works by itself")
}

fn ended(program: &Path, status: std::io::Result<std::process::ExitStatus>) -> Result<(), Failure> {
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let message = format!("{} did not build the image: {status}", program.display());
            Err(fault(ErrorCode::CommandFailed, message, "it says why above"))
        }
        Err(error) => Err(not_run(program, &error.to_string())),
    }
}
