//! What applying manifests would do, checked by the daemon.

use std::collections::HashMap;

use hivemind_client::Selection;
use hivemind_manifest::{AppDocument, Fault, Manifests, NamespaceDocument, PolicyDocument, VolumeDocument};
use hivemind_model::{
    ApiError, App, AppliedPolicies, ApplyAction, ApplyPolicies, ErrorCode, ErrorKind, Namespace,
    NetworkPolicy, Node, Problem, Problems, Resource, ServicePort, Volume, template_hash,
};

use super::{claims, document::Document};
use crate::cli::{Session, fault::Failure, output::Format, policy};

/// What becomes of the objects of manifests, in the order in which they are applied.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) namespaces: Vec<Planned<Namespace>>,
    pub(crate) volumes: Vec<Planned<Volume>>,
    pub(crate) policies: Vec<Planned<NetworkPolicy>>,
    pub(crate) apps: Vec<Planned<App>>,
}

/// What becomes of one object.
#[derive(Debug)]
pub(crate) struct Planned<T> {
    pub(crate) action: ApplyAction,
    /// As it will be.
    pub(crate) object: T,
    /// As it is.
    pub(crate) there: Option<T>,
    /// Where its document begins.
    pub(crate) position: String,
}

impl<T> Planned<T> {
    fn new(object: T, there: Option<T>, is_same: impl Fn(&T, &T) -> bool, position: String) -> Self {
        let action = match &there {
            None => ApplyAction::Created,
            Some(there) if is_same(there, &object) => ApplyAction::Unchanged,
            Some(_) => ApplyAction::Changed,
        };
        Planned { action, object, there, position }
    }
}

impl Planned<App> {
    /// Whether the replicas that there are would make room for others.
    pub(crate) fn replaces_replicas(&self) -> bool {
        let hash =
            |app: &App| template_hash(&app.spec.template, &ServicePort::named(&app.spec.service.ports));
        self.there.as_ref().is_some_and(|there| hash(there) != hash(&self.object))
    }
}

impl Plan {
    /// Compares `read` with the cluster, and lets the daemon check all that would be made or changed.
    ///
    /// # Errors
    /// All faults that it finds, at their places; what keeps it from answering.
    pub(crate) async fn make(session: &Session, read: &Manifests, format: Format) -> Result<Self, Failure> {
        let mut faults = claims::faults(&read.apps);
        let namespaces = namespaces(session, &read.namespaces, &mut faults).await?;
        let volumes = volumes(session, &read.volumes, &mut faults).await?;
        let apps = apps(session, &read.apps, &namespaces, &mut faults).await?;
        let policies = policies(session, &read.policies, format, &mut faults).await?;
        if faults.is_empty() {
            return Ok(Plan { namespaces, volumes, policies, apps });
        }
        faults.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        faults.dedup();
        Err(faults.into())
    }

    /// Whether everything is already as it should be.
    pub(crate) fn is_empty(&self) -> bool {
        self.actions().all(|action| action == ApplyAction::Unchanged)
    }

    /// What becomes of each object.
    pub(crate) fn actions(&self) -> impl Iterator<Item = ApplyAction> {
        let namespaces = self.namespaces.iter().map(|planned| planned.action);
        let volumes = self.volumes.iter().map(|planned| planned.action);
        let policies = self.policies.iter().map(|planned| planned.action);
        namespaces.chain(volumes).chain(policies).chain(self.apps.iter().map(|planned| planned.action))
    }
}

/// All objects of a kind that are there, by namespace and name; nothing is asked if `wanted` is not.
async fn all<T: Resource>(session: &Session, wanted: bool) -> Result<HashMap<(String, String), T>, Failure> {
    if !wanted {
        return Ok(HashMap::new());
    }
    let found = session.client.list::<T>(&Selection::default()).await?.items;
    Ok(found.into_iter().map(|object| (key(&object), object)).collect())
}

fn key<T: Resource>(object: &T) -> (String, String) {
    let metadata = object.metadata();
    (metadata.namespace.clone(), metadata.name.clone())
}

