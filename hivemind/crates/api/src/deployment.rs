//! What happens to an app, or a service without one, when it is made or changed by a request.

use hivemind_model::{
    ApiError, App, AppStatus, ErrorCode, ErrorKind, Metadata, Namespace, NamespaceSpec, Port, Problem,
    Problems, Service, ServiceSpec, ServiceStatus,
};
use hivemind_store::{Changes, Objects};
use jiff::Timestamp;

use crate::{
    addresses::{ServiceAddresses, ServiceRanges, choose_addresses},
    api::ApiConfig,
};

/// How often the making of an app is tried again because another one took the addresses that were chosen. At each try
/// one of the contenders gets through.
const TRIES_MAX: usize = 64;

/// The most hostnames and ports of one app together: they are claimed in one transaction with the app and its service.
const CLAIMS_MAX: usize = 100;

/// Makes an app, the claims of its hostnames and ports, its service, and its namespace if that is not there, all in one transaction; only checks it with
/// `dry_run`.
///
/// # Errors
/// All faults of the app at once; all ports that another program has (`PortTaken`) at once; all conflicts at once:
/// `AppExists`, `Deleting`, `ServiceNameTaken`, `PortPublished`; `AddressesExhausted`; those of the store.
pub(crate) async fn create(config: &ApiConfig, mut app: App, dry_run: bool) -> Result<App, ApiError> {
    app.status = AppStatus::default();
    app.normalize();
    check(config, &app).await?;
    check_ports(config, &app, &[]).await?;
    for _ in 0..TRIES_MAX {
        let mut changes = Changes::new();
        changes.create(&mut app)?;
        provide_namespaces(&config.objects, [app.metadata.namespace.as_str()], &mut changes).await?;
        let mut service = service(&config.objects, &config.service_ranges, &app).await?;
        changes.create(&mut service)?;
        let done = if dry_run {
            config.objects.check(changes).await.map(|()| 0)
        } else {
            config.objects.transact(changes).await
        };
        match done {
            Ok(revision) => {
                app.metadata.resource_version = revision;
                return Ok(app);
            }
            Err(error) if error.code == ErrorCode::Stale => {}
            Err(error) => return Err(error),
        }
    }
    let what = "others took the service addresses that were free, again and again";
    Err(ApiError::new(ErrorCode::Stale, what, "try again"))
}

/// Makes those of `namespaces` that are not there, with `changes`.
pub(crate) async fn provide_namespaces<'a>(
    objects: &Objects,
    namespaces: impl IntoIterator<Item = &'a str>,
    changes: &mut Changes,
) -> Result<(), ApiError> {
    for name in namespaces {
        match objects.get::<Namespace>("", name).await {
            Err(error) if error.code == ErrorCode::NamespaceNotFound => {
                changes.provide(&mut Namespace::new(name))?;
            }
            other => drop(other?),
        }
    }
    Ok(())
}

/// Asks the node whether the ports of an app can be published, save for those that it has already; faults are told at their place
/// in the app.
async fn check_ports(config: &ApiConfig, app: &App, has: &[Port]) -> Result<(), ApiError> {
    let is_had =
        |port: &Port| has.iter().any(|h| (h.host_port, h.protocol) == (port.host_port, port.protocol));
    let mut problems = Problems::default();
    for (i, container) in app.spec.template.containers.iter().enumerate() {
        for (j, port) in container.ports.iter().enumerate().filter(|(_, port)| !is_had(port)) {
            if let Err(error) = config.node.check_ports(std::slice::from_ref(port)).await {
                let field = format!("spec.template.containers[{i}].ports[{j}]");
                for Problem { code, message, hint, .. } in every(error) {
                    problems.add(code, field.clone(), message, hint);
                }
            }
        }
    }
    problems.into_result()
}

/// The service of an app that is being made.
async fn service(objects: &Objects, ranges: &ServiceRanges, app: &App) -> Result<Service, ApiError> {
    let Metadata { namespace, name, .. } = &app.metadata;
    let mut metadata = Metadata::new(namespace.clone(), name.clone());
    metadata.labels = app.metadata.labels.clone();
    let mut spec = app.service_spec(ServiceSpec::default());
    if !app.spec.service.headless {
        let existing = objects.list::<Service>(None).await?.items;
        let others = existing.iter().map(|service| &service.spec);
        let ServiceAddresses { number, ipv4, ipv6 } = choose_addresses(ranges, namespace, name, others)?;
        spec = ServiceSpec { number, ipv4: Some(ipv4), ipv6: Some(ipv6), ..spec };
    }
    Ok(Service { metadata, spec, status: ServiceStatus::default() })
}

/// Everything that can be said of an app without looking at others: what is wrong with it by itself, and what its namespace does not
/// permit.
async fn check(config: &ApiConfig, app: &App) -> Result<(), ApiError> {
    let mut problems = Problems::default();
    let name = &app.metadata.namespace;
    let permitted = match config.objects.get::<Namespace>("", name).await {
        Ok(namespace) => namespace.spec,
        Err(error) if error.code.kind() == ErrorKind::NotFound || error.code == ErrorCode::InvalidName => {
            NamespaceSpec::default()
        }
        Err(error) => return Err(error),
    };
    permitted.check_template(name, "spec.template", &app.spec.template, &mut problems);
    if let Err(error) = app.validate() {
        for Problem { code, field, message, hint } in every(error) {
            problems.add(code, field, message, hint);
        }
    }
    check_hostnames(&app.spec.hostnames, &config.cluster_domain, &mut problems);
    let claims = app.spec.hostnames.len() + app.published().count();
    if claims > CLAIMS_MAX {
        problems.add(
            ErrorCode::OutOfRange,
            "spec",
            format!("{claims} hostnames and ports are too many"),
            format!("an app may have {CLAIMS_MAX} hostnames and published ports together"),
        );
    }
    problems.into_result()
}

