//! Hivemind: runs containers on one Linux machine or many, built from the network up.
//!
//! One program is the daemon ([`daemon`]) and the command line ([`cli`]).

mod cli;
mod daemon;
#[cfg(test)]
mod reference;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use hivemind_runtime::logs::{COLLECTOR_COMMAND, collector_main};

/// Runs containers on one Linux machine or many, built from the network up.
#[derive(Parser, Debug)]
#[command(
    name = "hivemind",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Examples:
  sudo hivemind doctor                                          what the machine lacks
  sudo hivemind daemon                                          run the daemon
  hivemind app deploy --image nginx:latest --name web-app --service web.local
  hivemind app scale --name web-app --replicas 3
  hivemind app info --name web-app
  hivemind policy apply -f rules.yaml                           who may speak to whom
  hivemind flows --follow                                       who speaks to whom
  hivemind ui                                                   the dashboard
  hivemind node token create                                    let another machine join

Exit codes:
  0 done               1 a fault of Hivemind      2 wrong input     3 no such thing
  4 conflict           5 image or container       6 the machine lacks something
  7 no daemon          8 timed out                9 not allowed     130 Ctrl-C"
)]
struct Program {
    #[command(flatten)]
    global: cli::GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the daemon
    Daemon(Box<daemon::DaemonArgs>),
    #[command(flatten)]
    Client(cli::Command),
}

fn main() -> ExitCode {
    // The log process is started by the daemon, not by people, and stays small: nothing else is set up for it.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == COLLECTOR_COMMAND) {
        return match collector_main(words) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let matches = Program::command().get_matches();
    let Program { mut global, command } = Program::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    global.given = cli::Given::of(&matches);
    match command {
        Command::Daemon(mut args) => {
            args.socket = global.socket;
            daemon::run(*args)
        }
        Command::Client(command) => cli::run(command, global, Program::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Program::command().debug_assert();
    }

    #[test]
    fn the_commands_that_people_know_are_understood() {
        for line in [
            "hivemind daemon --web-port 3000",
            "hivemind app deploy --image nginx:latest --name web-app --service web.local",
            "hivemind app scale --name web-app --replicas 3",
            "hivemind app info --name web-app",
            "hivemind app deploy --image prom/prometheus:v2.30.3 --name prometheus --volume prometheus-config:/etc/prometheus --port 9090:9090",
            "hivemind --socket /tmp/s app ls -A -o wide --watch",
            "hivemind app ls -n shop --socket /tmp/s",
            "hivemind app exec web-app -it -- sh -c ls",
            "hivemind app exec -it --name web-app --replica web-app-k3f9q -- sh",
            "hivemind app logs web-app -f --tail 10 --timestamps",
            "hivemind app delete a b c",
            "hivemind policy apply -f rules.yaml",
            "hivemind policy apply -f a.yaml -f dir -f - --dry-run -n shop -o json --no-wait",
            "hivemind policy ls -A -o wide",
            "hivemind policy get only-client -o yaml",
            "hivemind policy delete a b",
            "hivemind namespace label shop tier=front old-",
            "hivemind flows -f --from web --to 10.0.0.0/8 --verdict denied --tail 5 -o json",
            "hivemind flows --tail 5 -o wide",
            "hivemind app deploy train --image train:1 --node-selector gpu=a100 --toleration gpu=true --toleration *",
            "hivemind daemon --join 192.168.1.11 --token @join.token",
            "hivemind node ls -o wide --watch",
            "hivemind node info node-2 -o yaml",
            "hivemind node token create",
            "hivemind node token create --uses 10 --expires 1h -o json",
            "hivemind node token ls -o wide",
            "hivemind node token delete a b",
            "hivemind node label node-2 zone=west disk-",
            "hivemind node taint node-2 gpu=true:NoSchedule old:PreferNoSchedule- older-",
            "hivemind node cordon node-2 node-3",
            "hivemind node uncordon --name node-2",
            "hivemind node drain node-2 --timeout 1h",
            "hivemind node drain node-2 --no-wait",
            "hivemind node leave --force",
            "hivemind node remove node-2 --force",
            "hivemind cluster status -o yaml",
            "hivemind scheduler explain web-app -n shop -o json",
            "hivemind token create ci --role read-only --expires 30d",
            "hivemind token revoke ci",
            "hivemind ui --print",
            "hivemind context add prod --server https://node-1:4483 --token-file - --ca-file ca.pem",
            "hivemind --context prod app ls",
            "hivemind completions bash",
        ] {
            if let Err(error) = Program::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_stands_in_the_command_line_is_told_from_what_a_variable_says() {
        let given = |line: &str| cli::Given::of(&Program::command().get_matches_from(line.split(' ')));
        let after = given("hivemind app ls -n shop --socket /tmp/s");
        assert!(after.namespace && after.socket && !after.context);
        let before = given("hivemind --context prod app ls");
        assert!(!before.namespace && !before.socket && before.context);
    }

    #[test]
    fn a_name_is_needed_and_given_once() {
        for line in ["hivemind app info", "hivemind app info a --name b", "hivemind app delete"] {
            assert!(Program::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
