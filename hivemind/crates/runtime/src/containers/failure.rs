//! What runc says when it cannot start something, in terms of what the user can change.
//!
//! runc reports in prose; the phrases are those of runc 1.0 to 1.3 and crun's equivalents of them.

use std::num::NonZeroU64;

use crate::Error;

/// Sorts the failure of creating or starting a process with these arguments. What is not runc's stays as it is.
pub(super) fn explain(error: Error, command: &str, memory_bytes: Option<NonZeroU64>) -> Error {
    let Error::Call { call, status } = error else { return error };
    let Some(detail) = detail(status.message()) else { return Error::Call { call, status } };
    let command = command.to_owned();
    // `exec:` stands before what became of the command itself; mounts may be missing too.
    if let Some(about) = detail.find("exec: ").map(|at| &detail[at..]) {
        if about.contains("executable file not found") || about.contains("no such file or directory") {
            return Error::CommandNotFound { command, detail };
        }
        if ["permission denied", "is a directory", "exec format error"]
            .iter()
            .any(|sign| about.contains(sign))
        {
            return Error::CommandNotExecutable { command, detail };
        }
    }
    match memory_bytes {
        Some(limit) if is_out_of_memory(&detail) => {
            Error::MemoryLimitTooSmall { limit_bytes: limit.get(), detail }
        }
        _ => Error::Runc { detail },
    }
}

fn is_out_of_memory(detail: &str) -> bool {
    let signs =
        ["OOM", "memory limit too low", "unable to set memory limit", "memory.limit_in_bytes", "memory.max"];
    // A first process that the kernel kills before it can speak leaves only a broken pipe.
    let silent_deaths =
        ["container init exited prematurely", "signal: killed", "broken pipe", "connection reset", "EOF"];
    signs.iter().chain(&silent_deaths).any(|sign| detail.contains(sign))
}

/// runc's own words, out of the frame that shim and containerd put around them.
fn detail(message: &str) -> Option<String> {
    let frames = ["OCI runtime create failed: ", "OCI runtime exec failed: ", "OCI runtime start failed: "];
    let (_, said) = frames.iter().find_map(|frame| message.split_once(frame))?;
    let said = said.strip_suffix(": unknown").unwrap_or(said);
    let said = ["runc create failed: ", "runc did not terminate successfully: ", "exec failed: "]
        .iter()
        .fold(said, |said, frame| said.strip_prefix(frame).unwrap_or(said));
    Some(said.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(message: &str, memory: u64) -> Error {
        let status = Box::new(tonic::Status::unknown(message));
        explain(Error::Call { call: "Tasks.Create", status }, "x", NonZeroU64::new(memory))
    }

    const FRAME: &str = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: ";

    #[test]
    fn a_command_that_is_missing_is_told_from_one_that_may_not_run() {
        let create = |text: &str| explained(&format!("{FRAME}{text}: unknown"), 0);
        for text in [
            "exec: \"x\": executable file not found in $PATH",
            "exec: \"/x\": stat /x: no such file or directory",
        ] {
            assert!(matches!(create(text), Error::CommandNotFound { .. }), "{text}");
        }
        assert!(matches!(create("exec: \"/x\": permission denied"), Error::CommandNotExecutable { .. }));
        let mount = create("error mounting \"/nowhere\": no such file or directory");
        assert!(matches!(mount, Error::Runc { .. }));
    }

    #[test]
    fn only_a_limited_container_can_be_short_of_its_limit() {
        let message = format!("{FRAME}container init was OOM-killed (memory limit too low?): unknown");
        assert!(matches!(
            explained(&message, 1 << 20),
            Error::MemoryLimitTooSmall { limit_bytes: 1_048_576, .. }
        ));
        assert!(matches!(explained(&message, 0), Error::Runc { .. }));
    }

    #[test]
    fn what_containerd_says_itself_is_left_alone() {
        assert!(matches!(explained("container \"x\" already exists", 0), Error::Call { .. }));
    }
}
