//! The names of services, as the DNS server answers them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hivemind_dns::Records;
use hivemind_model::{SYSTEM_NAMESPACE, Service};
use hivemind_store::Objects;
use ipnet::IpNet;
use tracing::warn;

/// What the names of services are below, and whose addresses are ours.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The cluster domain.
    pub domain: String,
    /// Where the DNS server answers.
    pub dns: (Ipv4Addr, Ipv6Addr),
    /// The networks of replicas and services: an address in one of them has a name of ours or none.
    pub networks: Vec<IpNet>,
}

/// The version of Kubernetes' specification of names that ours follow, told as that specification says.
const DNS_VERSION: &str = "1.1.0";

/// The names of all services in the store, for a DNS server that starts.
///
/// # Errors
/// When the store cannot be read.
pub async fn names(objects: &Objects, zone: &Zone) -> Result<Records, hivemind_model::ApiError> {
    let services = objects.list::<Service>(None).await?.items;
    let stored = |service: &Service| service.status.endpoints.iter().map(|e| (e.ipv4, e.ipv6)).collect();
    Ok(records(services.iter(), zone, stored))
}

/// The names of `services`, and those of the zone itself.
///
/// A service is `<app>.<namespace>.svc.<domain>`, and whatever it was called besides; below that name, each replica that
/// takes connections has its own, and each port that is published or named has a server (`_80._tcp.…`). Addresses have the name
/// of the service or of the replica. A headless service has the addresses of its endpoints that are `open`, which are its
/// servers, too; one for a name outside is an alias of that.
pub(crate) fn records<'a>(
    services: impl Iterator<Item = &'a Service>,
    zone: &Zone,
    open: impl Fn(&Service) -> BTreeMap<Ipv4Addr, Ipv6Addr>,
) -> Records {
    let mut records = Records::new();
    zone.networks.iter().for_each(|network| records.own_network(*network));
    if let Err(error) = name_zone(&mut records, zone) {
        warn!(domain = zone.domain, %error, "The cluster domain's own names cannot be served");
    }
    for service in services {
        let own = format!("{}.{}.svc.{}", service.metadata.name, service.metadata.namespace, zone.domain);
        if let Err(error) = name_service(&mut records, service, &own, &open(service)) {
            warn!(name = own, %error, "A service's name cannot be served");
        }
    }
    records
}

fn name_zone(records: &mut Records, zone: &Zone) -> Result<(), hivemind_dns::NameError> {
    let own = format!("dns.{}", zone.domain);
    let addresses = [IpAddr::from(zone.dns.0), IpAddr::from(zone.dns.1)];
    records.insert(&own, addresses)?;
    for address in addresses {
        records.insert_reverse(address, &own)?;
    }
    records.insert_text(&format!("dns-version.{}", zone.domain), DNS_VERSION)
}

fn name_service(
    records: &mut Records,
    service: &Service,
    own: &str,
    open: &BTreeMap<Ipv4Addr, Ipv6Addr>,
) -> Result<(), hivemind_dns::NameError> {
    if let Some(outside) = &service.spec.external_name {
        for name in service.spec.hostnames.iter().map(String::as_str).chain([own]) {
            records.insert_alias(name, outside)?;
        }
        return Ok(());
    }
    let addresses: Vec<IpAddr> = match service.spec.balanced() {
        Some((_, ipv4, ipv6)) => vec![ipv4.into(), ipv6.into()],
        None => open.iter().flat_map(|(ipv4, ipv6)| [IpAddr::from(*ipv4), IpAddr::from(*ipv6)]).collect(),
    };
    records.insert(own, addresses.iter().copied())?;
    if service.spec.balanced().is_some() {
        for address in &addresses {
            records.insert_reverse(*address, own)?;
        }
    }
    let hivemind_model::ServiceSpec { ports, published, .. } = &service.spec;
    let published =
        published.iter().map(|port| (port.container_port.to_string(), port.container_port, port.protocol));
    let numbered = ports.iter().map(|port| (port.port.to_string(), port.port, port.protocol));
    let named = ports.iter().filter_map(|port| Some((port.name.clone()?, port.port, port.protocol)));
    let ports: Vec<_> = published
        .chain(numbered)
        .chain(named)
        .map(|(name, port, protocol)| (port, format!("_{name}._{}.{own}", protocol.as_str())))
        .collect();
    if service.spec.balanced().is_some() {
        for (port, name) in &ports {
            records.insert_server(name, own, *port)?;
        }
    }
    for endpoint in &service.status.endpoints {
        let replica = format!("{}.{own}", endpoint.replica);
        if service.spec.is_headless() && open.contains_key(&endpoint.ipv4) {
            for (port, name) in &ports {
                records.insert_server(name, &replica, *port)?;
            }
        }
        let addresses = [IpAddr::from(endpoint.ipv4), IpAddr::from(endpoint.ipv6)];
        records.insert(&replica, addresses)?;
        for address in addresses {
            records.insert_reverse(address, &replica)?;
        }
    }
    for hostname in &service.spec.hostnames {
        if let Err(error) = records.insert(hostname, addresses.iter().copied()) {
            warn!(name = hostname, %error, "A service's name cannot be served");
        }
    }
    Ok(())
}

