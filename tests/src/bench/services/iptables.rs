//! Services as kube-proxy's iptables mode writes them (kubernetes/kubernetes, `pkg/proxy/iptables/proxier.go`): one rule a
//! service in one chain, from there to a chain of the service, from there to a chain of an endpoint, by chance.
//!
//! What depends on services of other kinds is left out: chains for node ports have no rules here, and those for firewalls
//! and external addresses are not there. Comments at rules of endpoints are left out, as kube-proxy does where there are
//! many.

use super::proxied::{PORT, REPLICAS, Service};

/// What `iptables-restore` reads.
pub(super) fn rules(services: &[Service]) -> String {
    let mut text = FILTER.to_owned();
    text += "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n";
    for service in services {
        text += &format!(":{} - [0:0]\n", service_chain(service));
        for endpoint in 0..service.endpoints.len() {
            text += &format!(":{} - [0:0]\n", endpoint_chain(service, endpoint));
        }
    }
    text += NAT;
    for service in services {
        write_service(&mut text, service);
    }
    text += LAST;
    text
}

/// Packets of known connections pass by the third rule of `KUBE-FORWARD`.
const FILTER: &str = "\
*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

/// Before the services.
const NAT: &str = "\
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
";

/// After the services.
const LAST: &str = "\
-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
";

fn write_service(text: &mut String, service: &Service) {
    let Service { number, address, endpoints } = service;
    let chain = service_chain(service);
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    line(format!(
        "-A KUBE-SERVICES -m comment --comment \"default/service-{number} cluster IP\" -m tcp -p tcp -d {address} --dport {PORT} -j {chain}"
    ));
    line(format!("-A {chain} -m tcp -p tcp -d {address} --dport {PORT} ! -s {REPLICAS} -j KUBE-MARK-MASQ"));
    for (index, endpoint) in endpoints.iter().enumerate() {
        let of_endpoint = endpoint_chain(service, index);
        let left = endpoints.len() - index;
        match left {
            1 => line(format!("-A {chain} -j {of_endpoint}")),
            // Each takes its share of what the ones before it have left.
            _ => line(format!(
                "-A {chain} -m statistic --mode random --probability {:.10} -j {of_endpoint}",
                1.0 / left as f64
            )),
        }
        line(format!("-A {of_endpoint} -s {endpoint} -j KUBE-MARK-MASQ"));
        line(format!("-A {of_endpoint} -m tcp -p tcp -j DNAT --to-destination {endpoint}:{PORT}"));
    }
}

/// As long as kube-proxy's names, which are hashes.
fn service_chain(service: &Service) -> String {
    format!("KUBE-SVC-{:016}", service.number)
}

fn endpoint_chain(service: &Service, endpoint: usize) -> String {
    format!("KUBE-SEP-{:012}{endpoint:04}", service.number)
}

#[cfg(test)]
mod tests {
    use super::super::proxied::tests::two;
    use super::*;

    #[test]
    fn services_stand_in_one_chain_in_their_order_and_lead_to_endpoints_by_chance() {
        let text = rules(&two());
        let linear: Vec<&str> = text.lines().filter(|line| line.starts_with("-A KUBE-SERVICES")).collect();
        assert_eq!(
            linear[0],
            "-A KUBE-SERVICES -m comment --comment \"default/service-1 cluster IP\" -m tcp -p tcp -d 10.96.0.1 --dport 7 \
             -j KUBE-SVC-0000000000000001"
        );
        assert!(
            linear[1].contains("-d 10.96.0.2 ") && linear[2].ends_with("--dst-type LOCAL -j KUBE-NODEPORTS")
        );
        let of_first: Vec<&str> =
            text.lines().filter(|line| line.starts_with("-A KUBE-SVC-0000000000000001 ")).collect();
        assert_eq!(
            of_first,
            [
                "-A KUBE-SVC-0000000000000001 -m tcp -p tcp -d 10.96.0.1 --dport 7 ! -s 10.9.0.0/16 -j KUBE-MARK-MASQ",
                "-A KUBE-SVC-0000000000000001 -m statistic --mode random --probability 0.5000000000 \
                 -j KUBE-SEP-0000000000010000",
                "-A KUBE-SVC-0000000000000001 -j KUBE-SEP-0000000000010001",
            ]
        );
        assert!(
            text.contains("-A KUBE-SEP-0000000000020000 -m tcp -p tcp -j DNAT --to-destination 10.9.0.2:7\n")
        );
    }

    #[test]
    fn every_chain_is_declared_before_its_rules_and_fits_the_kernels_names() {
        let text = rules(&two());
        let (_, nat) = text.split_once("*nat\n").unwrap();
        for line in nat.lines().filter(|line| line.starts_with("-A KUBE")) {
            let chain = line.split(' ').nth(1).unwrap();
            assert!(chain.len() <= 28, "{chain}");
            assert!(nat.find(&format!(":{chain} ")).unwrap() < nat.find(line).unwrap(), "{line}");
        }
        assert_eq!(text.matches("COMMIT\n").count(), 2);
    }
}
