//! Errors of the parts below, as problems that users see.

use hivemind_model::{ApiError, ErrorCode, Problem};

pub(crate) fn problem(code: ErrorCode, message: impl Into<String>, hint: &str) -> Problem {
    Problem { code, field: String::new(), message: message.into(), hint: hint.into() }
}

pub(crate) fn api_error(problem: Problem) -> ApiError {
    ApiError::new(problem.code, problem.message, problem.hint)
}

/// `error` and what caused it, joined by colons.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

pub(crate) fn of_datapath(error: &hivemind_datapath::Error) -> Problem {
    use hivemind_datapath::Error as E;
    let (code, hint) = match error {
        E::NotPermitted { .. } => (ErrorCode::Privileges, "run the daemon as root"),
        E::KernelTooOld { .. } => (ErrorCode::KernelUnsupported, "boot Linux 6.1 or newer"),
        E::NoBtf { .. } => (ErrorCode::KernelUnsupported, "boot a kernel built with CONFIG_DEBUG_INFO_BTF; `hivemind doctor` checks"),
        E::NoCgroup2 { .. } => (ErrorCode::CgroupMissing, "mount cgroup v2 (mount -t cgroup2 none /sys/fs/cgroup/unified), or name its directory with --cgroup-root"),
        E::NftMissing { .. } => (ErrorCode::NetworkFailed, "install the package nftables"),
        E::ProgramRefused { .. } | E::Object(_) => (ErrorCode::EbpfUnavailable, "run `hivemind doctor`; the daemon's log has the verifier's"),
        E::PortTaken { .. } => (ErrorCode::PortTaken, "publish another port, or stop what uses it (`ss -ltnp` shows it)"),
        E::MapFull { .. } => (ErrorCode::NetworkFailed, "see `hivemind status` for the fill of the maps"),
        E::Config { .. } | E::Spec { .. } => (ErrorCode::InvalidConfig, "correct the daemon's configuration"),
        _ => (ErrorCode::NetworkFailed, "it is tried again; the daemon's log has more"),
    };
    problem(code, with_causes(error), hint)
}
