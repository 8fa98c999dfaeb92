//! What a node tells, written down by the server.

use hivemind_model::{
    ApiError, ErrorCode, NetworkPolicy, Node, NodeReport, ObjectRef, REPORT_MAX, Replica, Resource, Service,
};
use hivemind_store::{Object, Objects};

/// Writes down what node `node` tells. What it tells of things that are not its own to tell of, or are no more, is left out.
///
/// # Errors
/// [`ErrorCode::OutOfRange`] if it tells too much at once; what the store says. What was told before the fault is written:
/// telling it again does no harm.
pub async fn take_report(objects: &Objects, node: &str, report: NodeReport) -> Result<(), ApiError> {
    if report.len() > REPORT_MAX {
        let what = format!("a report of {} things is too long", report.len());
        return Err(ApiError::new(ErrorCode::OutOfRange, what, format!("tell {REPORT_MAX} at once")));
    }
    if let Some(told) = report.node {
        let write = |node: &mut Node| {
            let (state, since) = (node.status.state, node.status.since);
            node.status = told.clone();
            (node.status.state, node.status.since) = (state, since);
            Ok(())
        };
        forgiving(objects.update_with("", node, write).await)?;
    }
    for told in report.replicas {
        change(objects, &told.replica, |replica: &mut Replica| {
            if replica.spec.node == node {
                replica.status.clone_from(&told.status);
            }
        })
        .await?;
    }
    for told in report.services {
        change(objects, &told.service, |service: &mut Service| {
            service.status.note(node, told.problem.clone());
        })
        .await?;
    }
    for told in report.policies {
        change(objects, &told.policy, |policy: &mut NetworkPolicy| {
            policy.status.note(node, &told.enforcement);
            policy.status.replicas = told.replicas;
        })
        .await?;
    }
    for gone in report.gone {
        remove(objects, node, &gone).await?;
    }
    Ok(())
}

/// Changes an object, if it is the one that is meant.
async fn change<T: Object>(
    objects: &Objects,
    meant: &ObjectRef,
    mut change: impl FnMut(&mut T) + Send,
) -> Result<(), ApiError> {
    let done = objects.update_with(&meant.namespace, &meant.name, |object: &mut T| {
        if object.metadata().uid == meant.uid {
            change(object);
        }
        Ok(())
    });
    forgiving::<T>(done.await)
}

/// That an object is no more is no fault.
fn forgiving<T: Resource>(done: Result<T, ApiError>) -> Result<(), ApiError> {
    match done {
        Err(error) if error.code == T::NOT_FOUND => Ok(()),
        done => done.map(drop),
    }
}

/// Removes a replica that is gone, if it was to go.
async fn remove(objects: &Objects, node: &str, gone: &ObjectRef) -> Result<(), ApiError> {
    loop {
        let found = match objects.get::<Replica>(&gone.namespace, &gone.name).await {
            Err(error) if error.code == Replica::NOT_FOUND => return Ok(()),
            found => found?,
        };
        let is_meant = found.metadata.uid == gone.uid && found.spec.node == node;
        if !is_meant || !found.metadata.is_deleting() {
            return Ok(());
        }
        match objects.delete(&found).await {
            Err(error) if error.code == ErrorCode::Stale => {}
            Err(error) if error.code == Replica::NOT_FOUND => return Ok(()),
            done => return done,
        }
    }
}
