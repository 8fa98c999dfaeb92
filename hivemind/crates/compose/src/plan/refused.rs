//! What no app can have: a list of fields, each with why it cannot be had and what to do instead.

use crate::{
    plan::Planner,
    service::{CgroupNamespace, PullPolicy, Service},
    sharing::Sharing,
    spot::{Located, Spot},
};

/// A field that says something which cannot be honoured.
struct Said<'s> {
    spot: Option<&'s Spot>,
    why: &'static str,
    hint: &'static str,
}

fn said<'s>(spot: Option<&'s Spot>, why: &'static str, hint: &'static str) -> Said<'s> {
    Said { spot, why, hint }
}

fn spot<T>(value: &Option<Located<T>>) -> Option<&Spot> {
    value.as_ref().map(|value| &value.spot)
}

fn if_true(value: &Option<Located<bool>>) -> Option<&Spot> {
    value.as_ref().filter(|value| value.value).map(|value| &value.spot)
}

/// `value`, unless it is one of those that mean what every replica has anyway.
fn unless<'s>(value: &'s Option<Located<Sharing>>, usual: &[&str]) -> Option<&'s Spot> {
    let is_usual =
        |sharing: &Sharing| matches!(sharing, Sharing::Named(name) if usual.contains(&name.as_str()));
    value.as_ref().filter(|value| !is_usual(&value.value)).map(|value| &value.spot)
}

impl Planner<'_> {
    /// Tells all fields of a service that cannot be honoured and that nothing else looks at.
    pub(super) fn refused(&mut self, name: &str, service: &Service) {
        let faults = rights(service).into_iter().chain(namespaces(service)).chain(names(service));
        for Said { spot, why, hint } in faults.chain(devices(service)) {
            if let Some(spot) = spot {
                self.refuse(&spot.of_key(), why, hint);
            }
        }
        for Said { spot, why, hint } in running(service).into_iter().chain(shares(service)) {
            if let Some(spot) = spot {
                self.warn(&spot.of_key(), why, hint);
            }
        }
        self.security_options(service);
        self.attachments(name, service);
        self.links(service);
    }

    /// What replicas have anyway is passed over.
    fn security_options(&mut self, service: &Service) {
        for option in &service.security_opt {
            let (name, value) = option.split_once([':', '=']).unwrap_or((option, "true"));
            match (name, value) {
                ("no-new-privileges", "true") => {}
                ("label", _) => {
                    self.warn(&option.spot, "SELinux labels are those of containerd", "leave it out")
                }
                _ => {
                    let why =
                        "a container has the usual filter of system calls, and no way to more privileges";
                    self.refuse(&option.spot, why, "leave it out");
                }
            }
        }
    }

    /// What a service is in a network: a replica has one interface, and one name, that of its app.
    fn attachments(&mut self, own: &str, service: &Service) {
        for attachment in service.networks.values() {
            for alias in attachment.aliases.iter().filter(|alias| alias.value != own) {
                let hint = "reach it by the name of its service";
                self.refuse(&alias.spot, "an app has no further names within its namespace", hint);
            }
            let addresses = [spot(&attachment.ipv4_address), spot(&attachment.ipv6_address)];
            let on_link = attachment.link_local_ips.first().map(|address| &address.spot);
            for address in addresses.into_iter().chain([on_link]).flatten() {
                let why = "addresses of replicas are given by the cluster";
                self.refuse(address, why, "reach it by the name of its service");
            }
            let option = attachment.driver_opts.values().next().map(|option| &option.spot);
            let others = [
                spot(&attachment.interface_name),
                spot(&attachment.mac_address),
                spot(&attachment.priority),
                spot(&attachment.gw_priority),
                option,
            ];
            for other in others.into_iter().flatten() {
                self.warn(&other.of_key(), "a replica has one interface, for all networks", "leave it out");
            }
        }
    }

    fn links(&mut self, service: &Service) {
        for link in &service.links {
            let (name, alias) = link.split_once(':').unwrap_or((link, link));
            if name != alias {
                let why = "a service has one name for all others";
                self.refuse(&link.spot, why, format!("reach it as {name}"));
            }
        }
    }
}

/// What would let a container do more than it may.
fn rights(service: &Service) -> Vec<Said<'_>> {
    let runtime = service
        .runtime
        .as_ref()
        .filter(|runtime| !matches!(runtime.as_str(), "runc" | "io.containerd.runc.v2"));
    let isolation = service.isolation.as_ref().filter(|isolation| isolation.value != "default");
    vec![
        said(
            if_true(&service.use_api_socket),
            "a container has no access to what runs it",
            "leave it out; the API can be reached with a token",
        ),
        said(runtime.map(|runtime| &runtime.spot), "containers are run by runc", "leave it out"),
        said(isolation.map(|isolation| &isolation.spot), "it is of Windows", "leave it out"),
        said(
            service.storage_opt.values().next().map(|option| &option.spot),
            "how much a container may write is not limited",
            "leave it out",
        ),
    ]
}

/// Whose namespaces a container would share.
fn namespaces(service: &Service) -> Vec<Said<'_>> {
    let cgroup = service.cgroup.as_ref().filter(|cgroup| cgroup.value == CgroupNamespace::Host);
    // A user of the container is that of the machine: nobody is mapped to somebody else.
    let users = service.userns_mode.as_ref().filter(|users| users.value != Sharing::Host);
    vec![
        said(
            unless(&service.network_mode, &["bridge", "default"]),
            "every replica has a network of its own",
            "leave it out, and use ports and the names of services",
        ),
        said(spot(&service.pid), "every container has processes of its own", "leave it out"),
        said(
            unless(&service.ipc, &["private", "shareable"]),
            "every container has memory of its own",
            "leave it out",
        ),
        said(spot(&service.uts), "every replica has a host name of its own", "use hostname"),
        said(users.map(|users| &users.spot), "users are not mapped", "leave it out"),
        said(
            cgroup.map(|cgroup| &cgroup.spot),
            "every container has control groups of its own",
            "leave it out",
        ),
    ]
}

