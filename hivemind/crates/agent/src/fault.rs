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
        E::NotPermitted { .. } => (
            ErrorCode::Privileges,
            "run the daemon as root; in a container give it the capabilities, under systemd widen CapabilityBoundingSet",
        ),
        E::KernelTooOld { .. } => (ErrorCode::KernelUnsupported, "boot Linux 6.1 or newer"),
        E::KernelTooOldForNodes { .. } => (
            ErrorCode::KernelUnsupported,
            "boot Linux 6.3 or newer on every node; a node that is alone works as it is",
        ),
        E::NoBtf { .. } => (
            ErrorCode::KernelUnsupported,
            "boot a kernel built with CONFIG_DEBUG_INFO_BTF; `hivemind doctor` checks",
        ),
        E::NoCgroup2 { .. } => (
            ErrorCode::CgroupMissing,
            "mount cgroup v2 (mount -t cgroup2 none /sys/fs/cgroup/unified), or name its directory with --cgroup-root",
        ),
        E::ProgramRefused { .. } | E::Object(_) => {
            (ErrorCode::EbpfUnavailable, "run `hivemind doctor`; the daemon's log has the verifier's")
        }
        E::LayoutTooNew { .. } => (
            ErrorCode::LayoutUnsupported,
            "nothing was changed and traffic goes on; install the version that ran here last, or a newer one, or remove everything with `hivemind daemon --teardown`",
        ),
        E::LayoutTooOld { .. } => (
            ErrorCode::LayoutUnsupported,
            "nothing was changed and traffic goes on; upgrade to the versions in between first, or remove everything with `hivemind daemon --teardown`",
        ),
        E::PortTaken { .. } => {
            (ErrorCode::PortTaken, "publish another port, or stop what uses it (`ss -ltnp` shows it)")
        }
        E::MapFull { .. } => (
            ErrorCode::MapFull,
            "see `hivemind status` for the fill of the tables; fewer rules or apps make room",
        ),
        E::Config { .. } | E::Spec { .. } => (ErrorCode::InvalidConfig, "correct the daemon's configuration"),
        _ => (ErrorCode::NetworkFailed, "it is tried again; the daemon's log has more"),
    };
    problem(code, with_causes(error), hint)
}

/// Why the data path did not start, for users.
pub fn explain_datapath(error: &hivemind_datapath::Error) -> ApiError {
    if let hivemind_datapath::Error::ProgramRefused { verifier_log, .. } = error {
        tracing::error!(verifier_log, "The verifier's log");
    }
    api_error(of_datapath(error))
}

/// Why the runtime did not start, for users.
pub fn explain_runtime(error: &hivemind_runtime::Error) -> ApiError {
    api_error(of_runtime(error))
}

pub(crate) fn of_pull(error: &hivemind_runtime::ImageError) -> Problem {
    use hivemind_runtime::ImageError as E;
    let (code, hint) = match error {
        E::NotFound { .. } => (
            ErrorCode::ImageNotFound,
            "check the name and the tag; `hivemind image import` brings one from a file",
        ),
        E::Unauthorized { .. } => (
            ErrorCode::ImageUnauthorized,
            "check the name; this version pulls public images, from mirrors and from archives",
        ),
        E::RegistryWithoutTls { host } => {
            let hint = format!(
                "if it is meant to speak plain HTTP, start the daemon with --insecure-registry {host}"
            );
            return problem(ErrorCode::RegistryUnreachable, with_causes(error), &hint);
        }
        E::RegistryUnreachable { .. } | E::RegistryFailed { .. } => (
            ErrorCode::RegistryUnreachable,
            "check the registry's name and the network; `hivemind image import` brings an image from a file",
        ),
        E::Corrupt { .. } | E::Archive { .. } => {
            (ErrorCode::ImageCorrupt, "nothing of it was kept; pull or export it again")
        }
        E::Platform { .. } => (ErrorCode::ImagePlatform, "use an image that is built for this machine"),
        E::Mirror { .. } | E::Client { .. } => {
            (ErrorCode::InvalidConfig, "correct the daemon's configuration")
        }
        E::Containerd(error) => return of_runtime(error),
    };
    problem(code, with_causes(error), hint)
}

pub(crate) fn of_runtime(error: &hivemind_runtime::Error) -> Problem {
    use hivemind_runtime::Error as E;
    let (code, hint) = match error {
        E::ContainerdUnreachable { .. } | E::Unavailable { .. } | E::TimedOut { .. } => (
            ErrorCode::ContainerdUnreachable,
            "see whether containerd runs (`systemctl status containerd`); Hivemind goes on by itself when it is back",
        ),
        E::BinaryMissing { .. } => (
            ErrorCode::ContainerdUnreachable,
            "install containerd and runc, or name a socket with --containerd-socket",
        ),
        E::StartFailed { .. } => {
            (ErrorCode::ContainerdUnreachable, "the message says why; `hivemind doctor` checks the machine")
        }
        E::NoCommand { .. } | E::CommandNotFound { .. } | E::CommandNotExecutable { .. } => {
            (ErrorCode::CommandFailed, "give a command that the image has, with --command")
        }
        E::MemoryLimitTooSmall { .. } => (ErrorCode::OutOfMemory, "raise --memory"),
        E::NoSpace { .. } => (ErrorCode::DiskFull, "make room on the disk that holds containerd's data"),
        E::UnknownUser { .. } | E::InvalidSpec { .. } | E::Runc { .. } => {
            (ErrorCode::ContainerFailed, "the message says what runc refused")
        }
        _ => (ErrorCode::ContainerFailed, "it is tried again; the daemon's log has more"),
    };
    problem(code, with_causes(error), hint)
}
