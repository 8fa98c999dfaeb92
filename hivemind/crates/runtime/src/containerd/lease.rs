//! Leases keep what is being put together from containerd's garbage collector until something refers to it.

use std::{collections::HashMap, time::Duration};

use containerd_client::services::v1::{AddResourceRequest, CreateRequest, DeleteRequest, Resource};
use jiff::{SignedDuration, Timestamp};
use tonic::metadata::AsciiMetadataValue;

use super::{CALL_LIMIT, Containerd, within};
use crate::Error;

/// A lease of ours. It is given back by [`Lease::release`]; dropped without that, it is given back in the
/// background, and if this process dies it expires.
pub(crate) struct Lease {
    containerd: Containerd,
    id: String,
    released: bool,
}

impl Lease {
    /// Takes a lease that containerd drops by itself after `lifetime`.
    pub(crate) async fn take(containerd: &Containerd, lifetime: Duration) -> Result<Self, Error> {
        let id = format!("hivemind-{:016x}", rand::random::<u64>());
        let expires = Timestamp::now() + SignedDuration::try_from(lifetime).unwrap_or(SignedDuration::MAX);
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expires.to_string())]);
        let request = containerd.request(CreateRequest { id: id.clone(), labels });
        within("Leases.Create", CALL_LIMIT, containerd.leases().create(request)).await?;
        Ok(Self { containerd: containerd.clone(), id, released: false })
    }

    pub(crate) fn metadata(&self) -> AsciiMetadataValue {
        self.id.parse().expect("a lease's id is ASCII")
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Lets the lease hold a snapshot that exists already.
    pub(crate) async fn hold_snapshot(&self, name: &str) -> Result<(), Error> {
        let kind = format!("snapshots/{}", self.containerd.snapshotter);
        let resource = Some(Resource { id: name.to_owned(), r#type: kind });
        let request = self.containerd.request(AddResourceRequest { id: self.id.clone(), resource });
        within("Leases.AddResource", CALL_LIMIT, self.containerd.leases().add_resource(request)).await?;
        Ok(())
    }

    /// Gives the lease back and waits until what only it held is collected.
    pub(crate) async fn release(mut self) -> Result<(), Error> {
        self.released = true;
        delete(&self.containerd, &self.id).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        let (containerd, id) = (self.containerd.clone(), std::mem::take(&mut self.id));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // One bounded call; if it fails, the lease expires.
            runtime.spawn(async move { delete(&containerd, &id).await });
        }
    }
}

async fn delete(containerd: &Containerd, id: &str) -> Result<(), Error> {
    let request = containerd.request(DeleteRequest { id: id.to_owned(), sync: true });
    crate::error::allow_missing(
        within("Leases.Delete", CALL_LIMIT, containerd.leases().delete(request)).await,
    )?;
    Ok(())
}
