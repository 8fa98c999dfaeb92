//! Which flows somebody wants, read from words.

use std::{fmt, net::IpAddr, str::FromStr};

use hivemind_common::drop_reason::DropReason;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use crate::{ApiError, ErrorCode, Flow, FlowEnd, FlowMinute, FlowShare, FlowVerdict, Problems, name::check_name};

/// The longest time ago that may be asked for, in seconds: a year.
const AGO_S_MAX: i64 = 366 * 86_400;

/// One end of the flows that are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowFilter {
    /// Replicas of an app, or the replica of this name, in one namespace or in any.
    App {
        /// The namespace; `None`: any.
        namespace: Option<String>,
        /// The app's or the replica's name.
        app: String,
    },
    /// All replicas of a namespace.
    Namespace(String),
    /// The processes of a node.
    Node(String),
    /// The processes of the node that saw the flow.
    Host,
    /// The DNS server that replicas ask.
    Dns,
    /// Whatever is neither a replica nor a node.
    World,
    /// What could not be told.
    Unknown,
    /// These addresses.
    Net(IpNet),
}

impl FlowFilter {
    /// Whether it means `end`.
    pub fn selects(&self, end: &FlowEnd) -> bool {
        match self {
            FlowFilter::App { namespace, app } => {
                namespace.as_ref().is_none_or(|namespace| *namespace == end.namespace)
                    && (end.app == *app || end.replica == *app)
            }
            FlowFilter::Namespace(namespace) => end.namespace == *namespace,
            FlowFilter::Node(node) => matches!(end.kind.as_str(), "host" | "node") && end.node == *node,
            FlowFilter::Host => end.kind == "host",
            FlowFilter::Dns => end.kind == "dns",
            FlowFilter::World => end.kind == "world",
            FlowFilter::Unknown => end.kind == "unknown",
            FlowFilter::Net(net) => end.address.is_some_and(|address| net.contains(&address)),
        }
    }

    /// As [`FlowFilter::selects`], where the address of an end is told as a block, if at all.
    fn selects_part(&self, end: &FlowEnd, block: Option<IpNet>) -> bool {
        match self {
            FlowFilter::Net(net) => block.is_some_and(|block| net.contains(&block)),
            _ => self.selects(end),
        }
    }
}

/// As [`FlowFilter::from_str`] reads it.
impl fmt::Display for FlowFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlowFilter::App { namespace: Some(namespace), app } => write!(f, "{namespace}/{app}"),
            FlowFilter::App { namespace: None, app } => f.write_str(app),
            FlowFilter::Namespace(namespace) => write!(f, "{namespace}/*"),
            FlowFilter::Node(node) => write!(f, "node/{node}"),
            FlowFilter::Host => f.write_str("host"),
            FlowFilter::Dns => f.write_str("dns"),
            FlowFilter::World => f.write_str("world"),
            FlowFilter::Unknown => f.write_str("unknown"),
            FlowFilter::Net(net) => net.fmt(f),
        }
    }
}

impl FromStr for FlowFilter {
    type Err = ApiError;

    /// Reads `host`, `dns`, `world`, `unknown`, an address, a CIDR, `node/NAME`, `app`, `namespace/app` or `namespace/*`.
    fn from_str(text: &str) -> Result<Self, ApiError> {
        match text {
            "host" => return Ok(FlowFilter::Host),
            "dns" => return Ok(FlowFilter::Dns),
            "world" => return Ok(FlowFilter::World),
            "unknown" => return Ok(FlowFilter::Unknown),
            _ => {}
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(FlowFilter::Net(address.into()));
        }
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(FlowFilter::Net(net.trunc()));
        }
        let (place, name) = match text.split_once('/') {
            Some((place, name)) => (Some(place), name),
            None => (None, text),
        };
        let mut problems = Problems::default();
        let names = place.iter().copied().chain((name != "*" || place.is_none()).then_some(name));
        names.for_each(|name| check_name("", name, 63, &mut problems));
        let is_any_node = place == Some("node") && name == "*";
        if problems.is_empty() && !is_any_node {
            return Ok(match (place, name) {
                (Some("node"), name) => FlowFilter::Node(name.to_owned()),
                (Some(namespace), "*") => FlowFilter::Namespace(namespace.to_owned()),
                (namespace, app) => {
                    FlowFilter::App { namespace: namespace.map(str::to_owned), app: app.to_owned() }
                }
            });
        }
        let what = format!("{text:?} is no end of a flow");
        let hint = "name an app, NAMESPACE/APP, NAMESPACE/*, node/NAME, host, dns, world, unknown, an address or a CIDR";
        Err(ApiError::new(ErrorCode::Malformed, what, hint))
    }
}

