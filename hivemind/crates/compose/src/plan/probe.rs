//! From a service's check of health to its container's probe.
//!
//! In Compose a container that is not well is told to be so, and those that wait for it wait; it is not restarted. That is what a
//! readiness probe does.

use hivemind_model::{Container, ExecProbe, Probe, Seconds};

use crate::{
    command::{HealthTest, Healthcheck},
    plan::{Planner, app::CONTAINER, origin::Origins},
    service::Service,
    spot::Located,
    value::Duration,
};

/// What Docker takes where nothing is said, in milliseconds.
const USUAL_MS: u32 = 30_000;

impl Planner<'_> {
    pub(super) fn probes(&mut self, service: &Service, container: &mut Container, origins: &mut Origins) {
        let Some(check) = &service.healthcheck else { return };
        if check.disable.as_ref().is_some_and(|disable| disable.value) {
            return;
        }
        let command = match check.test.as_ref().map(|test| &test.value) {
            Some(HealthTest::None) => return,
            Some(HealthTest::Command(words)) => words.clone(),
            Some(HealthTest::Shell(text)) => ["/bin/sh", "-c", text].map(str::to_owned).to_vec(),
            None => {
                let why = "the image's own check is not run";
                self.warn(&check.spot, why, "say the test, or leave the rest out");
                return;
            }
        };
        container.readiness_probe = Some(self.probe(check, command, origins));
    }

    fn probe(&mut self, check: &Located<Healthcheck>, command: Vec<String>, origins: &mut Origins) -> Probe {
        let field = format!("{CONTAINER}.readinessProbe");
        origins.note(field.as_str(), &check.spot);
        let noted = [
            ("exec", check.test.as_ref().map(|test| &test.spot)),
            ("periodSeconds", check.interval.as_ref().map(|interval| &interval.spot)),
            ("timeoutSeconds", check.timeout.as_ref().map(|timeout| &timeout.spot)),
            ("failureThreshold", check.retries.as_ref().map(|retries| &retries.spot)),
        ];
        for (name, spot) in noted {
            if let Some(spot) = spot {
                origins.note(format!("{field}.{name}"), spot);
            }
        }
        if let Some(interval) = &check.start_interval {
            let why = "a container is asked as often at first as later";
            self.warn(&interval.spot.of_key(), why, "make interval shorter, if it matters");
        }
        let retries = check.retries.as_ref().map(|retries| *retries.value).filter(|retries| *retries > 0);
        Probe {
            exec: Some(ExecProbe { command }),
            period_seconds: Some(seconds(check.interval.as_ref())),
            timeout_seconds: Some(seconds(check.timeout.as_ref())),
            failure_threshold: retries.and_then(|retries| u32::try_from(retries).ok()),
            ..Probe::default()
        }
    }
}

/// Nothing said and zero are the same.
fn seconds(duration: Option<&Located<Duration>>) -> Seconds {
    let millis = duration.map_or(0, |duration| duration.value.0.as_millis());
    match u32::try_from(millis) {
        Ok(0) => Seconds::from_millis(USUAL_MS),
        Ok(millis) => Seconds::from_millis(millis),
        Err(_) => Seconds::from_millis(u32::MAX),
    }
}
