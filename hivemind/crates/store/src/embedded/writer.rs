//! The one thread that writes.

use std::{sync::Arc, time::Instant};

use redb::WriteTransaction;
use tokio::sync::{mpsc, oneshot};

use super::{
    Options, Shared, apply,
    database::{Generation, Interrupt},
    prune::{self, Retention},
    tables::{Marks, Tables},
};
use crate::{Error, LeaseId, Result, Revision, Txn, TxnResponse, WatchBatch};

/// Commands made durable with one commit.
const BATCH_COMMANDS_MAX: usize = 256;
/// Bytes of keys and values in one commit, unless one transaction alone has more.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;

type Reply<T> = oneshot::Sender<Result<T>>;

/// What the writer can be asked to do.
pub(super) enum Command {
    Txn { txn: Txn, reply: Reply<TxnResponse> },
    Compact { at: Revision, reply: Reply<()> },
    Grant { ttl_s: u64, reply: Reply<LeaseId> },
    Revoke { id: LeaseId, reply: Reply<Revision> },
    Expire { ids: Vec<LeaseId>, reply: Reply<()> },
}

impl Command {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Txn { txn, .. } => txn.size_bytes(),
            Self::Compact { .. } | Self::Grant { .. } | Self::Revoke { .. } | Self::Expire { .. } => 0,
        }
    }

    fn fail(self, error: Error) {
        // Whoever asked may be gone, here and below: then nobody needs the answer.
        match self {
            Self::Txn { reply, .. } => drop(reply.send(Err(error))),
            Self::Compact { reply, .. } | Self::Expire { reply, .. } => drop(reply.send(Err(error))),
            Self::Grant { reply, .. } => drop(reply.send(Err(error))),
            Self::Revoke { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// What to answer once the commit is durable.
enum Answer {
    Txn(Result<TxnResponse>),
    Compact(Result<()>),
    Grant(Result<LeaseId>),
    Revoke(Result<Revision>),
    Expire,
}

/// The tables after a batch, not yet durable.
struct Applied {
    marks: Marks,
    answers: Vec<Answer>,
    batches: Vec<WatchBatch>,
    more_to_prune: bool,
}

/// A batch that could not be made durable.
struct Failed {
    generation: Generation,
    error: redb::Error,
    /// The commit count the batch would have, if it got as far as committing.
    committing: Option<u64>,
}

/// The writer's side of the store.
pub(super) struct Writer {
    shared: Arc<Shared>,
    waiting: mpsc::Receiver<Command>,
    retention: Retention,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, waiting: mpsc::Receiver<Command>, options: &Options) -> Self {
        let retention =
            Retention { revisions: options.history_revisions.max(1), bytes_max: options.history_bytes_max };
        Self { shared, waiting, retention }
    }

    /// Works until the store is closed and nothing waits any more.
    pub(super) fn run(mut self) {
        let mut more_to_prune = false;
        loop {
            let first = match more_to_prune {
                true => self.waiting.try_recv().ok(),
                false => match self.waiting.blocking_recv() {
                    Some(first) => Some(first),
                    None => return,
                },
            };
            let batch = self.batch(first);
            more_to_prune = self.process(batch);
        }
    }

    /// Takes everything that waits, up to the limits.
    fn batch(&mut self, first: Option<Command>) -> Vec<Command> {
        let mut bytes = first.as_ref().map_or(0, Command::size_bytes);
        let mut batch: Vec<_> = first.into_iter().collect();
        while !batch.is_empty() && batch.len() < BATCH_COMMANDS_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(command) = self.waiting.try_recv() else { break };
            bytes += command.size_bytes();
            batch.push(command);
        }
        batch
    }

    /// Makes a batch durable and answers it. Returns whether there is history left to prune.
    fn process(&self, batch: Vec<Command>) -> bool {
        let (generation, write) = match self.shared.database.begin_write() {
            Ok(begun) => begun,
            Err(error) => {
                self.shared.counters.failed(transactions(&batch).0);
                batch.into_iter().for_each(|command| command.fail(error.clone()));
                return false;
            }
        };
        match self.commit(generation, write, &batch) {
            Ok(applied) => self.publish(batch, applied),
            Err(failed) => {
                self.recover(batch, failed);
                false
            }
        }
    }

    fn commit(
        &self,
        generation: Generation,
        write: WriteTransaction,
        batch: &[Command],
    ) -> Result<Applied, Failed> {
        let broken =
            |committing| move |error: Interrupt| Failed { generation, committing, error: broken_by(error) };
        let changed = apply_batch(&write, batch, self.retention).map_err(broken(None))?;
        match changed {
            (applied, true) => {
                let committing = broken(Some(applied.marks.commits));
                let began = Instant::now();
                write.commit().map_err(|error| committing(error.into()))?;
                self.shared.counters.committed(began.elapsed());
                Ok(applied)
            }
            (applied, false) => {
                write.abort().map_err(|error| broken(None)(error.into()))?;
                Ok(applied)
            }
        }
    }

    /// Tells the watches, then the callers.
    fn publish(&self, batch: Vec<Command>, applied: Applied) -> bool {
        self.shared.recent.push(applied.batches);
        self.advance(applied.marks.head);
        let now = self.shared.clock.now();
        let (transactions, bytes) = transactions(&batch);
        self.shared.counters.done(transactions, bytes);
        for (command, answer) in batch.into_iter().zip(applied.answers) {
            match (command, answer) {
                (Command::Txn { reply, .. }, Answer::Txn(answer)) => drop(reply.send(answer)),
                (Command::Compact { reply, .. }, Answer::Compact(answer)) => drop(reply.send(answer)),
                (Command::Grant { ttl_s, reply }, Answer::Grant(answer)) => {
                    if let Ok(id) = answer {
                        self.shared.leases.add(id, ttl_s, now);
                    }
                    drop(reply.send(answer));
                }
                (Command::Revoke { id, reply }, Answer::Revoke(answer)) => {
                    self.shared.leases.remove(id);
                    drop(reply.send(answer));
                }
                (Command::Expire { ids, reply }, Answer::Expire) => {
                    ids.into_iter().for_each(|id| self.shared.leases.remove(id));
                    drop(reply.send(Ok(())));
                }
                _ => unreachable!("answers are made from the commands, in order"),
            }
        }
        applied.more_to_prune
    }

    fn advance(&self, head: Revision) {
        self.shared.head.send_if_modified(|known| {
            let newer = *known < Some(head);
            *known = Some(head);
            newer
        });
    }

    /// Reopens the database, finds out whether the batch is in it, and answers it.
    fn recover(&self, batch: Vec<Command>, failed: Failed) {
        let error = self.shared.database.explain(failed.error);
        tracing::error!(%error, transactions = batch.len(), "Write failed");
        self.shared.database.reopen(failed.generation);
        self.shared.recent.clear();
        self.shared.counters.failed(transactions(&batch).0);
        let there = self.shared.database.read(|snapshot| Ok((snapshot.marks()?, snapshot.leases()?)));
        let happened = match (&there, failed.committing) {
            (_, None) => Some(false),
            (Ok((marks, _)), Some(commits)) => Some(marks.commits >= commits),
            (Err(_), Some(_)) => None,
        };
        if let Ok((marks, leases)) = there {
            self.shared.leases.reload(&leases, self.shared.clock.now());
            self.advance(marks.head);
        }
        // A batch that is there may still be lost: the device did not confirm it.
        let error = match (happened, error) {
            (Some(false), error) => error,
            (_, Error::DiskFull { source } | Error::Io { source }) => Error::OutcomeUnknown { source },
            (_, error) => error,
        };
        batch.into_iter().for_each(|command| command.fail(error.clone()));
    }
}

/// How many transactions are in a batch, and their bytes.
fn transactions(batch: &[Command]) -> (usize, usize) {
    let count = batch.iter().filter(|command| matches!(command, Command::Txn { .. })).count();
    (count, batch.iter().map(Command::size_bytes).sum())
}

fn broken_by(interrupt: Interrupt) -> redb::Error {
    match interrupt {
        Interrupt::Broken(error) => error,
        // Commands' own refusals became answers; what is left is damage met outside of them.
        Interrupt::Rejected(error) => redb::Error::Corrupted(error.to_string()),
    }
}

/// Applies the commands in order, each seeing the ones before. Also returns whether anything changed.
fn apply_batch(
    write: &WriteTransaction,
    batch: &[Command],
    retention: Retention,
) -> Result<(Applied, bool), Interrupt> {
    let mut tables = Tables::open(write)?;
    let mut marks = Marks::load(&tables.meta)?;
    let before = marks.clone();
    let mut batches = Vec::new();
    let mut ended = false;
    let mut answers = Vec::with_capacity(batch.len());
    for command in batch {
        answers.push(match command {
            Command::Txn { txn, .. } => {
                Answer::Txn(answer(apply::txn(&mut tables, &mut marks, txn))?.map(|(response, batch)| {
                    batches.extend(batch);
                    response
                }))
            }
            Command::Compact { at, .. } => Answer::Compact(answer(prune::compact(&mut marks, *at))?),
            Command::Grant { ttl_s, .. } => {
                Answer::Grant(answer(apply::grant(&mut tables, &mut marks, *ttl_s))?)
            }
            Command::Revoke { id, .. } => {
                let revoked = answer(apply::revoke(&mut tables, &mut marks, *id))?;
                ended |= revoked.is_ok();
                Answer::Revoke(revoked.map(|batch| {
                    batches.extend(batch);
                    marks.head
                }))
            }
            Command::Expire { ids, .. } => {
                for id in ids {
                    // One that was revoked meanwhile is as good as expired.
                    if let Ok(batch) = answer(apply::revoke(&mut tables, &mut marks, *id))? {
                        batches.extend(batch);
                        ended = true;
                    }
                }
                Answer::Expire
            }
        });
    }
    let more_to_prune = prune::prune(&mut tables, &mut marks, retention)?;
    let changed = ended || marks != before;
    if changed {
        marks.commits += 1;
        marks.save(&mut tables.meta)?;
    }
    Ok((Applied { marks, answers, batches, more_to_prune }, changed))
}

/// Tells a refusal, which is an answer, from a failure, which ends the batch.
fn answer<T>(result: Result<T, Interrupt>) -> Result<Result<T>, Interrupt> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Interrupt::Rejected(error @ Error::Corrupted { .. })) => Err(Interrupt::Rejected(error)),
        Err(Interrupt::Rejected(error)) => Ok(Err(error)),
        Err(broken @ Interrupt::Broken(_)) => Err(broken),
    }
}