/// Ports of the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowPorts {
    first: u16,
    last: u16,
    protocol: Option<String>,
}

impl FlowPorts {
    fn select(&self, port: Option<u16>, protocol: &str) -> bool {
        port.is_some_and(|port| (self.first..=self.last).contains(&port))
            && self.protocol.as_ref().is_none_or(|wanted| wanted == protocol)
    }
}

/// As [`FlowPorts::from_str`] reads it.
impl fmt::Display for FlowPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.first != self.last {
            write!(f, "-{}", self.last)?;
        }
        self.protocol.as_ref().map_or(Ok(()), |protocol| write!(f, "/{protocol}"))
    }
}

impl FromStr for FlowPorts {
    type Err = ApiError;

    /// Reads `80`, `80/tcp`, `8000-8099` or `8000-8099/udp`.
    fn from_str(text: &str) -> Result<Self, ApiError> {
        let (ports, protocol) = match text.split_once('/') {
            Some((ports, protocol)) => (ports, Some(protocol)),
            None => (text, None),
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
        match (number(first), number(last)) {
            (Some(first), Some(last))
                if first <= last && protocol.is_none_or(|word| ["tcp", "udp", "sctp"].contains(&word)) =>
            {
                Ok(FlowPorts { first, last, protocol: protocol.map(str::to_owned) })
            }
            _ => {
                let what = format!("{text:?} is no port");
                let hint = "give a port such as 80, 80/tcp, 8000-8099 or 8000-8099/udp; ports are 1 to 65535";
                Err(ApiError::new(ErrorCode::Malformed, what, hint))
            }
        }
    }
}

/// Which flows are wanted, in words, as they come from a user. What is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowWords {
    /// Who began it: see [`FlowFilter::from_str`].
    pub from: Option<String>,
    /// The other end; as `from`.
    pub to: Option<String>,
    /// The destination's port: see [`FlowPorts::from_str`].
    pub port: Option<String>,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, or the protocol's number, 0 to 255.
    pub protocol: Option<String>,
    /// How it was judged.
    pub verdict: Option<FlowVerdict>,
    /// Why it did not pass: a stable word such as `policy_ingress`.
    pub reason: Option<String>,
    /// What happened from then on: a time (RFC 3339), or how long ago (`30s`, `30m`, `1h`, `2d`).
    pub since: Option<String>,
    /// What happened before then; as `since`.
    pub until: Option<String>,
}

impl FlowWords {
    /// What these words mean at `now`. Words that mean nothing become problems at their fields, and are left out.
    pub fn read(self, now: Timestamp, problems: &mut Problems) -> FlowSelection {
        let from = read("from", self.from, problems, |word| word.parse());
        let to = read("to", self.to, problems, |word| word.parse());
        let ports = read("port", self.port, problems, |word| word.parse());
        let protocol = read("protocol", self.protocol, problems, protocol);
        let reason = read("reason", self.reason, problems, reason);
        let since = read("since", self.since, problems, |word| moment(word, now));
        let until = read("until", self.until, problems, |word| moment(word, now));
        if let (Some(since), Some(until)) = (since, until)
            && since >= until
        {
            let what = "the time ends before it begins";
            problems.add(ErrorCode::Malformed, "until", what, "give a later one than since");
        }
        FlowSelection { from, to, ports, protocol, verdict: self.verdict, reason, since, until }
    }
}

/// Which flows are wanted. What is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowSelection {
    /// Who began it.
    pub from: Option<FlowFilter>,
    /// The other end.
    pub to: Option<FlowFilter>,
    /// The destination's ports.
    pub ports: Option<FlowPorts>,
    /// The protocol, as [`Flow::protocol`] has it.
    pub protocol: Option<String>,
    /// How it was judged.
    pub verdict: Option<FlowVerdict>,
    /// Why it did not pass.
    pub reason: Option<&'static str>,
    /// From then on.
    pub since: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
}

impl FlowSelection {
    /// Whether this flow is wanted.
    pub fn wants(&self, flow: &Flow) -> bool {
        self.wants_what(&flow.protocol, flow.destination.port)
            && self.wants_judgement(flow.verdict, &flow.reason)
            && self.since.is_none_or(|since| since <= flow.time)
            && self.until.is_none_or(|until| flow.time < until)
            && self.from.as_ref().is_none_or(|from| from.selects(&flow.source))
            && self.to.as_ref().is_none_or(|to| to.selects(&flow.destination))
    }

