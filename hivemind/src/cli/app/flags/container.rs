//! The flags of what a container's processes are, see and may take: those of `docker run`, as far as they make sense here.

use std::net::IpAddr;

use clap::Args;
use hivemind_model::{Capabilities, Container, ErrorCode, HostAlias, Memory, Template, Tmpfs, Ulimit};

use super::{Places, Reader, Wrong, wrong};
use crate::cli::units;

/// Flags of the container.
#[derive(Args, Debug)]
#[command(next_help_heading = "The container")]
pub(crate) struct ContainerArgs {
    /// What the image's entrypoint is given instead of what the image says, in words as a shell would split them
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    args: Option<String>,
    /// Who it runs as, by name or number
    #[arg(long, short = 'u', value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// A further group of its processes, by number; may be repeated
    #[arg(long = "group", value_name = "GID")]
    groups: Vec<String>,
    /// The directory in which it starts
    #[arg(long, value_name = "/PATH")]
    workdir: Option<String>,
    /// Let it write nothing but volumes and directories in memory
    #[arg(long)]
    read_only: bool,
    /// A directory in memory; may be repeated
    #[arg(long, value_name = "/PATH[:size=BYTES]")]
    tmpfs: Vec<String>,
    /// How large /dev/shm is: 64Mi, 1Gi
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    shm_size: Option<String>,
    /// Take away something that root may do, for example NET_RAW; ALL for all; may be repeated
    #[arg(long = "cap-drop", value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Let it have one that --cap-drop takes, or that the namespace permits besides, for example NET_ADMIN; may be repeated
    #[arg(long = "cap-add", value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Run it as root of the node in all but name, where the namespace permits it
    #[arg(long)]
    privileged: bool,
    /// What each of its processes may use, for example nofile=1024:4096 or core=0; may be repeated
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    ulimits: Vec<String>,
    /// How many processes and threads it may have at once [default: 4096]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<String>,
    /// The host name that all replicas see, instead of their own names
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// A further name in /etc/hosts; may be repeated
    #[arg(long = "add-host", value_name = "NAME:IP")]
    hosts: Vec<String>,
    /// A setting of the kernel for the replica alone; may be repeated
    #[arg(long = "sysctl", value_name = "NAME=VALUE")]
    sysctls: Vec<String>,
    /// The signal that asks it to end, for example SIGINT [default: the image's, or SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// How long it has to end before it is killed, for example 30s [default: 10s]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    stop_timeout: Option<String>,
}

impl ContainerArgs {
    /// Fills in what the flags say.
    pub(super) fn read(
        &self,
        reader: &mut Reader,
        places: &mut Places,
        container: &mut Container,
        template: &mut Template,
    ) {
        container.args = match &self.args {
            Some(text) => reader.words("--args", text),
            None => Vec::new(),
        };
        container.user.clone_from(&self.user);
        container.groups = reader.each("--group", &self.groups, &mut Vec::new(), group);
        container.working_dir.clone_from(&self.workdir);
        container.read_only = self.read_only;
        container.privileged = self.privileged;
        container.tmpfs = reader.each("--tmpfs", &self.tmpfs, &mut places.tmpfs, tmpfs);
        container.shm_size = reader.quantity("--shm-size", self.shm_size.as_deref());
        container.capabilities = Capabilities { add: self.cap_add.clone(), drop: self.cap_drop.clone() };
        places.cap_add.clone_from(&self.cap_add);
        places.cap_drop.clone_from(&self.cap_drop);
        container.ulimits = reader.each("--ulimit", &self.ulimits, &mut places.ulimits, ulimit);
        container.stop_signal.clone_from(&self.stop_signal);
        container.resources.pids = self.pids_limit.as_deref().and_then(|value| reader.pids(value));
        template.hostname.clone_from(&self.hostname);
        template.host_aliases = reader.each("--add-host", &self.hosts, &mut places.hosts, host);
        template.sysctls = reader.pairs("--sysctl", &self.sysctls, ErrorCode::Malformed);
        template.stop_grace_seconds =
            self.stop_timeout.as_deref().and_then(|value| reader.stop_timeout(value));
    }
}

