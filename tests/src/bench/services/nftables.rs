//! Services as kube-proxy's nftables mode writes them (kubernetes/kubernetes, `pkg/proxy/nftables/proxier.go`): one map from
//! addresses to chains of services, and in each of those a map from chance to chains of endpoints.

use super::proxied::{PORT, REPLICAS, SERVICES, Service};

/// What `nft -f` reads.
pub(super) fn ruleset(services: &[Service]) -> String {
    let mut text = "table ip kube-proxy {\n".to_owned();
    for service in services {
        write_service(&mut text, service);
    }
    text += &maps(services);
    text += &BASE.replace("SERVICES", SERVICES);
    text += "}\n";
    text
}

fn write_service(text: &mut String, service: &Service) {
    let Service { address, endpoints, .. } = service;
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    for (index, endpoint) in endpoints.iter().enumerate() {
        line(format!("chain {} {{", endpoint_chain(service, index)));
        line(format!("ip saddr {endpoint} jump mark-for-masquerade"));
        line(format!("meta l4proto tcp dnat to {endpoint}:{PORT}\n}}"));
    }
    let choices: Vec<String> = (0..endpoints.len())
        .map(|index| format!("{index} : goto {}", endpoint_chain(service, index)))
        .collect();
    line(format!("chain {} {{", service_chain(service)));
    line(format!("ip daddr {address} ip saddr != {REPLICAS} jump mark-for-masquerade"));
    line(format!("numgen random mod {} vmap {{ {} }}\n}}", endpoints.len(), choices.join(", ")));
}

fn maps(services: &[Service]) -> String {
    let addresses: Vec<String> = services.iter().map(|service| service.address.to_string()).collect();
    let verdicts: Vec<String> = services
        .iter()
        .map(|service| format!("{} . tcp . {PORT} : goto {}", service.address, service_chain(service)))
        .collect();
    format!(
        "set cluster-ips {{\ntype ipv4_addr\nelements = {{ {} }}\n}}\n\
         map service-ips {{\ntype ipv4_addr . inet_proto . inet_service : verdict\nelements = {{ {} }}\n}}\n",
        addresses.join(", "),
        verdicts.join(", ")
    )
}

/// What is there whatever services there are.
const BASE: &str = "\
set nodeport-ips { type ipv4_addr; }
map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
map service-nodeports { type inet_proto . inet_service : verdict; }
chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
chain masquerading {
meta mark and 0x4000 == 0 return
meta mark set meta mark xor 0x4000
masquerade fully-random
}
chain services {
ip daddr . meta l4proto . th dport vmap @service-ips
ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
}
chain cluster-ips-check {
ip daddr @cluster-ips reject
ip daddr SERVICES drop
}
chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
chain nodeport-endpoints-check { ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }
chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
chain filter-prerouting-pre-dnat { type filter hook prerouting priority -110; ct state new jump firewall-check; }
chain filter-output-pre-dnat { type filter hook output priority -110; ct state new jump firewall-check; }
chain filter-forward {
type filter hook forward priority 0
ct state new jump service-endpoints-check
ct state new jump cluster-ips-check
}
chain filter-input {
type filter hook input priority 0
ct state new jump nodeport-endpoints-check
ct state new jump service-endpoints-check
}
chain filter-output {
type filter hook output priority 0
ct state new jump service-endpoints-check
ct state new jump cluster-ips-check
}
chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
chain nat-output { type nat hook output priority -100; jump services; }
chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
";

fn service_chain(service: &Service) -> String {
    format!("service-{0:08}-default/service-{0}/tcp/", service.number)
}

fn endpoint_chain(service: &Service, endpoint: usize) -> String {
    let address = service.endpoints[endpoint];
    format!("endpoint-{0:08}-default/service-{0}/tcp/__{address}/{PORT}", service.number)
}

#[cfg(test)]
mod tests {
    use super::super::proxied::tests::two;
    use super::*;

    #[test]
    fn one_map_leads_to_services_and_chance_to_their_endpoints() {
        let text = ruleset(&two());
        assert!(text.contains(
            "elements = { 10.96.0.1 . tcp . 7 : goto service-00000001-default/service-1/tcp/, \
             10.96.0.2 . tcp . 7 : goto service-00000002-default/service-2/tcp/ }"
        ));
        assert!(text.contains(
            "numgen random mod 2 vmap { 0 : goto endpoint-00000001-default/service-1/tcp/__10.10.0.1/7, \
             1 : goto endpoint-00000001-default/service-1/tcp/__10.11.0.1/7 }"
        ));
        assert!(text.contains("meta l4proto tcp dnat to 10.9.0.2:7"));
    }

    #[test]
    fn every_brace_is_closed_and_every_chain_that_is_named_is_there() {
        let text = ruleset(&two());
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        for named in text.split("goto ").skip(1).chain(text.split("jump ").skip(1)) {
            let chain = named.split([' ', ',', ';', '\n']).next().unwrap();
            assert!(text.contains(&format!("chain {chain} {{")), "{chain}");
        }
    }
}
