//! The reference pages are written from the command line's own definitions; these tests keep them so.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory};

use crate::Program;

/// A page as it should be, against the file: rewritten when `UPDATE_REFERENCE` is set.
fn compare(file: &str, page: &str) {
    let path = format!("{}/../docs/reference/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/reference/{file} is out of date: run this test with UPDATE_REFERENCE=1");
}

/// Help as it is printed, without the parts that depend on the terminal.
fn help(command: &mut Command) -> String {
    let text = command.render_long_help().to_string();
    let lines: Vec<String> = text.lines().map(|line| without_value(line.trim_end())).collect();
    lines.join("\n").trim().to_owned()
}

/// A variable's name without the value that it happens to have.
fn without_value(line: &str) -> String {
    match line.split_once("[env: ").and_then(|(before, rest)| Some((before, rest.split_once('=')?.0))) {
        Some((before, name)) => format!("{before}[env: {name}]"),
        None => line.to_owned(),
    }
}

fn add_commands(page: &mut String, command: &mut Command, depth: usize) {
    let title = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    let _ = write!(page, "\n{} `{title}`\n\n```text\n{}\n```\n", "#".repeat(depth), help(command));
    for sub in command.get_subcommands_mut().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        add_commands(page, sub, (depth + 1).min(4));
    }
}

#[test]
fn the_reference_of_the_command_line_is_what_the_program_says() {
    let mut program = Program::command().term_width(100).disable_help_subcommand(true);
    program.build();
    let mut page = String::from("# Command line\n\nWhat `--help` says of each command.\n");
    add_commands(&mut page, &mut program, 2);
    compare("cli.md", &page);
}

fn row(argument: &Arg) -> Option<String> {
    let flag = argument.get_long()?;
    let variable = argument.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    let help = argument.get_help()?.to_string().replace('\n', " ").replace('|', "\\|");
    let key = if matches!(flag, "config" | "teardown") { String::new() } else { format!("`{flag}`") };
    Some(format!("| `--{flag}` | {variable} | {key} | {help} |\n"))
}

#[test]
fn the_reference_of_the_configuration_is_what_the_program_says() {
    let program = Program::command();
    let daemon = program.find_subcommand("daemon").unwrap();
    let mut page = String::from(
        "# Configuration\n\n\
         The daemon takes each setting from its flag, else from its variable, else from its key in the configuration file\n\
         (TOML; settings that may be repeated are lists there), else from its default. Unknown keys and values out of range are\n\
         errors, all told at once. `--socket` (`HIVEMIND_SOCKET`, key `socket`) names the API's socket for the daemon and for the\n\
         commands that talk to it; the default is `api.sock` in the run directory, `/run/hivemind/api.sock`.\n\n\
         | flag | variable | key | what it sets |\n|---|---|---|---|\n",
    );
    let shown = |argument: &&Arg| argument.get_id() != "help" && !argument.is_hide_set();
    page.extend(daemon.get_arguments().filter(shown).filter_map(row));
    compare("configuration.md", &page);
}