impl Reader {
    /// Words as a shell would split them.
    pub(super) fn words(&mut self, flag: &str, text: &str) -> Vec<String> {
        let split = match shlex::split(text) {
            Some(words) if !words.is_empty() => Ok(words),
            Some(_) => wrong(
                ErrorCode::Malformed,
                "there is no word",
                "leave the flag out to run what the image says",
            ),
            None => {
                let what = format!("{text:?} ends within a quotation");
                wrong(ErrorCode::Malformed, what, "close the quotation")
            }
        };
        split.unwrap_or_else(|wrong| {
            self.add(flag, wrong);
            Vec::new()
        })
    }

    fn pids(&mut self, value: &str) -> Option<u32> {
        let pids = value.parse().ok();
        if pids.is_none() {
            let message = format!("{value:?} is not a number of processes");
            let hint = "give a whole number, for example 100";
            self.add("--pids-limit", Wrong { code: ErrorCode::OutOfRange, message, hint });
        }
        pids
    }

    fn stop_timeout(&mut self, value: &str) -> Option<u32> {
        let is_none = ["0", "0s"].contains(&value);
        let seconds = units::duration(value).and_then(|time| u32::try_from(time.as_secs()).ok());
        let seconds = if is_none { Some(0) } else { seconds };
        if seconds.is_none() {
            let message = format!("{value:?} is not a time that a process may have to end");
            self.add(
                "--stop-timeout",
                Wrong { code: ErrorCode::OutOfRange, message, hint: "give 0s to 1h, for example 30s" },
            );
        }
        seconds
    }
}

fn group(value: &str) -> Result<u32, Wrong> {
    value.parse().or_else(|_| {
        let what = format!("{value:?} is not the number of a group");
        wrong(ErrorCode::OutOfRange, what, "give a number: names of groups are the image's own")
    })
}

fn tmpfs(value: &str) -> Result<Tmpfs, Wrong> {
    let hint = "write /PATH or /PATH:size=BYTES, for example /tmp:size=64Mi";
    let (path, options) =
        value.split_once(':').map_or((value, None), |(path, options)| (path, Some(options)));
    let size = match options.map(|options| options.strip_prefix("size=")) {
        None => None,
        Some(Some(size)) => match size.parse::<Memory>() {
            Ok(size) => Some(size),
            Err(error) => {
                return wrong(ErrorCode::OutOfRange, error.to_string(), hint);
            }
        },
        Some(None) => {
            return wrong(ErrorCode::InvalidMount, format!("{value:?} is not /PATH[:size=BYTES]"), hint);
        }
    };
    Ok(Tmpfs { path: path.to_owned(), size })
}

fn ulimit(value: &str) -> Result<Ulimit, Wrong> {
    let hint =
        "write NAME=SOFT or NAME=SOFT:HARD, for example nofile=1024:4096; -1 or unlimited for no limit";
    let bad = || wrong(ErrorCode::Malformed, format!("{value:?} is not NAME=SOFT[:HARD]"), hint);
    let Some((name, limits)) = value.split_once('=') else { return bad() };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let limit = |text: &str| match text {
        "-1" | "unlimited" => Some(None),
        text => text.parse::<u64>().ok().map(Some),
    };
    match (limit(soft), limit(hard)) {
        (Some(soft), Some(hard)) => Ok(Ulimit { name: name.to_owned(), soft: soft.or(hard), hard }),
        _ => bad(),
    }
}

fn host(value: &str) -> Result<HostAlias, Wrong> {
    let hint = "write NAME:IP, for example db.example.com:192.0.2.7";
    let Some((name, address)) = value.split_once([':', '=']) else {
        return wrong(ErrorCode::Malformed, format!("{value:?} is not NAME:IP"), hint);
    };
    let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match address.parse::<IpAddr>() {
        Ok(ip) => Ok(HostAlias { ip, hostnames: vec![name.to_owned()] }),
        Err(_) => wrong(ErrorCode::Malformed, format!("{address:?} is not an address"), hint),
    }
}
