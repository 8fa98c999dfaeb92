//! Probes: how it is found out whether a container is well.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::{ErrorCode, Problems},
    quantity::Seconds,
};

/// A check that is made again and again while a container runs. Exactly one of `http`, `tcp`, `grpc` and `exec` says how. All but
/// `exec` are made by the daemon, to the replica's own address from within its network: no policy stands in their way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    /// Well is what answers a request with 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// Well is what takes a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpProbe>,
    /// Well is what says so by gRPC's health checking protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcProbe>,
    /// Well is where a command ends with 0, which is run in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecProbe>,
    /// How long the container runs before the first check, 0 to 3,600 s; left out: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub initial_delay_seconds: Option<Seconds>,
    /// How often it is made, 0.1 to 3,600 s; left out: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub period_seconds: Option<Seconds>,
    /// How long an answer may take, 0.1 to 3,600 s; left out: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub timeout_seconds: Option<Seconds>,
    /// How many checks in a row have to succeed after a failure, 1 to 1,000; left out: 1. Only a readiness probe may ask
    /// for more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_threshold: Option<u32>,
    /// How many checks in a row have to fail before something is done, 1 to 1,000; left out: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_threshold: Option<u32>,
}

/// A request by HTTP/1.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpProbe {
    /// What is asked for; left out: `/`.
    #[serde(default = "root", skip_serializing_if = "is_root")]
    pub path: String,
    /// The port in the container, 1 to 65535.
    pub port: u16,
    /// How it is asked; left out: `http`.
    #[serde(default, skip_serializing_if = "HttpScheme::is_plain")]
    pub scheme: HttpScheme,
    /// What the request calls the server; left out: its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Headers of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HttpHeader>,
}

fn root() -> String {
    "/".to_owned()
}

fn is_root(path: &str) -> bool {
    path == "/"
}

/// How a server is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HttpScheme {
    /// Plainly.
    #[default]
    Http,
    /// By TLS. Any certificate is good: a probe asks whether the server is well, not who it is.
    Https,
}

impl HttpScheme {
    fn is_plain(&self) -> bool {
        *self == HttpScheme::Http
    }
}

/// A header of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A connection that is closed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpProbe {
    /// The port in the container, 1 to 65535.
    pub port: u16,
}

/// A call of `grpc.health.v1.Health/Check`, without TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcProbe {
    /// The port in the container, 1 to 65535.
    pub port: u16,
    /// The service that is asked about; left out: the server as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
}

/// A command in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecProbe {
    /// The program and its arguments; no shell is asked.
    pub command: Vec<String>,
}

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Until it has succeeded once, the others wait; when it has failed too often, the container is restarted.
    Startup,
    /// While it fails, the replica is out of its services.
    Readiness,
    /// When it has failed too often, the container is restarted.
    Liveness,
}

impl ProbeKind {
    /// As it is told.
    pub fn as_str(self) -> &'static str {
        match self {
            ProbeKind::Startup => "startup",
            ProbeKind::Readiness => "readiness",
            ProbeKind::Liveness => "liveness",
        }
    }
}

/// The longest time of a probe, in milliseconds.
const TIME_MS_MAX: u32 = 3_600_000;

/// The shortest period and timeout, in milliseconds: a check costs time of the processor and must not be made without end.
const TIME_MS_MIN: u32 = 100;

/// The most checks in a row that can be asked for.
const THRESHOLD_MAX: u32 = 1_000;

/// The most headers of a request.
const HEADERS_MAX: usize = 32;

impl Probe {
    /// How long the container runs before the first check.
    pub fn initial_delay(&self) -> Duration {
        self.initial_delay_seconds.map_or(Duration::ZERO, Seconds::duration)
    }

    /// How often it is made.
    pub fn period(&self) -> Duration {
        self.period_seconds.map_or(Duration::from_secs(10), Seconds::duration)
    }

    /// How long an answer may take.
    pub fn timeout(&self) -> Duration {
        self.timeout_seconds.map_or(Duration::from_secs(1), Seconds::duration)
    }

    /// How many checks in a row have to succeed after a failure.
    pub fn successes(&self) -> u32 {
        self.success_threshold.unwrap_or(1)
    }

