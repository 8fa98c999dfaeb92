use hivemind_model::{
    AppService, AppSpec, AppStatus, Metadata, PullProgress, ReplicaSpec, ReplicaStatus, Template, WatchEvent,
};

use super::*;

const UID: Uuid = Uuid::from_u128(7);

fn app(replicas: u32, ready: u32) -> App {
    let mut metadata = Metadata::new("default", "web");
    metadata.uid = UID;
    metadata.generation = 2;
    App {
        metadata,
        spec: AppSpec {
            replicas,
            hostnames: Vec::new(),
            service: AppService::default(),
            depends_on: Vec::new(),
            template: Template::default(),
        },
        status: AppStatus {
            observed_generation: 2,
            replicas,
            updated_replicas: replicas,
            ready_replicas: ready,
            ..AppStatus::default()
        },
    }
}

fn replica(name: &str, status: ReplicaStatus) -> Replica {
    Replica {
        metadata: Metadata::new("default", name),
        spec: ReplicaSpec {
            app: "web".into(),
            node: "n1".into(),
            identity: 0,
            template_hash: String::new(),
            template: Template::default(),
        },
        status,
    }
}

fn running(name: &str) -> Replica {
    let ipv4 = Some("10.200.0.5".parse().unwrap());
    replica(name, ReplicaStatus { phase: Phase::Running, ready: true, ipv4, ..ReplicaStatus::default() })
}

fn pulling(done_bytes: u64, total_bytes: u64) -> Replica {
    let pull = Some(PullProgress { done_bytes, total_bytes });
    replica("web-1", ReplicaStatus { phase: Phase::Pulling, pull, ..ReplicaStatus::default() })
}

fn problem(code: ErrorCode) -> Problem {
    Problem { code, field: String::new(), message: "it broke".into(), hint: String::new() }
}

fn failing(code: ErrorCode, restarts: u32) -> Replica {
    let problem = Some(problem(code));
    replica("web-1", ReplicaStatus { phase: Phase::Backoff, restarts, problem, ..ReplicaStatus::default() })
}

fn starting() -> Replica {
    replica("web-1", ReplicaStatus { phase: Phase::Starting, ..ReplicaStatus::default() })
}

fn sees_app(app: App) -> Observation {
    Observation::App(Box::new(WatchItem::Event(WatchEvent { kind: WatchKind::Modified, object: app })))
}

fn sees(replica: Replica) -> Observation {
    Observation::Replica(Box::new(WatchItem::Event(WatchEvent {
        kind: WatchKind::Modified,
        object: replica,
    })))
}

fn synced_apps() -> Observation {
    Observation::App(Box::new(WatchItem::Synced { resource_version: 1 }))
}

fn synced_replicas() -> Observation {
    Observation::Replica(Box::new(WatchItem::Synced { resource_version: 1 }))
}

fn progress() -> Progress {
    Progress::new(&app(1, 0), Replicas::AllNew)
}

#[test]
fn a_replica_tells_each_step_once() {
    let mut progress = progress();
    let mut told = Vec::new();
    for seen in [
        replica("web-1", ReplicaStatus::default()),
        pulling(0, 0),
        pulling(100_000, 13_100_000),
        pulling(200_000, 13_100_000),
        pulling(4_200_000, 13_100_000),
        starting(),
        starting(),
        running("web-1"),
    ] {
        let (steps, _) = progress.observe(sees(seen));
        told.extend(steps.into_iter().filter(|s| s.is_new).map(|s| s.text));
    }
    assert_eq!(
        told,
        [
            "waiting for its node",
            "pulling",
            "pulling 0.1/13.1 MB",
            "pulling 4.2/13.1 MB",
            "starting",
            "running 10.200.0.5"
        ]
    );
}

#[test]
fn a_pull_that_went_on_a_little_is_told_as_the_same_step() {
    let mut progress = progress();
    progress.observe(sees(pulling(100_000, 13_100_000)));
    let (steps, _) = progress.observe(sees(pulling(200_000, 13_100_000)));
    assert_eq!((steps[0].text.as_str(), steps[0].is_new), ("pulling 0.2/13.1 MB", false));
}

#[test]
fn an_app_is_up_when_it_and_its_replicas_say_so_in_whichever_order() {
    let mut first = progress();
    assert_eq!(first.observe(sees_app(app(1, 1))).1, Verdict::Waiting);
    assert_eq!(first.observe(sees(running("web-1"))).1, Verdict::Up);
    let mut second = progress();
    assert_eq!(second.observe(sees(running("web-1"))).1, Verdict::Waiting);
    assert_eq!(second.observe(sees_app(app(1, 1))).1, Verdict::Up);
}

#[test]
fn an_app_of_no_replicas_is_up_without_any() {
    assert_eq!(progress().observe(sees_app(app(0, 0))).1, Verdict::Up);
}

#[test]
fn a_status_of_before_the_change_is_not_taken_for_up() {
    let mut wanted = app(1, 1);
    wanted.metadata.generation = 3;
    let mut progress = Progress::new(&wanted, Replicas::SomeOld);
    progress.observe(sees(running("web-1")));
    assert_eq!(progress.observe(sees_app(app(1, 1))).1, Verdict::Waiting);
    let mut observed_late = app(1, 1);
    observed_late.metadata.generation = 3;
    assert_eq!(progress.observe(sees_app(observed_late.clone())).1, Verdict::Waiting);
    observed_late.status.observed_generation = 3;
    assert_eq!(progress.observe(sees_app(observed_late)).1, Verdict::Up);
}