fn is_said_alike<T: Document>(there: &T, wanted: &T) -> bool {
    let (a, b) = (there.metadata(), wanted.metadata());
    (&a.labels, &a.annotations) == (&b.labels, &b.annotations)
}

/// Notes what the daemon has against a document, at its place.
///
/// # Errors
/// What has nothing to do with the document.
fn note(fault: impl Fn(Problem) -> Fault, error: ApiError, faults: &mut Vec<Fault>) -> Result<(), Failure> {
    let is_of_document = matches!(error.code.kind(), ErrorKind::Invalid | ErrorKind::Conflict);
    if !is_of_document && error.code != ErrorCode::NotPermitted {
        return Err(error.into());
    }
    faults.extend(error.into_problems().into_iter().map(|mut problem| {
        if problem.field.is_empty() {
            problem.field = "metadata.name".to_owned();
        }
        fault(problem)
    }));
    Ok(())
}

/// The daemon's error at the place of the document that it is about.
pub(crate) fn at_place(fault: impl Fn(Problem) -> Fault, error: ApiError) -> Failure {
    let mut faults = Vec::new();
    match note(fault, error, &mut faults) {
        Ok(()) => faults.into(),
        Err(failure) => failure,
    }
}

async fn namespaces(
    session: &Session,
    documents: &[NamespaceDocument],
    faults: &mut Vec<Fault>,
) -> Result<Vec<Planned<Namespace>>, Failure> {
    let mut there = all::<Namespace>(session, !documents.is_empty()).await?;
    let mut planned = Vec::new();
    for document in documents {
        let mut wanted = document.namespace.clone();
        let found = there.remove(&key(&wanted));
        match &found {
            Some(found) => {
                wanted.metadata.resource_version = found.metadata.resource_version;
                // What commands permit stays unless the file says it.
                if !document.says("spec") {
                    wanted.spec = found.spec.clone();
                }
            }
            None => {
                if let Err(error) = session.client.try_namespace(&wanted).await {
                    note(|problem| document.fault(problem), error, faults)?;
                }
            }
        }
        let is_same = |a: &Namespace, b: &Namespace| is_said_alike(a, b) && a.spec == b.spec;
        planned.push(Planned::new(wanted, found, is_same, document.position()));
    }
    Ok(planned)
}

async fn volumes(
    session: &Session,
    documents: &[VolumeDocument],
    faults: &mut Vec<Fault>,
) -> Result<Vec<Planned<Volume>>, Failure> {
    let mut there = all::<Volume>(session, !documents.is_empty()).await?;
    let nodes = all::<Node>(session, !documents.is_empty()).await?;
    let mut planned = Vec::new();
    for document in documents {
        let wanted = document.volume.clone();
        let found = there.remove(&key(&wanted));
        let node = &wanted.spec.node;
        let told = match &found {
            // Volumes are not changed: what is in them would have to be carried over.
            Some(found) if found.spec.node != *node => Some((
                ErrorCode::Unsupported,
                "spec.node",
                format!("the volume is on node {:?}, and stays there", found.spec.node),
                "name that node, or give the volume another name",
            )),
            Some(found) if !is_said_alike(found, &wanted) => Some((
                ErrorCode::Unsupported,
                "metadata",
                "labels and annotations of a volume cannot be changed".to_owned(),
                "delete the volume with what is in it, or leave them as they are",
            )),
            None if !nodes.values().any(|there| there.metadata.name == *node) => Some((
                ErrorCode::OutOfRange,
                "spec.node",
                format!("there is no node {node:?}"),
                "`hivemind node ls` shows the nodes",
            )),
            _ => None,
        };
        faults.extend(told.map(|(code, field, message, hint)| {
            document.fault(Problem { code, field: field.to_owned(), message, hint: hint.to_owned() })
        }));
        planned.push(Planned::new(wanted, found, |_, _| true, document.position()));
    }
    Ok(planned)
}

