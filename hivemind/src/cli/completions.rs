//! `completions`.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use super::{fault::Outcome, output};

/// Flags of `completions`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hivemind completions bash | sudo tee /usr/share/bash-completion/completions/hivemind >/dev/null
  hivemind completions zsh > ~/.zfunc/_hivemind
  hivemind completions fish > ~/.config/fish/completions/hivemind.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionsArgs {
    /// Prints the script that completes `program`.
    pub(crate) fn run(&self, mut program: clap::Command) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, "hivemind", &mut script);
        output::print(&String::from_utf8_lossy(&script))?;
        Ok(ExitCode::SUCCESS)
    }
}
