//! Identities as policies would see them that are not there yet.

use hivemind_model::{ApiError, App, Identity, Replica};
use hivemind_policy::uncut;
use hivemind_store::Objects;

/// Identities that tell replicas apart by all their labels, and the replicas with these; of some of them not the kernel's.
///
/// # Errors
/// Those of the store.
pub(crate) async fn told_apart(objects: &Objects) -> Result<(Vec<Identity>, Vec<Replica>), ApiError> {
    let identities = objects.list::<Identity>(None).await?.items;
    let apps = objects.list::<App>(None).await?.items;
    let mut replicas = objects.list::<Replica>(None).await?.items;
    let whole = uncut(&identities, &mut replicas, &apps);
    Ok((whole, replicas))
}
