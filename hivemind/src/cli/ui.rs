//! `ui`: opens the dashboard.

mod page;

use std::{os::unix::process::CommandExt, process::Command, process::ExitCode, process::Stdio};

use clap::Args;
use hivemind_model::LoginCode;
use nix::unistd::{Gid, Uid, User};

use super::{
    Session,
    fault::Outcome,
    output::{self, note},
};

/// Flags of `ui`.
#[derive(Args, Debug)]
#[command(
    after_help = "The address holds a code that lets one browser in, once, within a minute; it stands behind the '#', which \
browsers do not send, and other users of the machine do not see it. On a machine without a desktop the address is printed; from elsewhere, forward the port \
(ssh -L 4483:127.0.0.1:4483 NODE), and run hivemind ui --print on the node.

Examples:
  hivemind ui
  hivemind ui --print
  hivemind --context prod ui"
)]
pub(crate) struct UiArgs {
    /// Print the address, and open nothing
    #[arg(long)]
    print: bool,
}

impl UiArgs {
    /// Asks for a code and opens the dashboard with it.
    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        let code = session.client.login_code().await?;
        let url = address(&code, session.remote.then(|| session.client.server()).as_deref());
        if self.print {
            output::print(&format!("{url}\n"))?;
        } else if let Err(why) = open(&url) {
            note(&format!("{why}; open this within a minute:"));
            output::print(&format!("{url}\n"))?;
        } else {
            note("the dashboard opens in the browser; if it does not: hivemind ui --print");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Where the dashboard is: under the address by which the daemon is reached from here, if that is known.
fn address(code: &LoginCode, server: Option<&str>) -> String {
    match (server, code.url.split_once('#')) {
        (Some(server), Some((_, fragment))) => format!("{}/#{fragment}", server.trim_end_matches('/')),
        _ => code.url.clone(),
    }
}

/// Opens `url` in the user's browser, without showing it to the machine's other users; why not if that cannot be.
fn open(url: &str) -> Result<(), String> {
    let has = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !has("DISPLAY") && !has("WAYLAND_DISPLAY") {
        return Err("there is no desktop here".to_owned());
    }
    let mut command = Command::new("xdg-open");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut owner = (Uid::effective(), Gid::effective());
    // A browser of root's would have another profile, and should not run at all.
    match invoking_user() {
        Some(user) => {
            owner = (user.uid, user.gid);
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw()).env("HOME", &user.dir);
            command.env("USER", &user.name).env("XDG_RUNTIME_DIR", format!("/run/user/{}", user.uid));
            let bus = format!("unix:path=/run/user/{}/bus", user.uid);
            command.env("DBUS_SESSION_BUS_ADDRESS", bus);
        }
        None if Uid::effective().is_root() => return Err("root has no browser".to_owned()),
        None => {}
    }
    let directory = page::runtime_dir(owner.0);
    let page = page::write(&directory, owner, url).map_err(|error| {
        format!("there is no private place for the browser ({}: {error})", directory.display())
    })?;
    command.arg(page);
    // It ends as soon as it has told the browser; its success is all that can be known.
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("no browser could be opened (xdg-open: {status})")),
        Err(error) => Err(format!("no browser could be opened (xdg-open: {error})")),
    }
}

/// Who called sudo, if that is how root came to run this.
fn invoking_user() -> Option<User> {
    if !Uid::effective().is_root() {
        return None;
    }
    let number: u32 = std::env::var("SUDO_UID").ok()?.parse().ok()?;
    User::from_uid(Uid::from_raw(number)).ok().flatten().filter(|user| !user.uid.is_root())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_used_where_the_daemon_is_reached() {
        let code = LoginCode {
            code: "c0de".into(),
            url: "http://127.0.0.1:4483/#code=c0de".into(),
            expires_at: jiff::Timestamp::UNIX_EPOCH,
        };
        assert_eq!(address(&code, None), "http://127.0.0.1:4483/#code=c0de");
        assert_eq!(address(&code, Some("https://node-1:4483/")), "https://node-1:4483/#code=c0de");
    }
}