    /// Whether this record of a minute is wanted: one of its shares, or what is in none.
    pub fn wants_minute(&self, flows: &FlowMinute) -> bool {
        let has_rest = flows.untold > 0 || flows.shares.is_empty();
        self.wants_what(&flows.protocol, flows.destination.port)
            && self.wants_time(flows.minute)
            && (flows.shares.iter().any(|share| self.wants_share(flows, share))
                || has_rest && self.wants_share(flows, &FlowShare::default()))
    }

    fn wants_share(&self, flows: &FlowMinute, share: &FlowShare) -> bool {
        let wants = |filter: &Option<FlowFilter>, end, block| {
            filter.as_ref().is_none_or(|filter| filter.selects_part(end, block))
        };
        self.wants_judgement(flows.verdict_of(share), &share.reason)
            && wants(&self.from, &flows.source, share.source)
            && wants(&self.to, &flows.destination, share.destination)
    }

    /// Whether something of the minute that began then may be wanted.
    pub fn wants_time(&self, minute: Timestamp) -> bool {
        let end = minute.checked_add(SignedDuration::from_mins(1)).unwrap_or(minute);
        self.since.is_none_or(|since| since < end) && self.until.is_none_or(|until| minute < until)
    }

    /// The same in words that mean it at any time.
    pub fn words(&self) -> FlowWords {
        FlowWords {
            from: self.from.as_ref().map(ToString::to_string),
            to: self.to.as_ref().map(ToString::to_string),
            port: self.ports.as_ref().map(ToString::to_string),
            protocol: self.protocol.clone(),
            verdict: self.verdict,
            reason: self.reason.map(str::to_owned),
            since: self.since.map(|since| since.to_string()),
            until: self.until.map(|until| until.to_string()),
        }
    }

    fn wants_judgement(&self, verdict: FlowVerdict, reason: &str) -> bool {
        self.verdict.is_none_or(|wanted| wanted == verdict)
            && self.reason.is_none_or(|wanted| wanted == reason)
    }

    fn wants_what(&self, protocol: &str, port: Option<u16>) -> bool {
        self.protocol.as_ref().is_none_or(|wanted| wanted == protocol)
            && self.ports.as_ref().is_none_or(|ports| ports.select(port, protocol))
    }
}

fn read<T>(
    field: &str,
    word: Option<String>,
    problems: &mut Problems,
    parse: impl FnOnce(&str) -> Result<T, ApiError>,
) -> Option<T> {
    match parse(&word?) {
        Ok(value) => Some(value),
        Err(error) => {
            problems.add(error.code, field, error.message, error.hint);
            None
        }
    }
}

fn protocol(word: &str) -> Result<String, ApiError> {
    let named = [("icmp", 1), ("tcp", 6), ("udp", 17), ("icmpv6", 58), ("sctp", 132)];
    if named.iter().any(|(name, _)| *name == word) {
        return Ok(word.to_owned());
    }
    match word.parse::<u8>() {
        Ok(number) => {
            let name = named.iter().find(|(_, of)| *of == number);
            Ok(name.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned()))
        }
        Err(_) => {
            let what = format!("{word:?} is no protocol");
            Err(ApiError::new(
                ErrorCode::Malformed,
                what,
                "use tcp, udp, icmp, icmpv6, sctp or a number, 0 to 255",
            ))
        }
    }
}

fn reason(word: &str) -> Result<&'static str, ApiError> {
    let mut names = DropReason::ALL.into_iter().map(DropReason::name);
    names.clone().find(|name| *name == word).ok_or_else(|| {
        let what = format!("nothing is dropped for the reason {word:?}");
        let near = names.find(|name| !word.is_empty() && (name.contains(word) || word.contains(name)));
        let all = DropReason::ALL.map(DropReason::name).join(", ");
        let hint = match near {
            Some(near) => format!("did you mean {near}? The reasons are {all}"),
            None => format!("use one of {all}"),
        };
        ApiError::new(ErrorCode::Malformed, what, hint)
    })
}

