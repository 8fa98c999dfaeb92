//! Plans for several nodes, which come and go.

use proptest::prelude::*;

use super::*;

fn two_nodes(replicas: u32) -> World {
    let mut world = World::with_app(replicas);
    world.add_node("node-2");
    world.snapshot.grace = std::time::Duration::from_secs(30);
    world.settle();
    world
}

#[test]
fn replicas_are_spread_over_nodes() {
    let world = two_nodes(4);
    assert_eq!((world.on("node-1"), world.on("node-2")), (2, 2));
}

#[test]
fn a_dead_node_leaves_services_at_once_and_is_replaced_after_the_grace() {
    let mut world = two_nodes(4);
    world.set_state("node-2", NodeState::Dead);
    let actions = world.plan();
    world.carry_out(actions);
    assert_eq!(world.snapshot.services[0].status.endpoints.len(), 2);
    assert_eq!((world.on("node-1"), world.on("node-2")), (2, 2));
    assert_eq!(world.app().status.ready_replicas, 2);
    assert!(world.snapshot.waits());
    world.pass(29);
    assert!(world.plan().is_empty());
    world.pass(1);
    world.settle();
    assert_eq!((world.on("node-1"), world.on("node-2")), (4, 0));
    assert!(!world.snapshot.waits());
}

#[test]
fn a_node_that_comes_back_within_the_grace_keeps_what_it_has() {
    let mut world = two_nodes(4);
    let before: Vec<_> = world.active().iter().map(|r| r.metadata.name.clone()).collect();
    world.set_state("node-2", NodeState::Dead);
    world.pass(20);
    let actions = world.plan();
    world.carry_out(actions);
    world.set_state("node-2", NodeState::Ready);
    world.settle();
    let after: Vec<_> = world.active().iter().map(|r| r.metadata.name.clone()).collect();
    assert_eq!(before, after);
    assert_eq!(world.snapshot.services[0].status.endpoints.len(), 4);
}

#[test]
fn a_node_that_left_or_is_no_more_is_replaced_at_once() {
    for gone in [false, true] {
        let mut world = two_nodes(4);
        match gone {
            false => world.set_state("node-2", NodeState::Left),
            true => world.snapshot.nodes.retain(|node| node.metadata.name != "node-2"),
        }
        world.settle();
        assert_eq!((world.on("node-1"), world.on("node-2")), (4, 0));
    }
}

#[test]
fn a_node_is_emptied_without_going_below_what_is_wanted() {
    let mut world = two_nodes(4);
    world.node("node-2").spec.draining = true;
    for _ in 0..60 {
        let actions = world.plan();
        world.carry_out(actions);
        assert!(world.active().len() <= 5, "one more than wanted at most");
        assert!(world.snapshot.services[0].status.endpoints.len() >= 4);
        world.bring_up(0);
        world.take_down();
    }
    assert_eq!((world.on("node-1"), world.on("node-2")), (4, 0));
    assert!(world.plan().is_empty());
}

#[test]
fn the_last_node_is_not_emptied_and_the_app_says_why() {
    let mut world = World::with_app(2);
    world.settle();
    world.node("node-1").spec.draining = true;
    let actions = world.plan();
    world.carry_out(actions);
    assert_eq!(world.on("node-1"), 2);
    let problem = world.app().status.problem.clone().unwrap();
    assert_eq!(problem.code, hivemind_model::ErrorCode::Unschedulable);
    assert!(world.plan().is_empty());
}

#[test]
fn a_volume_is_where_its_first_replica_is_and_holds_the_others_there() {
    let mut world = World::with_app(3);
    world.add_node("node-2");
    world.app().spec.template.containers[0].volume_mounts =
        vec![hivemind_model::VolumeMount { volume: "data".into(), path: "/data".into(), read_only: false }];
    world.settle();
    let node = world.snapshot.volumes[0].spec.node.clone();
    assert_eq!(world.on(&node), 3);
}

#[test]
fn a_chatty_replica_is_put_beside_its_peer() {
    let mut world = two_nodes(1);
    let peer = world.active()[0].spec.node.clone();
    let mut other = world.app().clone();
    other.metadata.name = "client".into();
    world.snapshot.apps.push(other);
    let labels = std::collections::BTreeMap::new();
    world.snapshot.identities.push(Identity::new(900, "default", "client", labels));
    world.snapshot.last_identity = 900;
    let web = world.active()[0].spec.identity;
    world.snapshot.measured.bytes_per_s.insert((web, 900), 10_000_000);
    let nodes = ("node-1".to_owned(), "node-2".to_owned());
    world.snapshot.measured.round_trips_us.insert(nodes, 2000);
    let made = world.plan().into_iter().find_map(|action| match action {
        Action::CreateReplica(replica) if replica.spec.app == "client" => Some(replica.spec.node),
        _ => None,
    });
    assert_eq!(made, Some(peer));
}

#[test]
fn what_nodes_told_that_are_away_is_forgotten() {
    let mut world = two_nodes(2);
    let problem = Problem {
        code: hivemind_model::ErrorCode::PortTaken,
        field: String::new(),
        message: "taken".into(),
        hint: String::new(),
    };
    world.snapshot.services[0].status.note("node-2", Some(problem));
    world.set_state("node-2", NodeState::Dead);
    world.settle_ready();
    assert_eq!(world.snapshot.services[0].status.problem, None);
}

