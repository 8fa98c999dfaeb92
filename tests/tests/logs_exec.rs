//! What replicas write, and what runs in them beside their own process.

use std::{
    fs,
    io::Write,
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Node, eventually, hivemind_binary};

const LIMIT: Duration = Duration::from_secs(30);

/// Prints `one` to `three` and an error, then a line for every line that is written into /tmp/in.
const TALKER: &str = "mkdir -p /tmp; mkfifo /tmp/in; echo one; echo two; echo trouble >&2; echo three; \
                      while true; do read line < /tmp/in && echo \"said $line\"; done";

fn deploy_talker(node: &Node, replicas: &str) -> Result<()> {
    let words =
        ["app", "deploy", "talker", "--image", "busybox", "--replicas", replicas, "--", "sh", "-c", TALKER];
    node.hivemind_ok(&words)?;
    Ok(())
}

fn say(node: &Node, word: &str) -> Result<()> {
    node.in_replica("talker", &format!("echo {word} > /tmp/in"))?;
    Ok(())
}

/// Waits until the log of `talker` has a line.
fn until_logged(node: &Node, line: &str) -> Result<String> {
    eventually(LIMIT, "the line in the log", || {
        let log = node.hivemind_ok(&["app", "logs", "talker"])?;
        ensure!(log.lines().any(|l| l == line), "no {line:?} in {log:?}");
        Ok::<_, anyhow::Error>(log)
    })
}

/// Runs a command with `input` at its standard input.
fn with_input(node: &Node, arguments: &[&str], input: &[u8]) -> Result<Output> {
    let mut command = node.sandbox().command(hivemind_binary()?);
    command.args(arguments).env("HIVEMIND_SOCKET", node.socket());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("no input")?;
    let input = input.to_vec();
    // Apart, since the other end answers before it has read everything.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output()?;
    // It may end without having read its input.
    drop(writer.join());
    Ok(output)
}

#[test]
fn what_a_replica_writes_is_kept_in_order_with_its_stream() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    deploy_talker(&node, "1")?;
    let log = until_logged(&node, "three")?;
    let mut lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.iter().filter(|l| **l != "trouble").collect::<Vec<_>>(), [&"one", &"two", &"three"]);
    lines.sort_unstable();
    assert_eq!(lines, ["one", "three", "trouble", "two"]);

    let json = node.hivemind_ok(&["app", "logs", "talker", "-o", "json"])?;
    let replica = node.replica("talker")?["metadata"]["name"].clone();
    for line in json.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        let stream = if line["message"] == "trouble" { "stderr" } else { "stdout" };
        assert_eq!((&line["stream"], &line["replica"]), (&stream.into(), &replica));
    }
    say(&node, "last")?;
    until_logged(&node, "said last")?;
    assert_eq!(node.hivemind_ok(&["app", "logs", "talker", "--tail", "1"])?, "said last\n");
    assert_eq!(node.hivemind_ok(&["app", "logs", "talker", "--tail", "0"])?, "");
    let dated = node.hivemind_ok(&["app", "logs", "talker", "--tail", "1", "--timestamps"])?;
    assert!(dated.starts_with("20") && dated.ends_with("Z said last\n"), "{dated}");
    Ok(())
}

