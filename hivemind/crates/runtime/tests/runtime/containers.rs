//! Containers in a real containerd: started, measured, executed in, killed, and found again.

use std::{
    num::{NonZeroU32, NonZeroU64},
    time::{Duration, Instant},
};

use crate::node::{Node, PATIENCE, await_event, busybox, eventually, id, on_node, reference};
use hivemind_runtime::{
    BindMount, ContainerSpec, ContainerState, Error, Event, ExecSession, ExecSpec, Runtime, Signal,
    TerminalSize,
};
use tokio::io::AsyncReadExt;

fn exec_spec(script: &str) -> ExecSpec {
    ExecSpec { args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(), ..Default::default() }
}

async fn output(session: &mut ExecSession) -> (u32, String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    let stderr = session.stderr.as_mut();
    let (read_out, read_err) = tokio::join!(session.stdout.read_to_string(&mut out), async {
        match stderr {
            Some(stderr) => stderr.read_to_string(&mut err).await,
            None => Ok(0),
        }
    });
    read_out.unwrap();
    read_err.unwrap();
    (session.wait().await.unwrap(), out, err)
}

/// What a script prints and how it ends, in a container of its own.
async fn run_once(runtime: &Runtime, mut spec: ContainerSpec, script: &str) -> (u32, String) {
    spec.command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    runtime.run(&spec).await.unwrap();
    // A signal that does nothing, and time.
    let code = runtime.stop(&spec.id, Signal::SIGURG, PATIENCE).await.unwrap();
    runtime.delete(&spec.id).await.unwrap();
    let mut lines = String::new();
    let mut logs = runtime.logs(&spec.id, None, false);
    while let Some(line) = logs.next().await {
        lines += &line.unwrap().message;
        lines.push('\n');
    }
    runtime.remove_logs(&spec.id).await.unwrap();
    (code, lines)
}

fn nothing_of(node: &Node, container: &str) {
    let left: Vec<String> =
        node.holdings().into_iter().filter(|line| line.ends_with(&format!(" {container}"))).collect();
    assert_eq!(left, Vec::<String>::new());
    let pipes = std::fs::read_dir(node.dir.join("run/pipes")).unwrap().count();
    assert_eq!(pipes, 0, "no pipe is left");
    let snapshots =
        node.holdings().into_iter().filter(|line| line.contains("Active") || line.contains("View"));
    assert_eq!(snapshots.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn a_container_runs_ends_and_is_removed_without_a_trace() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        let mut events = runtime.events();
        await_event(&mut events, |event| *event == Event::Connected).await;
        let mut spec = busybox("web-1", "echo out; echo err >&2; exit 3");
        spec.labels.insert("app".into(), "web".into());
        let running = runtime.run(&spec).await.unwrap();
        let exit = await_event(&mut events, |event| matches!(event, Event::Exit { .. })).await;
        assert_eq!(exit, Event::Exit { id: id("web-1"), pid: running.pid, code: 3 });
        let status = &runtime.list().await.unwrap()[0];
        assert_eq!((status.id.as_str(), status.labels["app"].as_str()), ("web-1", "web"));
        assert!(
            matches!(status.state, ContainerState::Exited { code: 3, at: Some(_) }),
            "{:?}",
            status.state
        );
        runtime.delete(&id("web-1")).await.unwrap();
        assert_eq!(runtime.list().await.unwrap(), []);
        nothing_of(&node, "web-1");
        runtime.delete(&id("web-1")).await.unwrap();
    });
}

#[test]
fn a_container_is_what_its_description_says() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        let host = |name: &str, text: &str| {
            let path = node.dir.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut spec = busybox("c", "");
        spec.env = vec![("GIVEN".into(), "a b".into()), ("IMAGE".into(), "no".into())];
        spec.hostname = Some("box".into());
        spec.resolv_conf = Some(host("resolv.conf", "nameserver 169.254.20.10\n"));
        spec.hosts = Some(host("hosts", "10.0.0.1 other\n"));
        let mount = |name: &str, target: &str, read_only| BindMount {
            source: host(name, name),
            target: target.into(),
            read_only,
        };
        spec.mounts = vec![mount("ro", "/mnt/ro", true), mount("rw", "/mnt/rw", false)];
        let script = "echo $GIVEN,$IMAGE,$(hostname),$(pwd),$(cat /etc/resolv.conf /etc/hosts /mnt/ro)
                      echo new > /mnt/rw; echo new 2>/dev/null > /mnt/ro || echo refused";
        let (code, printed) = run_once(&runtime, spec, script).await;
        assert_eq!(printed, "a b,no,box,/srv,nameserver 169.254.20.10 10.0.0.1 other ro\nrefused\n");
        assert_eq!(code, 0);
        assert_eq!(std::fs::read_to_string(node.dir.join("rw")).unwrap(), "new\n");
    });
}

