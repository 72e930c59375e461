//! `milepost bundle show`: what a bundle says of itself, and whether it is whole; needs no store.

use std::path::PathBuf;

use clap::Args;
use milepost_replication::bundle::{Bundle, Carried, told};
use serde::Serialize;

use super::counted;
use crate::arguments::moment;
use crate::failure::{EXIT_CODES, Exit, Failure, Outcome};
use crate::output;

/// Say what a bundle is, for whom, and whether it is whole; all of it is read and nothing is taken.
#[derive(Args)]
#[command(after_long_help = format!(
    "Example:\n  milepost bundle show /media/stick/hq-island-000001-5f0c3a77.mpb\n\n{EXIT_CODES}"
))]
pub struct Show {
    /// The bundle
    file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Facts {
    path: PathBuf,
    from: String,
    from_store: String,
    to: String,
    to_store: Option<String>,
    number: u64,
    id: String,
    created: i64,
    epoch: String,
    messages: u32,
    bytes: u64,
    more: bool,
    acknowledges: Vec<(u64, u64)>,
    lost: Vec<(u64, u64)>,
    damage: Vec<String>,
}

impl Show {
    /// Reads all of the bundle and prints what it is.
    pub fn run(self) -> Outcome {
        let bundle = Bundle::open(&self.file)?;
        let mut lost = bundle.lost();
        for (index, _) in bundle.messages() {
            if bundle.read(index)? == Carried::Lost {
                lost.push((index.into(), index.into()));
            }
        }
        lost.sort_unstable();
        let header = bundle.header();
        let facts = Facts {
            path: self.file,
            from: header.from.to_string(),
            from_store: header.from_id.to_string(),
            to: header.to.to_string(),
            to_store: (header.to_id.0 != 0).then(|| header.to_id.to_string()),
            number: header.number,
            id: format!("{:032x}", header.id),
            created: header.created,
            epoch: header.epoch.to_string(),
            messages: header.count,
            bytes: header.bytes,
            more: header.more,
            acknowledges: header.acknowledged.as_slice().to_vec(),
            lost,
            damage: bundle.damage().to_vec(),
        };
        output::tell(self.json, &facts, format_args!("{}", text(&facts)))?;
        match (facts.lost.as_slice(), facts.damage.as_slice()) {
            ([], []) => Ok(()),
            ([], damage) => Err(Failure::new(
                Exit::Damaged,
                format!("{}; all of its messages are whole", damage.join("; ")),
            )),
            (lost, _) => Err(Failure::new(
                Exit::Damaged,
                format!("messages {} are lost; an import takes the others", told(lost)),
            )),
        }
    }
}

fn text(facts: &Facts) -> String {
    let acknowledges = match facts.acknowledges.as_slice() {
        [] => "none".to_owned(),
        ranges => told(ranges),
    };
    format!(
        "bundle {} from {} for {}, made {}\n{}, {} bytes, acknowledges bundles: {acknowledges}{}",
        facts.number,
        facts.from,
        facts.to,
        moment::text(facts.created),
        counted(facts.messages.into(), "message"),
        facts.bytes,
        if facts.more {
            "; more was due than fitted"
        } else {
            ""
        }
    )
}
