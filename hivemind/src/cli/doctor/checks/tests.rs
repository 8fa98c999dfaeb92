use serde_json::json;

use super::*;

fn good() -> Machine {
    Machine {
        is_root: true,
        capabilities: u64::MAX,
        kernel: "6.1.0-18-amd64".into(),
        has_btf: true,
        filesystems: vec!["bpf".into(), "overlay".into()],
        ebpf: Ok(()),
        cgroup2: Some("/sys/fs/cgroup".into()),
        containerd: Some("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1".into()),
        containerd_answers: true,
        runc: Some("runc version 1.1.5+ds1".into()),
        nft: Some("nftables v1.0.6 (Lester Gooch #5)".into()),
        forwarding: (Some(true), Some(true)),
        data_dir: "/var/lib/hivemind".into(),
        free_bytes: Some(50_000_000_000),
        web_port: 4483,
        web_port_is: PortState::Free,
        name_servers: vec!["10.0.0.53".parse().unwrap()],
        ruleset: Some(json!({ "nftables": [{ "metainfo": { "version": "1.0.6" } }] })),
        now: "2026-06-01T00:00:00Z".parse().unwrap(),
    }
}

/// What is not well on a machine that differs from a good one by `change`.
fn faults(change: impl FnOnce(&mut Machine)) -> Vec<(&'static str, Level)> {
    let mut machine = good();
    change(&mut machine);
    let bad: Vec<Finding> = all(&machine).into_iter().filter(|f| f.level != Level::Ok).collect();
    assert!(bad.iter().all(|f| !f.remedy.is_empty() && !f.found.is_empty()), "{bad:?}");
    bad.into_iter().map(|f| (f.check, f.level)).collect()
}

#[test]
fn a_good_machine_has_no_faults() {
    assert_eq!(faults(|_| ()), []);
    assert!(all(&good()).iter().all(|f| f.remedy.is_empty()));
}

#[test]
fn what_hivemind_cannot_do_without_fails() {
    type Change = fn(&mut Machine);
    let cases: [(&str, Change); 14] = [
        ("privileges", |m| m.capabilities = 0),
        ("privileges", |m| (m.is_root, m.capabilities) = (false, 0)),
        ("kernel", |m| m.kernel = "5.10.0-28-amd64".into()),
        ("kernel types (BTF)", |m| m.has_btf = false),
        ("bpf filesystem", |m| m.filesystems = vec!["overlay".into()]),
        ("eBPF", |m| m.ebpf = Err("the kernel has no traffic control programs".into())),
        ("cgroup v2", |m| m.cgroup2 = None),
        ("overlay filesystem", |m| m.filesystems = vec!["bpf".into()]),
        ("containerd", |m| (m.containerd, m.containerd_answers) = (None, false)),
        ("containerd", |m| m.containerd = Some("containerd containerd.io 1.5.11 3df54a8".into())),
        ("runc", |m| m.runc = None),
        ("disk", |m| m.free_bytes = Some(100_000_000)),
        ("port", |m| m.web_port_is = PortState::Taken),
        ("clock", |m| m.now = Timestamp::UNIX_EPOCH),
    ];
    for (check, change) in cases {
        assert_eq!(faults(change), [(check, Level::Fail)], "{check}");
    }
}

#[test]
fn what_hivemind_can_do_without_is_a_warning() {
    assert_eq!(faults(|m| m.free_bytes = Some(1_000_000_000)), [("disk", Level::Warn)]);
    assert_eq!(faults(|m| m.name_servers.clear()), [("name servers", Level::Warn)]);
    assert_eq!(faults(|m| m.forwarding.1 = None), [("forwarding", Level::Warn)]);
    assert_eq!(faults(|m| m.ruleset = None), [("firewall", Level::Warn)]);
}

#[test]
fn what_the_daemon_does_by_itself_is_no_fault() {
    assert_eq!(faults(|m| m.forwarding = (Some(false), Some(false))), []);
    assert_eq!(faults(|m| m.containerd_answers = false), []);
    assert_eq!(faults(|m| m.cgroup2 = Some("/sys/fs/cgroup/unified".into())), []);
    assert_eq!(faults(|m| m.web_port_is = PortState::Ours), []);
}

#[test]
fn another_firewall_that_drops_what_is_forwarded_is_named() {
    let chain = |family: &str, table: &str, hook: &str, policy: &str| json!({ "chain": { "family": family, "table": table, "name": "FORWARD", "hook": hook, "policy": policy } });
    let mut machine = good();
    machine.ruleset = Some(json!({ "nftables": [
        chain("ip", "filter", "forward", "drop"),
        chain("inet", "hivemind", "forward", "drop"),
        chain("ip", "nat", "postrouting", "drop"),
        chain("bridge", "filter", "forward", "drop"),
        chain("ip6", "filter", "forward", "accept"),
    ] }));
    let finding = firewall(&machine);
    assert_eq!(finding.level, Level::Warn);
    assert!(finding.found.starts_with("ip filter FORWARD drops"), "{}", finding.found);
}

#[test]
fn versions_are_found_in_what_programs_print() {
    for (text, version) in [
        ("6.18.44-fc", (6, 18)),
        ("containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7", (2, 1)),
        ("containerd github.com/containerd/containerd 1.6.20~ds1", (1, 6)),
    ] {
        assert_eq!(version_in(text), Some(version), "{text}");
    }
    assert_eq!(version_in("no numbers"), None);
}
