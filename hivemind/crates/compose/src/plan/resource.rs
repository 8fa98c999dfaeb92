//! What containers may take.

use hivemind_model::{Container, Cpu, ErrorCode, Memory};

use crate::{
    plan::{Planner, app::CONTAINER, origin::Origins},
    service::Service,
    spot::{Located, Spot},
    value::{Duration, Limit, Scalar},
};

/// As many processes as the kernel has numbers for.
const PIDS_UNLIMITED: u32 = 4_194_304;

/// How long a period is if nothing is said, in microseconds.
const PERIOD_US: u64 = 100_000;

impl Planner<'_> {
    pub(super) fn resources(&mut self, service: &Service, container: &mut Container, origins: &mut Origins) {
        let deploy = service.deploy.as_ref().and_then(|deploy| deploy.resources.as_ref());
        let limits = deploy.and_then(|resources| resources.limits.as_ref());
        if let Some(memory) = service.mem_limit.as_ref().or(limits.and_then(|limits| limits.memory.as_ref()))
        {
            origins.note(format!("{CONTAINER}.resources.memory"), &memory.spot);
            // Zero is no limit.
            container.resources.memory = Memory::from_bytes(memory.value.0);
        }
        if let Some(pids) = service.pids_limit.as_ref().or(limits.and_then(|limits| limits.pids.as_ref())) {
            origins.note(format!("{CONTAINER}.resources.pids"), &pids.spot);
            container.resources.pids = Some(match pids.value {
                Limit::Most(pids) if *pids > 0 => u32::try_from(*pids).unwrap_or(u32::MAX),
                Limit::Most(_) | Limit::Unlimited => PIDS_UNLIMITED,
            });
        }
        let cpus = service.cpus.as_ref().or(limits.and_then(|limits| limits.cpus.as_ref()));
        let millionths = match cpus {
            Some(cpus) => Some((cpus.value.0, &cpus.spot)),
            None => self.quota(service),
        };
        if let Some((millionths, spot)) = millionths.filter(|(millionths, _)| *millionths > 0) {
            // What is finer than a thousandth is rounded up: nothing would be less than nothing.
            let thousandths = u32::try_from(millionths.div_ceil(1_000)).ok();
            container.resources.cpu = thousandths.and_then(Cpu::from_millicores);
            origins.note(format!("{CONTAINER}.resources.cpu"), spot);
        }
    }

    /// The processors that a quota of a period comes to, in millionths.
    fn quota<'s>(&mut self, service: &'s Service) -> Option<(u64, &'s Spot)> {
        let quota = service.cpu_quota.as_ref()?;
        let Limit::Most(microseconds) = quota.value else { return None };
        let period = match &service.cpu_period {
            Some(period) => self.microseconds(period)?,
            None => PERIOD_US,
        };
        let microseconds = u64::try_from(*microseconds).ok()?;
        Some((microseconds.saturating_mul(1_000_000) / period, &quota.spot))
    }

    fn microseconds(&mut self, period: &Located<Scalar>) -> Option<u64> {
        let number = period.parse::<u64>().ok();
        let length = Duration::parse(period).and_then(|length| u64::try_from(length.0.as_micros()).ok());
        let microseconds = number.or(length).filter(|microseconds| *microseconds > 0);
        if microseconds.is_none() {
            let message = format!("{:?} is not a period", period.value.0);
            let hint = "write microseconds, or a length of time such as 100ms";
            self.fault(&period.spot, ErrorCode::OutOfRange, message, hint);
        }
        microseconds
    }
}