#[test]
fn what_cannot_move_stays_even_if_it_is_not_ready_yet() {
    let mut world = World::with_app(2);
    let actions = world.plan();
    world.carry_out(actions);
    world.node("node-1").spec.draining = true;
    for _ in 0..3 {
        let actions = world.plan();
        assert!(!actions.iter().any(|a| matches!(a, Action::StopReplica { .. })), "{actions:?}");
        world.carry_out(actions);
    }
    assert_eq!(world.on("node-1"), 2);
    // With a place to go to, it moves without having been ready.
    world.add_node("node-2");
    world.settle();
    assert_eq!((world.on("node-1"), world.on("node-2")), (0, 2));
}

#[test]
fn a_drain_that_cannot_finish_does_not_make_the_app_look_out_of_date() {
    let mut world = World::with_app(2);
    world.settle();
    world.node("node-1").spec.draining = true;
    let actions = world.plan();
    world.carry_out(actions);
    let app = world.app().clone();
    assert!(app.status.is_up(&app), "{:?}", app.status);
}

#[test]
fn a_lost_replica_leaves_its_service_before_it_is_forgotten() {
    let mut world = two_nodes(4);
    world.set_state("node-2", NodeState::Left);
    let actions = world.plan();
    let endpoints = actions.iter().position(|a| matches!(a, Action::SetEndpoints { .. })).unwrap();
    let forget = actions.iter().position(|a| matches!(a, Action::ForgetReplica(_))).unwrap();
    assert!(endpoints < forget);
}

#[test]
fn a_replica_says_why_it_is_where_it_is() {
    let world = two_nodes(1);
    let reason = &world.active()[0].metadata.annotations["scheduler.hivemind/reason"];
    assert!(reason.contains("points") && reason.contains("of 2"), "{reason}");
}

#[test]
fn an_image_that_is_there_counts_however_it_is_written() {
    let mut world = World::with_app(1);
    world.add_node("node-2");
    world.node("node-2").status.images = vec!["docker.io/library/nginx:latest".into()];
    world.app().spec.template.containers[0].image = "nginx".into();
    let actions = world.plan();
    world.carry_out(actions);
    assert_eq!(world.on("node-2"), 1);
}

proptest! {
    /// Whatever happens to nodes and apps, it ends with what was asked last, on nodes that are there, and never are there
    /// two of one name.
    #[test]
    fn any_history_of_nodes_ends_with_what_was_asked_last(
        steps in prop::collection::vec((0_u32..5, 0_u8..11, 1_u8..4, 0_i64..40), 1..25),
        with_volume: bool,
        ends_alone: bool,
    ) {
        let mut world = World::with_app(2);
        world.snapshot.grace = std::time::Duration::from_secs(30);
        if with_volume {
            world.app().spec.template.containers[0].volume_mounts = vec![hivemind_model::VolumeMount {
                volume: "data".into(),
                path: "/data".into(),
                read_only: false,
            }];
        }
        world.settle();
        world.add_node("node-2");
        world.add_node("node-3");
        for (replicas, what, node, seconds) in steps {
            world.app().spec.replicas = replicas;
            let node = format!("node-{node}");
            if !world.snapshot.nodes.iter().any(|known| known.metadata.name == node) {
                world.add_node(&node);
            }
            match what {
                0 => world.set_state(&node, NodeState::Dead),
                1 => world.set_state(&node, NodeState::Ready),
                2 => world.set_state(&node, NodeState::Suspect),
                3 => world.node(&node).spec.draining = true,
                4 => world.node(&node).spec.draining = false,
                6 => world.set_state(&node, NodeState::Left),
                7 if node != "node-1" => world.snapshot.nodes.retain(|n| n.metadata.name != node),
                8 => world.node(&node).spec.cordoned = seconds % 2 == 0,
                5 => world.app().spec.template.containers[0].image = format!("nginx:{seconds}"),
                _ => world.bring_up(seconds as usize),
            }
            world.pass(seconds);
            let actions = world.plan();
            world.carry_out(actions);
            let volumes = &world.snapshot.volumes;
            for replica in world.snapshot.replicas.iter().filter(|_| with_volume) {
                prop_assert!(volumes.iter().any(|volume| volume.spec.node == replica.spec.node));
            }
            let rest = world.plan();
            prop_assert!(
                rest.iter().all(|action| matches!(
                    action,
                    Action::SetAppStatus { .. } | Action::RemoveIdentity(_) | Action::StopReplica { .. }
                        | Action::CreateReplica(_) | Action::SetEndpoints { .. }
                )),
                "{rest:?}"
            );
            let mut names: Vec<_> = world.snapshot.replicas.iter().map(|r| &r.metadata.name).collect();
            let count = names.len();
            names.sort();
            names.dedup();
            prop_assert_eq!(names.len(), count);
            if seconds % 2 == 0 {
                world.take_down();
            }
        }
        // In the end node 1 is there, where the volume is, and the others are away for good, or there as well.
        world.set_state("node-1", NodeState::Ready);
        (world.node("node-1").spec.draining, world.node("node-1").spec.cordoned) = (false, false);
        let others = world.snapshot.nodes.iter().map(|node| node.metadata.name.clone());
        for node in others.filter(|node| node != "node-1").collect::<Vec<_>>() {
            world.set_state(&node, if ends_alone { NodeState::Dead } else { NodeState::Ready });
        }
        world.pass(31);
        world.settle_ready();
        let wanted = world.snapshot.apps[0].spec.replicas as usize;
        prop_assert_eq!(world.active().len(), wanted);
        if ends_alone || with_volume {
            prop_assert_eq!(world.on("node-1"), wanted);
        }
        prop_assert_eq!(world.snapshot.services[0].status.endpoints.len(), wanted);
    }
}
