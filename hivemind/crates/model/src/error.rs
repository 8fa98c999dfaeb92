//! Errors as users and programs see them: a code, what happened, and what to do next.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Kinds of errors. Each has one HTTP status and one exit code of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// What was asked is not valid; asking again the same way fails again. HTTP 400, exit 2.
    Invalid,
    /// What was named does not exist. HTTP 404, exit 3.
    NotFound,
    /// It clashes with what is there. HTTP 409, exit 4.
    Conflict,
    /// An image, a registry or a container did not do what it should. HTTP 422, exit 5.
    Workload,
    /// The machine lacks something, or a part of it failed. HTTP 503, exit 6.
    Environment,
    /// The daemon does not answer. Never sent by the API; exit 7.
    Unreachable,
    /// It did not happen in the time given. HTTP 504, exit 8.
    Timeout,
    /// Nobody knows who the caller is. HTTP 401, exit 9.
    Denied,
    /// The caller is known and may not. HTTP 403, exit 9.
    Forbidden,
    /// A fault of Hivemind itself. HTTP 500, exit 1.
    Internal,
}

impl ErrorKind {
    /// The HTTP status of a response with an error of this kind.
    pub fn http_status(self) -> u16 {
        match self {
            ErrorKind::Invalid => 400,
            ErrorKind::Denied => 401,
            ErrorKind::Forbidden => 403,
            ErrorKind::NotFound => 404,
            ErrorKind::Conflict => 409,
            ErrorKind::Workload => 422,
            ErrorKind::Internal | ErrorKind::Unreachable => 500,
            ErrorKind::Environment => 503,
            ErrorKind::Timeout => 504,
        }
    }