#[test]
fn a_log_is_followed_over_restarts_of_the_container_and_new_replicas() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    deploy_talker(&node, "1")?;
    say(&node, "first")?;
    until_logged(&node, "said first")?;
    let path = node.sandbox().directory().join("followed");
    let _follow = node.hivemind_spawn(&["app", "logs", "talker", "--follow", "--tail", "1"], &path)?;
    let followed = || fs::read_to_string(node.sandbox().outside(&path)).unwrap_or_default();
    let until = |what: &str| {
        eventually(LIMIT, "a followed line", || {
            ensure!(followed().contains(what), "no {what:?} in {:?}", followed());
            Ok::<_, anyhow::Error>(())
        })
    };
    until("said first\n")?;
    say(&node, "hello")?;
    until("said hello\n")?;
    assert!(!followed().contains("one\n"), "more than the last line: {}", followed());

    // The container's process ends; the next one's lines follow, and those of before stay.
    let pid = node.replica("talker")?["status"]["pid"].as_i64().context("no pid")?.to_string();
    node.sandbox().check(&["kill", "-9", &pid])?;
    until("one\n")?;
    eventually(LIMIT, "the container to be back", || node.ready_replicas("talker"))?;
    let log = node.hivemind_ok(&["app", "logs", "talker"])?;
    assert_eq!(log.lines().filter(|l| *l == "one").count(), 2, "{log}");
    assert!(log.contains("said hello\n"), "{log}");

    node.hivemind_ok(&["app", "scale", "talker", "--replicas", "2"])?;
    let names: Vec<_> = node
        .replicas("talker")?
        .iter()
        .filter_map(|r| r["metadata"]["name"].as_str().map(str::to_owned))
        .collect();
    for name in &names {
        let words = ["app", "exec", "talker", "--replica", name, "--", "sh", "-c", "echo both > /tmp/in"];
        node.hivemind_ok(&words)?;
        until(&format!("{name} | said both\n"))?;
    }
    let log = node.hivemind_ok(&["app", "logs", "talker"])?;
    for name in &names {
        assert!(log.lines().any(|l| l == format!("{name} | said both")), "{log}");
        let own = node.hivemind_ok(&["app", "logs", "talker", "--replica", name])?;
        assert!(own.lines().any(|l| l == "said both") && !own.contains(" | "), "{own}");
    }
    Ok(())
}

#[test]
fn lines_written_while_the_daemon_is_dead_are_there_when_it_is_back() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let script = "i=0; while true; do i=$((i+1)); echo line $i; echo $i > /tmp/count; sleep 0.02; done";
    let words =
        ["app", "deploy", "talker", "--image", "busybox", "--volume", "count:/tmp", "--", "sh", "-c", script];
    node.hivemind_ok(&words)?;
    until_logged(&node, "line 1")?;
    let data = node.sandbox().directory().join("data");
    let file =
        node.sandbox().check(&["find", &data.display().to_string(), "-name", "count", "-type", "f"])?;
    let counted = || -> Result<u64> {
        let text = fs::read_to_string(node.sandbox().outside(file.trim().as_ref()))?;
        // A moment before it is written, it is empty.
        text.trim().parse().context("no number")
    };
    for death in [Node::daemon_kill9, Node::daemon_term] {
        death(&node)?;
        let at_death = eventually(LIMIT, "a number", counted)?;
        let in_between = at_death + 20;
        eventually(LIMIT, "it to write on without a daemon", || {
            let now = counted()?;
            ensure!(now > in_between + 20, "{now} lines");
            Ok::<_, anyhow::Error>(())
        })?;
        node.daemon_start()?;
        let log = until_logged(&node, &format!("line {in_between}"))?;
        let numbers: Vec<u64> = log.lines().filter_map(|l| l.strip_prefix("line ")?.parse().ok()).collect();
        let all: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, all, "lines are missing, twice or out of order");
        assert_eq!(node.replica("talker")?["status"]["restarts"], 0);
    }
    Ok(())
}

