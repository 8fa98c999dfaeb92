//! How fields are merged that are not merged as all others are.

/// How a field is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Maps key by key, lists appended, all else replaced.
    Plain,
    /// Replaced as a whole.
    Replace,
    /// A map, or a list of `KEY=value`.
    KeyValues,
    /// A map whose values may be empty, or a list of its keys.
    Names,
    /// A list, or its only entry.
    OneOrMore,
    /// As [`Rule::OneOrMore`], but no entry twice.
    OneOrMoreUnique,
    /// A list that has no text twice.
    Unique,
    /// A list `host=address`, or a map.
    Hosts,
    /// A list of ports, each of its address, number and protocol once.
    Ports,
    /// A list of volumes, one at a path.
    Mounts,
    /// A list of devices, one at a path.
    Devices,
    /// A list of configs or secrets, one at a path.
    Grants,
    /// A map, or the directory that it has as `context`.
    Build,
    /// A map that is merged only with one of the same driver.
    Logging,
}

/// How the field at `path` is merged.
pub(super) fn rule(path: &[String]) -> Rule {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["services", _, rest @ ..] => service(rest),
        ["networks" | "volumes" | "configs" | "secrets", _, "labels"] => Rule::KeyValues,
        _ => Rule::Plain,
    }
}

fn service(path: &[&str]) -> Rule {
    match path {
        ["command" | "entrypoint"] | ["healthcheck", "test"] | ["ulimits", _] => Rule::Replace,
        ["environment" | "labels" | "annotations" | "sysctls"]
        | ["build", "args" | "labels" | "additional_contexts"]
        | ["deploy", "labels"] => Rule::KeyValues,
        ["depends_on" | "networks"] => Rule::Names,
        ["env_file" | "label_file"] => Rule::OneOrMore,
        ["dns" | "dns_search" | "tmpfs"] => Rule::OneOrMoreUnique,
        ["extra_hosts"] | ["build", "extra_hosts"] => Rule::Hosts,
        ["ports"] => Rule::Ports,
        ["volumes"] => Rule::Mounts,
        ["devices"] => Rule::Devices,
        ["configs" | "secrets"] | ["build", "secrets"] => Rule::Grants,
        ["networks", _, "aliases" | "link_local_ips"] | ["build", "tags" | "platforms"] => Rule::Unique,
        ["build"] => Rule::Build,
        ["logging"] => Rule::Logging,
        [
            "cap_add"
            | "cap_drop"
            | "device_cgroup_rules"
            | "dns_opt"
            | "expose"
            | "external_links"
            | "group_add"
            | "links"
            | "profiles"
            | "security_opt"
            | "volumes_from",
        ] => Rule::Unique,
        _ => Rule::Plain,
    }
}
