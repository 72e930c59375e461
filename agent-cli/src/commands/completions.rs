//! `milepost completions`: what a shell needs to complete our commands and options.

use clap::Args;
use clap_complete::Shell;

use crate::arguments;
use crate::failure::Outcome;
use crate::output;

/// Print a script with which a shell completes commands and options
///
/// For bash: `milepost completions bash > ~/.local/share/bash-completion/completions/milepost`, and a new
/// shell. For zsh: a file `_milepost` in a folder of $fpath. For fish: `~/.config/fish/completions/milepost.fish`.
/// The agent's historic spellings of several letters (-rd, -fr and others) are not completed; their long ones are.
#[derive(Args)]
#[command(
    after_long_help = "Examples:\n  milepost completions bash > ~/.local/share/bash-completion/completions/milepost\n  \
     milepost completions zsh > ~/.zfunc/_milepost\n  \
     milepost completions fish > ~/.config/fish/completions/milepost.fish"
)]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub fn run(self) -> Outcome {
        let (mut definition, mut script) = (arguments::definition(), Vec::new());
        clap_complete::generate(self.shell, &mut definition, "milepost", &mut script);
        output::bytes(&script)
    }
}
