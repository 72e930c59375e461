//! `milepost repair --new-lineage`: a folder that was put back from a copy of its files begins a lineage of its own.

use std::path::Path;

use milepost_engine::{ForkAt, Lsn, NewLineage, Options, PutBack, Writer};
use serde::Serialize;

use crate::arguments::moment;
use crate::failure::{Failure, Outcome};
use crate::output::{Out, shown};

/// Where the log parts from the one that it was copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork(ForkAt);

impl std::str::FromStr for Fork {
    type Err = String;

    fn from_str(text: &str) -> Result<Fork, String> {
        if text == "end" {
            return Ok(Fork(ForkAt::End));
        }
        let lsn = text.parse().map(|lsn| Fork(ForkAt::Lsn(Lsn(lsn))));
        lsn.map_err(|_| "a fork is `end` or an LSN, such as 40960".to_owned())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Writer(WriterFacts),
    Lineage(LineageFacts),
}

#[derive(Serialize)]
struct WriterFacts {
    /// First LSN that it wrote, and when.
    first: u64,
    since: Option<String>,
    events: u64,
}

#[derive(Serialize)]
struct LineageFacts {
    /// False when nothing was changed.
    begun: bool,
    /// Where the log ends, or the new lineage begins.
    end: u64,
    fork: Option<u64>,
    epoch: String,
    parent: Option<String>,
}

/// Begins the lineage, or says who wrote the log's end.
pub fn run(dir: &Path, options: Options, fork: Option<Fork>, json: bool, out: &mut Out) -> Outcome {
    let put_back = PutBack::open(dir, options)?;
    match fork {
        None => tell(dir, &put_back, json, out),
        Some(Fork(fork)) => {
            let done = put_back.begin_lineage(fork).map_err(Failure::of_words)?;
            begun(&done, json, out)
        }
    }
}

fn tell(dir: &Path, put_back: &PutBack, json: bool, out: &mut Out) -> Outcome {
    let (writers, end) = (put_back.writers()?, put_back.end().0);
    if json {
        for writer in &writers {
            out.json(&Line::Writer(facts(writer)))?;
        }
        return out.json(&Line::Lineage(LineageFacts {
            begun: false,
            end,
            fork: None,
            epoch: put_back.epoch().to_string(),
            parent: None,
        }));
    }
    for writer in &writers {
        let facts = facts(writer);
        let since = facts.since.as_deref().unwrap_or("at a time that is not known");
        out.line(format_args!(
            "from LSN {} on {since}: a process with {} events",
            facts.first, facts.events
        ))?;
    }
    let way = format!(
        "milepost repair {} --new-lineage",
        shown(&dir.display().to_string())
    );
    out.line(format_args!(
        "the log ends at LSN {end}; nothing was changed. Say where it ended when the folder was put back:\n  {way} --fork end    \
         nobody has opened it since\n  {way} --fork LSN    the first LSN above of a process that began after that; an earlier one is \
         as safe"
    ))
}

fn begun(done: &NewLineage, json: bool, out: &mut Out) -> Outcome {
    if json {
        return out.json(&Line::Lineage(LineageFacts {
            begun: true,
            end: done.begins.0,
            fork: Some(done.fork.0),
            epoch: done.epoch.to_string(),
            parent: Some(done.parent.to_string()),
        }));
    }
    let doubt = if done.fork < done.begins {
        format!(
            "; of what is between LSN {} and {} nothing is claimed",
            done.fork, done.begins
        )
    } else {
        String::new()
    };
    out.line(format_args!(
        "lineage epoch {} begins at LSN {} and leaves {} at LSN {}{doubt}. Remotes that hold more of the former history stop their \
         pair when they hear of it, and go on with `milepost remote rejoin`",
        done.epoch, done.begins, done.parent, done.fork
    ))
}

fn facts(writer: &Writer) -> WriterFacts {
    WriterFacts {
        first: writer.first.0,
        since: (writer.since != 0).then(|| moment::text(writer.since)),
        events: writer.events,
    }
}