#[test]
fn a_container_has_few_rights() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        let script = "grep -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd):' /proc/self/status | tr '\\t' ' '
                      mount -t tmpfs x /tmp 2>/dev/null || echo no mount
                      unshare -n true 2>/dev/null || echo no unshare
                      echo x 2>/dev/null > /proc/sys/kernel/hostname || echo no sysctl
                      ls /proc/acpi /sys/firmware 2>/dev/null | grep -v : | tr -d '\\n'";
        let (_, printed) = run_once(&runtime, busybox("c", ""), script).await;
        assert_eq!(
            printed,
            "CapEff: 00000000a80425fb\nCapBnd: 00000000a80425fb\nNoNewPrivs: 1\nSeccomp: 2\nno mount\nno unshare\nno sysctl\n"
        );
    });
}

#[test]
fn a_user_is_looked_up_in_the_image() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        for (user, expected) in [
            ("web", "101 102 102 9\n"),
            ("101", "101 102 102 9\n"),
            ("1000:1001", "1000 1001 1001\n"),
            ("web:logs", "101 9 9\n"),
        ] {
            let mut spec = busybox("c", "");
            spec.user = Some(user.into());
            let (_, printed) = run_once(&runtime, spec, "echo $(id -u) $(id -g) $(id -G)").await;
            assert_eq!(printed, expected, "{user}");
        }
        let mut spec = busybox("c", "true");
        spec.user = Some("nobody".into());
        let error = runtime.run(&spec).await.unwrap_err();
        assert!(matches!(&error, Error::UnknownUser { name } if name == "nobody"), "{error:?}");
        nothing_of(&node, "c");
    });
}

#[test]
fn limits_reach_the_kernel_and_are_measured() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        let mut spec = busybox("c", "while :; do :; done");
        spec.memory_bytes = NonZeroU64::new(32 << 20);
        spec.cpu_millis = NonZeroU32::new(50);
        spec.pids_max = NonZeroU32::new(17).unwrap();
        runtime.run(&spec).await.unwrap();
        let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        if unified {
            assert_eq!(node.cgroup_file("", &id("c"), "memory.max"), (32 << 20).to_string());
            assert_eq!(node.cgroup_file("", &id("c"), "cpu.max"), "5000 100000");
        } else {
            assert_eq!(node.cgroup_file("memory", &id("c"), "memory.limit_in_bytes"), (32 << 20).to_string());
            assert_eq!(node.cgroup_file("cpu", &id("c"), "cpu.cfs_quota_us"), "5000");
        }
        assert_eq!(node.cgroup_file("pids", &id("c"), "pids.max"), "17");
        let metrics = eventually(async || {
            let metrics = runtime.metrics(&id("c")).await.unwrap();
            // Until it has become the shell, it is runc with its threads.
            (metrics.cpu_throttled_periods > 1 && metrics.pids == 1).then_some(metrics)
        })
        .await;
        assert_eq!(metrics.memory_limit_bytes, Some(32 << 20));
        assert!(metrics.cpu_ns > 5_000_000 && metrics.memory_bytes > 0, "{metrics:?}");
        let missing = runtime.metrics(&id("other")).await.unwrap_err();
        assert!(matches!(missing, Error::NoSuchContainer { .. }), "{missing:?}");
    });
}