async fn apps(
    session: &Session,
    documents: &[AppDocument],
    namespaces: &[Planned<Namespace>],
    faults: &mut Vec<Fault>,
) -> Result<Vec<Planned<App>>, Failure> {
    let mut there = all::<App>(session, !documents.is_empty()).await?;
    let mut planned = Vec::new();
    for document in documents {
        let found = there.remove(&key(&document.app));
        let wanted = merged(document, found.as_ref());
        let is_same = |a: &App, b: &App| is_said_alike(a, b) && a.spec == b.spec && !a.metadata.is_deleting();
        let one = Planned::new(wanted, found, is_same, document.position());
        let tried = match one.action {
            ApplyAction::Created => session.client.try_app(&one.object).await.map(drop),
            ApplyAction::Changed => session.client.try_replace_app(&one.object).await.map(drop),
            ApplyAction::Unchanged => Ok(()),
        };
        let namespace =
            namespaces.iter().find(|planned| planned.object.metadata.name == one.object.metadata.namespace);
        if let Some(error) = permitted(tried.err(), &one.object, namespace.map(|planned| &planned.object)) {
            note(|problem| document.fault(problem), error, faults)?;
        }
        planned.push(one);
    }
    Ok(planned)
}

/// What the daemon has against an app. What it may is decided by the namespace as the files say it, if they do: the daemon knows
/// only the one that is there.
fn permitted(error: Option<ApiError>, app: &App, namespace: Option<&Namespace>) -> Option<ApiError> {
    let Some(namespace) = namespace else { return error };
    let mut problems = Problems::default();
    for Problem { code, field, message, hint } in error.into_iter().flat_map(ApiError::into_problems) {
        if code != ErrorCode::NotPermitted {
            problems.add(code, field, message, hint);
        }
    }
    let name = &namespace.metadata.name;
    namespace.spec.check_template(name, "spec.template", &app.spec.template, &mut problems);
    problems.into_result().err()
}

/// The app of a document, in the place of the one that is there. What the document does not say of what commands change stays
/// as it is: the number of replicas, and when a restart was asked for.
fn merged(document: &AppDocument, there: Option<&App>) -> App {
    let mut wanted = document.app.clone();
    let Some(there) = there else { return wanted };
    wanted.metadata.resource_version = there.metadata.resource_version;
    if !document.says("spec.replicas") {
        wanted.spec.replicas = there.spec.replicas;
    }
    if !document.says("spec.template.restartedAt") {
        wanted.spec.template.restarted_at = there.spec.template.restarted_at;
    }
    wanted
}

async fn policies(
    session: &Session,
    documents: &[PolicyDocument],
    format: Format,
    faults: &mut Vec<Fault>,
) -> Result<Vec<Planned<NetworkPolicy>>, Failure> {
    if documents.is_empty() {
        return Ok(Vec::new());
    }
    let mut there = all::<NetworkPolicy>(session, true).await?;
    let wanted = wanted(documents);
    let applied: AppliedPolicies = match session.client.try_policies(&wanted).await {
        Ok(applied) => applied,
        Err(error) => match policy::apply::at_places(error, documents) {
            Failure::Told(told) if !told.faults.is_empty() => {
                faults.extend(told.faults);
                return Ok(Vec::new());
            }
            failure => return Err(failure),
        },
    };
    policy::apply::warn(&applied, documents, format);
    let planned = applied.items.into_iter().zip(documents).map(|(item, document)| Planned {
        action: item.action,
        there: there.remove(&key(&item.policy)),
        object: item.policy,
        position: document.position(),
    });
    Ok(planned.collect())
}

/// The request that applies the policies of `documents`.
pub(crate) fn wanted(documents: &[PolicyDocument]) -> ApplyPolicies {
    ApplyPolicies { items: documents.iter().map(|document| document.policy.clone()).collect() }
}

#[cfg(test)]
mod tests {
    use hivemind_manifest::{Options, Source, read_all};

    use super::*;

