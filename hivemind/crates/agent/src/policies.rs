//! Policies on this node: what the data path judges connections by.
//!
//! One task owns the state and does all the writing. It follows namespaces, policies, identities and replicas in the store,
//! keeps them as a [`World`], with the addresses that domains have (`domains`), and has the data path judge each identity of this node's replicas by the tables that the world
//! gives: all of them at the start, and after a change those that it touches. What cannot be written is tried again, and what
//! was in force until then stays: a policy comes into force for all identities that it selects, or for none (`together`).
//! A policy that tells replicas apart which identities do not tell apart yet is held back by the world until the controller has cut
//! them. If that is so when this begins, nobody here knows what was in force before, but for the data path, which is left as it is:
//! an identity that it does not know yet shares the tables of the one that its replica had, or has none and lets nothing through.
//!
//! A worker asks for its replica's identity ([`Policies::enforce`]) before it makes the network, so that the first process
//! is judged already. It is answered only when all that the store held before has been looked at.

mod domains;
mod follow;
mod status;
mod times;
mod together;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use hivemind_common::policy::rule_parts;
use hivemind_datapath::{Datapath, Statistics};
use hivemind_dns::{DnsServer, Seen};
use hivemind_model::{ErrorCode, Identity, NetworkPolicy, Problem};
use hivemind_policy::{Compiler, Tables, World};
use hivemind_store::Objects;
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

pub use self::times::{POLICY_TIME_BUCKETS, PolicyTimes, Times};
use self::{
    domains::{Domains, Patterns, Seeing},
    follow::Watches,
    status::{Enforced, Statuses},
    times::Clock,
};
use crate::{
    fault::{self, problem},
    flows::names::Names,
};

/// An identity that is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoneIdentity {
    /// Its number.
    pub number: u32,
    /// The namespace of its app.
    pub namespace: String,
    /// The name of its app.
    pub app: String,
}