#[test]
fn what_will_not_mend_ends_the_waiting_at_once() {
    use ErrorCode as E;
    for code in [
        E::ImageNotFound,
        E::ImageUnauthorized,
        E::ImagePlatform,
        E::ImageCorrupt,
        E::CommandFailed,
        E::InvalidImage,
        E::PortTaken,
    ] {
        let (_, verdict) = progress().observe(sees(failing(code, 0)));
        let blame = Blame { replica: Some("web-1".into()), ran: false, problem: problem(code) };
        assert_eq!(verdict, Verdict::Failed(blame), "{code}");
    }
}

#[test]
fn restarts_are_waited_for_as_long_as_their_reason_may_pass() {
    for (code, most) in [(ErrorCode::CrashLoop, 3), (ErrorCode::OutOfMemory, 2)] {
        let mut progress = progress();
        for restarts in 0..most {
            assert_eq!(
                progress.observe(sees(failing(code, restarts))).1,
                Verdict::Waiting,
                "{code} {restarts}"
            );
        }
        let (_, verdict) = progress.observe(sees(failing(code, most)));
        assert!(matches!(verdict, Verdict::Failed(Blame { ran: true, .. })), "{code}");
    }
}

#[test]
fn a_container_that_cannot_be_made_is_given_three_tries() {
    let code = ErrorCode::ContainerFailed;
    let mut progress = progress();
    for _ in 0..2 {
        assert_eq!(progress.observe(sees(failing(code, 0))).1, Verdict::Waiting);
        assert_eq!(progress.observe(sees(failing(code, 0))).1, Verdict::Waiting);
        assert_eq!(progress.observe(sees(starting())).1, Verdict::Waiting);
    }
    assert!(matches!(progress.observe(sees(failing(code, 0))).1, Verdict::Failed(_)));
}

#[test]
fn other_problems_are_waited_for_and_blamed_when_time_is_up() {
    let mut progress = progress();
    let (steps, verdict) = progress.observe(sees(failing(ErrorCode::DiskFull, 9)));
    assert_eq!(verdict, Verdict::Waiting);
    assert_eq!(steps[0].text, "it broke (HM0504), will be tried again");
    assert_eq!(progress.blame().unwrap().problem.code, ErrorCode::DiskFull);
    progress.observe(sees(running("web-1")));
    assert_eq!(progress.blame(), None);
}

#[test]
fn a_problem_of_the_app_itself_is_seen_too() {
    let mut taken = app(1, 0);
    taken.status.problem = Some(problem(ErrorCode::PortTaken));
    let mut stale = taken.clone();
    stale.status.observed_generation = 1;
    let mut progress = progress();
    assert_eq!(progress.observe(sees_app(stale)).1, Verdict::Waiting);
    assert!(matches!(progress.observe(sees_app(taken)).1, Verdict::Failed(Blame { replica: None, .. })));
}

#[test]
fn restarts_of_before_are_not_held_against_a_replica() {
    let mut progress = Progress::new(&app(1, 0), Replicas::SomeOld);
    assert_eq!(progress.observe(sees(failing(ErrorCode::CrashLoop, 8))).1, Verdict::Waiting);
    assert_eq!(progress.observe(sees(failing(ErrorCode::CrashLoop, 10))).1, Verdict::Waiting);
    assert!(matches!(progress.observe(sees(failing(ErrorCode::CrashLoop, 11))).1, Verdict::Failed(_)));
}

#[test]
fn an_app_that_is_deleted_meanwhile_is_gone() {
    let deleted = WatchEvent { kind: WatchKind::Deleted, object: app(1, 0) };
    let mut deleted_while_watching = progress();
    let item = Observation::App(Box::new(WatchItem::Event(deleted)));
    assert_eq!(deleted_while_watching.observe(item).1, Verdict::Gone);
    let mut deleted_before = progress();
    assert_eq!(deleted_before.observe(synced_apps()).1, Verdict::Gone);
    let mut other = app(1, 1);
    other.metadata.uid = Uuid::from_u128(8);
    let mut made_anew = progress();
    made_anew.observe(sees_app(other));
    assert_eq!(made_anew.observe(synced_apps()).1, Verdict::Gone);
}

#[test]
fn after_a_lost_watch_what_is_not_told_again_is_gone() {
    let mut progress = Progress::new(&app(2, 0), Replicas::AllNew);
    progress.observe(sees_app(app(2, 1)));
    progress.observe(sees(running("web-1")));
    progress.observe(sees(running("web-2")));
    progress.observe(Observation::Resync);
    progress.observe(sees_app(app(2, 1)));
    assert_eq!(progress.observe(synced_apps()).1, Verdict::Waiting);
    progress.observe(sees(running("web-2")));
    let (steps, _) = progress.observe(synced_replicas());
    assert_eq!(steps, [Step { replica: "web-1".into(), text: "gone".into(), is_new: true, is_last: true }]);
    assert_eq!(progress.replicas().count(), 1);
}