#[test]
fn a_container_that_takes_too_much_memory_is_killed_and_it_is_told() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        let mut events = runtime.events();
        await_event(&mut events, |event| *event == Event::Connected).await;
        let mut spec = busybox("greedy", "read wait < /mnt/go; exec tail /dev/zero");
        spec.memory_bytes = NonZeroU64::new(16 << 20);
        let go = node.dir.join("go");
        nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
        spec.mounts = vec![BindMount { source: go.clone(), target: "/mnt/go".into(), read_only: false }];
        runtime.run(&spec).await.unwrap();
        // Only now, when the shim watches the cgroup.
        std::fs::write(&go, "go\n").unwrap();
        let (mut oom, mut code) = (false, None);
        while !oom || code.is_none() {
            match await_event(&mut events, |_| true).await {
                Event::Oom { id: of } => oom = of == id("greedy"),
                Event::Exit { code: ended, .. } => code = Some(ended),
                _ => {}
            }
        }
        assert_eq!(code, Some(137));
        // Its cgroup tells too, until it is deleted: also who came too late for the event.
        assert!(runtime.metrics(&id("greedy")).await.unwrap().oom_kills > 0);
    });
}

#[test]
fn a_container_that_cannot_start_says_why_and_leaves_nothing() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        let with_command = |command: &str| {
            let mut spec = busybox("c", "");
            spec.command = vec![command.into()];
            spec
        };
        for command in ["nosuch", "/bin/nosuch"] {
            let error = runtime.run(&with_command(command)).await.unwrap_err();
            assert!(matches!(&error, Error::CommandNotFound { command: c, .. } if c == command), "{error:?}");
            nothing_of(&node, "c");
        }
        for command in ["/etc/notes.txt", "/etc"] {
            let error = runtime.run(&with_command(command)).await.unwrap_err();
            assert!(
                matches!(&error, Error::CommandNotExecutable { command: c, .. } if c == command),
                "{error:?}"
            );
            nothing_of(&node, "c");
        }
        for limit in [4096, 64 << 10, 512 << 10] {
            let mut spec = busybox("c", "sleep 100");
            spec.memory_bytes = NonZeroU64::new(limit);
            let error = runtime.run(&spec).await.unwrap_err();
            assert!(
                matches!(error, Error::MemoryLimitTooSmall { limit_bytes, .. } if limit_bytes == limit),
                "{limit}: {error:?}"
            );
            nothing_of(&node, "c");
        }
        let mut spec = busybox("c", "true");
        spec.mounts =
            vec![BindMount { source: "/no/such/path".into(), target: "/mnt".into(), read_only: false }];
        let error = runtime.run(&spec).await.unwrap_err();
        assert!(matches!(error, Error::InvalidSpec { .. }), "{error:?}");
        spec = busybox("c", "true");
        spec.image = reference("missing");
        assert!(matches!(runtime.run(&spec).await.unwrap_err(), Error::ImageMissing { .. }));
        nothing_of(&node, "c");
        // After all of that the id is free.
        runtime.run(&busybox("c", "sleep 100")).await.unwrap();
    });
}

#[test]
fn a_second_container_of_the_same_id_does_not_touch_the_first() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        let first = runtime.run(&busybox("c", "sleep 1; echo still here; sleep 100")).await.unwrap();
        let error = runtime.run(&busybox("c", "true")).await.unwrap_err();
        assert!(matches!(error, Error::ContainerExists { .. }), "{error:?}");
        let state = runtime.list().await.unwrap()[0].state;
        assert_eq!(state, ContainerState::Running { pid: first.pid });
        let mut logs = runtime.logs(&id("c"), None, true);
        assert_eq!(logs.next().await.unwrap().unwrap().message, "still here");
    });
}

#[test]
fn stopping_asks_first_and_kills_when_the_grace_is_over() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        let polite = "trap 'exit 5' QUIT; echo ready; while :; do sleep 0.05; done";
        runtime.run(&busybox("polite", polite)).await.unwrap();
        let deaf = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
        runtime.run(&busybox("deaf", deaf)).await.unwrap();
        for container in ["polite", "deaf"] {
            assert!(runtime.logs(&id(container), None, true).next().await.is_some());
        }
        assert_eq!(runtime.stop(&id("polite"), Signal::SIGQUIT, PATIENCE).await.unwrap(), 5);
        let begun = Instant::now();
        let grace = Duration::from_millis(300);
        assert_eq!(runtime.stop(&id("deaf"), Signal::SIGTERM, grace).await.unwrap(), 137);
        assert!(begun.elapsed() >= grace);
        // It has ended: its code can still be had.
        assert_eq!(runtime.stop(&id("deaf"), Signal::SIGTERM, grace).await.unwrap(), 137);
        let missing = runtime.stop(&id("other"), Signal::SIGTERM, grace).await.unwrap_err();
        assert!(matches!(missing, Error::NoSuchContainer { .. }), "{missing:?}");
    });
}

