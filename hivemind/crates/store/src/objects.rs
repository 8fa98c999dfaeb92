//! Objects of the API in the store: typed reads, writes that compare, names that are unique, watches that heal.
//!
//! An object lies under `<plural>/<namespace>/<name>` (nodes, which have no namespace, under `nodes/<name>`) as its
//! JSON. Beside it, in the same transaction, lie `ids/<id>` and the [`Claim`]s of things that only one object may have
//! (`claims/hostname/…`, `claims/port/…`): each holds `<namespace>/<name>` of its owner. They come and go with the
//! object, so nobody has to remember to release them. `resourceVersion` is not stored: it is the key's mod revision.
//!
//! Start with [`Objects`]; [`Changes`] is for several objects in one transaction, [`ObjectWatch`] for following a kind.

mod changes;
mod fault;
mod object;
mod stored;
mod watch;

use std::{collections::HashSet, sync::Arc};

use hivemind_model::{ApiError, ErrorCode, JoinToken, List, Token};
use uuid::Uuid;

pub use self::{
    changes::Changes,
    object::{Claim, Object},
    stored::Stored,
    watch::ObjectWatch,
};
use self::{
    fault::{not_found, stale},
    object::{JOIN_TOKEN_CLAIM, POLICY_NUMBER_CLAIM, TOKEN_CLAIM, decode, id_key, key, prefix},
};
use crate::{Key, KeyValue, ListOptions, OpResult, Prefix, Revision, Store, Txn};

/// How often a write is tried again because somebody else was faster. Each failed try means that another one made
/// progress, so running out of them means that the object is written without pause.
const TRIES_MAX: usize = 32;

/// The objects in a store. Cheap to clone.
///
/// Every method may fail with [`ErrorCode::StoreFailed`] (also when a stored value cannot be read), writes also with
/// [`ErrorCode::DiskFull`] and [`ErrorCode::OutOfRange`] (larger than the store takes); what is named below comes on
/// top. A write that failed has changed nothing, unless the error says that it may have happened.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn Store>,
}

