//! What containers write, through shim and collector into files, while the processes in between die.

use crate::node::{PATIENCE, busybox, eventually, id, on_node};
use hivemind_runtime::{ContainerState, Runtime, Signal, logs::LogStream};
use nix::sys::signal::{Signal as Kill, kill};

async fn messages(runtime: &Runtime, container: &str) -> Vec<(LogStream, String)> {
    let mut logs = runtime.logs(&id(container), None, false);
    let mut messages = Vec::new();
    while let Some(line) = logs.next().await {
        let line = line.unwrap();
        messages.push((line.stream, line.message));
    }
    messages
}

#[test]
fn every_byte_that_a_container_wrote_is_there_when_it_is_removed() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        // More than all the pipes between hold, and an end without a newline.
        let script = "seq 200000; seq 1000 >&2; printf end";
        runtime.run(&busybox("c", script)).await.unwrap();
        assert_eq!(runtime.stop(&id("c"), Signal::SIGURG, PATIENCE).await.unwrap(), 0);
        runtime.delete(&id("c")).await.unwrap();
        let messages = messages(&runtime, "c").await;
        let of = |wanted| {
            messages.iter().filter(move |(stream, _)| *stream == wanted).map(|(_, line)| line.clone())
        };
        let numbers = |count: usize| (1..=count).map(|number| number.to_string());
        assert!(of(LogStream::Stdout).eq(numbers(200_000).chain(["end".to_owned()])));
        assert!(of(LogStream::Stderr).eq(numbers(1000)));
        runtime.remove_logs(&id("c")).await.unwrap();
        assert_eq!(std::fs::read_dir(&runtime.config().log_dir).unwrap().count(), 0);
    });
}

#[test]
fn a_container_that_ends_at_once_is_still_heard() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        for round in 0..10 {
            let container = format!("c{round}");
            runtime.run(&busybox(&container, "echo last words")).await.unwrap();
            runtime.delete(&id(&container)).await.unwrap();
            let heard = messages(&runtime, &container).await;
            // It may have been killed before it spoke; half a line there is never.
            assert!(heard.is_empty() || heard == [(LogStream::Stdout, "last words".to_owned())], "{heard:?}");
        }
        runtime.run(&busybox("d", "echo last words")).await.unwrap();
        runtime.stop(&id("d"), Signal::SIGURG, PATIENCE).await.unwrap();
        runtime.delete(&id("d")).await.unwrap();
        assert_eq!(messages(&runtime, "d").await, [(LogStream::Stdout, "last words".to_owned())]);
    });
}

#[test]
fn containers_survive_the_collector_and_the_next_one_goes_on() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        // Whoever watches events also watches the collector.
        let _events = runtime.events();
        let script = "i=0; while :; do echo $i; i=$((i+1)); done";
        let running = runtime.run(&busybox("c", script)).await.unwrap();
        let mut logs = runtime.logs(&id("c"), Some(0), true);
        let mut highest = 0;
        for _ in 0..3 {
            let collector = node.collector_pid().unwrap();
            kill(collector, Kill::SIGKILL).unwrap();
            eventually(async || node.collector_pid().filter(|pid| *pid != collector)).await;
            for _ in 0..50_000 {
                let line = logs.next().await.unwrap().unwrap();
                // The line in which the first collector died may be cut short.
                if let Ok(number) = line.message.parse::<u64>() {
                    highest = highest.max(number);
                }
            }
        }
        assert!(highest > 100_000, "it went on to count: {highest}");
        let state = runtime.list().await.unwrap()[0].state;
        assert_eq!(state, ContainerState::Running { pid: running.pid });
        runtime.delete(&id("c")).await.unwrap();
    });
}

#[test]
fn a_collector_that_dies_idle_loses_nothing() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        let go = node.dir.join("go");
        nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut spec = busybox("c", "echo before; read x < /go; seq 5000; sleep 1000");
        spec.mounts =
            vec![hivemind_runtime::BindMount { source: go.clone(), target: "/go".into(), read_only: false }];
        runtime.run(&spec).await.unwrap();
        let mut logs = runtime.logs(&id("c"), None, true);
        assert_eq!(logs.next().await.unwrap().unwrap().message, "before");
        kill(node.collector_pid().unwrap(), Kill::SIGKILL).unwrap();
        eventually(async || node.collector_pid().is_none().then_some(())).await;
        // Written while nobody collects.
        std::fs::write(&go, "go\n").unwrap();
        runtime.ensure_log_collector().await.unwrap();
        for number in 1..=5000 {
            assert_eq!(logs.next().await.unwrap().unwrap().message, number.to_string());
        }
        runtime.delete(&id("c")).await.unwrap();
    });
}

#[test]
fn one_collector_serves_a_node_however_many_ask_for_it() {
    on_node(async |node| {
        let runtime = node.connect().await;
        let asked = (0..8).map(|_| runtime.ensure_log_collector());
        for outcome in futures::future::join_all(asked).await {
            outcome.unwrap();
        }
        let collector = node.collector_pid().unwrap();
        runtime.ensure_log_collector().await.unwrap();
        assert_eq!(node.collector_pid(), Some(collector));
        let status = std::fs::read_to_string(format!("/proc/{collector}/status")).unwrap();
        println!("{}", status.lines().find(|line| line.starts_with("VmRSS")).unwrap());
        runtime.stop_log_collector().await.unwrap();
        eventually(async || node.collector_pid().is_none().then_some(())).await;
        assert!(!runtime.config().log_socket.exists());
    });
}

#[test]
fn a_collector_whose_socket_is_removed_ends() {
    on_node(async |node| {
        let runtime = node.connect().await;
        runtime.ensure_log_collector().await.unwrap();
        std::fs::remove_file(&runtime.config().log_socket).unwrap();
        eventually(async || node.collector_pid().is_none().then_some(())).await;
    });
}
