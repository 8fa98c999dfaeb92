//! Codes that begin one session each.

use std::collections::VecDeque;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Digest;
use crate::caller::Caller;

/// The most codes that wait to be used; the oldest makes room.
const CODES_MAX: usize = 64;

/// The codes that wait to be used, the oldest first.
#[derive(Default)]
pub(super) struct Codes {
    waiting: VecDeque<Code>,
}

struct Code {
    hash: Digest,
    expires_at: Timestamp,
    token: Option<Digest>,
    revoked: CancellationToken,
}

impl Codes {
    /// Adds a code that `caller` asked for.
    pub(super) fn add(&mut self, hash: Digest, expires_at: Timestamp, caller: &Caller) {
        self.expire();
        if self.waiting.len() == CODES_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Code {
            hash,
            expires_at,
            token: caller.token,
            revoked: caller.revoked.clone(),
        });
    }

    /// Takes a code, which is not valid again: the token that the session stands on, and what ends it.
    pub(super) fn take(&mut self, hash: Digest) -> Option<(Option<Digest>, CancellationToken)> {
        self.expire();
        let place = self.waiting.iter().position(|code| code.hash == hash)?;
        let code = self.waiting.remove(place)?;
        Some((code.token, code.revoked))
    }

    fn expire(&mut self) {
        let now = Timestamp::now();
        self.waiting.retain(|code| now < code.expires_at);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_code_is_valid_once_and_for_its_time() {
        let (mut codes, caller) = (Codes::default(), Caller::socket());
        let later = Timestamp::now() + Duration::from_secs(60);
        codes.add(Digest::of("a"), later, &caller);
        assert!(codes.take(Digest::of("b")).is_none());
        assert!(codes.take(Digest::of("a")).is_some());
        assert!(codes.take(Digest::of("a")).is_none());
        codes.add(Digest::of("late"), Timestamp::now(), &caller);
        assert!(codes.take(Digest::of("late")).is_none());
    }

    #[test]
    fn only_so_many_wait_and_the_oldest_makes_room() {
        let (mut codes, caller) = (Codes::default(), Caller::socket());
        let later = Timestamp::now() + Duration::from_secs(60);
        for i in 0..=CODES_MAX {
            codes.add(Digest::of(&i.to_string()), later, &caller);
        }
        assert_eq!(codes.waiting.len(), CODES_MAX);
        assert!(codes.take(Digest::of("0")).is_none() && codes.take(Digest::of("1")).is_some());
    }
}
