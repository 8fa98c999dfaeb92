//! Watches: the objects that are there, then every change.

use std::{
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::Stream;
use hivemind_model::{ApiError, WatchEvent};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    connection::{Answer, unreadable},
    lines::{Lines, told_error},
};

/// One step of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem<T> {
    /// An object is there, changed, or is gone.
    Event(WatchEvent<T>),
    /// All that existed when the watch began has been told; comes once.
    Synced {
        /// The store's revision of which that is true.
        resource_version: u64,
    },
}

/// The objects of a kind as they are, then as they change. It ends when the daemon closes it, for example because it
/// stops, or with an error, for example because this side was too slow: watch again then, and take what comes before [`WatchItem::Synced`] as the whole.
pub struct Watch<T> {
    lines: Lines,
    objects: PhantomData<fn() -> T>,
}

impl<T> Watch<T> {
    pub(crate) fn new(answer: Answer) -> Self {
        Watch { lines: Lines::new(answer), objects: PhantomData }
    }
}

impl<T: DeserializeOwned> Stream for Watch<T> {
    type Item = Result<WatchItem<T>, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let line = ready!(self.lines.poll_line(context));
        Poll::Ready(line.map(|line| parse(&line?)))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(default)]
    resource_version: u64,
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<WatchItem<T>, ApiError> {
    let head: Head<'_> = serde_json::from_slice(line).map_err(|e| unreadable(&e))?;
    if head.kind == "bookmark" {
        return Ok(WatchItem::Synced { resource_version: head.resource_version });
    }
    if head.kind == "error" {
        return Err(told_error(line).unwrap_or_else(|e| unreadable(&e)));
    }
    serde_json::from_slice(line).map(WatchItem::Event).map_err(|e| unreadable(&e))
}