#[test]
fn a_running_container_is_killed_and_removed_in_one_call() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        let running = runtime.run(&busybox("c", "trap '' TERM; while :; do sleep 100; done")).await.unwrap();
        runtime.delete(&id("c")).await.unwrap();
        assert!(!std::path::Path::new(&format!("/proc/{}", running.pid)).exists());
        nothing_of(&node, "c");
    });
}

#[test]
fn a_process_in_a_container_has_its_own_streams_and_code() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        let mut spec = busybox("c", "sleep 1000");
        spec.env = vec![("OUTER".into(), "1".into())];
        runtime.run(&spec).await.unwrap();

        let mut session =
            runtime.exec(&id("c"), &exec_spec("echo out $OUTER; echo err >&2; exit 7")).await.unwrap();
        assert_eq!(output(&mut session).await, (7, "out 1\n".into(), "err\n".into()));

        let session = runtime.exec(&id("c"), &exec_spec("cat; echo end")).await.unwrap();
        let (mut stdin, mut stdout, _stderr, end) = session.into_parts();
        stdin.write_all(b"through\n").await.unwrap();
        stdin.close().await.unwrap();
        let mut printed = String::new();
        stdout.read_to_string(&mut printed).await.unwrap();
        assert_eq!((end.wait().await.unwrap(), printed.as_str()), (0, "through\nend\n"));

        let mut spec = exec_spec("id -u; pwd; echo $INNER");
        spec.user = Some("web".into());
        spec.working_dir = Some("/etc".into());
        spec.env = vec![("INNER".into(), "2".into())];
        let mut session = runtime.exec(&id("c"), &spec).await.unwrap();
        assert_eq!(output(&mut session).await.1, "101\n/etc\n2\n");

        let mut spec = exec_spec("stty size; test -t 1 && echo terminal");
        spec.terminal = Some(TerminalSize { columns: 100, rows: 30 });
        let mut session = runtime.exec(&id("c"), &spec).await.unwrap();
        assert!(output(&mut session).await.1.ends_with("terminal\r\n"));

        let error = runtime.exec(&id("c"), &exec_spec("")).await.map(drop);
        assert!(error.is_ok(), "an empty script is a script");
        let missing = ExecSpec { args: vec!["nosuch".into()], ..Default::default() };
        let error = runtime.exec(&id("c"), &missing).await.map(drop).unwrap_err();
        assert!(matches!(error, Error::CommandNotFound { .. }), "{error:?}");
        let error = runtime.exec(&id("other"), &exec_spec("true")).await.map(drop).unwrap_err();
        assert!(matches!(error, Error::NoSuchContainer { .. }), "{error:?}");
        eventually(async || {
            (std::fs::read_dir(node.dir.join("run/exec")).unwrap().count() == 0).then_some(())
        })
        .await;
    });
}

#[test]
fn a_terminal_learns_its_new_size() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        runtime.run(&busybox("c", "sleep 1000")).await.unwrap();
        let mut spec = exec_spec("read go; stty size");
        spec.terminal = Some(TerminalSize { columns: 80, rows: 24 });
        let mut session = runtime.exec(&id("c"), &spec).await.unwrap();
        session.control.resize(TerminalSize { columns: 111, rows: 33 }).await.unwrap();
        session.stdin.write_all(b"go\n").await.unwrap();
        assert!(output(&mut session).await.1.ends_with("33 111\r\n"));
    });
}

#[test]
fn a_process_whose_session_is_dropped_is_killed() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        runtime.run(&busybox("c", "sleep 1000")).await.unwrap();
        let pids = async || runtime.metrics(&id("c")).await.unwrap().pids;
        let session = runtime.exec(&id("c"), &exec_spec("exec sleep 999")).await.unwrap();
        // Until runc has become the process, it has threads.
        eventually(async || (pids().await == 2).then_some(())).await;
        drop(session);
        eventually(async || (pids().await == 1).then_some(())).await;
    });
}

