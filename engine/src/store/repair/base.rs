//! [`Repair::renew_base`]: a damaged or missing base in which what can still be told takes the place of the whole one.
//!
//! ```text
//! damaged/base-<16 hex>.bin, .txt durable ─► the new base renamed over the damaged one, folder synced
//! ```
//!
//! The log is not touched: LSNs, chains and the lineage stay. What cannot be told is lost, and said: versions of
//! streams whose events were all freed begin at 0 again, and pinned records that nobody set since are gone. A crash
//! between any two steps leaves the damaged base, and the repair is run again.

use std::path::PathBuf;

use crate::index::base;
use crate::index::salvage::{self, Salvage};
use crate::log::Cursor;
use crate::width::to_u64;
use crate::{Chain, Error, Lsn, RawLog, Result};

use super::super::whole_file;
use super::Repair;
use super::aside::{FOLDER, free_name};

/// A damaged or missing base, and what a repair of it would save.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseDamage {
    /// Its file.
    pub path: PathBuf,
    /// The file is not there, so nobody knows whether what came before was freed or is lost.
    pub missing: bool,
    /// The log begins here.
    pub begins: Lsn,
    /// Streams that had events before; `None` where that cannot be read.
    pub streams: Option<u64>,
    /// Streams among them whose number of events is known: their versions go on as they were.
    pub streams_known: u64,
    /// Pinned records that there were; `None` where that cannot be read.
    pub pinned: Option<u64>,
    /// Pinned records among them that are known.
    pub pinned_known: u64,
    /// True when every pinned record is known as it is now, so that only former values are lost.
    pub pinned_now: bool,
    /// True when it is known how far the scan phase had come; otherwise what the queue says is taken.
    pub scanned_known: bool,
}

impl BaseDamage {
    fn of(raw: &RawLog, found: &Salvage) -> BaseDamage {
        BaseDamage {
            path: raw.storage.root().join("log").join(plain_name(found.end)),
            missing: found.missing,
            begins: found.end,
            streams: found.had.map(|(streams, _)| streams),
            streams_known: found.streams(),
            pinned: found.had.map(|(_, pinned)| pinned),
            pinned_known: found.pinned(),
            pinned_now: found.pinned_now,
            scanned_known: found.scanned_known,
        }
    }

    /// True when nothing is lost: what was damaged is known from elsewhere.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        let all = |had: Option<u64>, known: u64| had == Some(known);
        all(self.streams, self.streams_known) && all(self.pinned, self.pinned_known) && self.scanned_known
    }

    /// What would be lost, as sentences for an operator; none when nothing is.
    #[must_use]
    pub fn lost(&self) -> Vec<String> {
        let of = |had: Option<u64>, known: u64, what: &str| match had {
            Some(had) => (had > known).then(|| format!("{} of {had} {what}", had.saturating_sub(known))),
            None => Some(format!(
                "an unknown number of {what} beside the {known} that are known"
            )),
        };
        let mut lost = Vec::new();
        if self.missing {
            lost.push(format!(
                "whether all before LSN {} was freed, which is what a new base says of it: where its segments are lost \
                 instead, so is what they held",
                self.begins
            ));
        }
        if let Some(streams) = of(self.streams, self.streams_known, "streams") {
            lost.push(format!(
                "the numbers of freed events of {streams}, all of whose events were freed or are in the newest \
                 segments: their versions begin at 0 again"
            ));
        }
        if let Some(pinned) = of(self.pinned, self.pinned_known, "pinned records") {
            let still = match self.pinned_now {
                true => "as they were where the log begins; as they are now all are known",
                false => "unless they were set again since",
            };
            lost.push(format!("{pinned}, {still}"));
            if !self.pinned_now {
                lost.push(
                    "with them perhaps remotes, subscriptions, how far was received, and where imports stopped: what was \
                     received before may be refused when it comes again, and `import --resume` is refused where it finds \
                     no mark"
                        .to_owned(),
                );
            }
        }
        if !self.scanned_known {
            lost.push(
                "how far the scan phase had come when the log was freed: what the queue says of it is taken"
                    .to_owned(),
            );
            lost.push(
                "whether all is there that is kept of what was received: who replicates is told so where it counts"
                    .to_owned(),
            );
        }
        lost
    }
}

fn plain_name(end: Lsn) -> String {
    format!("base-{:016x}", end.0)
}

