//! [`Repair::renew_received`]: files of what was received that are damaged or missing, in whose place what can still be
//! told of them is put, and that the rest is not known.
//!
//! ```text
//! damaged/received-<16 hex>.bin, .txt durable ─► files renewed, oldest first ─► the base names the newest of them
//! ```
//!
//! The log is not touched. What is lost may have been received: a message that brings it is refused and kept in quarantine,
//! never taken a second time (R1, R4). A crash between any two steps leaves damage, and the repair is run again.

use crate::index::Base;
use crate::index::base;
use crate::{Error, RawLog, Result};

use super::super::received::{Chained, ReceivedDamage};
use super::super::whole_file;
use super::Repair;
use super::aside::{FOLDER, free_name};

impl Repair {
    /// What is damaged of what was received, oldest first. Nothing where the base that names it is damaged: that is to be
    /// repaired first.
    pub(super) fn received_damage(&self) -> Result<(Vec<ReceivedDamage>, bool)> {
        let Some((_, chained)) = self.chained()? else {
            return Ok((Vec::new(), true));
        };
        let broken = chained.broken(&*self.raw.storage);
        let damages = broken.into_iter().map(|broken| broken.damage).collect();
        Ok((damages, chained.is_whole()?))
    }

    /// Puts what can still be told of damaged files of what was received in their place, and makes their chain whole. The
    /// damaged files are kept aside.
    ///
    /// # Errors
    /// `Invalid` when none is damaged, when another repair was interrupted, or when the base is damaged, which is to be
    /// repaired first; `Full`. Run it again after an error.
    pub fn renew_received(self) -> Result<Vec<ReceivedDamage>> {
        if super::Plan::read(&*self.raw.storage, self.raw.identity.owner.id)?.is_some() {
            let text =
                "a repair of the log was interrupted: run it again to finish it, then what was received";
            return Err(Error::invalid(text).at_path(self.raw.storage.root()));
        }
        if self.base_damage()?.is_some() {
            let text = "the base, which names the files of what was received, is damaged: repair that first (`milepost \
                        repair` with --base)";
            return Err(Error::invalid(text).at_path(self.raw.storage.root()));
        }
        let none =
            || Error::invalid("no file of what was received is damaged: there is nothing to repair of them");
        let (base, chained) = self.chained()?.ok_or_else(none)?;
        let storage = &*self.raw.storage;
        let broken = chained.broken(storage);
        if broken.is_empty() && chained.is_whole()? {
            return Err(none());
        }
        for one in &broken {
            keep_aside(&self.raw, &one.damage, one.bytes)?;
        }
        let (files, named) = chained.renewed()?;
        for file in &files {
            let word = self.options.rng.next_u64();
            base::put(storage, file.end, &file.name, &file.bytes, word)?;
        }
        let bytes = base.bytes_naming(storage, named)?;
        base::write(storage, base.end(), &bytes, self.options.rng.next_u64())?;
        Ok(broken.into_iter().map(|one| one.damage).collect())
    }

    /// The base and the files that it names; `None` without one that is whole.
    fn chained(&self) -> Result<Option<(Base, Chained)>> {
        let (storage, id) = (&*self.raw.storage, self.raw.identity.owner.id);
        let Some(base) = Base::newest(storage, id)? else {
            return Ok(None);
        };
        let chained = Chained::read(storage, id, base.received())?;
        Ok(Some((base, chained)))
    }
}

/// Keeps a damaged file, and says beside it what is lost with it.
fn keep_aside(raw: &RawLog, damage: &ReceivedDamage, bytes: &[u8]) -> Result<()> {
    let storage = &*raw.storage;
    let name = format!("received-{:016x}", damage.end.0);
    let failed = |error| Error::io("keep a damaged file aside", storage.root().join(FOLDER), error);
    storage.create_dir(FOLDER).map_err(failed)?;
    storage.sync_dir("").map_err(failed)?;
    let mut text = format!(
        "the file of what was received in LSN {} to {} of the log, {} bytes: {}; a new one took its place\n",
        damage.begin,
        damage.end,
        bytes.len(),
        damage.reason
    );
    for lost in damage.lost() {
        text.push_str(&format!("not known any more: {lost}\n"));
    }
    let taken = free_name(storage, &format!("{name}.bin")).map_err(failed)?;
    let new = format!("{FOLDER}/{name}.new");
    let put =
        |name: &str, bytes: &[u8]| whole_file::replace(storage, &new, &format!("{FOLDER}/{name}"), bytes);
    put(&taken, bytes).map_err(failed)?;
    put(&taken.replace(".bin", ".txt"), text.as_bytes()).map_err(failed)
}
