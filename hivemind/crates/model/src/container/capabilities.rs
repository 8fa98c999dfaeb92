//! Capabilities of a container: those that Docker gives, less what is dropped, and what is added.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{ErrorCode, Problems};

/// What processes may do of what root may, beside what every container starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capabilities {
    /// Those that it has though `drop` names them, for example with `ALL`; others than those that a container starts with only where
    /// the namespace permits them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// Those that are taken away; `ALL` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

impl Capabilities {
    /// Those that a container starts with: what Docker gives one that asks for nothing.
    pub const USUAL: [&str; 14] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];

    pub(super) fn is_usual(&self) -> bool {
        *self == Capabilities::default()
    }

    /// Those that a container has, in the order of their names.
    pub fn left(&self) -> Vec<&'static str> {
        let names = |list: &[String], name: &str| list.iter().any(|n| n == ALL_CAPABILITIES || n == name);
        let usual = |name: &str| Self::USUAL.contains(&name) && !names(&self.drop, name);
        let has = |name: &&str| usual(name) || names(&self.add, name);
        CAPABILITIES.into_iter().filter(has).collect()
    }

    /// Brings the names into the form in which they are kept.
    pub(super) fn normalize(&mut self) {
        for name in self.add.iter_mut().chain(&mut self.drop) {
            *name = capability_name(name);
        }
    }

    pub(super) fn check(&self, field: &str, problems: &mut Problems) {
        let Capabilities { add, drop } = self;
        for (list, names) in [("add", add), ("drop", drop)] {
            for (i, name) in names.iter().enumerate() {
                let field = format!("{field}.{list}[{i}]");
                let known = capability_name(name);
                if known != ALL_CAPABILITIES && !CAPABILITIES.contains(&known.as_str()) {
                    let what = format!("{name:?} is no capability");
                    let hint = "see capabilities(7) for their names, for example NET_RAW";
                    problems.add(ErrorCode::OutOfRange, field, what, hint);
                }
            }
        }
    }
}

/// `cap_net_raw` is `NET_RAW`.
pub(crate) fn capability_name(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").map_or_else(|| name.clone(), str::to_owned)
}

/// Whether `name` is a capability, or stands for all.
pub(crate) fn is_capability(name: &str) -> bool {
    let name = capability_name(name);
    name == ALL_CAPABILITIES || CAPABILITIES.contains(&name.as_str())
}

/// In place of the names of all capabilities.
pub(crate) const ALL_CAPABILITIES: &str = "ALL";

/// All capabilities of Linux 6.18 (capabilities(7)).
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn what_is_dropped_is_gone_unless_it_is_added_again() {
        let left = |add: &[&str], drop: &[&str]| Capabilities { add: words(add), drop: words(drop) }.left();
        assert_eq!(left(&[], &[]), Capabilities::USUAL);
        assert_eq!(left(&[], &["ALL"]), Vec::<&str>::new());
        assert_eq!(left(&["KILL"], &["ALL"]), ["KILL"]);
        assert_eq!(left(&[], &["KILL", "NET_ADMIN"]).len(), Capabilities::USUAL.len() - 1);
    }
}
