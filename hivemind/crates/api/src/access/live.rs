//! What ends when a token is revoked.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
    time::Duration,
};

use hivemind_model::{ApiError, Token, WatchKind};
use hivemind_store::Objects;
use tokio_util::sync::CancellationToken;

use super::{Digest, UNPOISONED};

/// How long after a failure the tokens are watched again.
const PAUSE: Duration = Duration::from_secs(1);

/// The tokens that were used, each with what is cancelled when it is revoked. No more than there are tokens: those that
/// are not valid do not stay.
#[derive(Default)]
pub(super) struct Live {
    used: Mutex<HashMap<Digest, CancellationToken>>,
}

impl Live {
    /// What is cancelled when the token is revoked from now on.
    pub(super) fn enter(&self, hash: Digest) -> CancellationToken {
        self.used.lock().expect(UNPOISONED).entry(hash).or_default().clone()
    }

    /// The token is not valid: whatever stands on it ends.
    pub(super) fn end(&self, hash: Digest) {
        if let Some(revoked) = self.used.lock().expect(UNPOISONED).remove(&hash) {
            revoked.cancel();
        }
    }

    /// Ends tokens as they are revoked, until `shutdown`. While the store cannot tell, whatever stands on a token ends.
    pub(super) async fn follow(&self, objects: &Objects, shutdown: &CancellationToken) {
        let following = async {
            loop {
                if let Err(error) = self.watch(objects).await {
                    tracing::warn!(
                        error = error.message,
                        "Tokens cannot be watched; what stands on them ends."
                    );
                    self.end_all_but(&HashSet::new());
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = following => {}
        }
    }

    async fn watch(&self, objects: &Objects) -> Result<(), ApiError> {
        let (there, mut watch) = objects.list_and_watch::<Token>(None).await?;
        self.end_all_but(&there.items.iter().filter_map(hash).collect());
        loop {
            let event = watch.next().await?;
            if event.kind == WatchKind::Deleted
                && let Some(hash) = hash(&event.object)
            {
                self.end(hash);
            }
        }
    }

    fn end_all_but(&self, valid: &HashSet<Digest>) {
        self.used.lock().expect(UNPOISONED).retain(|hash, revoked| {
            let stays = valid.contains(hash);
            if !stays {
                revoked.cancel();
            }
            stays
        });
    }
}

fn hash(token: &Token) -> Option<Digest> {
    Digest::parse(&token.spec.hash)
}