/// Refuses names in the cluster's own domain.
fn check_hostnames(hostnames: &[String], cluster_domain: &str, problems: &mut Problems) {
    let suffix = format!(".{cluster_domain}");
    for (i, hostname) in hostnames.iter().enumerate() {
        if hostname == cluster_domain || hostname.ends_with(&suffix) {
            problems.add(
                ErrorCode::InvalidName,
                format!("spec.hostnames[{i}]"),
                format!("{hostname:?} lies in the cluster's own domain"),
                format!(
                    "names below {cluster_domain} come by themselves: choose another, for example web.local"
                ),
            );
        }
    }
}

/// Makes a service for a name outside, the claims of its hostnames, and its namespace if that is not there, all in one
/// transaction; only checks it with `dry_run`.
///
/// # Errors
/// All faults of the service at once; all conflicts at once: `ServiceNameTaken`; those of the store.
pub(crate) async fn create_service(
    config: &ApiConfig,
    mut service: Service,
    dry_run: bool,
) -> Result<Service, ApiError> {
    service.status = ServiceStatus::default();
    service.normalize();
    let mut problems = Problems::default();
    if let Err(error) = service.validate() {
        for Problem { code, field, message, hint } in every(error) {
            problems.add(code, field, message, hint);
        }
    }
    check_hostnames(&service.spec.hostnames, &config.cluster_domain, &mut problems);
    let names = service.spec.hostnames.len();
    if names > CLAIMS_MAX {
        problems.add(
            ErrorCode::OutOfRange,
            "spec.hostnames",
            format!("{names} hostnames are too many"),
            format!("a service may have {CLAIMS_MAX}"),
        );
    }
    let own =
        format!("{}.{}.svc.{}", service.metadata.name, service.metadata.namespace, config.cluster_domain);
    if let Some(name) = &service.spec.external_name
        && (*name == own || service.spec.hostnames.contains(name))
    {
        problems.add(
            ErrorCode::InvalidName,
            "spec.externalName",
            format!("{name:?} would stand for itself"),
            "give a name that is not the service's own",
        );
    }
    problems.into_result()?;
    for _ in 0..TRIES_MAX {
        let mut changes = Changes::new();
        changes.create(&mut service)?;
        let namespace = service.metadata.namespace.clone();
        provide_namespaces(&config.objects, [namespace.as_str()], &mut changes).await?;
        let done = if dry_run {
            config.objects.check(changes).await.map(|()| 0)
        } else {
            config.objects.transact(changes).await
        };
        match done {
            Ok(revision) => {
                service.metadata.resource_version = revision;
                return Ok(service);
            }
            Err(error) if error.code == ErrorCode::Stale => {}
            Err(error) => return Err(error),
        }
    }
    Err(ApiError::new(ErrorCode::Stale, "others were quicker, again and again", "try again"))
}

/// All faults that an error tells.
fn every(error: ApiError) -> Vec<Problem> {
    if !error.problems.is_empty() {
        return error.problems;
    }
    let field = error.field.unwrap_or_default();
    vec![Problem { code: error.code, field, message: error.message, hint: error.hint }]
}

/// Puts what `wanted` says in the place of what `app` is: labels, annotations and spec.
///
/// # Errors
/// All faults at once; `Deleting`; `Unsupported` if it differs in whether it is headless; all ports that it did not publish before
/// and that another program has (`PortTaken`) at once.
pub(crate) async fn replace(config: &ApiConfig, app: &mut App, wanted: App) -> Result<(), ApiError> {
    refuse_deleting(app)?;
    let before: Vec<Port> = app.published().cloned().collect();
    let was_headless = app.spec.service.headless;
    app.metadata.labels = wanted.metadata.labels;
    app.metadata.annotations = wanted.metadata.annotations;
    app.spec = wanted.spec;
    app.normalize();
    check(config, app).await?;
    let mut problems = Problems::default();
    if was_headless != app.spec.service.headless {
        let field = "spec.service.headless";
        let what = "whether it has addresses cannot be changed";
        problems.add(ErrorCode::Unsupported, field, what, "delete the app and deploy it anew");
    }
    problems.into_result()?;
    check_ports(config, app, &before).await
}

/// Sets the number of replicas.
///
/// # Errors
/// `OutOfRange`, `Deleting`.
pub(crate) fn scale(app: &mut App, replicas: u32) -> Result<(), ApiError> {
    refuse_deleting(app)?;
    app.spec.replicas = replicas;
    app.validate()
}

/// Asks for new replicas in the place of all.
///
/// # Errors
/// `Deleting`.
pub(crate) fn restart(app: &mut App, now: Timestamp) -> Result<(), ApiError> {
    refuse_deleting(app)?;
    app.spec.template.restarted_at = Some(now);
    Ok(())
}

fn refuse_deleting(app: &App) -> Result<(), ApiError> {
    if !app.metadata.is_deleting() {
        return Ok(());
    }
    let what = format!("app {:?} is being deleted", app.metadata.name);
    Err(ApiError::new(ErrorCode::Deleting, what, "wait until it is gone, then deploy it anew"))
}
