//! Plans, and a small world in which they are carried out until nothing is left to do.

use hivemind_model::{
    AppService, AppSpec, Container, Dependency, DependencyCondition, Node, NodeSpec, NodeState, NodeStatus,
    Phase, Port, Protocol, Service, ServiceSpec, ServiceStatus, SessionAffinity, Template,
};
use jiff::Timestamp;

use super::*;

mod identities;
mod nodes;

/// Objects, and what happens to them when actions are carried out and agents do their part.
struct World {
    snapshot: Snapshot,
    made: u32,
}

impl World {
    fn with_app(replicas: u32) -> Self {
        let app = App {
            metadata: Metadata::new("default", "web"),
            spec: AppSpec {
                replicas,
                hostnames: Vec::new(),
                service: AppService::default(),
                depends_on: Vec::new(),
                template: Template {
                    containers: vec![Container { image: "nginx".into(), ..Container::default() }],
                    ..Template::default()
                },
            },
            status: AppStatus::default(),
        };
        let service = Service {
            metadata: Metadata::new("default", "web"),
            spec: ServiceSpec {
                number: 1,
                ipv4: Some("10.204.0.10".parse().unwrap()),
                ipv6: Some("fd00::10".parse().unwrap()),
                ..ServiceSpec::default()
            },
            status: ServiceStatus::default(),
        };
        let node = Node {
            metadata: Metadata::new("default", "node-1"),
            spec: NodeSpec {
                replica_range_v4: "10.200.0.0/24".into(),
                replica_range_v6: "fd00::/64".into(),
                ..NodeSpec::default()
            },
            status: NodeStatus::default(),
        };
        let snapshot =
            Snapshot { apps: vec![app], services: vec![service], nodes: vec![node], ..Snapshot::default() };
        World { snapshot, made: 0 }
    }

    fn plan(&mut self) -> Vec<Action> {
        let made = &mut self.made;
        plan(&self.snapshot, || {
            *made += 1;
            format!("{made:05}")
        })
    }

    fn app(&mut self) -> &mut App {
        &mut self.snapshot.apps[0]
    }

