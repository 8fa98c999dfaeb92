//! `policy check`: what policies say of a connection, and why.

use std::net::IpAddr;

use clap::Args;
use hivemind_client::{PolicyCheckOptions, Selection};
use hivemind_model::{
    ApiError, DEFAULT_NAMESPACE, ErrorCode, NetworkPolicy, PolicyCheck, PolicyCheckVerdict, PolicyJudgement,
    PolicyType, RuleRef,
};

use super::{record::short, words};
use crate::cli::{
    Session,
    fault::{Colours, Failure},
    output::{self, Format, FormatArgs},
};

/// The most addresses, or domains, that a line names.
const NAMED_MAX: usize = 4;

/// Flags of `policy check`.
#[derive(Args, Debug)]
#[command(
    after_help = "It tells what the policies mean, as they are now: of both ends, tier by tier, with the rules that decide. \
What a node would do with a packet is told by hivemind net trace.

An end is an app, NAMESPACE/APP, host (the processes of a replica's own node), world (everything outside), or an address. TO may \
be dns too, or the name of a domain: whatever address outside it has. Of an address outside nobody knows here by which name it was \
asked for: where rules name domains it is told what comes of it by each.

Examples:
  hivemind policy check web-app db --port 5432/tcp
  hivemind policy check shop/web 192.0.2.7 --port 443
  hivemind policy check shop/web api.example.org --port 443
  hivemind policy check web-app db --port icmp          a ping

Exit codes: 0 allowed, 1 denied, or not for all addresses and names, 2 a wrong word, 3 there is no such app."
)]
pub(crate) struct CheckArgs {
    /// Who makes the connection
    #[arg(value_name = "FROM")]
    from: String,
    /// With whom
    #[arg(value_name = "TO")]
    to: String,
    /// The port of the end that takes it, with /tcp (if nothing is said), /udp or /sctp; or icmp
    #[arg(long, short = 'p', value_name = "PORT")]
    port: String,
    #[command(flatten)]
    pub(crate) output: FormatArgs,
}

/// Prints what is said, and returns whether the connection is allowed.
pub(crate) async fn run(session: &Session, args: &CheckArgs) -> Result<bool, Failure> {
    let (protocol, port) = read_port(&args.port)?;
    let options = PolicyCheckOptions {
        from: args.from.clone(),
        to: args.to.clone(),
        protocol,
        port,
        namespace: Some(session.namespace.clone()),
    };
    let check = session.client.check_policies(&options).await.map_err(at_word)?;
    output::print(&match args.output.format {
        Format::Json => output::json(&check)?,
        Format::Yaml => output::yaml(&check)?,
        Format::Name => format!("{}\n", word(check.verdict)),
        Format::Table | Format::Wide => {
            let policies = session.client.list::<NetworkPolicy>(&Selection::default()).await?.items;
            told(&check, &policies, Colours::for_stdout())
        }
    })?;
    Ok(check.verdict == PolicyCheckVerdict::Allowed)
}

/// `80`, `80/udp`, `icmp`.
fn read_port(text: &str) -> Result<(String, Option<u16>), Failure> {
    if text == "icmp" {
        return Ok((text.to_owned(), None));
    }
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match number.parse::<u16>() {
        Ok(port) => Ok((protocol.to_ascii_lowercase(), Some(port))),
        Err(_) => {
            let what = format!("{text:?} is no port");
            let hint = "write for example 80/tcp, 53/udp, or icmp for a ping";
            Err(ApiError::new(ErrorCode::Malformed, what, hint).at("--port").into())
        }
    }
}

/// The API's parameters are words and flags here.
fn at_word(mut error: ApiError) -> Failure {
    let word = |field: &str| match field {
        "from" => "FROM".to_owned(),
        "to" => "TO".to_owned(),
        "port" | "protocol" => "--port".to_owned(),
        other => other.to_owned(),
    };
    error.field = error.field.as_deref().map(word);
    error.problems.iter_mut().for_each(|problem| problem.field = word(&problem.field));
    error.into()
}

fn word(verdict: PolicyCheckVerdict) -> &'static str {
    match verdict {
        PolicyCheckVerdict::Allowed => "allowed",
        PolicyCheckVerdict::Denied => "denied",
        PolicyCheckVerdict::Depends => "depends",
    }
}

fn told(check: &PolicyCheck, policies: &[NetworkPolicy], colours: Colours) -> String {
    let (colour, what) = match check.verdict {
        PolicyCheckVerdict::Allowed => ("32", "allowed"),
        PolicyCheckVerdict::Denied => ("1;31", "denied"),
        PolicyCheckVerdict::Depends => ("33", "depends on the address, or on its name"),
    };
    let port = check.port.map(|port| format!("{port}/")).unwrap_or_default();
    let mut text = format!(
        "{} to {} on {port}{}: {}\n",
        short(&check.source),
        short(&check.destination),
        check.protocol,
        colours.paint(colour, what)
    );
    let sides = [
        ("egress", "leaves", [&check.source, &check.destination], &check.egress),
        ("ingress", "enters", [&check.destination, &check.source], &check.ingress),
    ];
    for (direction, verb, [whose, other], judgements) in sides {
        text.push_str(&format!("\n{direction}: what {verb} {}\n", short(whose)));
        if judgements.is_empty() {
            text.push_str("  it is no replica: no policy governs it\n");
        }
        for judgement in judgements {
            if judgements.len() > 1 {
                text.push_str(&format!("  with {}\n", of_whom(judgement, other)));
            }
            side(judgement, policies, colours, &mut text);
        }
    }
    text
}

