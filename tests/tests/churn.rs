//! What identities that come and go leave behind: nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use hivemind_tests::{Churn, ChurnNode};

/// Some seconds of it, at a pace that a program that is not optimised keeps beside other tests.
const CHURN: Churn = Churn { per_s: 8.0, lasts: Duration::from_secs(6), lives: Duration::from_millis(500) };

#[test]
fn replicas_that_come_and_go_leave_no_entries_descriptors_or_identities() -> Result<()> {
    let mut node = ChurnNode::start()?;
    // What is there only once something was, connections of the daemon's own among it, is there afterwards.
    let traffic = node.talk()?;
    node.churn(Churn { lasts: Duration::from_secs(1), ..CHURN })?;
    traffic.stop()?;
    let before = node.settled()?;
    let traffic = node.talk()?;
    let churned = node.churn(CHURN)?;
    let report = traffic.stop()?;
    ensure!(report.failures.is_empty(), "traffic failed: {:?}", report.failures);
    ensure!(report.long_requests > 0 && report.new_connections > 0, "there was no traffic: {report:?}");
    ensure!(churned.replicas == 48, "{churned:?}");
    let addresses = before.entries["addr_exact_v4"];
    ensure!(churned.addresses_max > addresses, "the data path never knew of them: {churned:?}");
    node.until_as(&before)?;
    Ok(())
}