    fn active(&self) -> Vec<&Replica> {
        self.snapshot.replicas.iter().filter(|r| !r.metadata.is_deleting()).collect()
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::CreateNamespace(namespace) => self.snapshot.namespaces.push(*namespace),
                Action::CreateIdentity(identity) => {
                    let is_new = |known: &Identity| known.spec.number != identity.spec.number;
                    assert!(self.snapshot.identities.iter().all(is_new), "a number is given twice");
                    self.snapshot.last_identity = identity.spec.number;
                    self.snapshot.identities.push(*identity);
                }
                Action::CutIdentity(identity) => {
                    let number = identity.spec.number;
                    let known = self.snapshot.identities.iter_mut().find(|known| known.spec.number == number);
                    *known.unwrap() = *identity;
                }
                Action::RemoveIdentity(identity) => {
                    let number = identity.spec.number;
                    assert!(
                        self.snapshot.replicas.iter().all(|r| r.spec.identity != number),
                        "{number} is in use"
                    );
                    self.snapshot.identities.retain(|known| known.spec.number != number);
                }
                Action::SetReplicaIdentity { name, identity, .. } => {
                    let replica =
                        self.snapshot.replicas.iter_mut().find(|r| r.metadata.name == name).unwrap();
                    replica.spec.identity = identity;
                }
                Action::CreateReplica(mut replica) => {
                    let number = replica.spec.identity;
                    let identity = self.snapshot.identities.iter().find(|known| known.spec.number == number);
                    assert!(identity.unwrap().spec.stands_for(&replica.metadata.labels));
                    replica.metadata.creation_timestamp =
                        Timestamp::from_second(i64::from(self.made)).unwrap();
                    self.snapshot.replicas.push(*replica);
                }
                Action::StopReplica { name, .. } => {
                    let replica =
                        self.snapshot.replicas.iter_mut().find(|r| r.metadata.name == name).unwrap();
                    replica.metadata.deletion_timestamp = Some(Timestamp::UNIX_EPOCH);
                }
                Action::CreateVolume(volume) => self.snapshot.volumes.push(*volume),
                Action::ForgetReplica(replica) => {
                    self.snapshot.replicas.retain(|known| known.metadata.name != replica.metadata.name);
                }
                Action::ForgetNodesOfService { nodes, .. } => {
                    let stays = |node: &str| !nodes.iter().any(|away| away == node);
                    self.snapshot.services[0].status.retain_nodes(stays);
                }
                Action::ForgetNodesOfPolicy { nodes, .. } => {
                    let stays = |node: &str| !nodes.iter().any(|away| away == node);
                    self.snapshot.policies[0].status.retain_nodes(stays);
                }
                Action::SetEndpoints { endpoints, .. } => {
                    self.snapshot.services[0].status.endpoints = endpoints
                }
                Action::SetService { spec, .. } => self.snapshot.services[0].spec = *spec,
                Action::SetAppStatus { status, .. } => self.snapshot.apps[0].status = *status,
                Action::RemoveApp(_) => {
                    self.snapshot.apps.clear();
                    self.snapshot.services.clear();
                }
            }
        }
    }

    /// Adds a node that is ready.
    fn add_node(&mut self, name: &str) {
        self.snapshot.nodes.push(Node {
            metadata: Metadata::new("default", name),
            spec: NodeSpec::default(),
            status: NodeStatus::default(),
        });
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.snapshot.nodes.iter_mut().find(|node| node.metadata.name == name).unwrap()
    }

    fn set_state(&mut self, name: &str, state: NodeState) {
        let now = self.snapshot.now;
        let node = self.node(name);
        (node.status.state, node.status.since) = (state, Some(now));
    }

    fn pass(&mut self, seconds: i64) {
        self.snapshot.now += jiff::SignedDuration::from_secs(seconds);
    }

    /// How many replicas that are not on their way out are on a node.
    fn on(&self, node: &str) -> usize {
        self.active().iter().filter(|replica| replica.spec.node == node).count()
    }

    /// Agents give endpoints the identities that replicas have.
    fn tell_identities(&mut self) -> bool {
        let mut told = false;
        for replica in &mut self.snapshot.replicas {
            told |= replica.status.identity.is_some_and(|identity| identity != replica.spec.identity);
            replica.status.identity = replica.status.identity.map(|_| replica.spec.identity);
        }
        told
    }

    /// One replica that waits comes up.
    fn bring_up(&mut self, index: usize) {
        let is_waiting = |status: &ReplicaStatus| !status.ready && !status.phase.is_final();
        let replicas = &self.snapshot.replicas;
        let waiting: Vec<_> = (0..replicas.len()).filter(|i| is_waiting(&replicas[*i].status)).collect();
        if waiting.is_empty() {
            return;
        }
        let at = waiting[index % waiting.len()];
        let replica = &mut self.snapshot.replicas[at];
        if replica.metadata.is_deleting() {
            return;
        }
        replica.status.ready = true;
        replica.status.phase = Phase::Running;
        replica.status.identity = Some(replica.spec.identity);
        replica.status.ipv4 = Some([10, 200, 0, u8::try_from(at % 250).unwrap()].into());
        replica.status.ipv6 = Some("fd00::1".parse().unwrap());
    }

    /// Agents take down what is on its way out.
    fn take_down(&mut self) {
        self.snapshot.replicas.retain(|r| !r.metadata.is_deleting());
    }

    /// Everything happens until nothing is left to do, replicas that are lost aside.
    fn settle_ready(&mut self) {
        for _ in 0..2_000 {
            let actions = self.plan();
            let waiting = self.snapshot.replicas.iter().any(|r| !r.status.ready && !r.metadata.is_deleting());
            if actions.is_empty() && !waiting {
                return;
            }
            self.carry_out(actions);
            self.bring_up(0);
            self.take_down();
        }
        panic!("the plan never ends");
    }

    /// Everything happens until the plan is empty.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            let actions = self.plan();
            let is_up = actions.is_empty()
                && self.snapshot.replicas.iter().all(|r| r.status.ready || r.status.phase.is_final());
            self.carry_out(actions);
            if !self.tell_identities() && is_up {
                return;
            }
            self.bring_up(0);
            self.take_down();
        }
        panic!("the plan never ends");
    }
}

#[test]
fn an_app_gets_its_replicas_and_they_enter_the_service() {
    let mut world = World::with_app(3);
    world.settle();
    assert_eq!(world.snapshot.replicas.len(), 3);
    assert_eq!(world.snapshot.services[0].status.endpoints.len(), 3);
    let app = world.app().clone();
    assert!(app.status.is_up(&app));
}