    /// How many checks in a row have to fail before something is done.
    pub fn failures(&self) -> u32 {
        self.failure_threshold.unwrap_or(3)
    }

    pub(crate) fn check(&self, kind: ProbeKind, field: &str, problems: &mut Problems) {
        self.check_how(field, problems);
        self.check_times(field, problems);
        let thresholds =
            [("successThreshold", self.success_threshold), ("failureThreshold", self.failure_threshold)];
        for (name, threshold) in thresholds {
            if let Some(n) = threshold.filter(|n| !(1..=THRESHOLD_MAX).contains(n)) {
                let what = format!("{n} checks in a row are no threshold");
                let hint = format!("give 1 to {THRESHOLD_MAX}");
                problems.add(ErrorCode::OutOfRange, format!("{field}.{name}"), what, hint);
            }
        }
        if kind != ProbeKind::Readiness && self.success_threshold.is_some_and(|n| n > 1) {
            let what = format!("a {} probe has done with its first success", kind.as_str());
            let hint = "leave it out, or ask for more in the readiness probe";
            problems.add(ErrorCode::Unsupported, format!("{field}.successThreshold"), what, hint);
        }
    }

    fn check_how(&self, field: &str, problems: &mut Problems) {
        let ways = [self.http.is_some(), self.tcp.is_some(), self.grpc.is_some(), self.exec.is_some()];
        let count = ways.into_iter().filter(|is_there| *is_there).count();
        if count != 1 {
            let what = format!("a probe with {count} ways to check");
            let hint = "give exactly one of http, tcp, grpc and exec";
            problems.add(ErrorCode::OutOfRange, field, what, hint);
        }
        let ports = [
            ("http", self.http.as_ref().map(|probe| probe.port)),
            ("tcp", self.tcp.as_ref().map(|probe| probe.port)),
            ("grpc", self.grpc.as_ref().map(|probe| probe.port)),
        ];
        for (way, _) in ports.into_iter().filter(|(_, port)| *port == Some(0)) {
            let hint = "use a port from 1 to 65535";
            problems.add(
                ErrorCode::OutOfRange,
                format!("{field}.{way}.port"),
                "port 0 cannot be asked",
                hint,
            );
        }
        if let Some(http) = &self.http {
            http.check(&format!("{field}.http"), problems);
        }
        if let Some(grpc) = self.grpc.as_ref().filter(|grpc| grpc.service.contains(char::is_control)) {
            let what = format!("{:?} is no name of a service", grpc.service);
            let hint = "write it as the server registers it, for example shop.Cart";
            problems.add(ErrorCode::Malformed, format!("{field}.grpc.service"), what, hint);
        }
        if let Some(exec) = &self.exec {
            let field = format!("{field}.exec.command");
            if exec.command.first().is_none_or(String::is_empty) {
                let hint = "give a program and its arguments, for example [pg_isready, -q]";
                problems.add(ErrorCode::OutOfRange, field, "no command to run", hint);
            } else if exec.command.iter().any(|word| word.contains('\0')) {
                let what = "a word with a zero byte in it cannot be given to a process";
                problems.add(ErrorCode::Malformed, field, what, "leave the byte out");
            }
        }
    }

    fn check_times(&self, field: &str, problems: &mut Problems) {
        let times = [
            ("initialDelaySeconds", self.initial_delay_seconds, 0),
            ("periodSeconds", self.period_seconds, TIME_MS_MIN),
            ("timeoutSeconds", self.timeout_seconds, TIME_MS_MIN),
        ];
        for (name, time, least) in times {
            if let Some(time) = time.filter(|time| !(least..=TIME_MS_MAX).contains(&time.millis())) {
                let least = Seconds::from_millis(least);
                let what = format!("{time} s are out of range");
                let hint = format!("give {least} to {} seconds", TIME_MS_MAX / 1000);
                problems.add(ErrorCode::OutOfRange, format!("{field}.{name}"), what, hint);
            }
        }
    }
}

