//! Names in a cluster: every node answers the same.

use std::time::Duration;

use anyhow::{Result, ensure};
use hivemind_tests::{Cluster, Node, both_addresses, eventually};

const LIMIT: Duration = Duration::from_secs(20);
const DNS: &str = "@169.254.20.10";

/// The lines of a short answer of a node's DNS server, sorted.
fn dig(node: &Node, words: &[&str]) -> Result<Vec<String>> {
    let said = node.sandbox().check(&[&["dig", "+short", "+time=2", "+tries=1", DNS], words].concat())?;
    let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

#[test]
fn both_nodes_give_the_same_answers_to_the_same_names() -> Result<()> {
    let cluster = Cluster::start(2)?;
    cluster.start_daemons()?;
    cluster.deploy("web", "nginx", &["--replicas", "2", "--service", "web.local"])?;
    let web = cluster.until_up("web", 2, LIMIT)?;
    cluster.deploy("db", "nginx", &["--replicas", "2", "--headless", "--service", "db.local"])?;
    let db = cluster.until_up("db", 2, LIMIT)?;
    let headless = db.iter().map(|replica| Ok(both_addresses(&replica["status"])?[0].to_string()));
    let mut headless: Vec<String> = headless.collect::<Result<_>>()?;
    headless.sort();
    eventually(LIMIT, "both replicas to be named", || {
        let said = dig(cluster.server(), &["db.local", "A"])?;
        ensure!(said == headless, "{said:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    let outside = ["service", "create", "outside", "--external-name", "www.example.com"];
    cluster.server().hivemind_ok(&outside)?;
    let mut questions: Vec<Vec<String>> = vec![
        vec!["db.local".into(), "A".into()],
        vec!["db.local".into(), "AAAA".into()],
        vec!["outside.default.svc.hivemind.internal".into(), "CNAME".into()],
    ];
    for family in ["A", "AAAA"] {
        questions.push(vec!["web.local".into(), family.into()]);
        questions.push(vec!["web.default.svc.hivemind.internal".into(), family.into()]);
    }
    for replica in &web {
        for address in both_addresses(&replica["status"])? {
            questions.push(vec!["-x".into(), address.to_string()]);
        }
    }
    for question in questions {
        let words: Vec<&str> = question.iter().map(String::as_str).collect();
        let expected = dig(cluster.server(), &words)?;
        ensure!(!expected.is_empty(), "the server's node does not know {words:?}");
        let said = eventually(LIMIT, "the other node to know it", || {
            let said = dig(cluster.node(1), &words)?;
            ensure!(!said.is_empty(), "no answer to {words:?}");
            Ok(said)
        })?;
        assert_eq!(said, expected, "{words:?}");
    }
    Ok(())
}
