//! How soon every node knows that an endpoint of a service is gone.
//!
//! On each node a prober asks the service again and again, each time from a new socket, so that the data path chooses anew;
//! in each replica somebody answers with the replica's name. An app is scaled down: from that request on, until the last
//! question that a node did not send to a replica that stays, it takes so long.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use hivemind_client::Client;
use hivemind_model::{DEFAULT_NAMESPACE, Scale};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::super::figure::Figure;
use super::super::pair;
use crate::{Background, Cluster, eventually};

/// How often a replica goes.
const CHANGES: usize = 50;

/// From the request until no node sends anything to the replica; of all, 99 in 100 keep to it.
const SPREAD_MS_MAX: f64 = 100.0;

/// How long a question waits for its answer.
const ANSWER_LIMIT: Duration = Duration::from_millis(30);

/// For how long every question has to be answered by a replica that stays before the change counts as known.
const WATCHED_FOR: Duration = Duration::from_millis(300);

/// The pause between two questions: what a time is known to. Each leaves an entry in the table of connections.
const REST: Duration = Duration::from_millis(2);

const LIMIT: Duration = Duration::from_secs(30);
const PORT: u16 = 7;
const APP: &str = "spread";

/// Waits, and ends at once when it is told to.
const WAIT: &str = "sh -c 'trap exit TERM; sleep 3600 & wait'";

pub(super) fn run(cluster: &Cluster, progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    cluster.deploy(APP, "busybox", &["--command", WAIT, "--replicas", "2"])?;
    let service = SocketAddr::new(cluster.service(APP)?[0], PORT);
    let mut probers = Vec::new();
    for number in 0..cluster.nodes().len() {
        let app = format!("prober-{number}");
        cluster.deploy_waiting_on(number, &app, &[])?;
        probers.push(Prober::start(cluster, &cluster.server().replica(&app)?, service)?);
    }
    let client = Client::unix(cluster.server().sandbox().outside(&cluster.server().socket()));
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut answerers, mut samples) = (BTreeMap::new(), Vec::new());
    for change in 0..CHANGES {
        if change % 10 == 0 {
            progress(&format!("cluster: endpoint {change} of {CHANGES}"));
        }
        let replicas = cluster.until_up(APP, 2, LIMIT)?;
        answerers = answer_in(cluster, &replicas, answerers)?;
        let names: Vec<&String> = answerers.keys().collect();
        let took = scale_down(cluster, &names, &executor, &client, &probers);
        samples.push(took.with_context(|| format!("change {change}"))?);
        executor.block_on(scale(&client, 2))?;
    }
    Ok(vec![
        Figure::p99("endpoint_spread_p99", "ms", samples.clone()).at_most(SPREAD_MS_MAX),
        Figure::new("endpoint_spread_p50", "ms", samples),
    ])
}

/// Waits until an app's replicas are ready, however many there are.
pub(super) fn until_ready(cluster: &Cluster, app: &str) -> Result<()> {
    eventually(LIMIT, &format!("{app} to be ready"), || {
        ensure!(cluster.server().ready_replicas(app)? > 0, "it has no replicas");
        Ok(())
    })
}

async fn scale(client: &Client, replicas: u32) -> Result<()> {
    client.scale_app(DEFAULT_NAMESPACE, APP, Scale { replicas }).await?;
    Ok(())
}

/// Removes one of two replicas; returns after how many milliseconds no node sent anything there any more.
fn scale_down(
    cluster: &Cluster,
    replicas: &[&String],
    executor: &Runtime,
    client: &Client,
    probers: &[Prober],
) -> Result<f64> {
    for prober in probers {
        prober.forget();
        eventually(LIMIT, "both replicas to answer", || {
            let questions = prober.questions();
            let answers: BTreeSet<_> = questions.iter().filter_map(|q| q.answer.as_ref()).collect();
            let missing: Vec<_> = replicas.iter().filter(|replica| !answers.contains(**replica)).collect();
            ensure!(missing.is_empty(), "{missing:?} do not, of {} questions", questions.len());
            Ok(())
        })?;
        prober.forget();
    }
    let began = SystemTime::now();
    executor.block_on(scale(client, 1))?;
    let stays = eventually(LIMIT, "one replica to be left", || {
        let replicas = cluster.server().replicas(APP)?;
        ensure!(replicas.len() == 1, "there are {}", replicas.len());
        name(&replicas[0])
    })?;
    eventually(LIMIT, "every node to send to that one only", || {
        let mut last = began;
        for prober in probers {
            let questions = prober.questions();
            let elsewhere = questions.iter().rfind(|question| question.answer.as_deref() != Some(&stays));
            last = elsewhere.map_or(last, |question| last.max(question.asked));
            ensure!(questions.last().is_some_and(|last| last.asked > began), "nothing was asked");
        }
        ensure!(last.elapsed()? > WATCHED_FOR, "not for long enough");
        Ok(last.duration_since(began)?.as_secs_f64() * 1e3)
    })
}