#[test]
fn a_service_is_as_its_app_says_and_no_replica_is_replaced_for_it() {
    let mut world = World::with_app(2);
    world.settle();
    let replicas = world.snapshot.replicas.clone();
    let wanted = [
        AppService {
            session_affinity: Some(SessionAffinity { timeout_seconds: 60 }),
            ..AppService::default()
        },
        AppService {
            ports: vec![ServicePort { port: 5432, ..ServicePort::default() }],
            ..AppService::default()
        },
        AppService::default(),
    ];
    for service in wanted {
        world.app().spec.service = service.clone();
        let actions = world.plan();
        assert!(matches!(&actions[..], [Action::SetService { .. }]), "{actions:?}");
        world.carry_out(actions);
        let spec = &world.snapshot.services[0].spec;
        assert_eq!((&spec.ports, spec.session_affinity), (&service.ports, service.session_affinity));
        assert!(world.plan().is_empty());
        assert_eq!(world.snapshot.replicas, replicas);
    }
}

#[test]
fn the_service_has_the_names_and_ports_that_the_app_has_by_now() {
    let mut world = World::with_app(1);
    world.settle();
    world.app().spec.hostnames = vec!["web.local".into()];
    world.app().spec.template.containers[0].ports =
        vec![Port { host_port: 8080, container_port: 80, protocol: Protocol::Tcp }];
    world.settle();
    let spec = &world.snapshot.services[0].spec;
    assert_eq!(spec.hostnames, ["web.local"]);
    assert_eq!(spec.published.iter().map(|port| port.host_port).collect::<Vec<_>>(), [8080]);
}

#[test]
fn what_has_ended_is_counted_and_not_made_again() {
    let mut world = World::with_app(2);
    world.settle();
    for (replica, phase) in world.snapshot.replicas.iter_mut().zip([Phase::Succeeded, Phase::Failed]) {
        replica.status = ReplicaStatus { phase, ..ReplicaStatus::default() };
    }
    let names = |world: &World| -> Vec<_> {
        world.snapshot.replicas.iter().map(|replica| replica.metadata.name.clone()).collect()
    };
    let before = names(&world);
    world.settle();
    // Not even if their node is emptied or gone.
    world.snapshot.nodes[0].spec.draining = true;
    world.settle();
    let node = world.snapshot.nodes.pop();
    world.settle();
    world.snapshot.nodes.extend(node);
    assert_eq!(names(&world), before);
    let status = &world.app().status;
    assert_eq!((status.succeeded_replicas, status.failed_replicas, status.ready_replicas), (1, 1, 0));
    assert!(world.snapshot.services[0].status.endpoints.is_empty());
    // Another template is another matter.
    world.snapshot.nodes[0].spec.draining = false;
    world.app().spec.template.containers[0].image = "nginx:2".into();
    world.settle();
    assert!(names(&world).iter().all(|name| !before.contains(name)));
}

#[test]
fn an_app_waits_for_others_until_it_has_its_first_replica() {
    for condition in
        [DependencyCondition::Started, DependencyCondition::Ready, DependencyCondition::Completed]
    {
        let mut world = World::with_app(1);
        world.app().spec.depends_on = vec![Dependency { app: "db".into(), condition }];
        world.settle();
        let told = world.app().status.problem.clone().unwrap();
        assert_eq!(told.message, "it waits for db, which does not exist");
        let mut other = world.app().clone();
        other.metadata.name = "db".into();
        other.spec.depends_on.clear();
        world.snapshot.apps.push(other);
        let mut replica = Replica {
            metadata: Metadata::new("default", "db-1"),
            spec: ReplicaSpec {
                app: "db".into(),
                node: world.snapshot.nodes[0].metadata.name.clone(),
                identity: 1,
                template_hash: super::hash_of(&world.snapshot.apps[1]),
                template: Template::default(),
            },
            status: ReplicaStatus::default(),
        };
        world.snapshot.replicas.push(replica.clone());
        let waits = |world: &World| super::dependencies::missing(&world.snapshot, &world.snapshot.apps[0]);
        assert_eq!(waits(&world).unwrap().message, format!("it waits for db to be {}", condition.as_str()));
        replica.status = match condition {
            DependencyCondition::Started => {
                ReplicaStatus { started_at: Some(jiff::Timestamp::UNIX_EPOCH), ..ReplicaStatus::default() }
            }
            DependencyCondition::Ready => ReplicaStatus { ready: true, ..ReplicaStatus::default() },
            DependencyCondition::Completed => {
                ReplicaStatus { phase: Phase::Succeeded, ..ReplicaStatus::default() }
            }
        };
        world.snapshot.replicas[0] = replica;
        assert_eq!(waits(&world), None);
        world.snapshot.replicas[0].status =
            ReplicaStatus { phase: Phase::Failed, ..ReplicaStatus::default() };
        assert!(waits(&world).unwrap().message.ends_with(", which has failed"));
        // It has begun, and what becomes of the others is theirs.
        world.snapshot.replicas[0].spec.app = "web".into();
        assert_eq!(waits(&world), None);
    }
}

