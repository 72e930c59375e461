//! The file of `--config`: TOML in which every option of the command may stand under its long name.
//!
//! ```text
//! receive-every = "30s"
//! server = ["milepost://hq1:7001", "milepost://hq2:7001"]
//! batch = true
//! ```
//!
//! An option that the command line or the environment gave is not taken from the file. A name the
//! command does not know is refused, with the file's name.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::{Table, Value};

use crate::failure::{Failure, Outcome};

/// The words of a command line together with what the file of its `--config` adds, if it names one; and the options, by
/// long name, that come from there. `words` are program, command, options.
///
/// # Errors
/// Exit 2 when the file cannot be read, is not TOML, or names what the command does not have.
pub fn add_to(command: &Command, words: Vec<OsString>) -> Outcome<(Vec<OsString>, BTreeSet<String>)> {
    // The first look is lenient: what is missing may stand in the file, and what is wrong is told by
    // the second, strict one.
    let lenient = command.clone().ignore_errors(true).try_get_matches_from(&words);
    let Some((name, matches)) = lenient.as_ref().ok().and_then(ArgMatches::subcommand) else {
        return Ok((words, BTreeSet::new()));
    };
    let Ok(Some(path)) = matches.try_get_one::<PathBuf>("config") else {
        return Ok((words, BTreeSet::new()));
    };
    let Some(known) = command.find_subcommand(name) else {
        return Ok((words, BTreeSet::new()));
    };
    let (mut added, mut names) = (Vec::new(), BTreeSet::new());
    for (key, value) in read(path)? {
        let long = key.replace('_', "-");
        let argument = known
            .get_arguments()
            .find(|argument| argument.get_long() == Some(&long));
        let argument = argument
            .filter(|argument| argument.get_id() != "config")
            .ok_or_else(|| refuse(path, &format!("{key:?} is not an option of `milepost {name}`")))?;
        let spelled = spell(argument, &long, &value).map_err(|reason| refuse(path, &reason))?;
        let given = matches.value_source(argument.get_id().as_str());
        if !matches!(given, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            added.extend(spelled);
            names.insert(long);
        }
    }
    let mut words = words;
    let behind_command = words.len().min(2);
    words.splice(
        behind_command..behind_command,
        added.into_iter().map(OsString::from),
    );
    Ok((words, names))
}

fn read(path: &Path) -> Outcome<Table> {
    let text = std::fs::read_to_string(path).map_err(|error| refuse(path, &error.to_string()))?;
    text.parse::<Table>()
        .map_err(|error| refuse(path, error.to_string().trim_end()))
}

fn refuse(path: &Path, reason: &str) -> Failure {
    Failure::usage(format!("configuration file {}: {reason}", path.display()))
}

/// The words that say the same as a line of the file.
fn spell(argument: &Arg, long: &str, value: &Value) -> Result<Vec<String>, String> {
    match (argument.get_action(), value) {
        (ArgAction::SetTrue, Value::Boolean(on)) => Ok(if *on {
            vec![format!("--{long}")]
        } else {
            Vec::new()
        }),
        (ArgAction::Count, Value::Integer(times @ 0..=9)) => {
            Ok((0..*times).map(|_| format!("--{long}")).collect())
        }
        (ArgAction::Append, Value::Array(values)) => values.iter().map(|value| one(long, value)).collect(),
        (ArgAction::Set, Value::Boolean(true))
            if argument.get_num_args().is_some_and(|n| n.min_values() == 0) =>
        {
            Ok(vec![format!("--{long}")])
        }
        (ArgAction::Set | ArgAction::Append, value) => Ok(vec![one(long, value)?]),
        _ => Err(format!("{long:?} does not take {}", value.type_str())),
    }
}

fn one(long: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(format!("--{long}={text}")),
        Value::Integer(number) => Ok(format!("--{long}={number}")),
        other => Err(format!("{long:?} does not take {}", other.type_str())),
    }
}
