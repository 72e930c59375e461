//! `milepost streams`: the streams of a store, from the built-in projection.

use std::time::Duration;

use clap::Args;
use milepost_engine::view::{Streams as Projection, View, ViewProgress};
use milepost_engine::{ErrorKind, Lsn, Store};
use serde::Serialize;

use super::store_dir::StoreDir;
use crate::arguments::moment;
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output::{Out, shown};
use crate::progress::Progress;

/// The command line's own view: one process at a time owns it.
const VIEW: &str = "cli";
/// How long another one's work is waited for, and the pause between two looks.
const WAIT_FOR_VIEW: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// List streams with version, last kind and time.
///
/// The list is a projection kept in a view (`views/cli`) that catches up with the log first, and is made
/// again from the log when it is missing or cannot be trusted. Made of a log whose beginning was freed, it leaves out
/// the streams whose events were all freed, and says where it begins. One process at a time can use it; another one waits.
#[derive(Args)]
#[command(after_long_help = format!("Example:\n  milepost streams shop --prefix orders/ --json\n\n{EXIT_CODES}"))]
pub struct Streams {
    #[command(flatten)]
    store: StoreDir,
    /// Only streams whose name begins so
    #[arg(long, value_name = "P", default_value = "")]
    prefix: String,
    /// Print one JSON object a line: stream, version, kind, time, lsn
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Facts<'a> {
    stream: &'a str,
    version: u64,
    kind: &'a str,
    time: i64,
    lsn: u64,
}

impl Streams {
    /// Catches up and prints.
    pub fn run(self) -> Outcome {
        let store = self.store.open()?;
        let mut progress = Progress::bytes("streams", Some(store.watermarks().durable.0));
        let view = open_view(&store, &mut |told| progress.reach(told.at.0))?;
        drop(progress);
        let begins = view.begins()?;
        if begins > Lsn::ZERO {
            tracing::warn!(
                "the list begins at LSN {begins}, where the log did when it was made: streams whose events were all freed \
                 before are not in it"
            );
        }
        let mut out = Out::new();
        for found in view.streams(&self.prefix)? {
            let (stream, version, kind) = (found.stream.as_str(), found.version.0, found.kind.as_str());
            if self.json {
                out.json(&Facts {
                    stream,
                    version,
                    kind,
                    time: found.time,
                    lsn: found.lsn.0,
                })?;
            } else {
                out.line(format_args!(
                    "{}  version {version}  {}  {}",
                    shown(stream),
                    shown(kind),
                    moment::text(found.time)
                ))?;
            }
        }
        out.flush()?;
        view.close()?;
        Ok(store.close()?)
    }
}

/// The view is one command's at a time: another one is waited for.
fn open_view(store: &Store, progress: &mut dyn FnMut(ViewProgress)) -> Outcome<View<Projection>> {
    let started = store.clock().monotonic();
    loop {
        match View::open(store, VIEW, Projection, progress) {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                if store.clock().monotonic().saturating_sub(started) > WAIT_FOR_VIEW {
                    return Err(Failure::failed(format!(
                        "another `milepost streams` of this store is still at work: {error}"
                    )));
                }
                store.clock().sleep(LOOK_AGAIN);
            }
            opened => return Ok(opened?),
        }
    }
}
