//! From the words of a command line to a [`Command`].
//!
//! ```text
//! words ─► historic spellings (agent) ─► options of --config FILE ─► parser, with MILEPOST_* ─► Command
//! ```
//!
//! Precedence: command line, then environment `MILEPOST_*`, then the file of `--config`.

mod file;
mod historic;
pub mod keep;
pub mod moment;
pub mod pause;
pub mod size;
pub mod start;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::commands::Command;
use crate::commands::agent::origins;
use crate::failure::{EXIT_CODES, Failure, Outcome};

/// Milepost: an event-sourced store whose log replicates itself.
#[derive(Parser)]
#[command(
    name = "milepost",
    version,
    about = "Milepost: an event-sourced store whose log replicates itself",
    after_help = "Begin with `milepost demo`, or by hand:\n  \
        milepost init shop --site shop1\n  \
        milepost append shop orders/7 --kind placed --data '{\"articles\":3}'\n  \
        milepost read shop orders/7",
    after_long_help = EXIT_CODES,
    max_term_width = 110
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// All commands and options, for what is made of them.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Reads a command line. Help and version are printed, and wrong usage is told, by the parser itself.
///
/// # Errors
/// Exit 2 for an address or a configuration file that cannot be used.
pub fn parse(words: impl Iterator<Item = OsString>) -> Outcome<Command> {
    let mut words: Vec<OsString> = words.collect();
    if words.get(1).is_some_and(|command| command == "agent") {
        let options = words.split_off(2);
        words.extend(historic::translate(options).map_err(Failure::usage)?);
    }
    let definition = Cli::command();
    let (words, from_file) = file::add_to(&definition, words)?;
    let matches = definition.clone().get_matches_from(words);
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| Failure::usage(error.to_string()))?;
    if let (Command::Agent(agent), Some((name, of_agent))) = (&mut cli.command, matches.subcommand())
        && let Some(defined) = definition.find_subcommand(name)
    {
        agent.given = origins::given(defined, of_agent, &from_file);
    }
    Ok(cli.command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_of_all_commands_agree_with_each_other() {
        Cli::command().debug_assert();
    }
}
