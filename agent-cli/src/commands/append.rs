//! `milepost append`: one event, one transaction.

use std::io::Read;
use std::path::Path;

use clap::Args;
use milepost_engine::{CommitOutcome, Event, ExpectedVersion, StreamVersion, Transaction};
use serde::Serialize;

use super::store_dir::StoreDir;
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;
use crate::payload::compact;

/// Commit one event to a stream; it is on disk when the command returns.
///
/// With --expect the event is committed only if the stream is as you expect it (any, none, exists, or the
/// version of its last event); otherwise nothing is committed and the command exits 1.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost append shop orders/7 --kind placed --data '{{\"articles\":3}}' --expect none\n  \
     milepost append shop scans/7 --kind scanned --data @page.png --header till=3\n  \
     curl -s https://till3/report | milepost append shop reports/3 --kind told --data @-\n\n{EXIT_CODES}"
))]
pub struct Append {
    #[command(flatten)]
    store: StoreDir,
    /// Stream to append to, such as orders/7
    stream: String,
    /// What happened, in your words
    #[arg(long, value_name = "K")]
    kind: String,
    /// The payload: JSON, @FILE for what a file holds, or @- for standard input
    ///
    /// One JSON text in UTF-8, wherever it comes from, is stored without the blanks and line breaks between its
    /// tokens, so that read and export show it as JSON; order, numbers and texts stay to the last digit and
    /// escape. A file or an input that is not one JSON text is stored byte for byte, and shown as
    /// {"base64":"…"}.
    #[arg(long, value_name = "JSON|@FILE|@-")]
    data: String,
    /// A header; repeat it for more
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// What the stream must be: any, none, exists, or the version of its last event
    #[arg(long, value_name = "any|none|exists|N", default_value = "any", value_parser = expectation)]
    expect: ExpectedVersion,
    /// Print the facts as one JSON object: lsn, id, stream, version
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Appended<'a> {
    lsn: u64,
    id: String,
    stream: &'a str,
    version: Option<u64>,
}

impl Append {
    /// Commits the event.
    pub fn run(self) -> Outcome {
        let made = Event::new(&self.stream, &self.kind, payload(&self.data)?);
        let mut event = made.map_err(Failure::of_words)?;
        for (name, value) in self.headers {
            event = event.header(name, value).map_err(Failure::of_words)?;
        }
        let mut transaction = Transaction::new();
        transaction.push(&event)?;
        transaction.expect(&self.stream, self.expect)?;
        let store = self.store.open_site()?;
        let committed = match store.commit(transaction)? {
            CommitOutcome::Committed(committed) => committed,
            CommitOutcome::WrongVersion(wrong) => {
                return Err(Failure::failed(format!("{wrong}; nothing was committed")));
            }
        };
        let version = committed.versions.first().map(|(_, version)| version.0);
        let facts = Appended {
            lsn: committed.lsn.0,
            id: committed.id.to_string(),
            stream: &self.stream,
            version,
        };
        let shown = version.map_or_else(String::new, |version| format!(" as version {version}"));
        let (stream, lsn) = (output::shown(&self.stream), facts.lsn);
        let text = format_args!("appended to {stream}{shown}, LSN {lsn}");
        output::tell(self.json, &facts, text)
            .map_err(|failure| failure.after(&format!("the event is committed at LSN {lsn}")))?;
        super::store_dir::close(store)
    }
}

fn payload(data: &str) -> Outcome<Vec<u8>> {
    if let Some(file) = data.strip_prefix('@') {
        let bytes = contents(file)?;
        return Ok(compact(&bytes).unwrap_or(bytes));
    }
    compact(data.as_bytes()).map_err(|error| {
        Failure::usage(format!(
            "--data is not JSON ({error}); give other bytes as --data @FILE"
        ))
    })
}

fn contents(file: &str) -> Outcome<Vec<u8>> {
    if file == "-" {
        let mut bytes = Vec::new();
        let read = std::io::stdin().read_to_end(&mut bytes);
        read.map_err(|error| Failure::file("read", Path::new("standard input"), &error))?;
        return Ok(bytes);
    }
    let file = Path::new(file);
    std::fs::read(file).map_err(|error| Failure::file("read", file, &error))
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn expectation(text: &str) -> Result<ExpectedVersion, String> {
    match text {
        "any" => Ok(ExpectedVersion::Any),
        "none" => Ok(ExpectedVersion::NoStream),
        "exists" => Ok(ExpectedVersion::StreamExists),
        number => match number.parse() {
            Ok(version) => Ok(ExpectedVersion::Exact(StreamVersion(version))),
            Err(_) => Err(format!("{text:?} is not any, none, exists or a version")),
        },
    }
}