#[test]
fn a_process_has_its_exit_code_its_streams_and_its_input() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "box", "--image", "busybox", "--", "sleep", "600"])?;
    let run = |script: &str| node.hivemind(&["app", "exec", "box", "--", "sh", "-c", script]);

    let output = run("echo out; echo err >&2; exit 7")?;
    assert_eq!(output.status.code(), Some(7));
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(run("kill -TERM $$")?.status.code(), Some(128 + 15));
    assert_eq!(run("cat")?.stdout, b"", "without -i there is no input");

    // A megabyte of every byte goes in and comes out, and the end of the input is passed on.
    let bytes: Vec<u8> = (0..1_u32 << 20).map(|i| (i ^ (i >> 8)) as u8).collect();
    let echoed = with_input(&node, &["app", "exec", "-i", "box", "--", "cat"], &bytes)?;
    assert!(echoed.status.success() && echoed.stdout == bytes, "{} bytes came back", echoed.stdout.len());
    let sums = with_input(&node, &["app", "exec", "-i", "box", "--", "sh", "-c", "wc -c; exit 3"], &bytes)?;
    assert_eq!((sums.status.code(), sums.stdout.trim_ascii()), (Some(3), &b"1048576"[..]));
    // A process that does not want its input ends all the same.
    let unread = with_input(&node, &["app", "exec", "-i", "box", "--", "true"], &bytes)?;
    assert_eq!(unread.status.code(), Some(0), "{}", String::from_utf8_lossy(&unread.stderr));

    let user = node.hivemind_ok(&["app", "exec", "--user", "nobody", "box", "--", "id", "-u"])?;
    assert_eq!(user.trim(), "65534");
    Ok(())
}

#[test]
fn a_process_gets_a_terminal_when_it_is_asked_for() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "box", "--image", "busybox", "--", "sleep", "600"])?;
    let program = hivemind_binary()?.display().to_string();
    let in_terminal = |flags: &str, script: &str| -> Result<Output> {
        let line = format!("stty rows 33 cols 99; {program} app exec {flags} box -- sh -c '{script}'");
        let mut command = node.sandbox().command("script");
        command.args(["-qec", &line, "/dev/null"]).env("HIVEMIND_SOCKET", node.socket());
        // While its own input lasts, the terminal stays.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let _input = child.stdin.take();
        Ok(child.wait_with_output()?)
    };
    // The size follows the start; a program that draws hears of it by a signal, a script has to look.
    let until_sized = "n=0; until stty size | grep -q 33 || [ $n -gt 1000 ]; do n=$((n+1)); done";
    let script = format!("tty; stty size; {until_sized}; stty size; echo err >&2; exit 5");
    let output = in_terminal("-t", &script)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("/dev/pts/"), "{said}");
    assert!(said.contains("33 99\r\n"), "the terminal has another size: {said}");
    assert!(said.contains("err\r\n"), "{said}");

    let none = node.hivemind(&["app", "exec", "box", "--", "tty"])?;
    assert_eq!((none.status.code(), none.stdout.trim_ascii()), (Some(1), &b"not a tty"[..]));
    let said = node.refused(&["app", "exec", "-t", "box", "--", "tty"], "HM0108", 2)?;
    assert!(said.contains("standard input is not a terminal"), "{said}");
    Ok(())
}

#[test]
fn a_process_that_cannot_be_started_is_an_error_of_its_own() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "box", "--image", "nginx"])?;
    let said = node.refused(&["app", "exec", "box", "--", "nosuch"], "HM0406", 5)?;
    assert!(said.contains("\"nosuch\" was not found in the container"), "{said}");
    assert!(!said.contains("--command"), "the hint is of deployments: {said}");
    let said = node.refused(&["app", "exec", "box", "--user", "nosuch", "--", "id"], "HM0409", 5)?;
    assert!(said.contains("nosuch"), "{said}");

    node.hivemind_ok(&["app", "scale", "box", "--replicas", "0"])?;
    eventually(LIMIT, "the replica to be gone", || {
        ensure!(node.replicas("box")?.is_empty(), "it is there");
        Ok::<_, anyhow::Error>(())
    })?;
    let said = node.refused(&["app", "exec", "box", "--", "true"], "HM0206", 3)?;
    assert!(said.contains("box has no replica") && said.contains("app scale box --replicas 1"), "{said}");
    node.refused(&["app", "logs", "box"], "HM0206", 3)?;
    Ok(())
}
