//! The system calls that a container may make.
//!
//! The list is what Docker's default profile has allowed since its version 25 to a container with the usual
//! capabilities; the conditions on arguments are its too. What is not listed fails with EPERM, except `clone3`, whose
//! flags a filter cannot see: it fails with ENOSYS, so that C libraries fall back to `clone`.

use std::sync::LazyLock;

use serde_json::{Value, json};

const ALLOWED: &str = include_str!("syscalls.txt");
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// `CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET`.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;
const AF_VSOCK: u32 = 40;
/// `PER_LINUX`, `PER_LINUX32`, each also with `UNAME26`, and the query.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, u32::MAX];

/// System calls that a capability is good for, besides those that all containers may make: without them it would be of no use.
const BY_CAPABILITY: [(&str, &[&str]); 11] = [
    ("BPF", &["bpf"]),
    ("DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("PERFMON", &["perf_event_open"]),
    (
        SYS_ADMIN,
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("SYS_BOOT", &["reboot"]),
    ("SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("SYS_PACCT", &["acct"]),
    (
        "SYS_PTRACE",
        &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"],
    ),
    ("SYS_RAWIO", &["ioperm", "iopl"]),
    ("SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
];
const SYS_ADMIN: &str = "SYS_ADMIN";

/// The profile of a container with these capabilities, in the form of the OCI runtime specification, for this machine's
/// architecture.
pub(super) fn profile(capabilities: &[String]) -> Value {
    static PROFILE: LazyLock<Value> = LazyLock::new(build);
    let mut profile = PROFILE.clone();
    let has = |name: &str| capabilities.iter().any(|capability| capability == name);
    let names: Vec<&str> = BY_CAPABILITY
        .iter()
        .filter(|(name, _)| has(name))
        .flat_map(|(_, calls)| calls.iter().copied())
        .collect();
    if let Some(rules) = profile["syscalls"].as_array_mut() {
        if has(SYS_ADMIN) {
            // What it may make namespaces with is not refused by its flags any more.
            rules.retain(|rule| rule["names"] != json!(["clone"]) && rule["names"] != json!(["clone3"]));
        }
        if !names.is_empty() {
            rules.push(json!({"names": names, "action": "SCMP_ACT_ALLOW"}));
        }
    }
    profile
}

fn build() -> Value {
    let (architectures, native): (&[&str], &[&str]) = match std::env::consts::ARCH {
        "x86_64" => (&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], &["arch_prctl", "modify_ldt"]),
        "aarch64" => (
            &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
            &[
                "arm_fadvise64_64",
                "arm_sync_file_range",
                "breakpoint",
                "cacheflush",
                "set_tls",
                "sync_file_range2",
            ],
        ),
        "riscv64" => (&["SCMP_ARCH_RISCV64"], &["riscv_flush_icache"]),
        "s390x" => (
            &["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
            &["s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr"],
        ),
        "powerpc64" => (&["SCMP_ARCH_PPC64LE"], &["sync_file_range2", "swapcontext"]),
        // Without a name for it the kernel's own architecture is meant.
        _ => (&[], &[]),
    };
    let names: Vec<&str> = ALLOWED.lines().chain(native.iter().copied()).collect();
    // s390 takes the flags of clone as its second argument.
    let clone_flags = if std::env::consts::ARCH == "s390x" { 1 } else { 0 };
    let mut rules = vec![
        json!({"names": names, "action": "SCMP_ACT_ALLOW"}),
        json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_NE"}]}),
        json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": clone_flags, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}),
    ];
    rules.extend(PERSONALITIES.map(|value| {
        json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
    }));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": architectures,
        "syscalls": rules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_brings_the_system_calls_that_it_is_good_for() {
        let allows = |capabilities: &[&str], call: &str| {
            let capabilities: Vec<_> = capabilities.iter().map(|&name| name.to_owned()).collect();
            let rules = profile(&capabilities)["syscalls"].clone();
            let names_it = |rule: &Value| rule["names"].as_array().unwrap().iter().any(|name| name == call);
            let rules: Vec<_> =
                rules.as_array().unwrap().iter().filter(|rule| names_it(rule)).cloned().collect();
            rules.iter().any(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule.get("args").is_none())
        };
        for (capability, call) in [(SYS_ADMIN, "mount"), (SYS_ADMIN, "clone3"), ("SYS_TIME", "settimeofday")]
        {
            assert!(!allows(&["CHOWN"], call) && allows(&["CHOWN", capability], call), "{call}");
        }
        assert!(!allows(&["SYS_TIME"], "mount"));
    }

    #[test]
    fn what_escapes_a_container_is_not_allowed() {
        let allowed: Vec<&str> = ALLOWED.lines().collect();
        for name in [
            "mount",
            "umount2",
            "setns",
            "unshare",
            "bpf",
            "kexec_load",
            "init_module",
            "finit_module",
            "reboot",
            "pivot_root",
            "swapon",
            "keyctl",
            "add_key",
            "perf_event_open",
            "userfaultfd",
            "open_by_handle_at",
            "io_uring_setup",
            "clone",
            "clone3",
            "socket",
            "personality",
            "settimeofday",
        ] {
            assert!(!allowed.contains(&name), "{name}");
        }
        assert!(allowed.is_sorted_by(|a, b| a.trim_start_matches('_') < b.trim_start_matches('_')));
    }
}
