//! Real sockets and the real clock. What takes how long is the simulator's to say; here it only has to happen.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "everything here is test code")]

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use hivemind_membership::{Config, Key, Membership, NodeName, Peer, StartError, State, View};
use tokio::net::UdpSocket;

/// Far longer than anything here takes on a machine that is not stuck.
const PATIENCE: Duration = Duration::from_secs(30);

fn key() -> Key {
    Key { id: 1, secret: [9; 32] }
}

async fn socket() -> (UdpSocket, SocketAddrV4) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let SocketAddr::V4(address) = socket.local_addr().unwrap() else {
        panic!("it is bound to an IPv4 address")
    };
    (socket, address)
}

fn peer(number: u16, address: SocketAddrV4) -> Peer {
    Peer {
        number: number.try_into().unwrap(),
        name: NodeName::new(&format!("node-{number}")).unwrap(),
        address,
    }
}

async fn three() -> (Vec<Membership>, Vec<Peer>) {
    let mut sockets = Vec::new();
    let mut list = Vec::new();
    for number in 1..=3 {
        let (socket, address) = socket().await;
        sockets.push(socket);
        list.push(peer(number, address));
    }
    let start = |(socket, own): (UdpSocket, &Peer)| {
        let config = Config { own: own.clone(), keys: vec![key()], peers: list.clone() };
        Membership::start(config, socket).unwrap()
    };
    let nodes: Vec<_> = sockets.into_iter().zip(&list).map(start).collect();
    for node in &nodes {
        wait(node, |view| view.members.iter().all(|member| member.state == State::Alive)).await;
    }
    (nodes, list)
}

async fn wait(node: &Membership, done: impl FnMut(&Arc<View>) -> bool) -> Arc<View> {
    let mut view = node.view();
    let found = tokio::time::timeout(PATIENCE, view.wait_for(done)).await.expect("it did not come to that");
    found.unwrap().clone()
}

fn state(view: &View, number: u16) -> Option<State> {
    view.get(number.try_into().unwrap()).map(|member| member.state)
}

#[tokio::test]
async fn three_nodes_meet_and_measure_each_other() {
    let (nodes, _) = three().await;
    for node in &nodes {
        let view = wait(node, |view| view.members.iter().all(|member| member.rtt.is_some())).await;
        for member in &view.members {
            let rtt = member.rtt.unwrap();
            assert!(rtt.samples >= 1 && rtt.smoothed_us > 0.0 && rtt.smoothed_us < 1e6, "{rtt:?}");
        }
        assert!(node.statistics().received > 0);
        assert_eq!(node.statistics().protocol_errors, 0);
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn who_leaves_has_left_and_who_stops_is_dead() {
    let (mut nodes, _) = three().await;
    nodes.pop().unwrap().leave().await;
    for node in &nodes {
        wait(node, |view| state(view, 3) == Some(State::Left)).await;
    }
    nodes.pop().unwrap().stop().await;
    let view = wait(&nodes[0], |view| state(view, 2) == Some(State::Dead)).await;
    assert_eq!(state(&view, 3), Some(State::Left));
}

#[tokio::test]
async fn a_node_that_is_started_again_on_its_address_is_alive_in_a_new_generation() {
    let (mut nodes, list) = three().await;
    let number = list[2].number;
    let before = wait(&nodes[0], |_| true).await.get(number).unwrap().generation;
    nodes.pop().unwrap().stop().await;
    let socket = UdpSocket::bind(list[2].address).await.unwrap();
    let config = Config { own: list[2].clone(), keys: vec![key()], peers: vec![list[0].clone()] };
    let again = Membership::start(config, socket).unwrap();
    for node in &nodes {
        wait(node, |view| {
            let member = view.get(number).unwrap();
            member.state == State::Alive && member.generation > before
        })
        .await;
    }
    again.set_peers(list.clone()).unwrap();
    wait(&again, |view| state(view, 2) == Some(State::Alive)).await;
}

#[tokio::test]
async fn a_node_that_is_taken_off_the_list_leaves_the_view() {
    let (nodes, list) = three().await;
    nodes[0].set_peers(list[..2].to_vec()).unwrap();
    let view = wait(&nodes[0], |view| view.members.len() == 1).await;
    assert_eq!(state(&view, 3), None);
}

#[tokio::test]
async fn a_node_that_moves_to_another_address_is_found_there() {
    let (mut nodes, mut list) = three().await;
    nodes.pop().unwrap().stop().await;
    let (socket, address) = socket().await;
    list[2] = peer(3, address);
    let config = Config { own: list[2].clone(), keys: vec![key()], peers: list.clone() };
    let moved = Membership::start(config, socket).unwrap();
    for node in &nodes {
        node.set_peers(list.clone()).unwrap();
    }
    for node in nodes.iter().chain([&moved]) {
        let view = wait(node, |view| {
            let there = view.get(list[2].number).is_some_and(|member| member.address == address);
            there && view.members.iter().all(|member| member.state == State::Alive)
        })
        .await;
        assert_eq!(view.members.len(), 2);
    }
}

#[tokio::test]
async fn dropped_membership_frees_its_socket() {
    let (socket, address) = socket().await;
    let config = Config { own: peer(1, address), keys: vec![key()], peers: vec![] };
    let membership = Membership::start(config, socket).unwrap();
    let mut view = membership.view();
    drop(membership);
    tokio::time::timeout(PATIENCE, async { while view.changed().await.is_ok() {} })
        .await
        .expect("the task goes on");
    UdpSocket::bind(address).await.expect("the address is free");
}

#[tokio::test]
async fn an_ipv6_socket_is_refused() {
    let Ok(socket) = UdpSocket::bind("[::1]:0").await else { return };
    let config = Config { own: peer(1, "127.0.0.1:4484".parse().unwrap()), keys: vec![key()], peers: vec![] };
    assert!(matches!(Membership::start(config, socket), Err(StartError::NotIpv4(_))));
}