    /// The exit code of a command that ends with an error of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Internal => 1,
            ErrorKind::Invalid => 2,
            ErrorKind::NotFound => 3,
            ErrorKind::Conflict => 4,
            ErrorKind::Workload => 5,
            ErrorKind::Environment => 6,
            ErrorKind::Unreachable => 7,
            ErrorKind::Timeout => 8,
            ErrorKind::Denied | ErrorKind::Forbidden => 9,
        }
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal $kind:ident;)+) => {
        /// Everything that can go wrong and that a user may see, each with a number that stays.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[doc = $doc])+ $name,)+ }

        impl ErrorCode {
            /// All codes, in the order of their numbers.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)+];

            /// The code as it is printed, `HM` and four digits.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$name => $code,)+ }
            }

            /// The kind, and with it HTTP status and exit code.
            pub fn kind(self) -> ErrorKind {
                match self { $(ErrorCode::$name => ErrorKind::$kind,)+ }
            }

            /// What the code means, for the reference.
            pub fn meaning(self) -> &'static str {
                match self { $(ErrorCode::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

codes! {
    /// The request or file cannot be read at all.
    Malformed = "HM0100" Invalid;
    /// A name, namespace or hostname is not of the allowed form.
    InvalidName = "HM0101" Invalid;
    /// An image reference is not of the allowed form.
    InvalidImage = "HM0102" Invalid;
    /// A value is out of its range.
    OutOfRange = "HM0103" Invalid;
    /// An environment variable's name is not usable.
    InvalidEnv = "HM0104" Invalid;
    /// A volume's mount is not usable.
    InvalidMount = "HM0105" Invalid;
    /// A label is not of the allowed form.
    InvalidLabel = "HM0106" Invalid;
    /// The same thing is said twice in one request.
    Repeated = "HM0107" Invalid;
    /// A field or combination that this version does not support.
    Unsupported = "HM0108" Invalid;
    /// The configuration of the daemon is not valid.
    InvalidConfig = "HM0109" Invalid;
    /// A selector of labels is not of the allowed form, or can never match.
    InvalidSelector = "HM0110" Invalid;
    /// A block of addresses is not of the allowed form, or its exceptions lie outside of it.
    InvalidCidr = "HM0111" Invalid;
    /// A policy allows less than its author may have meant.
    PolicyWarning = "HM0112" Invalid;
    /// A document has a field that its kind does not have.
    UnknownField = "HM0113" Invalid;
    /// A field is missing, or its value is of another type than the field wants.
    WrongType = "HM0114" Invalid;
    /// No such app.
    AppNotFound = "HM0201" NotFound;
    /// No such replica.
    ReplicaNotFound = "HM0202" NotFound;
    /// No such volume.
    VolumeNotFound = "HM0203" NotFound;
    /// No such service.
    ServiceNotFound = "HM0204" NotFound;
    /// No such path in the API.
    PathNotFound = "HM0205" NotFound;
    /// The app has no running replica for this.
    NothingRunning = "HM0206" NotFound;
    /// No such network policy.
    PolicyNotFound = "HM0207" NotFound;
    /// No such namespace.
    NamespaceNotFound = "HM0208" NotFound;
    /// No such token.
    TokenNotFound = "HM0209" NotFound;
    /// No such context.
    ContextNotFound = "HM0210" NotFound;
    /// There is no node of that name.
    NodeNotFound = "HM0211" NotFound;
    /// The log of flows has nothing of what is asked about.
    NothingSeen = "HM0212" NotFound;
    /// The replica has no container of that name.
    ContainerNotFound = "HM0213" NotFound;
    /// An app of this name exists already.
    AppExists = "HM0301" Conflict;
    /// The service name belongs to another app.
    ServiceNameTaken = "HM0302" Conflict;
    /// The host port is published by another app.
    PortPublished = "HM0303" Conflict;
    /// A process outside Hivemind holds the host port.
    PortTaken = "HM0304" Conflict;
    /// The object changed since it was read.
    Stale = "HM0305" Conflict;
    /// The volume is in use.
    VolumeInUse = "HM0306" Conflict;
    /// The object is being deleted.
    Deleting = "HM0307" Conflict;
    /// Another daemon uses this data directory.
    DataDirLocked = "HM0308" Conflict;
    /// A namespace of this name exists already.
    NamespaceExists = "HM0309" Conflict;
    /// Something is in the namespace.
    NamespaceInUse = "HM0310" Conflict;
    /// A token of this name exists already.
    TokenExists = "HM0311" Conflict;
    /// A network policy of this name exists already.
    PolicyExists = "HM0312" Conflict;
    /// Another node of the cluster has that name.
    NodeExists = "HM0313" Conflict;
    /// The machine belongs to another cluster, or is a server of its own.
    OtherCluster = "HM0314" Conflict;
    /// Addresses of the machine, or of its networks, are the cluster's too.
    RangesOverlap = "HM0315" Conflict;
    /// The node is no server: what was asked for is done by one.
    NotServer = "HM0316" Conflict;
    /// The node still has what keeps it from being removed.
    NodeInUse = "HM0317" Conflict;
    /// The registry has no such image or tag.
    ImageNotFound = "HM0401" Workload;
    /// The registry wants other credentials.
    ImageUnauthorized = "HM0402" Workload;
    /// The registry cannot be reached.
    RegistryUnreachable = "HM0403" Workload;
    /// What the registry or the archive holds does not match its digest or is not an image.
    ImageCorrupt = "HM0404" Workload;
    /// The image has nothing for this machine's processor.
    ImagePlatform = "HM0405" Workload;
    /// The command cannot be started in the container.
    CommandFailed = "HM0406" Workload;
    /// The memory limit is smaller than the container needs.
    OutOfMemory = "HM0407" Workload;
    /// The container ends again and again.
    CrashLoop = "HM0408" Workload;
    /// The container could not be made or started.
    ContainerFailed = "HM0409" Workload;
    /// No node can take the replica.
    Unschedulable = "HM0410" Workload;
    /// A container runs, but a probe of it fails.
    Unhealthy = "HM0411" Workload;
    /// The app waits for another one to be started, ready or completed.
    Waiting = "HM0412" Workload;
    /// containerd does not answer.
    ContainerdUnreachable = "HM0501" Environment;
    /// The eBPF programs cannot be loaded.
    EbpfUnavailable = "HM0502" Environment;
    /// There is no cgroup v2 tree.
    CgroupMissing = "HM0503" Environment;
    /// The disk is full.
    DiskFull = "HM0504" Environment;
    /// The daemon lacks a privilege.
    Privileges = "HM0505" Environment;
    /// Network set-up on the machine failed.
    NetworkFailed = "HM0506" Environment;
    /// No address is left in a range.
    AddressesExhausted = "HM0507" Environment;
    /// The store failed.
    StoreFailed = "HM0508" Environment;
    /// A file or directory of the daemon cannot be used.
    FileFailed = "HM0509" Environment;
    /// An address or port of the daemon is taken.
    AddressInUse = "HM0510" Environment;
    /// The kernel is too old or lacks a feature.
    KernelUnsupported = "HM0511" Environment;
    /// A table of the data path is full.
    MapFull = "HM0512" Environment;
    /// The daemon does as much at once as it takes.
    Busy = "HM0513" Environment;
    /// Flows came faster than they are told, and some were left out of the list of flows.
    FlowsLost = "HM0514" Environment;
    /// The clocks of two machines differ too much.
    ClockSkew = "HM0515" Environment;
    /// The node does not hear from its server, and goes on by what it knows.
    Disconnected = "HM0516" Environment;
    /// Traffic between nodes cannot be carried.
    OverlayFailed = "HM0517" Environment;
    /// The data path's tables are of a version that this build can neither use nor take over.
    LayoutUnsupported = "HM0518" Environment;
    /// The daemon does not answer.
    DaemonUnreachable = "HM0601" Unreachable;
    /// Another node of the cluster cannot be reached.
    NodeUnreachable = "HM0602" Unreachable;
    /// It did not happen in time.
    TimedOut = "HM0701" Timeout;
    /// The request needs a token.
    Unauthorized = "HM0801" Denied;
    /// The token does not allow it.
    Forbidden = "HM0802" Forbidden;
    /// The certificate of the other side is not the one that was expected.
    CertificateMismatch = "HM0803" Denied;
    /// The join token is not valid, has expired or is used up.
    JoinTokenInvalid = "HM0804" Denied;
    /// The node was removed from its cluster, or its certificate is not the one that it was given.
    NodeRemoved = "HM0805" Denied;
    /// The namespace does not permit what the app asks for.
    NotPermitted = "HM0806" Forbidden;
    /// A fault of Hivemind.
    Internal = "HM0901" Internal;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    /// A code that this version does not know is read as [`ErrorCode::Internal`], so that an old command line can still
    /// print what a newer daemon says.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(ErrorCode::ALL.iter().copied().find(|c| c.as_str() == text).unwrap_or(ErrorCode::Internal))
    }
}

/// One fault in an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `HM` and four digits.
    #[schema(value_type = String)]
    pub code: ErrorCode,
    /// Where: the path of the field, or the flag.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

/// An error as the API sends it and the command line prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiError {
    /// `HM` and four digits.
    #[schema(value_type = String)]
    pub code: ErrorCode,
    /// What happened.
    pub message: String,
    /// Where, if one field or flag is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// All faults, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

impl ApiError {
    /// An error with what happened and what to do next (which may be empty).
    pub fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        ApiError { code, message: message.into(), field: None, hint: hint.into(), problems: Vec::new() }
    }

    /// All faults that it tells: those that it holds, or itself.
    pub fn into_problems(self) -> Vec<Problem> {
        if self.problems.is_empty() {
            let ApiError { code, message, field, hint, .. } = self;
            return vec![Problem { code, field: field.unwrap_or_default(), message, hint }];
        }
        self.problems
    }

    /// The same error, at `field`.
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for ApiError {}

/// All faults of one input: checks add to it, and only then it is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    /// Adds a fault.
    pub fn add(
        &mut self,
        code: ErrorCode,
        field: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.list.push(Problem { code, field: field.into(), message: message.into(), hint: hint.into() });
    }

    /// How many faults there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is no fault.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// `Ok` without faults; else one error that holds them all.
    pub fn into_result(self) -> Result<(), ApiError> {
        let Some(first) = self.list.first().cloned() else { return Ok(()) };
        let mut error = ApiError::new(first.code, first.message, first.hint).at(first.field);
        if self.list.len() > 1 {
            error.message = format!("{} faults: {}", self.list.len(), error.message);
            error.problems = self.list;
        }
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_errors_share_a_code() {
        let mut seen = std::collections::HashSet::new();
        for code in ErrorCode::ALL {
            assert!(seen.insert(code.as_str()), "{code} twice");
            assert!(!code.meaning().is_empty());
        }
    }

    #[test]
    fn an_error_reads_back_from_its_json() {
        let error =
            ApiError::new(ErrorCode::AppNotFound, "no app named x", "see `hivemind app ls`").at("name");
        let json = serde_json::to_string(&error).unwrap();
        assert!(json.contains("\"HM0201\""));
        assert_eq!(serde_json::from_str::<ApiError>(&json).unwrap(), error);
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let mut problems = Problems::default();
        problems.add(ErrorCode::InvalidName, "name", "bad name", "");
        problems.add(ErrorCode::OutOfRange, "replicas", "too many", "");
        assert_eq!(problems.into_result().unwrap_err().problems.len(), 2);
    }
}
