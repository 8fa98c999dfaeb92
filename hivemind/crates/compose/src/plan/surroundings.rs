//! What surrounds a container: names, hosts, settings, labels, and what becomes of it when it ends.

use hivemind_model::{
    AppService, HostAlias, Metadata, RestartPolicy, ServicePort, Template, is_label_key, is_label_value,
};

use crate::{
    deploy::{EndpointMode, RestartCondition},
    host::HostAddress,
    plan::{Planner, origin::Origins},
    port,
    service::Service,
    sharing::Restart,
};

impl Planner<'_> {
    pub(super) fn surroundings(&mut self, service: &Service, template: &mut Template, origins: &mut Origins) {
        if let Some(hostname) = &service.hostname {
            origins.note("spec.template.hostname", &hostname.spot);
            template.hostname = Some(hostname.value.clone());
        }
        for host in service.extra_hosts.iter() {
            match host.address {
                HostAddress::Ip(ip) => {
                    origins.note(
                        format!("spec.template.hostAliases[{}]", template.host_aliases.len()),
                        &host.spot,
                    );
                    template.host_aliases.push(HostAlias { ip, hostnames: vec![host.name.clone()] });
                }
                HostAddress::Gateway => {
                    let hint = "give the address of the machine";
                    self.refuse(&host.spot, "which machine a replica is on is not known before", hint);
                }
            }
        }
        for (name, value) in service.sysctls.iter() {
            origins.note(format!("spec.template.sysctls.{name}"), &value.spot);
            template.sysctls.insert(name.clone(), value.value.0.clone());
        }
        if let Some(period) = &service.stop_grace_period {
            origins.note("spec.template.stopGraceSeconds", &period.spot);
            let seconds = period.value.0.as_millis().div_ceil(1_000);
            template.stop_grace_seconds = Some(u32::try_from(seconds).unwrap_or(u32::MAX));
        }
    }

    /// Labels that others can select by are the replicas'; what is no label of the model is kept beside them.
    pub(super) fn labels(&mut self, service: &Service, metadata: &mut Metadata, template: &mut Template) {
        let deploy = service.deploy.as_ref().map(|deploy| &deploy.labels);
        for (name, label) in deploy.into_iter().flat_map(|labels| labels.iter()).chain(service.labels.iter())
        {
            let value = label.value.0.clone();
            match is_label_key(name) && is_label_value(&value) && name != "app" {
                true => drop(template.labels.insert(name.clone(), value)),
                false => drop(metadata.annotations.insert(name.clone(), value)),
            }
        }
        let notes = service.annotations.iter().map(|(name, note)| (name.clone(), note.value.0.clone()));
        metadata.annotations.extend(notes);
        for name in self.external_networks(service) {
            template.labels.insert(super::policy::membership(&name), "member".to_owned());
        }
    }

    /// Compose restarts nothing unless it is asked to.
    pub(super) fn restart(&mut self, service: &Service, template: &mut Template) {
        let often = "it is started again as often as it ends, after ever longer pauses";
        let policy = service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref());
        if let Some(policy) = policy {
            let said = [
                policy.delay.as_ref().map(|delay| &delay.spot),
                policy.max_attempts.as_ref().map(|attempts| &attempts.spot),
                policy.window.as_ref().map(|window| &window.spot),
            ];
            for spot in said.into_iter().flatten() {
                self.warn(&spot.of_key(), often, "leave it out");
            }
        }
        let condition = policy.map(|policy| policy.condition.as_ref().map(|condition| condition.value));
        template.restart_policy = match (condition, service.restart.as_ref().map(|restart| restart.value)) {
            (Some(Some(RestartCondition::None)), _) => RestartPolicy::Never,
            (Some(Some(RestartCondition::OnFailure)), _) => RestartPolicy::OnFailure,
            (Some(Some(RestartCondition::Any) | None), _) => RestartPolicy::Always,
            (None, None | Some(Restart::No)) => RestartPolicy::Never,
            (None, Some(Restart::OnFailure(_))) => RestartPolicy::OnFailure,
            (None, Some(Restart::Always | Restart::UnlessStopped)) => RestartPolicy::Always,
        };
        if let Some(restart) = &service.restart
            && matches!(restart.value, Restart::OnFailure(Some(_)))
        {
            self.warn(&restart.spot, often, "write on-failure");
        }
    }

    /// A container's own name is one of the whole cluster, as it is one of the whole machine for Docker.
    pub(super) fn hostnames(&mut self, name: &str, service: &Service, origins: &mut Origins) -> Vec<String> {
        let Some(container_name) = service.container_name.as_ref().filter(|own| own.value != name) else {
            return Vec::new();
        };
        origins.note("spec.hostnames[0]", &container_name.spot);
        vec![container_name.value.clone()]
    }

    pub(super) fn app_service(&mut self, service: &Service, origins: &mut Origins) -> AppService {
        let mode = service.deploy.as_ref().and_then(|deploy| deploy.endpoint_mode.as_ref());
        let headless = mode.is_some_and(|mode| mode.value == EndpointMode::Dnsrr);
        let mut ports: Vec<ServicePort> = Vec::new();
        for port in service.ports.iter() {
            let Some(name) = &port.name else { continue };
            let protocol = match port.protocol {
                port::Protocol::Tcp => hivemind_model::Protocol::Tcp,
                port::Protocol::Udp => hivemind_model::Protocol::Udp,
                port::Protocol::Sctp => continue,
            };
            origins.note(format!("spec.service.ports[{}]", ports.len()), &port.spot);
            ports.push(ServicePort { name: Some(name.clone()), port: port.target, protocol });
        }
        AppService { headless, ports, session_affinity: None }
    }
}