    fn document(spec: &str) -> AppDocument {
        let text = format!("apiVersion: hivemind/v1\nkind: App\nmetadata: {{name: web}}\nspec: {spec}\n");
        let options = Options { namespace: "default", only_this_namespace: false };
        let mut read = read_all(&[Source::new("x", text.into())], options, &|_| Vec::new());
        assert_eq!(read.faults, []);
        read.apps.remove(0)
    }

    #[test]
    fn what_commands_change_stays_unless_the_file_says_it() {
        let silent = document("{template: {containers: [{image: a}]}}");
        let mut there = silent.app.clone();
        there.metadata.resource_version = 7;
        there.spec.replicas = 5;
        there.spec.template.restarted_at = Some(jiff::Timestamp::UNIX_EPOCH);
        let app = merged(&silent, Some(&there));
        assert_eq!((&app.spec, app.metadata.resource_version), (&there.spec, 7));
        let said = document(
            "{replicas: 1, template: {containers: [{image: a}], restartedAt: 2030-01-01T00:00:00Z}}",
        );
        assert_eq!(merged(&said, Some(&there)).spec, said.app.spec);
        assert_eq!(merged(&silent, None), silent.app);
    }

    #[test]
    fn what_an_app_may_is_decided_by_the_namespace_of_the_same_files() {
        let app = document("{template: {containers: [{image: a, privileged: true}]}}").app;
        let refused =
            ApiError::new(ErrorCode::NotPermitted, "no", "do").at("spec.template.containers[0].privileged");
        let mut namespace = Namespace::new("default");
        assert_eq!(permitted(Some(refused.clone()), &app, None), Some(refused.clone()));
        let told = permitted(None, &app, Some(&namespace)).unwrap();
        assert_eq!((told.code, told.field), (ErrorCode::NotPermitted, refused.field.clone()));
        namespace.spec.privileged = true;
        assert_eq!(permitted(Some(refused), &app, Some(&namespace)), None);
        let other = ApiError::new(ErrorCode::PortPublished, "taken", "choose").at("spec.x");
        assert_eq!(permitted(Some(other.clone()), &app, Some(&namespace)), Some(other));
    }

    #[test]
    fn replicas_are_replaced_only_if_the_template_changes() {
        let plan = |spec: &str| {
            let there = document("{replicas: 1, template: {containers: [{image: a}]}}").app;
            Planned::new(document(spec).app, Some(there), |a, b| a.spec == b.spec, String::new())
        };
        let more = plan("{replicas: 2, template: {containers: [{image: a}]}}");
        assert_eq!((more.action, more.replaces_replicas()), (ApplyAction::Changed, false));
        let other = plan("{replicas: 1, template: {containers: [{image: b}]}}");
        assert_eq!((other.action, other.replaces_replicas()), (ApplyAction::Changed, true));
        let named = plan(
            "{replicas: 1, service: {ports: [{name: http, port: 80}]}, template: {containers: [{image: a}]}}",
        );
        assert!(named.replaces_replicas());
        let same = plan("{template: {containers: [{image: a}]}}");
        assert_eq!((same.action, same.replaces_replicas()), (ApplyAction::Unchanged, false));
    }

    #[test]
    fn what_the_daemon_has_against_a_document_is_told_at_its_place() {
        let document = document("{template: {containers: [{image: a}]}}");
        let place = |code, field: Option<&str>| {
            let mut error = ApiError::new(code, "no", "do");
            error.field = field.map(str::to_owned);
            let Failure::Told(told) = at_place(|problem| document.fault(problem), error) else { panic!() };
            told.faults.first().map(Fault::position)
        };
        let field = Some("spec.template.containers[0].image");
        assert_eq!(place(ErrorCode::Unsupported, field).as_deref(), Some("x:4:40"));
        assert_eq!(place(ErrorCode::NotPermitted, field).as_deref(), Some("x:4:40"));
        assert_eq!(place(ErrorCode::Deleting, None).as_deref(), Some("x:3:18"));
        assert_eq!(place(ErrorCode::StoreFailed, None), None);
    }
}