/// The name of the service of a check of the network, while one goes on.
pub(crate) fn check_name(zone: &Zone) -> String {
    format!("net-check.{SYSTEM_NAMESPACE}.svc.{}", zone.domain)
}

#[cfg(test)]
mod tests {
    use hivemind_model::{Metadata, Protocol, ServicePort, ServiceSpec, ServiceStatus};

    use super::*;

    fn service(name: &str, spec: ServiceSpec) -> Service {
        let endpoint = |last| hivemind_model::Endpoint {
            replica: format!("{name}-{last}"),
            node: "n".into(),
            ipv4: Ipv4Addr::new(10, 200, 0, last),
            ipv6: format!("fd00:1::{last}").parse().unwrap(),
        };
        let endpoints = if spec.external_name.is_some() { vec![] } else { vec![endpoint(7), endpoint(8)] };
        Service {
            metadata: Metadata::new("shop", name),
            spec: ServiceSpec { hostnames: vec![format!("{name}.local")], ..spec },
            status: ServiceStatus { endpoints, ..ServiceStatus::default() },
        }
    }

    fn zone() -> Zone {
        Zone {
            domain: "hivemind.internal".into(),
            dns: (Ipv4Addr::new(169, 254, 20, 10), "fd00:20::10".parse().unwrap()),
            networks: vec!["10.200.0.0/14".parse().unwrap()],
        }
    }

    /// The table that a server should be given, besides what every table has.
    fn expected(fill: impl FnOnce(&mut Records)) -> Records {
        let nobody: [&Service; 0] = [];
        let mut records = records(nobody.into_iter(), &zone(), |_| BTreeMap::new());
        fill(&mut records);
        records
    }

    fn all(service: &Service) -> BTreeMap<Ipv4Addr, Ipv6Addr> {
        service.status.endpoints.iter().map(|e| (e.ipv4, e.ipv6)).collect()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_service_has_its_own_name_and_those_it_was_given() {
        let web = service(
            "web",
            ServiceSpec {
                number: 1,
                ipv4: Some(Ipv4Addr::new(10, 204, 0, 10)),
                ipv6: Some("fd00::10".parse().unwrap()),
                published: vec![hivemind_model::PublishedPort {
                    host_port: 8080,
                    container_port: 80,
                    protocol: Protocol::Tcp,
                }],
                ports: vec![ServicePort { name: Some("dns".into()), port: 53, protocol: Protocol::Udp }],
                ..ServiceSpec::default()
            },
        );
        let own = "web.shop.svc.hivemind.internal";
        let wanted = expected(|records| {
            for name in [own, "web.local"] {
                records.insert(name, ips(&["10.204.0.10", "fd00::10"])).unwrap();
            }
            ips(&["10.204.0.10", "fd00::10"])
                .into_iter()
                .for_each(|address| records.insert_reverse(address, own).unwrap());
            records.insert_server(&format!("_80._tcp.{own}"), own, 80).unwrap();
            records.insert_server(&format!("_53._udp.{own}"), own, 53).unwrap();
            records.insert_server(&format!("_dns._udp.{own}"), own, 53).unwrap();
            replicas(records, "web", own, &[7, 8]);
        });
        assert_eq!(records([web].iter(), &zone(), all), wanted);
    }

    fn replicas(records: &mut Records, service: &str, own: &str, last: &[u8]) {
        for last in last {
            let name = format!("{service}-{last}.{own}");
            for address in ips(&[&format!("10.200.0.{last}"), &format!("fd00:1::{last}")]) {
                records.insert(&name, [address]).unwrap();
                records.insert_reverse(address, &name).unwrap();
            }
        }
    }

    #[test]
    fn a_headless_service_has_the_addresses_of_the_replicas_that_take_connections() {
        let ports = vec![ServicePort { name: Some("sql".into()), port: 5432, protocol: Protocol::Tcp }];
        let db = service("db", ServiceSpec { ports, ..ServiceSpec::default() });
        let own = "db.shop.svc.hivemind.internal";
        // One has left, and the store does not know yet; another has come.
        let open = |_: &Service| {
            BTreeMap::from([
                (Ipv4Addr::new(10, 200, 0, 8), "fd00:1::8".parse().unwrap()),
                (Ipv4Addr::new(10, 200, 0, 9), "fd00:1::9".parse().unwrap()),
            ])
        };
        let wanted = expected(|records| {
            for name in [own, "db.local"] {
                let addresses = ips(&["10.200.0.8", "fd00:1::8", "10.200.0.9", "fd00:1::9"]);
                records.insert(name, addresses).unwrap();
            }
            replicas(records, "db", own, &[7, 8]);
            for port in ["_5432", "_sql"] {
                records.insert_server(&format!("{port}._tcp.{own}"), &format!("db-8.{own}"), 5432).unwrap();
            }
        });
        assert_eq!(records([db].iter(), &zone(), open), wanted);
    }

    #[test]
    fn a_service_for_a_name_outside_stands_for_that() {
        let outside = Some("db.example.com".to_owned());
        let db = service("db", ServiceSpec { external_name: outside, ..ServiceSpec::default() });
        let wanted = expected(|records| {
            for name in ["db.shop.svc.hivemind.internal", "db.local"] {
                records.insert_alias(name, "db.example.com").unwrap();
            }
        });
        assert_eq!(records([db].iter(), &zone(), all), wanted);
    }
}
