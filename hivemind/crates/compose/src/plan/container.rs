//! From a service to the container of its app.

use hivemind_model::{Capabilities, Container, EnvVar, Memory, Port, Protocol, Ulimit};

use crate::{
    device,
    plan::{Planner, app::CONTAINER, origin::Origins},
    port,
    service::Service,
    spot::Located,
    value::Limit,
};

impl Planner<'_> {
    pub(super) fn container(
        &mut self,
        name: &str,
        service: &Located<Service>,
        origins: &mut Origins,
    ) -> Container {
        let mut container = Container { image: self.image(name, service), ..Container::default() };
        let mut note = |field: &str, spot: Option<&crate::Spot>| {
            if let Some(spot) = spot {
                origins.note(format!("{CONTAINER}.{field}"), spot);
            }
        };
        note("image", service.image.as_ref().map(|image| &image.spot));
        note("workingDir", service.working_dir.as_ref().map(|directory| &directory.spot));
        note("user", service.user.as_ref().map(|user| &user.spot));
        note("stopSignal", service.stop_signal.as_ref().map(|signal| &signal.spot));
        note("command", service.entrypoint.as_ref().or(service.command.as_ref()).map(|words| &words.spot));
        note("args", service.command.as_ref().map(|words| &words.spot));
        note("privileged", service.privileged.as_ref().map(|privileged| &privileged.spot));
        note("shmSize", service.shm_size.as_ref().map(|size| &size.spot));
        container.working_dir = service.working_dir.as_ref().map(|directory| directory.value.clone());
        container.user = service.user.as_ref().map(|user| user.value.clone());
        container.stop_signal = service.stop_signal.as_ref().map(|signal| signal.value.clone());
        container.shm_size = service.shm_size.as_ref().and_then(|size| Memory::from_bytes(size.0));
        container.read_only = service.read_only.as_ref().is_some_and(|read_only| read_only.value);
        container.privileged = service.privileged.as_ref().is_some_and(|privileged| privileged.value);
        self.command(service, &mut container);
        self.environment(service, &mut container, origins);
        self.groups(service, &mut container);
        self.ports(service, &mut container, origins);
        self.mounts(service, &mut container, origins);
        self.capabilities(service, &mut container, origins);
        ulimits(service, &mut container, origins);
        self.probes(service, &mut container, origins);
        self.resources(service, &mut container, origins);
        container
    }

    /// An entrypoint replaces that of the image, and its command with it; a command replaces that of the image.
    fn command(&mut self, service: &Service, container: &mut Container) {
        let (entrypoint, command) = (service.entrypoint.as_ref(), service.command.as_ref());
        let words =
            |words: Option<&Located<crate::Command>>| words.map(|w| w.value.0.clone()).unwrap_or_default();
        match (entrypoint, command) {
            (Some(entrypoint), None) if entrypoint.is_empty() => {
                let why = "the image's command cannot be run without its entrypoint";
                self.refuse(&entrypoint.spot, why, "say the command as well");
            }
            (Some(entrypoint), _) if entrypoint.is_empty() => container.command = words(command),
            (None, Some(command)) if command.is_empty() => {
                let why = "the image's entrypoint cannot be run without its command";
                self.refuse(&command.spot, why, "say the entrypoint as well");
            }
            _ => {
                container.command = words(entrypoint);
                container.args = words(command);
            }
        }
    }

    fn environment(&mut self, service: &Service, container: &mut Container, origins: &mut Origins) {
        for (index, (name, value)) in service.environment.iter().enumerate() {
            origins.note(format!("{CONTAINER}.env[{index}]"), &value.spot);
            container.env.push(EnvVar { name: name.clone(), value: value.value.0.clone() });
        }
    }

    fn groups(&mut self, service: &Service, container: &mut Container) {
        for group in &service.group_add {
            match group.parse() {
                Ok(number) => container.groups.push(number),
                Err(_) => self.refuse(&group.spot, "groups are numbers", "write the number of the group"),
            }
        }
    }

    fn ports(&mut self, service: &Service, container: &mut Container, origins: &mut Origins) {
        for port in service.ports.iter() {
            let spot = &port.spot;
            let protocol = match port.protocol {
                port::Protocol::Tcp => Protocol::Tcp,
                port::Protocol::Udp => Protocol::Udp,
                port::Protocol::Sctp => {
                    self.refuse(
                        spot,
                        "SCTP cannot be published",
                        "leave it out: apps reach each other by it",
                    );
                    continue;
                }
            };
            if let Some(address) = port.host_ip.filter(|address| !address.is_unspecified()) {
                let why = format!("ports are published on all addresses, not on {address} alone");
                self.refuse(
                    spot,
                    &why,
                    "leave the address out, or the whole port: the machine reaches apps without",
                );
                continue;
            }
            let Some(published) = port.published.filter(|published| published.first == published.last) else {
                let hint = format!("say which one, for example {0}:{0}", port.target);
                self.refuse(spot, "a port of the host is not chosen freely", hint);
                continue;
            };
            origins.note(format!("{CONTAINER}.ports[{}]", container.ports.len()), spot);
            container.ports.push(Port { host_port: published.first, container_port: port.target, protocol });
        }
    }

    fn capabilities(&mut self, service: &Service, container: &mut Container, origins: &mut Origins) {
        let names = |list: &[Located<String>]| list.iter().map(|name| name.value.clone()).collect();
        container.capabilities =
            Capabilities { add: names(&service.cap_add), drop: names(&service.cap_drop) };
        for (field, list) in [("add", &service.cap_add), ("drop", &service.cap_drop)] {
            for (index, name) in list.iter().enumerate() {
                origins.note(format!("{CONTAINER}.capabilities.{field}[{index}]"), &name.spot);
            }
        }
    }
}

fn ulimits(service: &Service, container: &mut Container, origins: &mut Origins) {
    let amount = |limit: device::Amount| match limit {
        Limit::Most(number) => u64::try_from(*number).ok(),
        Limit::Unlimited => None,
    };
    for (index, (name, ulimit)) in service.ulimits.iter().enumerate() {
        origins.note(format!("{CONTAINER}.ulimits[{index}]"), &ulimit.spot);
        let (soft, hard) = (amount(ulimit.soft), amount(ulimit.hard));
        container.ulimits.push(Ulimit { name: name.clone(), soft, hard });
    }
}