/// Names, and who is asked for them.
fn names(service: &Service) -> Vec<Said<'_>> {
    let dns = "replicas ask the cluster's own server, which knows their names";
    vec![
        said(
            service.dns.first().map(|server| &server.spot),
            dns,
            "leave it out, or give the daemon --dns-upstream",
        ),
        said(service.dns_search.first().map(|domain| &domain.spot), dns, "write names out"),
        said(service.dns_opt.first().map(|option| &option.spot), dns, "leave it out"),
        said(spot(&service.domainname), "a replica has a host name without a domain", "leave it out"),
        said(
            spot(&service.mac_address),
            "addresses of interfaces are given by the data path",
            "leave it out",
        ),
        said(
            service.external_links.first().map(|link| &link.spot),
            "containers outside of the project have no names in it",
            "write service.namespace as the host",
        ),
        said(
            service.volumes_from.first().map(|from| &from.spot),
            "containers do not share what others mount",
            "name the volumes in both services",
        ),
    ]
}

/// Devices, and what runs beside the container.
fn devices(service: &Service) -> Vec<Said<'_>> {
    let none = "containers have no devices of the machine";
    let resources = service.deploy.as_ref().and_then(|deploy| deploy.resources.as_ref());
    let reserved = resources.and_then(|resources| resources.reservations.as_ref());
    let hook = "nothing is run in a container beside its own process";
    vec![
        said(service.devices.first().map(|device| &device.spot), none, "leave it out"),
        said(service.device_cgroup_rules.first().map(|rule| &rule.spot), none, "leave it out"),
        said(spot(&service.gpus), none, "leave it out"),
        said(reserved.and_then(|r| r.devices.first()).map(|device| &device.spot), none, "leave it out"),
        said(
            reserved.and_then(|r| r.generic_resources.first()).map(|resource| &resource.spot),
            "nodes have no resources but processors and memory",
            "use labels of nodes: placement: {constraints: [node.labels.ssd==true]}",
        ),
        said(service.post_start.first().map(|hook| &hook.spot), hook, "let the command do it first"),
        said(
            service.pre_stop.first().map(|hook| &hook.spot),
            hook,
            "let the command do it when it is asked to end",
        ),
        said(if_true(&service.tty), "containers have no terminal", "leave it out"),
        said(if_true(&service.stdin_open), "containers have nothing to read from", "leave it out"),
        said(
            spot(&service.blkio_config),
            "how much a container may read and write is not limited",
            "leave it out",
        ),
    ]
}

/// How a container is started, watched and logged.
fn running(service: &Service) -> Vec<Said<'_>> {
    let is_usual = |policy: &PullPolicy| matches!(policy, PullPolicy::Missing | PullPolicy::Build);
    let pull = service.pull_policy.as_ref().filter(|policy| !is_usual(&policy.value));
    vec![
        said(
            pull.map(|policy| &policy.spot),
            "an image is pulled if it is not there",
            "give the image another tag when it changes",
        ),
        said(spot(&service.pull_refresh_after), "an image is pulled if it is not there", "leave it out"),
        said(spot(&service.platform), "a node runs what is built for its own processor", "leave it out"),
        said(
            if_true(&service.init),
            "the container's own process is its first",
            "put an init such as tini into the image, if processes are left over",
        ),
        said(spot(&service.logging), "logs are kept by the daemon", "read them by hivemind app logs"),
        said(spot(&service.cgroup_parent), "control groups are those of the daemon", "leave it out"),
    ]
}

/// Shares of what a machine has: replicas have limits, and these are kept for them.
fn shares(service: &Service) -> Vec<Said<'_>> {
    let kept = "what is kept for a replica is what it may take at most";
    let weight = "replicas have equal shares, within their limits";
    let swap = "swap is as the machine has it";
    let processors = "replicas run on any processor of their node";
    let killed = "who is killed for want of memory is the kernel's choice";
    let limit = "use cpus and mem_limit";
    let resources = service.deploy.as_ref().and_then(|deploy| deploy.resources.as_ref());
    let reserved = resources.and_then(|resources| resources.reservations.as_ref());
    vec![
        said(spot(&service.mem_reservation), kept, limit),
        said(reserved.and_then(|reserved| spot(&reserved.cpus)), kept, limit),
        said(reserved.and_then(|reserved| spot(&reserved.memory)), kept, limit),
        said(spot(&service.cpu_shares), weight, limit),
        said(spot(&service.cpu_count), "it is of Windows", limit),
        said(spot(&service.cpu_percent), "it is of Windows", limit),
        said(spot(&service.cpu_rt_runtime), "replicas have no real-time priority", limit),
        said(spot(&service.cpu_rt_period), "replicas have no real-time priority", limit),
        said(spot(&service.cpuset), processors, limit),
        said(spot(&service.memswap_limit), swap, limit),
        said(spot(&service.mem_swappiness), swap, limit),
        said(spot(&service.oom_kill_disable), killed, limit),
        said(spot(&service.oom_score_adj), killed, limit),
    ]
}
