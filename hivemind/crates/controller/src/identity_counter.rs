//! The number that an identity was given last, in the store, so that numbers come up again as late as possible.
//!
//! Entries in the data path and lines of flows speak of identities by number for a while after they are gone.

use hivemind_model::{ApiError, ErrorCode};
use hivemind_store::{Key, Objects, Revision, StoreExt};

const KEY: &str = "counters/identity";

/// The number that was given last; zero if none ever was.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn last(objects: &Objects) -> Result<u32, ApiError> {
    Ok(objects.store().get_json::<u32>(&Key::new(KEY)?).await?.map_or(0, |found| found.value))
}

/// Notes that `number` is given.
///
/// # Errors
/// [`ErrorCode::Stale`] when somebody else gave one at the same time; when the store cannot be written.
pub(crate) async fn advance(objects: &Objects, number: u32) -> Result<(), ApiError> {
    let key = Key::new(KEY)?;
    let found = objects.store().get_json::<u32>(&key).await?;
    let expected = found.map_or(Revision::ZERO, |found| found.mod_revision);
    match objects.store().put_json(&key, &number, expected).await? {
        Some(_) => Ok(()),
        None => {
            Err(ApiError::new(ErrorCode::Stale, "another identity was made at the same time", "try again"))
        }
    }
}
