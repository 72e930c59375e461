//! Transfers of long transactions as the log keeps them (`sending/`, see [`crate::tracking::TransferRecord`]): noted now and then while
//! they go on and when the phase ends, read when it begins. And how far what was asked for has gone (`serving/`), noted when the phase ends.

use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, ErrorKind, Pinned, Result, SiteName};

use crate::message::Pieces;
use crate::receive::incomplete;
use crate::tracking::{NOTE, PairState, ServingRecord, TransferRecord};

use super::phase::{Pair, SendPhase};

impl SendPhase {
    /// What a former process had begun.
    pub(super) fn transfer_record(&self, remote: &SiteName) -> Result<Option<TransferRecord>> {
        let record = self.store.pinned(&TransferRecord::key(remote))?;
        record.map(|(value, _)| TransferRecord::read(&value)).transpose()
    }

    /// Which ranges a former process had served.
    pub(super) fn serving_record(&self, remote: &SiteName) -> Result<Option<ServingRecord>> {
        let record = self.store.pinned(&ServingRecord::key(remote))?;
        record.map(|(value, _)| ServingRecord::read(&value)).transpose()
    }

    /// Notes how far a transfer is, if it has come far enough. Not synced: what power takes of it goes out again. Nothing of a bundle
    /// counts before it has its name.
    pub(super) fn note_transfer(&self, pair: &mut Pair) -> Result<()> {
        if self.makes_bundle {
            return Ok(());
        }
        let Some(record) = pair.sender.transfer_to_pin() else {
            return Ok(());
        };
        let mut note = NewFrame::of_kind(NOTE, Vec::new());
        note.pin(record.pin(&pair.remote.site)?);
        match self.store.append_frames(vec![note], Durability::Buffered) {
            // To send is the way out of a full disk: what is sent is confirmed, and freed. Without the note more goes again.
            Err(error) if error.kind() == ErrorKind::Full => {
                tracing::debug!(%error, "how far a transfer is was not noted");
                Ok(())
            }
            noted => noted.map(|_| ()),
        }
    }

    /// What is here of the transaction in parts that a remote's stream goes on with: told with requests, so that the rest of it is served
    /// alone. What cannot be read is not told.
    pub(super) fn pieces_of(&self, pair: &Pair) -> Option<Pieces> {
        let known = incomplete(&self.store, Some(&pair.remote.site));
        let known = known.inspect_err(|error| tracing::debug!(%error, "pieces are not told"));
        let all = known.unwrap_or_default().into_iter();
        let of_pair = all.filter(|(_, one)| one.generation == pair.sender.generation());
        let begun = of_pair.filter_map(|(_, one)| one.pieces());
        begun.max_by_key(|pieces| pieces.bytes)
    }

    /// What to pin of all transfers when the phase ends.
    pub(super) fn transfers_at_last(&mut self) -> Result<Vec<Pinned>> {
        let pins = self.pairs.iter_mut().filter_map(|(name, pair)| {
            let gone = || Pinned {
                key: TransferRecord::key(name),
                value: None,
            };
            let record = pair.sender.transfer_at_last()?;
            Some(record.map_or_else(|| Ok(gone()), |record| record.pin(name)))
        });
        let mut pins: Vec<Pinned> = pins.collect::<Result<_>>()?;
        // What bundles have served, who imports one takes back.
        let of_bundles = self.makes_bundle;
        for (name, pair) in self
            .pairs
            .iter()
            .filter(|(_, pair)| of_bundles || !pair.remote.is_carried())
        {
            let (record, known) = (pair.sender.serving_record(), self.serving_record(name)?);
            if known != Some(record) && (known.is_some() || !record.is_nothing()) {
                pins.push(record.pin(name)?);
            }
        }
        Ok(pins)
    }
}
