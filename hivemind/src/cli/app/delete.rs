//! `app delete`.

use std::collections::BTreeMap;

use clap::Args;
use hivemind_model::Problems;

use super::{flags, follow::until_gone};
use crate::cli::{NamesArgs, Session, fault::Failure, output};

/// Flags of `app delete`.
#[derive(Args, Debug)]
#[command(after_help = "Volumes stay; delete them by hivemind volume delete.

Examples:
  hivemind app delete web-app
  hivemind app delete $(hivemind app ls -o name)")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    names: NamesArgs,
    /// Do not wait until they are gone
    #[arg(long, short = 'd')]
    detach: bool,
    /// How long to wait until they are gone
    #[arg(long, value_name = "TIME", default_value = "2m", allow_hyphen_values = true)]
    timeout: String,
}

pub(crate) async fn run(session: &Session, args: &DeleteArgs) -> Result<(), Failure> {
    let limit = flags::timeout(&args.timeout).map_err(|p| {
        let mut problems = Problems::default();
        problems.add(p.code, p.field, p.message, p.hint);
        problems.into_result().err().map_or(Failure::Interrupted, Failure::from)
    })?;
    // All names are looked up first: one that is wrong keeps the others from being deleted.
    let mut apps = BTreeMap::new();
    for word in args.names.get() {
        let app = session.app(word.strip_prefix("app/").unwrap_or(word)).await?;
        apps.insert(app.metadata.uid, app.metadata.name);
    }
    for name in apps.values() {
        session.client.delete_app(&session.namespace, name).await?;
    }
    if args.detach {
        for name in apps.values() {
            output::print(&format!("app/{name} is being deleted\n"))?;
        }
        return Ok(());
    }
    let tell = |name: &str| output::print(&format!("app/{name} deleted\n"));
    until_gone(&session.client, &session.namespace, apps, limit, tell).await
}
