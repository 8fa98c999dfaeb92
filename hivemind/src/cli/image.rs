//! `image`: what containers are made of.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    pin::Pin,
    process::ExitCode,
    task::{Context, Poll},
};

use clap::{Args, Subcommand};
use hivemind_model::{ErrorCode, ImageSummary};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    Session,
    fault::{Failure, Outcome, fault},
    output::{self, Format, FormatArgs},
    table::Table,
    units::size,
};

/// Of a digest, `sha256:` and this many digits tell images apart.
const DIGEST_SHOWN: usize = "sha256:".len() + 12;

/// Commands on images.
#[derive(Subcommand, Debug)]
pub(crate) enum ImageCommand {
    /// List the images on the machine
    #[command(visible_alias = "list")]
    Ls(FormatArgs),
    /// Bring the images of an archive onto the machine
    #[command(after_help = "The archive is a tar in the OCI layout or as `docker save` writes it.

Examples:
  hivemind image import nginx.tar
  docker save nginx:latest | hivemind image import -
  hivemind app deploy web --image nginx:latest")]
    Import(ImportArgs),
}

/// Flags of `image import`.
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// The archive; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: FormatArgs,
}

impl ImageCommand {
    pub(crate) fn format(&self) -> Format {
        match self {
            ImageCommand::Ls(output) => output.format,
            ImageCommand::Import(args) => args.output.format,
        }
    }

    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        match self {
            ImageCommand::Ls(output) => {
                let images = session.client.images().await?;
                output::print(&list(&images, output.format)?)?;
            }
            ImageCommand::Import(args) => import(session, args).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(images: &[ImageSummary], format: Format) -> Result<String, Failure> {
    match format {
        Format::Json => output::json(&json!({ "items": images })),
        Format::Yaml => output::yaml(&json!({ "items": images })),
        Format::Name => Ok(images.iter().map(|i| format!("image/{}\n", i.reference)).collect()),
        Format::Table | Format::Wide => {
            let mut table = Table::new(["IMAGE", "DIGEST", "SIZE"]);
            for image in images {
                let shown = if format == Format::Wide { usize::MAX } else { DIGEST_SHOWN };
                let digest = image.digest.chars().take(shown).collect();
                table.row(vec![image.reference.clone(), digest, size(image.size_bytes)]);
            }
            Ok(table.render())
        }
    }
}

async fn import(session: &Session, args: &ImportArgs) -> Result<(), Failure> {
    let bar = ProgressBar::hidden();
    let result = if args.file.as_os_str() == "-" {
        show(&bar, None);
        session.client.import(Counted { inner: tokio::io::stdin(), bar: bar.clone() }).await
    } else {
        let unreadable = |e: io::Error| {
            fault(
                ErrorCode::FileFailed,
                format!("{} cannot be read: {e}", args.file.display()),
                "give the path of a tar that `docker save` or another tool wrote",
            )
        };
        let file = tokio::fs::File::open(&args.file).await.map_err(unreadable)?;
        let meta = file.metadata().await.map_err(unreadable)?;
        if meta.is_dir() {
            return Err(unreadable(io::ErrorKind::IsADirectory.into()));
        }
        show(&bar, Some(meta.len()));
        session.client.import(Counted { inner: file, bar: bar.clone() }).await
    };
    bar.finish_and_clear();
    let result = result?;
    output::print(&match args.output.format {
        Format::Json => output::json(&result)?,
        Format::Yaml => output::yaml(&result)?,
        Format::Name => result.references.iter().map(|r| format!("image/{r}\n")).collect(),
        Format::Table | Format::Wide => result.references.iter().map(|r| format!("imported {r}\n")).collect(),
    })
}

/// Draws `bar` on a terminal, of `total` bytes if they are known.
fn show(bar: &ProgressBar, total: Option<u64>) {
    if !io::stderr().is_terminal() {
        return;
    }
    let template = match total {
        Some(total) => {
            bar.set_length(total);
            "sending {bytes}/{total_bytes} {wide_bar}"
        }
        None => "sending {bytes}",
    };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
}

/// Moves a bar on by what is read.
struct Counted<R> {
    inner: R,
    bar: ProgressBar,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.bar.inc((buffer.filled().len() - before) as u64);
        poll
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_listed_with_the_beginning_of_their_digest() {
        let image = ImageSummary {
            reference: "docker.io/library/nginx:latest".into(),
            digest: format!("sha256:{}", "ab".repeat(32)),
            size_bytes: 13_100_000,
        };
        assert_eq!(
            list(std::slice::from_ref(&image), Format::Table).unwrap(),
            "IMAGE                            DIGEST                SIZE\n\
             docker.io/library/nginx:latest   sha256:abababababab   13.1 MB\n"
        );
        assert!(list(std::slice::from_ref(&image), Format::Wide).unwrap().contains(&image.digest));
        assert_eq!(list(&[image], Format::Name).unwrap(), "image/docker.io/library/nginx:latest\n");
    }
}
