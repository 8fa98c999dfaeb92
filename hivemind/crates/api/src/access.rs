//! What lets a request in that does not come over the Unix socket: tokens, and sessions of browsers.
//!
//! Of a token only the SHA-256 of its secret is kept, in the store; it is looked up by that hash, so that neither time nor
//! a stolen store tells anything of the secret. Codes and sessions are kept in memory only, in bounded numbers, by their
//! hashes too. What a token began (streams, exec sessions, browsers' sessions) ends with it, whoever revokes it: a watch
//! of the tokens ([`Access::follow`]) tells.

mod codes;
mod failures;
mod live;
mod secret;
mod sessions;

use std::sync::Mutex;

use hivemind_model::{ApiError, ErrorCode, LoginCode, Session, Token, TokenRole};
use hivemind_store::Objects;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

pub(crate) use self::secret::{Digest, draw, draw_token};
use self::{codes::Codes, failures::Failures, live::Live, sessions::Sessions};
use crate::{
    caller::{Caller, too_many},
    fault::Fault,
};

/// The cookie of a session.
pub(crate) const SESSION_COOKIE: &str = "hivemind_session";

/// How long a browser's session lasts.
pub(crate) const SESSION_LIFETIME: SignedDuration = SignedDuration::from_hours(12);

/// How long a one-time code is valid.
pub(crate) const CODE_LIFETIME: SignedDuration = SignedDuration::from_secs(60);

/// The most tokens that there may be.
pub(crate) const TOKENS_MAX: usize = 1000;

/// The name of a session that a code began.
const CODE_SESSION: &str = "ui";

/// Who may come in.
pub(crate) struct Access {
    objects: Objects,
    live: Live,
    codes: Mutex<Codes>,
    sessions: Mutex<Sessions>,
    failures: Failures,
}

impl Access {
    pub(crate) fn new(objects: Objects) -> Self {
        Access {
            objects,
            live: Live::default(),
            codes: Mutex::default(),
            sessions: Mutex::default(),
            failures: Failures::default(),
        }
    }

    /// Ends what stands on tokens that are revoked, until `shutdown`.
    pub(crate) async fn follow(&self, shutdown: &CancellationToken) {
        self.live.follow(&self.objects, shutdown).await;
    }

    /// The bearer of the token whose secret has this hash.
    pub(crate) async fn by_token(&self, hash: Digest) -> Result<Option<Caller>, ApiError> {
        // Before the store is asked: a revocation after that is certain to find it.
        let revoked = self.live.enter(hash);
        let token = self.valid(hash).await?;
        let Some(token) = token else {
            self.live.end(hash);
            return Ok(None);
        };
        let session =
            Session { role: token.spec.role, name: token.metadata.name, expires_at: token.spec.expires_at };
        Ok(Some(Caller { session, token: Some(hash), cookie: None, revoked }))
    }

    async fn valid(&self, hash: Digest) -> Result<Option<Token>, ApiError> {
        let token = self.objects.token(&hash.to_string()).await?;
        Ok(token.filter(|token| token.spec.expires_at.is_none_or(|at| Timestamp::now() < at)))
    }

    /// The browser whose cookie has this hash.
    pub(crate) async fn by_cookie(&self, hash: Digest) -> Result<Option<Caller>, ApiError> {
        let found = self.sessions().find(hash);
        let Some(caller) = found else { return Ok(None) };
        if let Some(token) = caller.token
            && self.valid(token).await?.is_none()
        {
            self.sessions().end(hash);
            return Ok(None);
        }
        Ok(Some(caller))
    }

    /// A code that begins one session with all rights, on behalf of `caller`. The address of the dashboard is not known
    /// here.
    pub(crate) fn make_code(&self, caller: &Caller) -> LoginCode {
        let (code, expires_at) = (draw(), Timestamp::now() + CODE_LIFETIME);
        self.codes.lock().expect(UNPOISONED).add(Digest::of(&code), expires_at, caller);
        LoginCode { code, url: String::new(), expires_at }
    }

    /// Begins a session of whoever has `code`: its cookie, and what it is.
    pub(crate) fn begin_by_code(&self, code: &str) -> Result<(String, Session), Fault> {
        let taken = self.codes.lock().expect(UNPOISONED).take(Digest::of(code));
        let Some((token, revoked)) = taken.filter(|(_, revoked)| !revoked.is_cancelled()) else {
            let hint = "a code is valid once and for a minute: run hivemind ui again";
            return Err(self.refuse(ApiError::new(ErrorCode::Unauthorized, "the code is not valid", hint)));
        };
        let expires_at = Some(Timestamp::now() + SESSION_LIFETIME);
        let session = Session { role: TokenRole::Admin, name: CODE_SESSION.to_owned(), expires_at };
        Ok(self.begin(session, token, &revoked))
    }

    /// Begins a session of whoever has the token `secret`: its cookie, and what it is.
    pub(crate) async fn begin_by_token(&self, secret: &str) -> Result<(String, Session), Fault> {
        let Some(caller) = self.by_token(Digest::of(secret.trim())).await? else {
            return Err(self.refuse(crate::caller::invalid()));
        };
        let latest = Timestamp::now() + SESSION_LIFETIME;
        let mut session = caller.session;
        session.expires_at = Some(session.expires_at.map_or(latest, |at| at.min(latest)));
        Ok(self.begin(session, caller.token, &caller.revoked))
    }

    fn begin(
        &self,
        session: Session,
        token: Option<Digest>,
        parent: &CancellationToken,
    ) -> (String, Session) {
        let cookie = draw();
        let hash = Digest::of(&cookie);
        let caller =
            Caller { session: session.clone(), token, cookie: Some(hash), revoked: parent.child_token() };
        self.sessions().add(hash, caller);
        tracing::info!(name = session.name, "Session of a browser began.");
        (cookie, session)
    }

    /// Ends a session, and the streams that go on in it.
    pub(crate) fn end_session(&self, cookie: Digest) {
        self.sessions().end(cookie);
    }

    /// Counts an attempt that failed of `error`, and gives the answer to it.
    pub(crate) fn refuse(&self, error: ApiError) -> Fault {
        if self.failures.count() { error.into() } else { too_many() }
    }

    /// Attempts with what was not valid, and sessions that go on.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.failures.total(), self.sessions().len() as u64)
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, Sessions> {
        self.sessions.lock().expect(UNPOISONED)
    }
}

/// Why the locks of this module are never poisoned.
const UNPOISONED: &str = "nothing panics while it holds the lock";
