//! One writer of events and many readers, none of whom holds up the others.
//!
//! A reader that is too slow misses items, news of losses among them. So with each item goes how much there was until then:
//! from the difference to what it got, a reader knows what it missed, of each sort.

use crate::FlowItem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast::{self, error::RecvError};

/// Where items are handed in.
#[derive(Debug)]
pub struct FlowFeed {
    items: broadcast::Sender<Told>,
    until_now: Mutex<Sums>,
}

/// A source of items, in the order in which they were handed in.
#[derive(Debug)]
pub struct FlowEvents {
    items: broadcast::Receiver<Told>,
    /// What this reader got, or was told that it missed.
    got: Sums,
    /// What comes after the news of what was missed before it.
    next: Option<Told>,
}

/// An item, and how much there was with it.
#[derive(Clone, Copy, Debug)]
struct Told {
    item: FlowItem,
    until_then: Sums,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// Events, told or lost on the way.
    events: u64,
    lost_in_kernel: u64,
}

impl Sums {
    fn of(item: &FlowItem) -> Self {
        match *item {
            FlowItem::Event(_) => Sums { events: 1, lost_in_kernel: 0 },
            FlowItem::Lost(events) => Sums { events, lost_in_kernel: 0 },
            FlowItem::LostInKernel(lost_in_kernel) => Sums { events: 0, lost_in_kernel },
        }
    }

    fn plus(self, other: Sums) -> Self {
        Sums {
            events: self.events.wrapping_add(other.events),
            lost_in_kernel: self.lost_in_kernel.wrapping_add(other.lost_in_kernel),
        }
    }

    fn minus(self, other: Sums) -> Self {
        Sums {
            events: self.events.wrapping_sub(other.events),
            lost_in_kernel: self.lost_in_kernel.wrapping_sub(other.lost_in_kernel),
        }
    }
}

impl FlowFeed {
    /// Without readers yet. So many items wait for a reader that is busy.
    ///
    /// # Panics
    /// When no item may wait.
    #[must_use]
    pub fn new(waiting_max: usize) -> Self {
        FlowFeed { items: broadcast::channel(waiting_max).0, until_now: Mutex::default() }
    }

    /// Hands an item to all readers there are.
    pub fn send(&self, item: FlowItem) {
        let mut until_now = self.until_now();
        *until_now = until_now.plus(Sums::of(&item));
        // Nobody listens: nobody misses it.
        let _ = self.items.send(Told { item, until_then: *until_now });
    }

    /// What is handed in from now on.
    #[must_use]
    pub fn subscribe(&self) -> FlowEvents {
        let until_now = self.until_now();
        FlowEvents { items: self.items.subscribe(), got: *until_now, next: None }
    }

    /// Whether anybody reads.
    #[must_use]
    pub fn has_readers(&self) -> bool {
        self.items.receiver_count() > 0
    }

    fn until_now(&self) -> MutexGuard<'_, Sums> {
        self.until_now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FlowEvents {
    /// The next event, or news of a loss; `None` when the data path is closed. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<FlowItem> {
        let told = match self.next.take() {
            Some(told) => told,
            None => loop {
                match self.items.recv().await {
                    Ok(told) => break told,
                    // How many were missed shows at the next item, which is there.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            },
        };
        let missed = told.until_then.minus(Sums::of(&told.item)).minus(self.got);
        let news = match missed {
            Sums { events: 0, lost_in_kernel: 0 } => {
                self.got = told.until_then;
                return Some(told.item);
            }
            Sums { events: 0, lost_in_kernel } => FlowItem::LostInKernel(lost_in_kernel),
            Sums { events, .. } => FlowItem::Lost(events),
        };
        self.got = self.got.plus(Sums::of(&news));
        self.next = Some(told);
        Some(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FlowEvent, FlowKind, FlowPeer};
    use jiff::Timestamp;

    fn event(packets: u64) -> FlowItem {
        FlowItem::Event(FlowEvent {
            time: Timestamp::UNIX_EPOCH,
            began: None,
            kind: FlowKind::New,
            source: FlowPeer::default(),
            destination: FlowPeer::default(),
            protocol: 17,
            egress_rule: 0,
            ingress_rule: 0,
            bytes: [0; 2],
            packets: [packets, 0],
            interface: 1,
        })
    }

    #[tokio::test]
    async fn who_keeps_up_gets_everything_as_it_was_handed_in() {
        let feed = FlowFeed::new(4);
        feed.send(event(0));
        let mut reader = feed.subscribe();
        for item in [event(1), FlowItem::LostInKernel(7), FlowItem::Lost(3), event(2)] {
            feed.send(item);
            assert_eq!(reader.next().await, Some(item));
        }
        drop(feed);
        assert_eq!(reader.next().await, None);
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_of_all_that_it_missed_by_where_it_was_lost() {
        let feed = FlowFeed::new(4);
        let mut reader = feed.subscribe();
        // Of nine, four still wait.
        let missed = [event(1), FlowItem::LostInKernel(100), event(2), FlowItem::Lost(10), event(3)];
        let waiting = [event(4), FlowItem::LostInKernel(1_000), FlowItem::Lost(20), event(5)];
        missed.into_iter().chain(waiting).for_each(|item| feed.send(item));
        assert_eq!(reader.next().await, Some(FlowItem::Lost(13)));
        assert_eq!(reader.next().await, Some(FlowItem::LostInKernel(100)));
        for item in waiting {
            assert_eq!(reader.next().await, Some(item));
        }
        // And again, where the first that waits is news of a loss itself.
        let again = [event(6), FlowItem::LostInKernel(5), event(7), event(8), event(9)];
        again.into_iter().for_each(|item| feed.send(item));
        assert_eq!(reader.next().await, Some(FlowItem::Lost(1)));
        assert_eq!(reader.next().await, Some(FlowItem::LostInKernel(5)));
        assert_eq!(reader.next().await, Some(event(7)));
    }
}