#[test]
fn an_app_with_a_headless_service_has_endpoints_and_no_addresses() {
    let mut world = World::with_app(2);
    world.snapshot.services[0].spec = ServiceSpec::default();
    world.settle();
    assert_eq!(world.snapshot.services[0].status.endpoints.len(), 2);
    assert!(world.app().status.addresses.is_empty());
}

#[test]
fn a_stopping_replica_leaves_its_service_before_it_is_told_to_stop() {
    let mut world = World::with_app(3);
    world.settle();
    world.app().spec.replicas = 1;
    let actions = world.plan();
    let endpoints = actions.iter().position(|a| matches!(a, Action::SetEndpoints { .. })).unwrap();
    let stop = actions.iter().position(|a| matches!(a, Action::StopReplica { .. })).unwrap();
    assert!(endpoints < stop);
    assert!(matches!(&actions[endpoints], Action::SetEndpoints { endpoints, .. } if endpoints.len() == 1));
}

#[test]
fn scaling_down_stops_the_unready_first() {
    let mut world = World::with_app(2);
    world.settle();
    world.app().spec.replicas = 3;
    let actions = world.plan();
    world.carry_out(actions);
    let unready = world.active().iter().find(|r| !r.status.ready).unwrap().metadata.name.clone();
    world.app().spec.replicas = 2;
    let stopped: Vec<_> =
        world.plan().into_iter().filter(|a| matches!(a, Action::StopReplica { .. })).collect();
    assert_eq!(stopped, [Action::StopReplica { namespace: "default".into(), name: unready }]);
}

#[test]
fn a_new_template_never_takes_ready_replicas_below_what_is_wanted() {
    let mut world = World::with_app(3);
    world.settle();
    let before: Vec<_> = world.active().iter().map(|r| r.metadata.name.clone()).collect();
    world.app().spec.template.containers[0].image = "nginx:2".into();
    for _ in 0..50 {
        let actions = world.plan();
        world.carry_out(actions);
        assert!(world.active().len() <= 4, "one more than wanted at most");
        assert!(world.snapshot.services[0].status.endpoints.len() >= 3);
        world.bring_up(0);
        world.take_down();
    }
    assert_eq!(world.active().len(), 3);
    assert!(world.active().iter().all(|r| !before.contains(&r.metadata.name)));
    assert!(world.plan().is_empty());
}

#[test]
fn a_deleted_app_goes_only_after_its_last_replica() {
    let mut world = World::with_app(2);
    world.settle();
    world.app().metadata.deletion_timestamp = Some(Timestamp::UNIX_EPOCH);
    let actions = world.plan();
    assert!(!actions.iter().any(|a| matches!(a, Action::RemoveApp(_))));
    world.carry_out(actions);
    assert!(world.snapshot.services[0].status.endpoints.is_empty());
    world.take_down();
    assert!(matches!(world.plan().as_slice(), [Action::RemoveApp(_), Action::RemoveIdentity(_)]));
}

#[test]
fn volumes_that_an_app_mounts_are_made_once() {
    let mut world = World::with_app(2);
    let mount = |path: &str| hivemind_model::VolumeMount {
        volume: "data".into(),
        path: path.into(),
        read_only: false,
    };
    world.app().spec.template.containers[0].volume_mounts = vec![mount("/a"), mount("/b")];
    let actions = world.plan();
    assert_eq!(actions.iter().filter(|a| matches!(a, Action::CreateVolume(_))).count(), 1);
    world.settle();
    assert_eq!(world.snapshot.volumes.len(), 1);
}

#[test]
fn replicas_without_an_app_are_stopped() {
    let mut world = World::with_app(1);
    world.settle();
    world.snapshot.apps.clear();
    assert!(matches!(world.plan().as_slice(), [Action::StopReplica { .. }]));
}

#[test]
fn without_a_node_the_app_says_so() {
    let mut world = World::with_app(1);
    world.snapshot.nodes.clear();
    let actions = world.plan();
    world.carry_out(actions);
    assert!(world.snapshot.replicas.is_empty());
    assert!(world.app().status.problem.is_some());
}

#[test]
fn namespaces_are_there_once_something_is_in_them() {
    let mut world = World::with_app(1);
    world.app().metadata.namespace = "shop".into();
    world.snapshot.services[0].metadata.namespace = "shop".into();
    world.settle();
    let names: Vec<_> = world.snapshot.namespaces.iter().map(|n| n.metadata.name.as_str()).collect();
    assert_eq!(names, ["default", "hivemind-system", "shop"]);
    assert_eq!(world.snapshot.namespaces[2].labels()["kubernetes.io/metadata.name"], "shop");
}