#[test]
fn another_runtime_finds_what_runs() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        assert!(runtime.is_private());
        let running = runtime.run(&busybox("c", "while :; do echo alive; sleep 0.05; done")).await.unwrap();
        drop(runtime);
        let containerd = node.containerd_pid();
        let runtime = node.connect().await;
        assert_eq!(node.containerd_pid(), containerd, "no second containerd was started");
        let statuses = runtime.list().await.unwrap();
        assert_eq!(statuses[0].state, ContainerState::Running { pid: running.pid });
        let mut events = runtime.events();
        await_event(&mut events, |event| *event == Event::Connected).await;
        runtime.kill(&id("c"), Signal::SIGKILL).await.unwrap();
        let exit = await_event(&mut events, |event| matches!(event, Event::Exit { .. })).await;
        assert_eq!(exit, Event::Exit { id: id("c"), pid: running.pid, code: 137 });
        runtime.delete(&id("c")).await.unwrap();
        runtime.stop_private().await.unwrap();
    });
}

#[test]
fn a_containerd_that_dies_is_started_again_and_containers_do_not_notice() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        let mut events = runtime.events();
        await_event(&mut events, |event| *event == Event::Connected).await;
        let running = runtime.run(&busybox("c", "while :; do echo alive; sleep 0.05; done")).await.unwrap();
        let mut logs = runtime.logs(&id("c"), Some(0), true);
        nix::sys::signal::kill(node.containerd_pid(), nix::sys::signal::Signal::SIGKILL).unwrap();
        await_event(&mut events, |event| *event == Event::Disconnected).await;
        await_event(&mut events, |event| *event == Event::Connected).await;
        let state = runtime.list().await.unwrap()[0].state;
        assert_eq!(state, ContainerState::Running { pid: running.pid });
        for _ in 0..20 {
            assert_eq!(logs.next().await.unwrap().unwrap().message, "alive");
        }
        // It is under control as before.
        assert_eq!(runtime.stop(&id("c"), Signal::SIGKILL, PATIENCE).await.unwrap(), 137);
        await_event(&mut events, |event| matches!(event, Event::Exit { .. })).await;
        runtime.delete(&id("c")).await.unwrap();
        nothing_of(&node, "c");
    });
}

#[test]
fn without_containerd_calls_say_that_it_is_unavailable() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        runtime.stop_private().await.unwrap();
        let error = runtime.list().await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        let mut config = node.config();
        config.private = None;
        let error = Runtime::connect(config.clone()).await.map(drop).unwrap_err();
        assert!(matches!(error, Error::ContainerdUnreachable { .. }), "{error:?}");
        config.private = node.config().private;
        config.private.as_mut().unwrap().binary = "no-such-containerd".into();
        let error = Runtime::connect(config.clone()).await.map(drop).unwrap_err();
        assert!(matches!(error, Error::BinaryMissing { .. }), "{error:?}");
        config.private.as_mut().unwrap().binary = "false".into();
        let error = Runtime::connect(config).await.map(drop).unwrap_err();
        assert!(matches!(error, Error::StartFailed { .. }), "{error:?}");
        // The handle from before works as soon as there is a containerd again.
        runtime.revive().await.unwrap();
        eventually(async || runtime.list().await.ok()).await;
    });
}

#[test]
fn a_container_whose_shim_is_killed_is_lost_and_can_be_removed() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        let running = runtime.run(&busybox("c", "sleep 1000")).await.unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", running.pid)).unwrap();
        let shim: i32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
        let state = eventually(async || {
            let state = runtime.list().await.unwrap()[0].state;
            (state.pid().is_none()).then_some(state)
        })
        .await;
        assert!(matches!(state, ContainerState::Lost | ContainerState::Exited { .. }), "{state:?}");
        runtime.delete(&id("c")).await.unwrap();
        nothing_of(&node, "c");
        runtime.run(&busybox("c", "sleep 1000")).await.unwrap();
    });
}

#[test]
fn many_containers_start_at_once() {
    on_node(async |node| {
        let runtime = node.with_busybox().await;
        let specs: Vec<_> = (0..15).map(|n| busybox(&format!("c{n}"), "sleep 1000")).collect();
        let begun = Instant::now();
        let started = futures::future::join_all(specs.iter().map(|spec| runtime.run(spec))).await;
        println!("15 containers started in {:?}", begun.elapsed());
        assert!(started.iter().all(Result::is_ok), "{started:?}");
        assert_eq!(runtime.list().await.unwrap().len(), 15);
        let begun = Instant::now();
        let deleted = futures::future::join_all(specs.iter().map(|spec| runtime.delete(&spec.id))).await;
        println!("15 containers deleted in {:?}", begun.elapsed());
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        nothing_of(&node, "c0");
    });
}
