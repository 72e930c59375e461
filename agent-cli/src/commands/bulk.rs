//! `--file`: many remotes or subscriptions, a JSON object a line, made in one go.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use milepost_engine::{Error, Lsn, Store};
use milepost_replication::catalog::{
    AtLimit, Definitions, NewDefinition, NewRemote, NewSubscription, OnError, RemoteLimits, Schedule, Start,
};
use milepost_replication::endpoint::LinkAddress;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::remote::{refuse_mixed, time_of_day};
use crate::arguments::pause;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Longest line, in bytes.
const LONGEST: usize = 64 << 10;

#[derive(Serialize)]
struct Facts {
    made: usize,
    there: usize,
}

/// A remote, as options name it, or as `remote list --json` prints it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoteLine {
    site: String,
    links: Vec<String>,
    schedule: Option<Schedule>,
    send_every: Option<String>,
    send_at: Option<String>,
    #[serde(default)]
    consolidated: bool,
    #[serde(default)]
    on_error: OnError,
    limit_bytes: Option<u64>,
    limit_age: Option<u64>,
    #[serde(default)]
    at_limit: AtLimit,
    /// What another store says of it counts there.
    #[serde(rename = "since")]
    _since: Option<IgnoredAny>,
    #[serde(rename = "added")]
    _added: Option<IgnoredAny>,
    #[serde(rename = "generation")]
    _generation: Option<IgnoredAny>,
}

/// A subscription.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscriptionLine {
    remote: String,
    publication: String,
    value: Option<String>,
    start: Option<StartLine>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum StartLine {
    At(u64),
    Word(String),
}

/// Makes the remotes of a file, or of standard input.
pub fn remotes(store: &Store, file: &Path, json: bool) -> Outcome {
    add(store, file, json, |line: RemoteLine| {
        let schedule = match (line.schedule, line.send_every, line.send_at) {
            (schedule, None, None) => schedule.unwrap_or_default(),
            (None, Some(every), None) => Schedule::EverySeconds(pause::minutes(&every)?.as_secs()),
            (None, None, Some(at)) => Schedule::AtMinute(time_of_day(&at)?),
            _ => return Err("give one of schedule, send_every and send_at".to_owned()),
        };
        let links = line.links.iter().map(|link| link.parse::<LinkAddress>());
        let links: Vec<LinkAddress> = links.collect::<Result<_, _>>().map_err(text)?;
        refuse_mixed(&links)?;
        Ok(NewDefinition::Remote(NewRemote {
            site: line.site.parse().map_err(text)?,
            links: links.iter().map(ToString::to_string).collect(),
            schedule,
            consolidated: line.consolidated,
            on_error: line.on_error,
            limits: RemoteLimits {
                bytes: line.limit_bytes,
                age: line.limit_age,
                at_limit: line.at_limit,
            },
        }))
    })
}

/// Makes the subscriptions of a file, or of standard input.
pub fn subscriptions(store: &Store, file: &Path, json: bool) -> Outcome {
    add(store, file, json, |line: SubscriptionLine| {
        let start = match line.start {
            None => Start::Now,
            Some(StartLine::At(lsn)) => Start::At(Lsn(lsn)),
            Some(StartLine::Word(word)) => super::subscription::start(&word)?,
        };
        Ok(NewDefinition::Subscription(NewSubscription {
            remote: line.remote.parse().map_err(text)?,
            publication: line.publication,
            value: line.value,
            start,
        }))
    })
}

fn text(error: Error) -> String {
    error.to_string()
}

fn add<T: DeserializeOwned>(
    store: &Store,
    file: &Path,
    json: bool,
    make: impl Fn(T) -> Result<NewDefinition, String>,
) -> Outcome {
    let name = if file == Path::new("-") {
        PathBuf::from("standard input")
    } else {
        file.to_owned()
    };
    let at = |line: usize, reason: &str| {
        let name = name.display();
        Failure::usage(format!("{name}, line {line}: {reason}; nothing was made"))
    };
    let (mut all, mut lines) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(read(file)?) {
        let line = line.map_err(|error| Failure::file("read", &name, &error))?;
        if line.trim().is_empty() {
            continue;
        }
        if line.len() > LONGEST {
            return Err(at(number, "the line is longer than any definition"));
        }
        let read = serde_json::from_str(&line).map_err(|error| error.to_string());
        all.push(read.and_then(&make).map_err(|reason| at(number, &reason))?);
        lines.push(number);
    }
    let added = Definitions::new(store).add_all(&all);
    let added = added.map_err(|not| match not.number.and_then(|number| lines.get(number)) {
        Some(line) => {
            let name = name.display();
            Failure::of_words(not.error).within(&format!("{name}, line {line}: "), "; nothing was made")
        }
        None => Failure::of_words(not.error),
    })?;
    let facts = Facts {
        made: added.made,
        there: added.there,
    };
    output::tell(
        json,
        &facts,
        format_args!("made {}; {} were there already", facts.made, facts.there),
    )
}

fn read(file: &Path) -> Outcome<Box<dyn Iterator<Item = std::io::Result<String>>>> {
    if file == Path::new("-") {
        return Ok(Box::new(std::io::stdin().lock().lines()));
    }
    let opened = File::open(file).map_err(|error| Failure::file("read", file, &error))?;
    Ok(Box::new(BufReader::new(opened).lines()))
}
