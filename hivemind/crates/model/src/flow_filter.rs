//! Which flows somebody wants, read from words.

use std::{fmt, net::IpAddr, str::FromStr};

use hivemind_common::drop_reason::DropReason;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use crate::{
    ApiError, ErrorCode, Flow, FlowEnd, FlowMinute, FlowShare, FlowVerdict, Problems,
    name::{check_hostname, check_name, normalize_hostname},
};

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
    /// Addresses outside that were answered for this domain name; in lower case and without a last dot.
    Domain(String),
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
            FlowFilter::Domain(domain) => end.domain == *domain,
        }
    }

    /// As [`FlowFilter::selects`], where the address of an end is told as a block, if at all, and its domain with it.
    fn selects_part(&self, end: &FlowEnd, block: Option<IpNet>, domain: &str) -> bool {
        match self {
            FlowFilter::Net(net) => block.is_some_and(|block| net.contains(&block)),
            FlowFilter::Domain(wanted) => domain == wanted,
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
            FlowFilter::Domain(domain) => f.write_str(domain),
        }
    }
}

impl FromStr for FlowFilter {
    type Err = ApiError;

    /// Reads `host`, `dns`, `world`, `unknown`, an address, a CIDR, `node/NAME`, `app`, `namespace/app`, `namespace/*`, or a domain name
    /// with a dot in it, which no app's name has.
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
        if let Some(domain) = domain(text) {
            return Ok(FlowFilter::Domain(domain));
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
        let hint = "name an app, NAMESPACE/APP, NAMESPACE/*, node/NAME, host, dns, world, unknown, a domain, an address or a CIDR";
        Err(ApiError::new(ErrorCode::Malformed, what, hint))
    }
}

/// The domain name that this is, if it has a dot in it and could not be meant as an address.
fn domain(text: &str) -> Option<String> {
    let mut problems = Problems::default();
    check_hostname("", text, &mut problems);
    let domain = normalize_hostname(text);
    let (_, last) = domain.rsplit_once('.')?;
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    (problems.is_empty() && !is_number).then_some(domain)
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
    /// The other end: as `from`, or a domain name, which is known of destinations only.
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
        let from = read("from", self.from, problems, |word| match word.parse()? {
            FlowFilter::Domain(domain) => {
                let what = format!("domain names such as {domain:?} are kept of destinations only");
                Err(ApiError::new(
                    ErrorCode::Malformed,
                    what,
                    "give the address, or ask for what goes to the domain",
                ))
            }
            other => Ok(other),
        });
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
        let wants = |filter: &Option<FlowFilter>, end, block, domain| {
            filter.as_ref().is_none_or(|filter| filter.selects_part(end, block, domain))
        };
        self.wants_judgement(flows.verdict_of(share), &share.reason)
            && wants(&self.from, &flows.source, share.source, "")
            && wants(&self.to, &flows.destination, share.destination, &share.domain)
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
mod tests;
