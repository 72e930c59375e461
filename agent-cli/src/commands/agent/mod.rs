//! `milepost agent`: the Message Agent's phases, in historic and in long spelling.

mod options;
pub mod origins;

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use milepost_replication::agent::{Stop, run_with};

use super::leaving;
use super::log_output::LogOutput;
use super::store_dir::StoreDir;
use crate::failure::{EXIT_CODES, Exit, Failure, Outcome};
use crate::hook::HookArgs;
use origins::Given;

/// Run phases of the Message Agent on a store: receive, scan, send.
///
/// Receive applies what neighbours sent, scan moves commits that a remote is due into the stable queue,
/// send builds messages and hands them to the links. Without -r -i -s all three run, else those given;
/// each may run as a process of its own, started in any order. A second process for a phase that runs is
/// refused with exit 3, naming the holder.
///
/// SIGINT and SIGTERM finish the transaction in hand and leave cleanly; a second one leaves at once. Both
/// lose nothing.
///
/// Every option may stand in the environment as MILEPOST_ and its long name in capitals (an option
/// repeated: separated by commas), and in the TOML file of --config under its long name. The command line
/// wins, then the environment, then the file. Times: a bare number is minutes where it says so, else
/// 30s 5m 2h 1d. Sizes take K, M and G.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost agent shop1 -b\n  milepost agent hq -i -rd 30s -o scan.log -os 10M\n  \
     milepost agent shop1 -x 'tcpip(host=127.0.0.1;port=7001)' -x 'tcpip(host=127.0.0.1;port=7002)' -fr 3 -fd 2\n  \
     milepost agent shop1 --config agent.toml\n  milepost agent hq --send-now shop1\n\n\
     Historic spellings of several letters: -ot (--log-truncate --log), -os (--log-roll), -rd (--receive-every),\n\
     -rp (--patience), -ru (--urgency), -sd (--send-every), -fr (--primary-retries), -fd (--primary-retry-delay),\n\
     -x ADDRESS (--server), -x [N] (--rotate).\n\n{EXIT_CODES}"
))]
pub struct Agent {
    #[command(flatten)]
    store: StoreDir,
    #[command(flatten)]
    run: options::RunArgs,
    #[command(flatten)]
    hook: HookOption,
    #[command(flatten)]
    log: LogOutput,
    #[command(flatten)]
    itself: ItselfArgs,
    /// Every option that is in force, and who said so.
    #[arg(skip)]
    pub given: Vec<Given>,
}

/// The program that is told and asked.
#[derive(Args)]
#[command(next_help_heading = "Hooks")]
struct HookOption {
    #[command(flatten)]
    program: HookArgs,
}

/// About the process and its options.
#[derive(Args)]
#[command(next_help_heading = "This process")]
struct ItselfArgs {
    /// TOML file with options under their long names
    #[arg(short = 'c', long, value_name = "FILE", env = "MILEPOST_CONFIG")]
    config: Option<PathBuf>,
    /// Leave when standard input ends: for a program that starts this one and must not leave it behind
    #[arg(long, env = "MILEPOST_WITH_STDIN", value_parser = FalseyValueParser::new())]
    with_stdin: bool,
    /// Print every option that is in force, its value and who said so, and leave
    #[arg(long)]
    show_options: bool,
    /// With --show-options: one JSON object a line: option, value, from
    #[arg(long, requires = "show_options")]
    json: bool,
}

impl Agent {
    /// Runs the phases until their end, a signal, or a failure.
    pub fn run(self) -> Outcome {
        if self.itself.show_options {
            return origins::show(&self.given, self.itself.json);
        }
        let options = self.run.options();
        options
            .check()
            .map_err(|error| Failure::usage(error.to_string()))?;
        self.log.begin()?;
        let store = self.store.open_site()?;
        let stop = Stop::new();
        let asked = stop.clone();
        leaving::when_asked(self.itself.with_stdin, move || asked.request())?;
        let hooks = self.hook.program.start(store.site())?;
        let end = run_with(store, &options, hooks, &stop);
        let text = end.message.unwrap_or_default();
        match end.code.number() {
            0 => Ok(()),
            2 => Err(Failure::usage(text)),
            3 => Err(Failure::new(Exit::Held, text)),
            4 => Err(Failure::new(Exit::NoServer, text)),
            5 => Err(Failure::new(Exit::Quarantine, text)),
            6 => Err(Failure::new(Exit::Damaged, text)),
            _ => Err(Failure::failed(text)),
        }
    }
}
