//! The flags of when an app starts, whether it is well, and what happens when it ends.

use clap::Args;
use hivemind_model::{
    Container, Dependency, DependencyCondition, ErrorCode, ExecProbe, GrpcProbe, HttpProbe, HttpScheme,
    Probe, RestartPolicy, TcpProbe, Template,
};

use super::{Places, Reader, Wrong, wrong};

/// Flags of an app's health.
#[derive(Args, Debug)]
#[command(next_help_heading = "Start, health and end")]
pub(crate) struct HealthArgs {
    /// Wait for another app of the namespace before the first replica is made; may be repeated [default condition: ready]
    #[arg(long = "depends-on", value_name = "APP[=started|ready|completed]")]
    depends_on: Vec<String>,
    /// How to see whether it has started: http://:PORT/PATH, https://…, tcp://:PORT, grpc://:PORT[/SERVICE] or exec:COMMAND; it is
    /// restarted if it has not after a while
    #[arg(long, value_name = "PROBE")]
    startup_probe: Option<String>,
    /// How to see whether it takes connections, as --startup-probe; without, it does when it listens
    #[arg(long, value_name = "PROBE")]
    readiness_probe: Option<String>,
    /// How to see whether it still lives, as --startup-probe; it is restarted if not
    #[arg(long, value_name = "PROBE")]
    liveness_probe: Option<String>,
    /// Whether it is started again when it ends: always, on-failure or never
    #[arg(long, value_name = "WHEN", default_value = "always")]
    restart: String,
}

impl HealthArgs {
    /// Fills in what the flags say, and returns what the app waits for.
    pub(super) fn read(
        &self,
        reader: &mut Reader,
        places: &mut Places,
        container: &mut Container,
        template: &mut Template,
    ) -> Vec<Dependency> {
        container.startup_probe = reader.probe("--startup-probe", self.startup_probe.as_deref());
        container.readiness_probe = reader.probe("--readiness-probe", self.readiness_probe.as_deref());
        container.liveness_probe = reader.probe("--liveness-probe", self.liveness_probe.as_deref());
        template.restart_policy = match self.restart.as_str() {
            "always" => RestartPolicy::Always,
            "on-failure" => RestartPolicy::OnFailure,
            "never" | "no" => RestartPolicy::Never,
            other => {
                let message = format!("{other:?} does not say when it is started again");
                let hint = "write always, on-failure or never";
                reader.add("--restart", Wrong { code: ErrorCode::OutOfRange, message, hint });
                RestartPolicy::Always
            }
        };
        reader.each("--depends-on", &self.depends_on, &mut places.depends_on, dependency)
    }
}

impl Reader {
    fn probe(&mut self, flag: &str, value: Option<&str>) -> Option<Probe> {
        match probe(value?) {
            Ok(probe) => Some(probe),
            Err(wrong) => {
                self.add(flag, wrong);
                None
            }
        }
    }
}

fn dependency(value: &str) -> Result<Dependency, Wrong> {
    let (app, condition) = value.split_once('=').unwrap_or((value, "ready"));
    let condition = match condition {
        "started" => DependencyCondition::Started,
        "ready" => DependencyCondition::Ready,
        "completed" => DependencyCondition::Completed,
        other => {
            let what = format!("{other:?} is nothing that an app can be waited to be");
            return wrong(ErrorCode::OutOfRange, what, "write APP=started, APP=ready or APP=completed");
        }
    };
    Ok(Dependency { app: app.to_owned(), condition })
}

const HINT: &str =
    "write http://:8080/healthz, https://:8443/, tcp://:5432, grpc://:50051 or \"exec:pg_isready -q\"";

fn probe(value: &str) -> Result<Probe, Wrong> {
    let bad = |what: &str| wrong(ErrorCode::Malformed, format!("{value:?} {what}"), HINT);
    if let Some(command) = value.strip_prefix("exec:") {
        return match shlex::split(command) {
            Some(command) => Ok(Probe { exec: Some(ExecProbe { command }), ..Probe::default() }),
            None => bad("ends within a quotation"),
        };
    }
    let Some((scheme, rest)) = value.split_once("://") else { return bad("is no probe") };
    let split = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(split);
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    let Ok(port) = port.parse::<u16>() else { return bad("names no port") };
    let no_more = |rest: &str| host.is_empty() && rest.is_empty();
    match scheme {
        "http" | "https" => {
            let scheme = if scheme == "http" { HttpScheme::Http } else { HttpScheme::Https };
            let path = if path.is_empty() { "/" } else { path }.to_owned();
            let host = (!host.is_empty()).then(|| host.to_owned());
            let http = HttpProbe { path, port, scheme, host, headers: Vec::new() };
            Ok(Probe { http: Some(http), ..Probe::default() })
        }
        "tcp" if no_more(path) => Ok(Probe { tcp: Some(TcpProbe { port }), ..Probe::default() }),
        "grpc" if host.is_empty() => {
            let service = path.trim_start_matches('/').to_owned();
            Ok(Probe { grpc: Some(GrpcProbe { port, service }), ..Probe::default() })
        }
        _ => bad("is no probe"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<String> {
        probe(value).ok().map(|probe| serde_json::to_string(&probe).unwrap())
    }

    #[test]
    fn a_probe_is_written_as_an_address_or_a_command() {
        let cases = [
            ("http://:80", r#"{"http":{"port":80}}"#),
            ("http://web.local:8080/a?b=c", r#"{"http":{"path":"/a?b=c","port":8080,"host":"web.local"}}"#),
            ("https://:443/x", r#"{"http":{"path":"/x","port":443,"scheme":"https"}}"#),
            ("tcp://:5432", r#"{"tcp":{"port":5432}}"#),
            ("grpc://:50051", r#"{"grpc":{"port":50051}}"#),
            ("grpc://:50051/shop.Cart", r#"{"grpc":{"port":50051,"service":"shop.Cart"}}"#),
            ("exec:redis-cli 'ping it'", r#"{"exec":{"command":["redis-cli","ping it"]}}"#),
        ];
        for (value, json) in cases {
            assert_eq!(read(value).as_deref(), Some(json), "{value}");
        }
        for value in
            ["", "http", "http://", "http://web", "http://:x", "tcp://a:1", "tcp://:1/", "udp://:1", "exec:'"]
        {
            assert_eq!(read(value), None, "{value}");
        }
    }

    #[test]
    fn a_dependency_is_on_readiness_unless_said_otherwise() {
        let read = |value: &str| dependency(value).ok().map(|d| (d.app, d.condition));
        assert_eq!(read("db"), Some(("db".to_owned(), DependencyCondition::Ready)));
        assert_eq!(read("job=completed"), Some(("job".to_owned(), DependencyCondition::Completed)));
        assert_eq!(read("job=done"), None);
    }
}
