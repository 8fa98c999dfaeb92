//! A resolver that is not ours, as a program in a replica would have.

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Resolver, TokioResolver};
use std::net::SocketAddr;

use crate::client::{addresses, name, start};
use crate::upstream::{Upstream, addresses as answer};

fn resolver(server: SocketAddr) -> TokioResolver {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let server = NameServerConfig::new(server.ip(), true, connections.to_vec());
    let search = vec![name("default.svc.hivemind.internal"), name("svc.hivemind.internal")];
    let config = ResolverConfig::from_parts(None, search, vec![server]);
    let mut options = ResolverOpts::default();
    options.ndots = 5;
    options.cache_size = 0;
    Resolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_resolver_finds_a_service_by_its_short_name_its_full_name_and_its_address() {
    let server = start(&[]).await;
    let resolver = resolver(server.addresses()[0]);
    for text in ["web", "web.default", "web.default.svc.hivemind.internal."] {
        let mut found: Vec<_> = resolver.lookup_ip(text).await.unwrap().iter().collect();
        found.sort();
        assert_eq!(found, addresses(&["10.204.0.7", "10.204.0.8", "fd00:204::7"]), "{text}");
    }
    let reverse = resolver.reverse_lookup(addresses(&["10.204.0.7"])[0]).await.unwrap();
    let text = format!("{:?}", reverse.answers());
    assert!(text.contains("web.default.svc.hivemind.internal"), "{text}");
    let gone = "gone.default.svc.hivemind.internal.";
    assert!(resolver.lookup_ip(gone).await.unwrap_err().is_nx_domain());
}

#[tokio::test]
async fn a_resolver_gets_a_large_foreign_answer_whole() {
    let upstream = Upstream::start(|question, protocol| {
        let many: Vec<_> = (0..100).map(|n| [10, 0, 0, n]).collect();
        let whole = answer(question, &many, 60);
        if protocol == hivemind_dns::Protocol::Udp { whole.truncate().into() } else { whole.into() }
    })
    .await;
    let server = start(&[upstream.address]).await;
    let found = resolver(server.addresses()[0]).ipv4_lookup("many.example.").await.unwrap();
    assert_eq!(found.answers().len(), 100);
}
