//! Named volumes of replicas.

use std::path::{Path, PathBuf};

use hivemind_model::{ApiError, ErrorCode, Problem};
use hivemind_runtime::Reference;

use crate::{agent::Agent, fault::problem, worker::Worker};

impl Worker {
    /// Where the volume is on the host; the first time it is made, with what the image has at `path`.
    pub(crate) async fn volume(
        &self,
        _namespace: &str,
        _name: &str,
        _reference: &Reference,
        _path: &str,
    ) -> Result<PathBuf, Problem> {
        Err(problem(ErrorCode::Unsupported, "volumes", ""))
    }
}

impl Agent {
    pub(crate) async fn remove_volume(&self, _namespace: &str, _name: &str, _users: &[String]) -> Result<(), ApiError> {
        let _ = Path::new("");
        Ok(())
    }
}
