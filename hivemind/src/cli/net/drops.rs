//! `net drops`: whose packets were dropped, and why.

use std::process::ExitCode;

use clap::Args;
use hivemind_model::{End, EndDropCount};

use crate::cli::{
    Session,
    fault::Outcome,
    output::{self, Format, FormatArgs, note},
    table::Table,
};

/// Flags of `net drops`.
#[derive(Args, Debug)]
#[command(
    after_help = "Counted are the packets of each replica that there is (what it sent, and what was on its way to it), of the node \
itself (host), and of what came in and was no replica's (outside), since the replica was made or the data path was. Most come \
first; those of all namespaces are shown, with -n only those of that one. Totals by reason, also of replicas that are gone, \
are in `hivemind status`; single packets in `hivemind flows --verdict denied` and `--verdict dropped`.

Examples:
  hivemind net drops
  hivemind net drops --app web -n shop
  hivemind net drops -o json | jq 'map(select(.reason == \"policy_ingress\"))'"
)]
pub(crate) struct DropsArgs {
    /// Only those of this app's replicas; host and outside are meant too
    #[arg(long, value_name = "APP")]
    app: Option<String>,
    /// Only those for this reason, by its stable name
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    #[command(flatten)]
    output: FormatArgs,
}

impl DropsArgs {
    pub(crate) fn format(&self) -> Format {
        self.output.format
    }

    /// Asks the daemon and prints what it says.
    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        let mut drops = session.client.status().await?.end_drops;
        let namespace = session.namespace_given.then_some(session.namespace.as_str());
        drops.retain(|drop| self.wants(drop, namespace));
        drops.sort_by_key(|drop| std::cmp::Reverse(drop.packets));
        output::print(&match self.output.format {
            Format::Json => output::json(&drops)?,
            Format::Yaml => output::yaml(&drops)?,
            Format::Name => names(&drops),
            Format::Table | Format::Wide if drops.is_empty() => String::new(),
            Format::Table | Format::Wide => table(&drops),
        })?;
        if drops.is_empty() && !self.output.format.is_for_programs() {
            note("no such packets were dropped");
        }
        Ok(ExitCode::SUCCESS)
    }

    fn wants(&self, drop: &EndDropCount, namespace: Option<&str>) -> bool {
        namespace.is_none_or(|namespace| drop.end.namespace == namespace)
            && self.app.as_ref().is_none_or(|app| drop.end.app == *app)
            && self.reason.as_ref().is_none_or(|reason| drop.reason == *reason)
    }
}

/// Each end once, as its command would be told of it.
fn names(drops: &[EndDropCount]) -> String {
    let mut names: Vec<String> = drops
        .iter()
        .map(|EndDropCount { end: End { app, replica, .. }, .. }| match replica.as_str() {
            "" => format!("{app}\n"),
            replica => format!("replica/{replica}\n"),
        })
        .collect();
    names.sort();
    names.dedup();
    names.concat()
}

fn table(drops: &[EndDropCount]) -> String {
    let mut table = Table::new(["NAMESPACE", "APP", "REPLICA", "PACKETS", "REASON", "MEANING"]);
    for EndDropCount { end, reason, explanation, packets } in drops {
        table.row(vec![
            end.namespace.clone(),
            end.app.clone(),
            end.replica.clone(),
            packets.to_string(),
            reason.clone(),
            explanation.clone(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drop(end: [&str; 3], reason: &str, packets: u64) -> EndDropCount {
        let [namespace, app, replica] = end.map(str::to_owned);
        EndDropCount {
            end: End { namespace, app, replica },
            reason: reason.into(),
            explanation: "words".into(),
            packets,
        }
    }

    #[test]
    fn a_row_tells_whose_packets_they_were_and_why() {
        let drops = [
            drop(["shop", "web", "web-a1b2c"], "policy_ingress", 12),
            drop(["", "outside", ""], "unknown_node", 3),
        ];
        assert_eq!(
            table(&drops),
            "NAMESPACE   APP       REPLICA     PACKETS   REASON           MEANING\n\
             shop        web       web-a1b2c   12        policy_ingress   words\n\
             -           outside   -           3         unknown_node     words\n"
        );
        assert_eq!(names(&drops), "outside\nreplica/web-a1b2c\n");
    }

    #[test]
    fn only_those_that_are_asked_for_are_told() {
        let args = |app: Option<&str>, reason: Option<&str>| DropsArgs {
            app: app.map(str::to_owned),
            reason: reason.map(str::to_owned),
            output: FormatArgs::default(),
        };
        let web = drop(["shop", "web", "web-a1b2c"], "policy_ingress", 12);
        assert!(args(None, None).wants(&web, None));
        assert!(args(Some("web"), Some("policy_ingress")).wants(&web, Some("shop")));
        assert!(!args(Some("cache"), None).wants(&web, None));
        assert!(!args(None, Some("no_policy")).wants(&web, None));
        assert!(!args(None, None).wants(&web, Some("default")));
    }
}
