//! Sessions of browsers.

use std::collections::HashMap;

use jiff::Timestamp;

use super::Digest;
use crate::caller::Caller;

/// The most sessions at a time; the one that would end first makes room.
const SESSIONS_MAX: usize = 1024;

/// The sessions that go on, by the hashes of their cookies. They do not outlive the process.
#[derive(Default)]
pub(super) struct Sessions {
    going_on: HashMap<Digest, Caller>,
}

impl Sessions {
    pub(super) fn add(&mut self, cookie: Digest, caller: Caller) {
        self.expire();
        if self.going_on.len() >= SESSIONS_MAX {
            let first = self.going_on.iter().min_by_key(|(_, caller)| caller.session.expires_at);
            if let Some(cookie) = first.map(|(cookie, _)| *cookie) {
                tracing::warn!(most = SESSIONS_MAX, "The oldest session of a browser made room for another.");
                self.end(cookie);
            }
        }
        self.going_on.insert(cookie, caller);
    }

    pub(super) fn find(&mut self, cookie: Digest) -> Option<Caller> {
        let caller = self.going_on.get(&cookie)?;
        if is_over(caller) {
            self.end(cookie);
            return None;
        }
        Some(caller.clone())
    }

    pub(super) fn end(&mut self, cookie: Digest) {
        if let Some(caller) = self.going_on.remove(&cookie) {
            caller.revoked.cancel();
        }
    }

    pub(super) fn len(&mut self) -> usize {
        self.expire();
        self.going_on.len()
    }

    fn expire(&mut self) {
        self.going_on.retain(|_, caller| !is_over(caller));
    }
}

/// Whether a session's time is over, or what it stands on is revoked.
fn is_over(caller: &Caller) -> bool {
    caller.revoked.is_cancelled() || caller.session.expires_at.is_some_and(|at| at <= Timestamp::now())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn caller(seconds: u64) -> Caller {
        let mut caller = Caller::socket();
        caller.session.expires_at = Some(Timestamp::now() + Duration::from_secs(seconds));
        caller
    }

    #[test]
    fn only_so_many_go_on_and_the_first_to_end_makes_room() {
        let mut sessions = Sessions::default();
        let first = caller(60);
        sessions.add(Digest::of("first"), first.clone());
        for i in 0..SESSIONS_MAX {
            sessions.add(Digest::of(&i.to_string()), caller(100));
        }
        assert_eq!(sessions.len(), SESSIONS_MAX);
        assert!(sessions.find(Digest::of("first")).is_none() && first.revoked.is_cancelled());
        assert!(sessions.find(Digest::of("0")).is_some());
    }

    #[test]
    fn a_session_ends_with_its_time_and_with_what_it_stands_on() {
        let mut sessions = Sessions::default();
        sessions.add(Digest::of("late"), caller(0));
        assert!(sessions.find(Digest::of("late")).is_none());
        let standing = caller(60);
        sessions.add(Digest::of("on"), standing.clone());
        assert!(sessions.find(Digest::of("on")).is_some());
        standing.revoked.cancel();
        assert!(sessions.find(Digest::of("on")).is_none());
        assert_eq!(sessions.len(), 0);
    }
}