fn name(replica: &Value) -> Result<String> {
    Ok(replica["metadata"]["name"].as_str().context("the replica has no name")?.to_owned())
}

/// Sockets in replicas' networks that answer with the replicas' names; those of replicas that are gone are closed.
fn answer_in(
    cluster: &Cluster,
    replicas: &[Value],
    mut running: BTreeMap<String, Answerer>,
) -> Result<BTreeMap<String, Answerer>> {
    let mut answerers = BTreeMap::new();
    for replica in replicas {
        let name = name(replica)?;
        let answerer = match running.remove(&name) {
            Some(answerer) => answerer,
            None => Answerer::start(cluster, replica, name.clone())?,
        };
        answerers.insert(name, answerer);
    }
    Ok(answerers)
}

/// A thread that answers in a replica's network until this is dropped.
struct Answerer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Answerer {
    fn start(cluster: &Cluster, replica: &Value, name: String) -> Result<Self> {
        let socket = cluster.in_network_of(replica, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
        socket.set_read_timeout(Some(WATCHED_FOR))?;
        let stop = Arc::new(AtomicBool::new(false));
        let end = stop.clone();
        let answer = move || {
            while !end.load(Ordering::Relaxed) {
                if let Ok((_, from)) = socket.recv_from(&mut [0; 8]) {
                    drop(socket.send_to(name.as_bytes(), from));
                }
            }
        };
        Ok(Self { stop, thread: Some(thread::spawn(answer)) })
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What was asked when, and who answered.
#[derive(Clone)]
struct Question {
    asked: SystemTime,
    answer: Option<String>,
}

/// A program in a replica's network, and in a cgroup in which services' addresses are known.
struct Prober {
    questions: Arc<Mutex<Vec<Question>>>,
    _program: Background,
}

impl Prober {
    fn start(cluster: &Cluster, replica: &Value, service: SocketAddr) -> Result<Self> {
        let node = cluster.node_of(replica)?;
        let mut command = node.sandbox().command("nsenter");
        command.arg(format!("--net={}", node.network_of_replica(replica)?.display()));
        command.arg(pair::bench_program()?).args(["ask", &service.to_string()]).stdout(Stdio::piped());
        let mut program = Background::new(command.spawn().context("cannot start a prober")?);
        let output = BufReader::new(program.take_stdout().context("no output")?);
        let questions = Arc::new(Mutex::new(Vec::new()));
        let asked = questions.clone();
        // It ends with the program.
        thread::spawn(move || {
            let questions = output.lines().map_while(Result::ok).filter_map(|line| question(&line));
            questions
                .for_each(|question| asked.lock().unwrap_or_else(PoisonError::into_inner).push(question));
        });
        Ok(Self { questions, _program: program })
    }

    fn questions(&self) -> Vec<Question> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn forget(&self) {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Reads a line of [`ask`].
fn question(line: &str) -> Option<Question> {
    let (micros, answer) = line.split_once(' ')?;
    let asked = UNIX_EPOCH + Duration::from_micros(micros.parse().ok()?);
    Some(Question { asked, answer: (!answer.is_empty()).then(|| answer.to_owned()) })
}

/// `ask ADDRESS:PORT`: asks until it is killed, each time from a new socket; prints a line for each question, with the
/// microseconds since 1970 at which it was asked, and the answer if one came.
///
/// # Errors
/// When the argument is no address, or nobody reads the lines.
pub fn ask(arguments: &[String]) -> Result<()> {
    let [address] = arguments else { bail!("usage: hivemind-bench ask ADDRESS:PORT") };
    let address: SocketAddr = address.parse().context("the address cannot be read")?;
    let mut output = io::stdout();
    loop {
        let asked = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        let answer = ask_once(address).unwrap_or_default();
        writeln!(output, "{asked} {answer}")?;
        thread::sleep(REST);
    }
}

fn ask_once(service: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    socket.connect(service)?;
    socket.send(b"who?")?;
    let mut answer = [0; 256];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}
