//! Descriptors that the service manager hands to the process it starts (sd_listen_fds(3)).

use std::os::fd::{FromRawFd, OwnedFd};

use sd_notify::listen_fds_with_names;
use tracing::warn;

/// What was handed over, by name. Dropping it closes them here; the service manager keeps its own.
#[derive(Default)]
pub(crate) struct Inherited(pub(super) Vec<(String, OwnedFd)>);

impl Inherited {
    /// Takes what the environment tells of, and the variables from it, so that nobody takes it again: programs that are
    /// started from now on inherit neither. To be called once, before there are threads.
    pub(crate) fn from_environment() -> Self {
        match listen_fds_with_names(true) {
            Ok(descriptors) => {
                let owned = descriptors.map(|(number, name)| {
                    // SAFETY: The numbers were handed to this process as open descriptors of its own (the variables name its
                    // id, and that they are open was checked); nobody else knows of them, since the variables are gone.
                    (name, unsafe { OwnedFd::from_raw_fd(number) })
                });
                Self(owned.collect())
            }
            Err(error) => {
                warn!(%error, "What the service manager hands over is not understood");
                Self::default()
            }
        }
    }
}