/// `192.0.2.7, if asked for by a name of *.example.org`; of an end that may have any address, `addresses like 192.0.2.0`.
fn of_whom(judgement: &PolicyJudgement, other: &str) -> String {
    let mut addresses =
        some_of(&judgement.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ", ");
    let is_named = other.contains('.') && !other.contains('/') && other.parse::<IpAddr>().is_err();
    if other == "world" || is_named {
        addresses = format!("addresses like {addresses}");
    }
    match judgement.domains.as_slice() {
        [] => addresses,
        domains => format!("{addresses}, if asked for by a name of {}", some_of(domains, " or ")),
    }
}

fn some_of(all: &[String], between: &str) -> String {
    let mut named: Vec<String> = all.iter().take(NAMED_MAX).cloned().collect();
    if all.len() > NAMED_MAX {
        named.push(format!("{} more", all.len() - NAMED_MAX));
    }
    named.join(between)
}

/// What one end says, tier by tier.
fn side(judgement: &PolicyJudgement, policies: &[NetworkPolicy], colours: Colours, text: &mut String) {
    if judgement.steps.is_empty() {
        text.push_str(&format!("  {}: no policy governs it\n", verdict(judgement.allowed, colours)));
    }
    for step in &judgement.steps {
        let tier = match step.tier.as_str() {
            "node" => "always",
            "admin" => "Admin tier",
            "namespace" => "policies of the namespace",
            "baseline" => "Baseline tier",
            other => other,
        };
        let outcome = match step.outcome.as_str() {
            "passed" if step.rules.is_empty() => "no rule matches: the next tier decides".to_owned(),
            "passed" => "passed on".to_owned(),
            other => verdict(other == "allowed", colours),
        };
        text.push_str(&format!("  {tier}: {outcome}\n"));
        for rule in &step.rules {
            text.push_str(&format!("    {}\n", rule_in_words(rule, policies)));
        }
    }
    let last = judgement.steps.last();
    if last.is_some_and(|step| step.outcome == "passed") {
        text.push_str(&format!("  {}: no tier says otherwise\n", verdict(judgement.allowed, colours)));
    }
    for rule in &judgement.audit {
        let what = colours.paint("36", "would be denied");
        text.push_str(&format!(
            "  {what} if this policy did not only tell: {}\n",
            rule_in_words(rule, policies)
        ));
    }
}

fn verdict(allowed: bool, colours: Colours) -> String {
    if allowed { colours.paint("32", "allowed") } else { colours.paint("1;31", "denied") }
}

/// `only-client/ingress[0]: app=client on 80/tcp`, as flows name it.
fn rule_in_words(rule: &RuleRef, policies: &[NetworkPolicy]) -> String {
    let place = match rule.namespace.as_str() {
        DEFAULT_NAMESPACE => String::new(),
        other => format!("{other}/"),
    };
    let direction = if rule.direction == "egress" { PolicyType::Egress } else { PolicyType::Ingress };
    let policy = policies.iter().find(|policy| {
        (&policy.metadata.namespace, &policy.metadata.name) == (&rule.namespace, &rule.policy)
    });
    let Some(policy) = policy else { return format!("{place}{}", rule.policy) };
    let Some(index) = rule.index else {
        return format!(
            "{place}{}/{}: it governs this, and none of its rules allows it",
            rule.policy, rule.direction
        );
    };
    let name = format!("{place}{}/{}[{index}]", rule.policy, rule.direction);
    let words = words::rules(policy, direction).and_then(|rules| rules.into_iter().nth(index as usize));
    words.map_or(name.clone(), |words| format!("{name}: {words}"))
}

/// The command's failure where the connection is not allowed for all addresses.
pub(crate) const DENIED: u8 = 1;

#[cfg(test)]
mod tests {
    use hivemind_model::PolicyCheckStep;

    use super::*;

    #[test]
    fn ports_are_numbers_with_a_protocol_or_a_ping() {
        let read = |text: &str| read_port(text).ok();
        assert_eq!(read("80"), Some(("tcp".to_owned(), Some(80))));
        assert_eq!(read("53/UDP"), Some(("udp".to_owned(), Some(53))));
        assert_eq!(read("icmp"), Some(("icmp".to_owned(), None)));
        for bad in ["", "http", "70000", "-1", "/tcp"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_said_is_told_tier_by_tier_with_its_rules() {
        let rule = |policy: &str, index| RuleRef {
            namespace: "default".to_owned(),
            policy: policy.to_owned(),
            direction: "ingress".to_owned(),
            index,
        };
        let step = |tier: &str, outcome: &str, rules| PolicyCheckStep {
            tier: tier.to_owned(),
            outcome: outcome.to_owned(),
            rules,
        };
        let ingress = PolicyJudgement {
            allowed: false,
            addresses: vec![[10, 200, 0, 7].into()],
            domains: Vec::new(),
            rules: vec![rule("web", None)],
            audit: Vec::new(),
            steps: vec![
                step("admin", "passed", Vec::new()),
                step("namespace", "denied", vec![rule("web", None)]),
            ],
        };
        let check = PolicyCheck {
            verdict: PolicyCheckVerdict::Denied,
            source: "host".to_owned(),
            destination: "default/web".to_owned(),
            protocol: "tcp".to_owned(),
            port: Some(80),
            egress: Vec::new(),
            ingress: vec![ingress],
        };
        assert_eq!(
            told(&check, &[], Colours::Off),
            "host to web on 80/tcp: denied\n\
             \n\
             egress: what leaves host\n  it is no replica: no policy governs it\n\
             \n\
             ingress: what enters web\n  Admin tier: no rule matches: the next tier decides\n  \
             policies of the namespace: denied\n    web\n"
        );
    }
}