/// What is called before the data path forgets what it counted for identities that are no more, and waited for.
pub type BeforeForgetting = Arc<dyn Fn(Vec<GoneIdentity>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Namespace and name.
type Key = (String, String);

/// How many requests of workers may wait.
const REQUESTS_MAX: usize = 256;
/// How long until what could not be written is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How long a worker waits for its replica's identity to come into force.
const ENFORCE_WITHIN: Duration = Duration::from_secs(20);
/// How long totals of identities that are no more may be read.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// How often addresses of domains are looked at that may go.
const EXPIRE_EVERY: Duration = Duration::from_secs(30);
/// The file with the addresses of domains, below the run directory.
const DOMAINS_FILE: &str = "domains.json";
/// How many entries are compiled, at least, before they are handed over: more than the data path has room for by default, and
/// 8 MB.
const COMPILED_AT_ONCE: usize = 1 << 18;

enum Request {
    Enforce(Asked),
    Settle(oneshot::Sender<()>),
    Observe(Seen, oneshot::Sender<()>),
}

/// An identity that a worker needs.
struct Asked {
    identity: u32,
    /// What its replica is until then.
    former: Option<u32>,
    done: oneshot::Sender<Result<(), Problem>>,
}

/// The handle that workers have.
#[derive(Clone, Debug)]
pub(crate) struct Policies {
    requests: mpsc::Sender<Request>,
    clock: Arc<Clock>,
}

impl Policies {
    /// Returns when connections of `identity` are judged by all policies that the store held when this was called. As long as
    /// it cannot be known what these are, since the identity is needed to tell so, they are judged as those of `former`, which its
    /// replica has until then, or denied.
    pub(crate) async fn enforce(&self, identity: u32, former: Option<u32>) -> Result<(), Problem> {
        let began = Instant::now();
        let (done, wait) = oneshot::channel();
        let asked = async {
            self.requests.send(Request::Enforce(Asked { identity, former, done })).await.ok()?;
            wait.await.ok()
        };
        match tokio::time::timeout(ENFORCE_WITHIN, asked).await {
            Ok(Some(answer)) => answer.inspect(|()| self.clock.replica(began.elapsed())),
            Ok(None) => Err(problem(ErrorCode::Internal, "the agent is stopping", "it is tried again")),
            Err(_) => Err(problem(
                ErrorCode::NetworkFailed,
                format!("the policies of identity {identity} did not come into force"),
                "it is tried again; the daemon's log has more",
            )),
        }
    }

    /// How long policies took to come into force.
    pub(crate) fn times(&self) -> PolicyTimes {
        self.clock.read()
    }

    /// Returns when everything that the store held at the start is in force, or was tried.
    pub(crate) async fn settled(&self) {
        let (done, wait) = oneshot::channel();
        if self.requests.send(Request::Settle(done)).await.is_ok() {
            let _ = wait.await;
        }
    }
}

/// What the task knows of a policy, besides its rules.
struct Head {
    uid: Uuid,
    generation: u64,
    number: u32,
    accepted: Option<Timestamp>,
}

/// The task's state.
pub(crate) struct PolicyWriter {
    datapath: Arc<Datapath>,
    before_forgetting: BeforeForgetting,
    objects: Objects,
    dns: Vec<IpAddr>,
    world: Arc<World>,
    policies: BTreeMap<Key, Head>,
    /// The identity of every replica, and how many have it.
    replicas: BTreeMap<Key, u32>,
    counts: BTreeMap<u32, u32>,
    /// Identities that this node's replicas have, or are about to.
    local: BTreeSet<u32>,
    /// Those of them whose tables may not be what the world gives.
    due: BTreeSet<u32>,
    in_force: BTreeSet<u32>,
    /// Why the tables of an identity could not be written.
    failed: BTreeMap<u32, Problem>,
    /// Policies that are not in force yet as they are now.
    pending: BTreeSet<Key>,
    /// Those of them that were taken by the API while this ran, and when.
    accepted: BTreeMap<Key, Timestamp>,
    /// The numbers of policies that are no more, and of which the data path may still hold what was counted.
    gone_policies: BTreeSet<u32>,
    /// Identities that are no more, with the namespace and the name of their app if that is known.
    gone: BTreeMap<u32, Option<(String, String)>>,
    /// Policies of which the status may have changed.
    untold: BTreeSet<Key>,
    statuses: Statuses,
    clock: Arc<Clock>,
    waiting: Vec<Asked>,
    settling: Vec<oneshot::Sender<()>>,
    server: Arc<DnsServer>,
    domains: Domains,
    patterns: Patterns,
    /// Policies that will be as if they were not there, and from when on; those that are so already among them.
    ends: BTreeMap<Key, Timestamp>,
    /// Whether policies were held back when this began. What was in force before is not known then, but by the data path.
    is_blind: bool,
}

impl PolicyWriter {
    /// A writer for a node where replicas ask `server` at `dns` for names. What it knows of domains is in a file below
    /// `run_dir`.
    pub(crate) fn new(
        datapath: Arc<Datapath>,
        objects: Objects,
        (server, dns): (Arc<DnsServer>, Vec<IpAddr>),
        run_dir: &Path,
        before_forgetting: BeforeForgetting,
    ) -> Self {
        PolicyWriter {
            datapath,
            before_forgetting,
            objects,
            dns,
            world: Arc::default(),
            policies: BTreeMap::new(),
            replicas: BTreeMap::new(),
            counts: BTreeMap::new(),
            local: BTreeSet::new(),
            due: BTreeSet::new(),
            in_force: BTreeSet::new(),
            failed: BTreeMap::new(),
            pending: BTreeSet::new(),
            accepted: BTreeMap::new(),
            gone_policies: BTreeSet::new(),
            gone: BTreeMap::new(),
            untold: BTreeSet::new(),
            statuses: Statuses::default(),
            clock: Arc::default(),
            waiting: Vec::new(),
            settling: Vec::new(),
            server,
            domains: Domains::read(run_dir.join(DOMAINS_FILE)),
            patterns: Patterns::default(),
            ends: BTreeMap::new(),
            is_blind: false,
        }
    }

    /// Brings into force what the store holds, and follows it for this node's replicas until `stop`. `names` learns for which
    /// names addresses are answered.
    pub(crate) fn start(
        self,
        node: String,
        names: Arc<Mutex<Names>>,
        stop: CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Policies {
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        tasks.spawn(self.statuses.clone().write(node.clone(), self.objects.clone(), stop.clone()));
        let seeing = Seeing { names, patterns: self.patterns.clone(), requests: requests.clone() };
        let clock = Arc::clone(&self.clock);
        tasks.spawn(self.run(node, inbox, seeing, stop));
        Policies { requests, clock }
    }

    async fn run(
        mut self,
        node: String,
        mut inbox: mpsc::Receiver<Request>,
        seeing: Seeing,
        stop: CancellationToken,
    ) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.run_forever(&node, &mut inbox, seeing) => {}
        }
    }

    async fn run_forever(&mut self, node: &str, inbox: &mut mpsc::Receiver<Request>, seeing: Seeing) {
        self.identify_dns().await;
        let mut first = true;
        loop {
            match Watches::start(&self.objects).await {
                Ok((lists, mut watches)) => {
                    self.replace_all(lists, node, first);
                    if std::mem::take(&mut first) {
                        self.find_forgotten().await;
                        // From now on names outside are answered.
                        self.server.observe_by(Arc::new(seeing.clone()));
                    }
                    self.settle().await;
                    if let Err(error) = self.follow(&mut watches, inbox, node).await {
                        warn!(%error, "A watch ended; starting it again");
                    }
                }
                Err(error) => warn!(%error, "Policies cannot be read from the store; trying again"),
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Lets policies and flows know the DNS server by its identity.
    async fn identify_dns(&self) {
        let addresses: Vec<_> = self.dns.iter().map(|address| (*address, Identity::DNS)).collect();
        while let Err(error) = self.datapath.set_identities(addresses.clone()).await {
            warn!(
                error = fault::with_causes(&error),
                "The DNS server's identity could not be written; trying again"
            );
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Finds identities and policies that went while nobody followed the store, by the totals that the data path still has of
    /// them.
    async fn find_forgotten(&mut self) {
        match self.datapath.statistics().await {
            Ok(statistics) => {
                let ends = statistics.pairs.iter().flat_map(|pair| [pair.source, pair.destination]);
                let is_gone =
                    |number: &u32| *number >= Identity::FIRST && self.world.identity(*number).is_none();
                self.gone.extend(ends.filter(is_gone).map(|number| (number, None)));
                self.find_forgotten_policies(&statistics);
            }
            Err(error) => warn!(error = fault::with_causes(&error), "The data path's totals cannot be read"),
        }
    }

    fn find_forgotten_policies(&mut self, statistics: &Statistics) {
        let known: BTreeSet<_> = self.policies.values().map(|head| head.number).collect();
        let rules = statistics.verdicts.iter().filter_map(|verdict| rule_parts(verdict.rule?));
        let counted = rules.map(|rule| rule.policy);
        self.gone_policies.extend(counted.filter(|number| !known.contains(number)));
    }

    async fn follow(
        &mut self,
        watches: &mut Watches,
        inbox: &mut mpsc::Receiver<Request>,
        node: &str,
    ) -> Result<(), hivemind_model::ApiError> {
        let mut expire = tokio::time::interval(EXPIRE_EVERY);
        let mut observed = Vec::new();
        loop {
            tokio::select! {
                Some(request) = inbox.recv() => observed.extend(self.take(request)),
                change = watches.next() => self.note(change?, node),
                () = tokio::time::sleep(RETRY_AFTER), if !self.failed.is_empty() => {
                    self.due.extend(self.failed.keys());
                }
                () = self.next_end() => self.end_policies(),
                _ = expire.tick() => self.expire_domains().await,
            }
            // Answers that came at the same time are brought into force together.
            while let Ok(request) = inbox.try_recv() {
                observed.extend(self.take(request));
            }
            // A request is answered when nothing of what was written before it is left to look at.
            for change in watches.ready().await? {
                self.note(change, node);
            }
            self.follow_patterns();
            self.note_domains(observed.drain(..)).await;
        }
    }

    /// Takes a request; one about domains is for [`PolicyWriter::note_domains`].
    fn take(&mut self, request: Request) -> Option<(Seen, oneshot::Sender<()>)> {
        match request {
            Request::Enforce(asked) => {
                if self.local.insert(asked.identity) {
                    self.due.insert(asked.identity);
                }
                self.waiting.push(asked);
            }
            Request::Settle(done) => self.settling.push(done),
            Request::Observe(seen, done) => return Some((seen, done)),
        }
        None
    }

    /// Brings into force what changed, and tells about it.
    async fn settle(&mut self) {
        self.is_blind &= self.world.held_back().next().is_some();
        if self.is_blind {
            self.answer_blindly().await;
        } else {
            self.enforce_due().await;
            self.forget().await;
            self.tell();
        }
        for done in self.settling.drain(..) {
            let _ = done.send(());
        }
        if !self.is_blind {
            self.forget_verdicts().await;
        }
    }

    /// Brings into force what changed.
    async fn enforce_due(&mut self) {
        if self.due.iter().any(|identity| self.failed.contains_key(identity)) {
            // What is in its way may be in the way of others, which are tried with it.
            self.due.extend(self.failed.keys());
        }
        let due: Vec<u32> = std::mem::take(&mut self.due).intersection(&self.local).copied().collect();
        // Those that a worker waits for go first.
        let (first, rest): (Vec<_>, Vec<_>) = due
            .into_iter()
            .partition(|identity| self.waiting.iter().any(|asked| asked.identity == *identity));
        for identities in [first, rest] {
            for some in self.together(identities) {
                self.enforce(some).await;
            }
            self.answer();
        }
    }

    /// Brings the tables of some identities into force: of those that have some already all, or, if there is no room, none.
    async fn enforce(&mut self, mut identities: Vec<u32>) {
        while !identities.is_empty() {
            let compiled = self.compile(&mut identities).await;
            let room = self.datapath.check_policies(&compiled);
            for (identity, tables) in compiled {
                let done = match &room {
                    Err(full) if self.datapath.has_policy(identity) => Err(of_datapath(full)),
                    // One that has none lets nothing through, so it is tried all the same.
                    _ => {
                        self.datapath.set_policy(identity, tables).await.map_err(|error| of_datapath(&error))
                    }
                };
                self.note_enforced(identity, done);
            }
        }
    }

    fn note_enforced(&mut self, identity: u32, done: Result<(), Problem>) {
        match done {
            Ok(()) => {
                self.in_force.insert(identity);
                if self.failed.remove(&identity).is_some() {
                    info!(identity, "An identity's policies are in force after all");
                }
            }
            Err(problem) => {
                if self.failed.get(&identity) != Some(&problem) {
                    warn!(
                        identity,
                        problem = problem.message,
                        "An identity's policies could not be brought into force"
                    );
                }
                self.failed.insert(identity, problem);
            }
        }
        let keys = self.world.policies_selecting(identity);
        self.untold.extend(keys.into_iter().map(|(namespace, name)| (namespace.to_owned(), name.to_owned())));
    }

    /// Takes identities and compiles them, until there is nothing left or enough. Compiling may take long where there are many
    /// rules: it is done off the executor's threads.
    async fn compile(&self, identities: &mut Vec<u32>) -> Vec<(u32, Arc<Tables>)> {
        let (world, mut left) = (Arc::clone(&self.world), std::mem::take(identities));
        let compiled = tokio::task::spawn_blocking(move || {
            let (mut compiled, mut entries) = (Vec::new(), 0);
            let mut compiler = Compiler::new(&world);
            while entries < COMPILED_AT_ONCE
                && let Some(identity) = left.pop()
            {
                if let Some(tables) = compiler.compile(identity) {
                    entries += tables.entries.len() + tables.prefixes.len();
                    compiled.push((identity, tables));
                }
            }
            (compiled, left)
        });
        let (compiled, left) = compiled.await.unwrap_or_else(|error| {
            warn!(%error, "Policies could not be compiled");
            (Vec::new(), Vec::new())
        });
        *identities = left;
        compiled
    }

    /// Answers the workers whose identity is in force, or cannot be.
    fn answer(&mut self) {
        for asked in std::mem::take(&mut self.waiting) {
            if let Some(problem) = self.failed.get(&asked.identity) {
                let _ = asked.done.send(Err(problem.clone()));
            } else if self.in_force.contains(&asked.identity) {
                let _ = asked.done.send(Ok(()));
            } else if !asked.done.is_closed() {
                // The identity's object is on its way.
                self.waiting.push(asked);
            }
        }
    }

    /// Lets workers go on while nobody knows what is to be in force: what is held back may wait for them to tell their replicas
    /// apart. What they ask for is as open as it was, or not at all.
    async fn answer_blindly(&mut self) {
        for Asked { identity, former, done } in std::mem::take(&mut self.waiting) {
            let shared = match former {
                Some(former) => self.datapath.share_policy(identity, former).await,
                None => Ok(()),
            };
            let _ = done.send(shared.map_err(|error| of_datapath(&error)));
        }
    }

    /// Frees what the data path holds of identities that are no more.
    async fn forget(&mut self) {
        if self.gone.is_empty() {
            return;
        }
        let gone = std::mem::take(&mut self.gone);
        for identity in gone.keys() {
            if let Err(error) = self.datapath.remove_policy(*identity).await {
                warn!(
                    identity,
                    error = fault::with_causes(&error),
                    "The policies of an identity that is no more stay"
                );
            }
        }
        let named = gone.iter().filter_map(|(number, of)| {
            let (namespace, app) = of.clone()?;
            Some(GoneIdentity { number: *number, namespace, app })
        });
        let named: Vec<_> = named.collect();
        if !named.is_empty() {
            let read = tokio::time::timeout(READ_WITHIN, (self.before_forgetting)(named));
            if read.await.is_err() {
                warn!("What was counted last for identities that are no more could not be read in time");
            }
        }
        if let Err(error) = self.datapath.forget_identities(gone.into_keys().collect()).await {
            warn!(error = fault::with_causes(&error), "The totals of identities that are no more stay");
        }
    }

    /// Frees what the data path counted for policies that are no more, once nobody is judged by them.
    async fn forget_verdicts(&mut self) {
        // Whoever could not be given other tables may be judged by them still.
        if self.gone_policies.is_empty() || !self.failed.is_empty() {
            return;
        }
        let gone = std::mem::take(&mut self.gone_policies);
        if let Err(error) = self.datapath.forget_verdicts(gone.clone()).await {
            warn!(error = fault::with_causes(&error), "What was counted for policies that are no more stays");
            self.gone_policies = gone;
        }
    }

    /// Has the statuses written that may have changed.
    fn tell(&mut self) {
        let now = Timestamp::now();
        for key in std::mem::take(&mut self.untold) {
            if self.world.holds_back(&key.0, &key.1) {
                self.untold.insert(key);
                continue;
            }
            let Some(Head { uid, generation, .. }) = self.policies.get(&key) else { continue };
            let selected = self.world.selected_by_name(&key.0, &key.1);
            let problem = selected.iter().find_map(|identity| self.failed.get(identity)).cloned();
            let replicas = selected.iter().filter_map(|identity| self.counts.get(identity)).sum();
            let generation = problem.is_none().then_some((*generation, now));
            if problem.is_none() {
                self.pending.remove(&key);
                if let Some(accepted) = self.accepted.remove(&key) {
                    // Nodes' clocks may differ by more than it took.
                    self.clock.policy(now.duration_since(accepted).try_into().unwrap_or_default());
                }
            }
            self.statuses.tell(key, Enforced { uid: *uid, generation, replicas, problem });
        }
    }
}

/// What is in the way, and what that means for policies.
fn of_datapath(error: &hivemind_datapath::Error) -> Problem {
    let problem = fault::of_datapath(error);
    if problem.code != ErrorCode::MapFull {
        return problem;
    }
    let hint = "what was in force before stays; use fewer rules, ports or blocks, or delete policies that are not needed: \
                hivemind status shows the fill of the tables";
    Problem { hint: hint.to_owned(), ..problem }
}

impl Head {
    fn of(policy: &NetworkPolicy) -> Self {
        Head {
            uid: policy.metadata.uid,
            generation: policy.metadata.generation,
            number: policy.status.number,
            accepted: policy.status.accepted_at,
        }
    }

    /// Whether there is something else to enforce.
    fn differs(&self, other: &Head) -> bool {
        (self.uid, self.generation, self.number) != (other.uid, other.generation, other.number)
    }
}