impl Repair {
    /// What is damaged of the base, if it is.
    pub(super) fn base_damage(&self) -> Result<Option<BaseDamage>> {
        let found = self.salvage()?;
        Ok(found.map(|(found, _)| BaseDamage::of(&self.raw, &found)))
    }

    /// Puts a whole base in place of a damaged or missing one, with what can still be told of it. The damaged file is kept aside.
    ///
    /// # Errors
    /// `Invalid` when the base is not damaged, when another repair was interrupted, or when the first block of the log
    /// is damaged too, which is to be repaired first; `Corrupt` when base and log are of different histories; `Full`. Run it again after an error.
    pub fn renew_base(self) -> Result<BaseDamage> {
        if super::Plan::read(&*self.raw.storage, self.raw.identity.owner.id)?.is_some() {
            let text = "a repair of the log was interrupted: run it again to finish it, then the base";
            return Err(Error::invalid(text).at_path(self.raw.storage.root()));
        }
        let Some((found, chain)) = self.salvage()? else {
            return Err(Error::invalid(
                "no base file is damaged: there is nothing to repair of it",
            ));
        };
        let Some(chain) = chain else {
            let text = "the first block of the log is damaged, and the base says what comes before it: repair the log \
                        first";
            return Err(Error::invalid(text).at_lsn(found.end));
        };
        if found.end_chain.is_some_and(|known| known != chain) {
            let text = "the damaged base says that another block stands here: the segment, or the base, is of another copy \
                        of the store; put the right file in its place, or restore a backup";
            return Err(Error::corrupt(text)
                .at_path(self.raw.storage.root().join("log").join(plain_name(found.end)))
                .at_lsn(found.end));
        }
        let damage = BaseDamage::of(&self.raw, &found);
        keep_aside(&self.raw, &found, &damage)?;
        let bytes = found.renewed(self.raw.identity.owner.id, chain)?;
        base::write(&*self.raw.storage, found.end, &bytes, self.options.rng.next_u64())?;
        Ok(damage)
    }

    /// What can be told of a damaged base, and the chain before the first block behind it.
    fn salvage(&self) -> Result<Option<(Salvage, Option<Chain>)>> {
        let raw = &self.raw;
        let (id, firsts) = (raw.identity.owner.id, raw.dir.list()?);
        let end = salvage::damaged_end(&*raw.storage, id, &firsts)?;
        let Some(end) = end.map_or_else(
            || salvage::missing_end(&*raw.storage, &firsts),
            |end| Ok(Some(end)),
        )?
        else {
            return Ok(None);
        };
        let chain = match raw.dir.only_away(end)? {
            Some(stub) => Some(stub.chain_before),
            None => {
                let mut cursor = Cursor::new(&raw.dir, &raw.dir.open(end)?);
                cursor.header_at(end)?.map(|header| header.chain)
            }
        };
        let found = salvage::salvage(&*raw.storage, id, &firsts, chain, raw.scanned()?)?;
        Ok(found.map(|found| (found, chain)))
    }
}

/// Keeps the damaged file, and says beside it what it was.
fn keep_aside(raw: &RawLog, found: &Salvage, damage: &BaseDamage) -> Result<()> {
    let (storage, name) = (&*raw.storage, plain_name(found.end));
    let failed = |error| Error::io("keep a damaged base aside", storage.root().join(FOLDER), error);
    storage.create_dir(FOLDER).map_err(failed)?;
    storage.sync_dir("").map_err(failed)?;
    let how = if found.missing { "missing" } else { "damaged" };
    let mut text = format!(
        "the base of the log that begins at LSN {}, {} bytes, was {how}, and a new one took its place with {} streams \
         and {} pinned records\n",
        damage.begins,
        to_u64(found.bytes.len()),
        damage.streams_known,
        damage.pinned_known
    );
    for lost in damage.lost() {
        text.push_str(&format!("lost: {lost}\n"));
    }
    let taken = free_name(storage, &format!("{name}.bin")).map_err(failed)?;
    let new = format!("{FOLDER}/{name}.new");
    let put =
        |name: &str, bytes: &[u8]| whole_file::replace(storage, &new, &format!("{FOLDER}/{name}"), bytes);
    if !found.missing {
        put(&taken, &found.bytes).map_err(failed)?;
    }
    put(&taken.replace(".bin", ".txt"), text.as_bytes()).map_err(failed)
}