impl HttpProbe {
    fn check(&self, field: &str, problems: &mut Problems) {
        let is_visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if !self.path.starts_with('/') || !is_visible(&self.path) {
            let what = format!("{:?} is no path of a request", self.path);
            let hint = "begin it with '/', and write other than visible ASCII characters as %20";
            problems.add(ErrorCode::Malformed, format!("{field}.path"), what, hint);
        }
        if let Some(host) = self.host.as_deref().filter(|host| host.is_empty() || !is_visible(host)) {
            let what = format!("{host:?} is no name of a server");
            problems.add(ErrorCode::Malformed, format!("{field}.host"), what, "write a host name");
        }
        if self.headers.len() > HEADERS_MAX {
            let what = format!("{} headers are too many", self.headers.len());
            let hint = format!("give {HEADERS_MAX} at most");
            problems.add(ErrorCode::OutOfRange, format!("{field}.headers"), what, hint);
        }
        for (i, HttpHeader { name, value }) in self.headers.iter().enumerate() {
            // The characters of a token (RFC 9110, section 5.6.2).
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_token) || value.contains(|c: char| c.is_control()) {
                let what = format!("{name:?} is no header of a request");
                let hint = "write a name such as X-Probe, and a value of one line";
                problems.add(ErrorCode::Malformed, format!("{field}.headers[{i}]"), what, hint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(kind: ProbeKind, probe: &Probe) -> Vec<String> {
        let mut problems = Problems::default();
        probe.check(kind, "p", &mut problems);
        let error = problems.into_result().err();
        let told = error.map(|error| match error.problems.is_empty() {
            true => vec![error.field.unwrap_or_default()],
            false => error.problems.into_iter().map(|problem| problem.field).collect(),
        });
        told.unwrap_or_default()
    }

    #[test]
    fn a_probe_in_few_words_has_the_usual_times() {
        let probe: Probe = serde_json::from_str(r#"{"http": {"port": 80}, "periodSeconds": 0.5}"#).unwrap();
        assert_eq!(faults(ProbeKind::Liveness, &probe), Vec::<String>::new());
        assert_eq!(probe.http.as_ref().map(|http| http.path.as_str()), Some("/"));
        assert_eq!((probe.period(), probe.timeout()), (Duration::from_millis(500), Duration::from_secs(1)));
        assert_eq!((probe.initial_delay(), probe.successes(), probe.failures()), (Duration::ZERO, 1, 3));
        let written = serde_json::to_string(&probe).unwrap();
        assert_eq!(written, r#"{"http":{"port":80},"periodSeconds":0.5}"#);
    }

    #[test]
    fn every_fault_of_a_probe_is_told_with_its_place() {
        let header = |name: &str, value: &str| HttpHeader { name: name.into(), value: value.into() };
        let http = HttpProbe {
            path: "a b".into(),
            port: 0,
            scheme: HttpScheme::Https,
            host: Some(String::new()),
            headers: vec![header("a b", "c"), header("a", "b\nc"), header("Accept", "*/*")],
        };
        let probe = Probe {
            http: Some(http),
            exec: Some(ExecProbe { command: vec![] }),
            initial_delay_seconds: Some(Seconds::from_millis(TIME_MS_MAX + 1)),
            period_seconds: Some(Seconds::from_millis(99)),
            timeout_seconds: Some(Seconds::from_millis(0)),
            success_threshold: Some(2),
            failure_threshold: Some(0),
            ..Probe::default()
        };
        let places = [
            "p",
            "p.http.port",
            "p.http.path",
            "p.http.host",
            "p.http.headers[0]",
            "p.http.headers[1]",
            "p.exec.command",
            "p.initialDelaySeconds",
            "p.periodSeconds",
            "p.timeoutSeconds",
            "p.failureThreshold",
            "p.successThreshold",
        ];
        assert_eq!(faults(ProbeKind::Startup, &probe), places);
        assert_eq!(faults(ProbeKind::Readiness, &probe), places[..11]);
    }

    #[test]
    fn a_probe_has_exactly_one_way() {
        assert_eq!(faults(ProbeKind::Startup, &Probe::default()), ["p"]);
        let tcp = Probe { tcp: Some(TcpProbe { port: 1 }), ..Probe::default() };
        assert_eq!(faults(ProbeKind::Startup, &tcp), Vec::<String>::new());
        let grpc = Some(GrpcProbe { port: 1, service: "a\n".into() });
        assert_eq!(faults(ProbeKind::Startup, &Probe { grpc, ..tcp }), ["p", "p.grpc.service"]);
    }
}