impl Objects {
    /// The objects in `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Objects { store }
    }

    /// The store that holds them.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The object of that name; `namespace` is ignored for kinds that are in none.
    ///
    /// # Errors
    /// [`hivemind_model::Resource::NOT_FOUND`] of the kind.
    pub async fn get<T: Object>(&self, namespace: &str, name: &str) -> Result<T, ApiError> {
        self.read(namespace, name).await?.ok_or_else(|| not_found::<T>(namespace, name))
    }

    /// The object of that name, short id or uid; a name goes before an id.
    ///
    /// # Errors
    /// [`hivemind_model::Resource::NOT_FOUND`] of the kind.
    pub async fn find<T: Object>(&self, namespace: &str, word: &str) -> Result<T, ApiError> {
        if let Some(object) = self.read(namespace, word).await? {
            return Ok(object);
        }
        if let Some(object) = self.find_by_id::<T>(namespace, word).await? {
            return Ok(object);
        }
        if Uuid::try_parse(word).is_ok() {
            let all = self.list::<T>(Some(namespace)).await?;
            if let Some(object) = all.items.into_iter().find(|object| object.metadata().answers_to(word)) {
                return Ok(object);
            }
        }
        Err(not_found::<T>(namespace, word))
    }

    async fn find_by_id<T: Object>(&self, namespace: &str, id: &str) -> Result<Option<T>, ApiError> {
        if !id.starts_with(T::ID_PREFIX) {
            return Ok(None);
        }
        let Ok(key) = id_key(id) else { return Ok(None) };
        let Some(owner) = self.store.get(&key, None).await?.found else { return Ok(None) };
        let owner = String::from_utf8_lossy(&owner.value).into_owned();
        let Some((owner_namespace, name)) = owner.split_once('/') else { return Ok(None) };
        if T::NAMESPACED && owner_namespace != namespace {
            return Ok(None);
        }
        let found: Option<T> = self.read(owner_namespace, name).await?;
        Ok(found.filter(|object| object.metadata().id == id))
    }

    /// The token whose secret has this hash, if there is one.
    pub async fn token(&self, hash: &str) -> Result<Option<Token>, ApiError> {
        let found: Option<Token> = self.claimed(TOKEN_CLAIM, hash).await?;
        Ok(found.filter(|token| token.spec.hash == hash))
    }

    /// The join token whose secret has this hash, if there is one.
    pub async fn join_token(&self, hash: &str) -> Result<Option<JoinToken>, ApiError> {
        let found: Option<JoinToken> = self.claimed(JOIN_TOKEN_CLAIM, hash).await?;
        Ok(found.filter(|token| token.spec.hash == hash))
    }

    /// The object, of a kind that is in no namespace, that has claimed a value.
    async fn claimed<T: Object>(&self, claim: &str, value: &str) -> Result<Option<T>, ApiError> {
        let Ok(key) = Key::new(format!("claims/{claim}/{value}")) else { return Ok(None) };
        let Some(owner) = self.store.get(&key, None).await?.found else { return Ok(None) };
        let owner = String::from_utf8_lossy(&owner.value).into_owned();
        let Some((_, name)) = owner.split_once('/') else { return Ok(None) };
        self.read("", name).await
    }

    async fn read<T: Object>(&self, namespace: &str, name: &str) -> Result<Option<T>, ApiError> {
        let Ok(key) = key::<T>(namespace, name) else { return Ok(None) };
        self.store.get(&key, None).await?.found.as_ref().map(decode).transpose()
    }

    /// All objects of a kind, in one namespace or in all.
    pub async fn list<T: Object>(&self, namespace: Option<&str>) -> Result<List<T>, ApiError> {
        let listing = self.store.list(&prefix::<T>(namespace)?, ListOptions::default()).await?;
        object::list(&listing)
    }

    /// All objects of a kind, to be decoded later.
    pub async fn stored<T: Object>(&self) -> Result<Stored<T>, ApiError> {
        Ok(Stored::new(self.store.list(&prefix::<T>(None)?, ListOptions::default()).await?))
    }

    /// The numbers that network policies have.
    pub async fn policy_numbers(&self) -> Result<HashSet<u32>, ApiError> {
        let prefix = format!("claims/{POLICY_NUMBER_CLAIM}/");
        let listing = self.store.list(&Prefix::new(prefix.as_str())?, ListOptions::default()).await?;
        let number = |item: &KeyValue| item.key.as_str().strip_prefix(&prefix)?.parse().ok();
        Ok(listing.items.iter().filter_map(number).collect())
    }

    /// Makes an object and takes its claims. Name, namespace, labels, annotations, spec and status are kept as they
    /// are given, the rest of the metadata is written anew.
    ///
    /// # Errors
    /// [`Object::EXISTS`] or [`ErrorCode::Deleting`] when the name is taken, the code of each [`Claim`] that belongs to
    /// somebody else (with its owner in the message), all at once.
    pub async fn create<T: Object>(&self, object: &T) -> Result<T, ApiError> {
        for _ in 0..TRIES_MAX {
            let mut made = object.clone();
            let mut changes = Changes::new();
            changes.create(&mut made)?;
            match self.transact(changes).await {
                Ok(revision) => {
                    made.metadata_mut().resource_version = revision;
                    return Ok(made);
                }
                // The short id was taken: another is drawn with the next try.
                Err(error) if error.code == ErrorCode::Stale && T::EXISTS != ErrorCode::Stale => {}
                Err(error) => return Err(error),
            }
        }
        Err(stale(T::KIND, &object.metadata().name))
    }

    /// Writes an object if it has not changed since `object` was read. What the server owns in the metadata stays as
    /// it is; `generation` counts changes of the spec; nothing is written when nothing differs.
    ///
    /// # Errors
    /// [`ErrorCode::Stale`], [`hivemind_model::Resource::NOT_FOUND`], the code of a [`Claim`] that is new and taken.
    pub async fn update<T: Object>(&self, object: &T) -> Result<T, ApiError> {
        let current = self.current(object).await?;
        self.replace(&current, object.clone()).await
    }

    /// Everything that [`Objects::update`] checks, without writing; returns the object as it would be.
    ///
    /// # Errors
    /// As [`Objects::update`].
    pub async fn try_update<T: Object>(&self, object: &T) -> Result<T, ApiError> {
        let (current, mut next) = (self.current(object).await?, object.clone());
        let mut changes = Changes::new();
        if changes.update(&current, &mut next)? {
            self.check(changes).await?;
        }
        Ok(next)
    }

    /// What is kept of `object`, if it is what `object` was read as.
    async fn current<T: Object>(&self, object: &T) -> Result<T, ApiError> {
        let metadata = object.metadata();
        let current: T = self.get(&metadata.namespace, &metadata.name).await?;
        match current.metadata().resource_version == metadata.resource_version {
            true => Ok(current),
            false => Err(stale(T::KIND, &metadata.name)),
        }
    }

    async fn replace<T: Object>(&self, current: &T, mut next: T) -> Result<T, ApiError> {
        let mut changes = Changes::new();
        if changes.update(current, &mut next)? {
            next.metadata_mut().resource_version = self.transact(changes).await?;
        }
        Ok(next)
    }

    /// Reads, changes and writes an object, again if somebody else was faster. `change` may run several times; what it
    /// refuses ends the attempt.
    ///
    /// # Errors
    /// What `change` gives; [`hivemind_model::Resource::NOT_FOUND`]; [`ErrorCode::Stale`] when the object changed with
    /// every one of 32 tries.
    pub async fn update_with<T: Object>(
        &self,
        namespace: &str,
        name: &str,
        mut change: impl FnMut(&mut T) -> Result<(), ApiError> + Send,
    ) -> Result<T, ApiError> {
        for _ in 0..TRIES_MAX {
            let current: T = self.get(namespace, name).await?;
            let mut next = current.clone();
            change(&mut next)?;
            match self.replace(&current, next).await {
                Err(error) if error.code == ErrorCode::Stale => {}
                done => return done,
            }
        }
        Err(stale(T::KIND, name))
    }

    /// Removes an object and releases its claims, if it has not changed since `object` was read.
    ///
    /// # Errors
    /// [`ErrorCode::Stale`], [`hivemind_model::Resource::NOT_FOUND`].
    pub async fn delete<T: Object>(&self, object: &T) -> Result<(), ApiError> {
        let metadata = object.metadata();
        // The claims are those of the stored object, whatever the caller did to its copy.
        let current: T = self.get(&metadata.namespace, &metadata.name).await?;
        if current.metadata().resource_version != metadata.resource_version {
            return Err(stale(T::KIND, &metadata.name));
        }
        let mut changes = Changes::new();
        changes.delete(&current)?;
        self.transact(changes).await.map(drop)
    }

    /// Makes several changes, all or none. Returns the revision, which is the `resourceVersion` of everything written.
    ///
    /// # Errors
    /// All conflicts at once, with the codes that [`Objects::create`], [`Objects::update`] and [`Objects::delete`]
    /// name. [`ErrorCode::Stale`] alone means that the changes are to be built anew from what is there now.
    pub async fn transact(&self, changes: Changes) -> Result<u64, ApiError> {
        self.commit(changes, true).await
    }

    /// Whether [`Objects::transact`] would make these changes now; nothing is written.
    ///
    /// # Errors
    /// As [`Objects::transact`].
    pub async fn check(&self, changes: Changes) -> Result<(), ApiError> {
        self.commit(changes, false).await.map(drop)
    }

    async fn commit(&self, changes: Changes, write: bool) -> Result<u64, ApiError> {
        let Changes { guards, ops } = changes;
        let mut txn = Txn::new();
        for guard in &guards {
            txn = txn.when(guard.compare.clone()).or_get(guard.compare.key().clone());
        }
        if write {
            txn.success = ops;
        }
        let response = self.store.txn(txn).await?;
        if response.succeeded {
            return Ok(response.revision.0);
        }
        let found = response.results.into_iter().map(|result| match result {
            OpResult::Got(found) => found,
            OpResult::Put(_) | OpResult::Deleted(_) | OpResult::Listed(_) => None,
        });
        Err(changes::conflicts(guards.into_iter().zip(found)))
    }

    /// Follows a kind from the present on: all objects as they are, and the watch that tells every later change.
    pub async fn list_and_watch<T: Object>(
        &self,
        namespace: Option<&str>,
    ) -> Result<(List<T>, ObjectWatch<T>), ApiError> {
        let listing = self.store.list(&prefix::<T>(namespace)?, ListOptions::default()).await?;
        let objects = object::list(&listing)?;
        let watch = ObjectWatch::start(self.store.clone(), prefix::<T>(namespace)?, listing).await?;
        Ok((objects, watch))
    }

    /// Follows a kind from after revision `from`, the `resourceVersion` of a list, a bookmark or an event.
    ///
    /// # Errors
    /// [`ErrorCode::Stale`] when that revision is no longer kept (or was never reached): list again.
    pub async fn watch<T: Object>(
        &self,
        namespace: Option<&str>,
        from: u64,
    ) -> Result<ObjectWatch<T>, ApiError> {
        let prefix = prefix::<T>(namespace)?;
        let options = ListOptions { at: Some(Revision(from)), ..ListOptions::default() };
        let listing = self.store.list(&prefix, options).await?;
        ObjectWatch::start(self.store.clone(), prefix, listing).await
    }
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").finish_non_exhaustive()
    }
}
