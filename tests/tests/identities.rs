//! Which replicas are one to policies: those that no label tells apart of which a policy names the key.

use std::{
    io::Read,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{
    Node,
    echo::{ANSWER, Echo, PORT, addresses, exchange},
    eventually, policy_letting_in,
};

const LIMIT: Duration = Duration::from_secs(40);

/// Waits until an app has one replica, which is another one than `former` and ready; returns its name and identity.
fn replaced(node: &Node, app: &str, former: &str) -> Result<(String, u64)> {
    eventually(LIMIT, "the replica to be replaced", || {
        ensure!(node.ready_replicas(app)? == 1, "not one replica");
        let (name, wanted, has) = node.identities(app)?.pop().context("no replica")?;
        ensure!(name != former && has == Some(wanted), "{name} has {has:?} of {wanted}");
        Ok((name, wanted))
    })
}

/// A connection from an app's only replica.
fn connection(node: &Node, app: &str, to: SocketAddr) -> Result<TcpStream> {
    node.in_network_of(app, || TcpStream::connect_timeout(&to, ANSWER))?.context("cannot connect")
}

#[test]
fn labels_that_no_policy_names_change_without_a_new_identity_and_those_that_one_names_make_one() -> Result<()>
{
    let (node, _registry) = Node::with_daemon()?;
    node.deploy_waiting("server", &[])?;
    node.deploy_waiting("client", &["-l", "tier=front", "-l", "commit=a"])?;
    let server = Echo::start(&node, "server")?;
    let at = SocketAddr::new(addresses(&node, "server")?[0], PORT);
    let (first, number) = {
        let (name, wanted, has) = node.identities("client")?.pop().context("no replica")?;
        ensure!(has == Some(wanted), "{name} is told as {has:?} and is {wanted}");
        (name, wanted)
    };
    node.relabel("client", &[("commit", "b")], None)?;
    let (second, same) = replaced(&node, "client", &first)?;
    ensure!(same == number, "{number} became {same} by a label at which nobody looks");

    // A policy that names a key which none did: the number stays, and so does the replica with its connection.
    let mut stream = connection(&node, "client", at)?;
    exchange(&mut stream, b'1', LIMIT)?;
    node.apply(&policy_letting_in("server", "{matchLabels: {tier: front}}"))?;
    exchange(&mut stream, b'2', LIMIT)?;
    ensure!(node.identities("client")? == [(second.clone(), number, Some(number))], "it became another");
    node.apply(&policy_letting_in("server", "{matchExpressions: [{key: tier, operator: DoesNotExist}]}"))?;
    ensure!(connection(&node, "client", at).is_err(), "it has the label that none may have");

    // That label is looked at now: whoever has another value is another.
    node.apply(&policy_letting_in("server", "{matchLabels: {tier: front}}"))?;
    exchange(&mut connection(&node, "client", at)?, b'3', LIMIT)?;
    node.relabel("client", &[("tier", "back")], None)?;
    let (_, other) = replaced(&node, "client", &second)?;
    ensure!(other != number, "{number} stands for two values of a label that a policy names");
    ensure!(connection(&node, "client", at).is_err(), "it has another label than may come in");
    drop(server);
    Ok(())
}

#[test]
fn a_replica_that_a_new_policy_tells_apart_from_its_siblings_becomes_another_identity_while_it_talks()
-> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.deploy_waiting("server", &[])?;
    node.deploy_waiting("client", &["-l", "tier=a"])?;
    let _server = Echo::start(&node, "server")?;
    let at = SocketAddr::new(addresses(&node, "server")?[0], PORT);
    let (name, number, _) = node.identities("client")?.pop().context("no replica")?;
    let mut stream = connection(&node, "client", at)?;
    exchange(&mut stream, b'1', LIMIT)?;

    // The next generation never comes up, so that both are there.
    node.relabel("client", &[("tier", "b")], Some(&["sh", "-c", "exit 1"]))?;
    eventually(LIMIT, "the next generation", || {
        let all = node.identities("client")?;
        ensure!(all.len() == 2 && all.iter().all(|one| one.1 == number && one.2 == Some(number)), "{all:?}");
        Ok(())
    })?;
    // Of two generations with one replica each, the one that talks is given the other number.
    node.apply(&policy_letting_in("server", "{matchLabels: {tier: a}}"))?;
    let all = node.identities("client")?;
    let (talking, other): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.0 == name);
    ensure!(talking.len() == 1 && other.len() == 1, "{all:?}");
    ensure!(talking[0].1 != other[0].1, "both are still one: {all:?}");
    ensure!(all.iter().all(|one| one.2 == Some(one.1)), "a node was not waited for: {all:?}");
    exchange(&mut stream, b'2', LIMIT)?;

    node.apply(&policy_letting_in("server", "{matchLabels: {tier: b}}"))?;
    ensure!(
        exchange(&mut stream, b'3', ANSWER).is_err(),
        "what was made goes on although only the others may"
    );
    node.apply(&policy_letting_in("server", "{matchLabels: {tier: a}}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    ensure!(answer == *b"3", "{answer:?} came back");
    let running = node.replicas("client")?;
    let running =
        running.iter().find(|replica| replica["metadata"]["name"] == *name).context("it is gone")?;
    ensure!(running["status"]["restarts"] == 0 && running["status"]["ready"] == true, "{running}");
    Ok(())
}