/// A time, or how long before `now`.
fn moment(word: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    if let Ok(time) = word.parse::<Timestamp>() {
        return Ok(time);
    }
    let unit = match word.chars().last() {
        Some('s') => Some(1),
        Some('m') => Some(60),
        Some('h') => Some(3_600),
        Some('d') => Some(86_400),
        _ => None,
    };
    let seconds =
        unit.and_then(|unit| word[..word.len() - 1].parse::<u32>().ok().map(|n| i64::from(n) * unit));
    let ago = seconds.filter(|seconds| (1..=AGO_S_MAX).contains(seconds));
    ago.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok()).ok_or_else(|| {
        let hint =
            "say how long ago (30s, 30m, 1h, 2d; a year at most) or give a time such as 2026-01-31T12:00:00Z";
        ApiError::new(ErrorCode::Malformed, format!("{word:?} is no time"), hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> FlowEnd {
        FlowEnd {
            kind: "replica".into(),
            namespace: "shop".into(),
            app: "web".into(),
            replica: "web-k3f9q".into(),
            node: "n1".into(),
            identity: 300,
            address: Some([10, 200, 0, 7].into()),
            port: Some(80),
            domain: String::new(),
        }
    }

    fn now() -> Timestamp {
        "2026-01-31T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn an_end_of_a_flow_is_read_as_people_write_it() {
        let app = |namespace: Option<&str>, app: &str| FlowFilter::App {
            namespace: namespace.map(str::to_owned),
            app: app.to_owned(),
        };
        for (text, filter) in [
            ("host", FlowFilter::Host),
            ("dns", FlowFilter::Dns),
            ("world", FlowFilter::World),
            ("unknown", FlowFilter::Unknown),
            ("web", app(None, "web")),
            ("team/web", app(Some("team"), "web")),
            ("team/host", app(Some("team"), "host")),
            ("team/*", FlowFilter::Namespace("team".into())),
            ("node/n1", FlowFilter::Node("n1".into())),
            ("192.0.2.1", FlowFilter::Net("192.0.2.1/32".parse().unwrap())),
            ("192.0.2.1/24", FlowFilter::Net("192.0.2.0/24".parse().unwrap())),
            ("2001:db8::1", FlowFilter::Net("2001:db8::1/128".parse().unwrap())),
        ] {
            assert_eq!(text.parse::<FlowFilter>().unwrap(), filter, "{text}");
            assert_eq!(filter.to_string().parse::<FlowFilter>().unwrap(), filter, "{filter}");
        }
        for text in
            ["", "/", "a/", "/a", "a/b/c", "Web", "192.0.2.1/33", "a b", "*", "*/web", "node/*", "node/"]
        {
            assert_eq!(text.parse::<FlowFilter>().unwrap_err().code, ErrorCode::Malformed, "{text}");
        }
    }

    #[test]
    fn an_end_is_meant_by_its_names_its_kind_and_its_address() {
        let selects = |word: &str, end: &FlowEnd| word.parse::<FlowFilter>().unwrap().selects(end);
        for word in ["web", "shop/web", "shop/*", "web-k3f9q", "10.200.0.7", "10.200.0.0/16"] {
            assert!(selects(word, &end()), "{word}");
        }
        for word in ["we", "default/web", "default/*", "node/n1", "host", "world", "10.200.0.8", "fd00::/8"] {
            assert!(!selects(word, &end()), "{word}");
        }
        for kind in ["host", "node"] {
            let processes = FlowEnd { kind: kind.into(), node: "n1".into(), ..FlowEnd::default() };
            assert!(selects("node/n1", &processes) && !selects("node/n2", &processes), "{kind}");
        }
    }

    /// A record of so many connections, of which those of the shares were told.
    fn minute(connections: u64, shares: Vec<FlowShare>) -> FlowMinute {
        let told: u64 = shares.iter().map(|share| share.connections).sum();
        FlowMinute {
            minute: now(),
            seconds: 60,
            node: "n1".into(),
            verdict: FlowVerdict::Allowed,
            source: end(),
            destination: FlowEnd { kind: "world".into(), port: Some(443), ..FlowEnd::default() },
            protocol: "tcp".into(),
            exact: true,
            connections,
            bytes_sent: 1,
            bytes_received: 1,
            packets_sent: 1,
            packets_received: 1,
            rtt_us: None,
            shares,
            untold: connections - told,
        }
    }

    #[test]
    fn a_record_is_wanted_for_what_it_has_some_of_and_one_share_has_to_fit_in_all() {
        let share = |verdict, address: &str| FlowShare {
            verdict,
            destination: Some(address.parse().unwrap()),
            connections: 1,
            ..FlowShare::default()
        };
        let audited = share(Some(FlowVerdict::Audited), "192.0.2.1/32");
        let allowed = share(None, "192.0.2.2/32");
        let wanted = |verdict, to: Option<&str>, minute: &FlowMinute| {
            let to = to.map(|word| word.parse().unwrap());
            FlowSelection { verdict: Some(verdict), to, ..FlowSelection::default() }.wants_minute(minute)
        };
        let both = minute(2, vec![audited.clone(), allowed.clone()]);
        let only_audited = minute(1, vec![audited.clone()]);
        for (verdict, minute, expected) in [
            (FlowVerdict::Audited, &both, true),
            (FlowVerdict::Allowed, &both, true),
            (FlowVerdict::Denied, &both, false),
            (FlowVerdict::Audited, &only_audited, true),
            (FlowVerdict::Allowed, &only_audited, false),
            (FlowVerdict::Allowed, &minute(2, vec![audited]), true),
            (FlowVerdict::Audited, &minute(1, vec![allowed]), false),
            (FlowVerdict::Audited, &minute(1, vec![]), false),
            (FlowVerdict::Allowed, &minute(0, vec![]), true),
        ] {
            assert_eq!(wanted(verdict, None, minute), expected, "{verdict:?}: {minute:?}");
        }
        assert!(wanted(FlowVerdict::Audited, Some("192.0.2.1"), &both));
        assert!(wanted(FlowVerdict::Audited, Some("world"), &both));
        assert!(!wanted(FlowVerdict::Audited, Some("192.0.2.2"), &both), "that one is allowed");
    }

    #[test]
    fn ports_are_one_or_a_range_of_any_protocol_or_one() {
        let select = |word: &str, port, protocol| word.parse::<FlowPorts>().unwrap().select(port, protocol);
        assert!(
            select("80", Some(80), "udp") && !select("80", Some(81), "udp") && !select("80", None, "icmp")
        );
        assert!(select("80/tcp", Some(80), "tcp") && !select("80/tcp", Some(80), "udp"));
        assert!(select("8000-8099", Some(8000), "tcp") && select("8000-8099/udp", Some(8099), "udp"));
        assert!(!select("8000-8099", Some(8100), "tcp"));
        for word in ["80", "80/tcp", "8000-8099", "8000-8099/udp"] {
            assert_eq!(word.parse::<FlowPorts>().unwrap().to_string(), word);
        }
        for word in ["", "0", "80/", "80/http", "99-80", "65536", "-", "80-", "1-2-3", "+", " 80"] {
            assert_eq!(word.parse::<FlowPorts>().unwrap_err().code, ErrorCode::Malformed, "{word:?}");
        }
    }

    #[test]
    fn a_time_is_said_as_such_or_by_how_long_ago_it_was() {
        for (word, time) in [
            ("30s", "2026-01-31T11:59:30Z"),
            ("30m", "2026-01-31T11:30:00Z"),
            ("1h", "2026-01-31T11:00:00Z"),
            ("2d", "2026-01-29T12:00:00Z"),
            ("2026-01-31T12:00:00+01:00", "2026-01-31T11:00:00Z"),
        ] {
            assert_eq!(moment(word, now()).unwrap(), time.parse::<Timestamp>().unwrap(), "{word}");
        }
        for word in ["", "h", "0s", "1", "-1h", "1w", "367d", "99999999999h", "yesterday", "1é"] {
            assert_eq!(moment(word, now()).unwrap_err().code, ErrorCode::Malformed, "{word:?}");
        }
    }

    #[test]
    fn words_that_mean_nothing_are_all_told_and_those_that_do_can_be_said_again() {
        let word = |word: &str| Some(word.to_owned());
        let mut problems = Problems::default();
        let wrong = FlowWords {
            from: word("a/b/c"),
            to: word("Web"),
            port: word("http"),
            protocol: word("http"),
            verdict: None,
            reason: word("policy"),
            since: word("soon"),
            until: word("later"),
        };
        assert_eq!(wrong.read(now(), &mut problems), FlowSelection::default());
        let error = problems.into_result().unwrap_err();
        let fields: Vec<_> = error.problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["from", "to", "port", "protocol", "reason", "since", "until"]);
        assert!(error.problems[4].hint.contains("did you mean policy_egress?"), "{}", error.problems[4].hint);

        let mut problems = Problems::default();
        let right = FlowWords {
            from: word("shop/*"),
            port: word("80/tcp"),
            protocol: word("6"),
            reason: word("policy_ingress"),
            since: word("1h"),
            until: word("30m"),
            ..FlowWords::default()
        };
        let selection = right.read(now(), &mut problems);
        assert_eq!(selection.protocol.as_deref(), Some("tcp"));
        let later = now().checked_add(SignedDuration::from_hours(5)).unwrap();
        assert_eq!(selection.words().read(later, &mut problems), selection);
        problems.into_result().unwrap();
        let backwards = FlowWords { since: word("30m"), until: word("1h"), ..FlowWords::default() };
        let mut problems = Problems::default();
        backwards.read(now(), &mut problems);
        assert_eq!(problems.into_result().unwrap_err().field.as_deref(), Some("until"));
    }
}
