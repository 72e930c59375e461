//! `--show-options`: what is in force, and who said so: the command line, the environment, a file, or nobody.

use std::collections::BTreeSet;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use serde::Serialize;

use crate::failure::Outcome;
use crate::output;

/// Options that ask for this list.
const ABOUT_ITSELF: [&str; 2] = ["show-options", "json"];

/// One option of a command as it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Given {
    /// Its long name.
    pub option: String,
    /// Its value as it was spelled; several separated by commas; empty for one that is not given and has no default.
    pub value: String,
    /// Who gave it: `command line`, `environment`, `file` or `default`.
    pub from: &'static str,
}

/// Options of `command` as they were found in its `matches`; those that a configuration file gave are named.
pub fn given(command: &Command, matches: &ArgMatches, from_file: &BTreeSet<String>) -> Vec<Given> {
    let options = command.get_arguments().filter_map(|argument| {
        let id = argument.get_id().as_str();
        let option = argument.get_long().filter(|long| !ABOUT_ITSELF.contains(long))?;
        let from = match matches.value_source(id) {
            _ if from_file.contains(option) => "file",
            Some(ValueSource::CommandLine) => "command line",
            Some(ValueSource::EnvVariable) => "environment",
            _ => "default",
        };
        let counted = matches.try_get_one::<u8>(id).ok().flatten();
        let spelled = || {
            let values = matches.get_raw(id).into_iter().flatten();
            values
                .map(|value| value.to_string_lossy())
                .collect::<Vec<_>>()
                .join(",")
        };
        Some(Given {
            option: option.to_owned(),
            value: counted.map_or_else(spelled, ToString::to_string),
            from,
        })
    });
    options.collect()
}

/// Prints them.
///
/// # Errors
/// Exit 1 when standard output cannot be written.
pub fn show(given: &[Given], json: bool) -> Outcome {
    let width = given.iter().map(|one| one.option.len()).max().unwrap_or_default();
    let text = |one: &Given| format!("--{:width$}  {:12}  {}", one.option, one.value, one.from);
    output::list(json, given.iter(), text).map(|_| ())
}
