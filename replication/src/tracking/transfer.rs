//! [`TransferRecord`]: how far a transaction that is longer than a message has gone out, so that who is interrupted goes on from there.
//!
//! ```text
//! piece, piece, piece ─ delivered ─► Pieces ── every PIN_AFTER bytes, and when the phase ends ──► sending/<remote>
//! link fails │ phase ends │ process dies ─► the same transaction, encoded alike: from where the last record stands
//! ```
//!
//! A hint, by which no answer changes: the neighbour asks for what it lacks, and is then sent all of it. So it may be missing, late or
//! of a transaction that is encoded otherwise by now, because what the remote is due of it changed.

use bincode::{Decode, Encode};

use crate::message::{Part, Pieces};

use super::state::PairState;

/// Key prefix of [`TransferRecord`].
pub const SENDING_PREFIX: &str = "sending/";

/// A transfer is pinned anew when so many bytes have gone out since: 16 MiB.
const PIN_AFTER: u64 = 16 << 20;

/// A transfer that a send phase had begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TransferRecord {
    /// Generation of the pair.
    pub generation: u32,
    /// [`super::ToldRecord::went_back`] at that time: it counts only as long as the neighbour has not gone back since.
    pub went_back: u64,
    /// What a link took durably.
    pub went: Pieces,
}

impl PairState for TransferRecord {
    const PREFIX: &'static str = SENDING_PREFIX;
}

/// What the neighbour said with its last requests that it has of a transaction in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct AskedRecord {
    /// Generation of the pair.
    pub generation: u32,
    /// Numbers of the ranges to serve that those requests made, the first and the last. It counts for them alone: what an answer makes go
    /// again may be what was lost since.
    pub first: u64,
    /// See there.
    pub last: u64,
    /// What it has.
    pub pieces: Option<Pieces>,
}

impl PairState for AskedRecord {
    const PREFIX: &'static str = "asked/";
}

/// What a send phase knows of the transfer to one neighbour.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transfers {
    current: Option<Pieces>,
    /// The record in the log.
    pinned: Option<TransferRecord>,
}

impl Transfers {
    /// Those of a process that begins and finds `pinned`.
    pub(super) fn of(pinned: Option<TransferRecord>, generation: u32, went_back: u64) -> Transfers {
        let counts = pinned.filter(|one| (one.generation, one.went_back) == (generation, went_back));
        Transfers {
            current: counts.map(|one| one.went),
            pinned,
        }
    }

    /// A link took a piece that goes out for the first time.
    pub(super) fn went(&mut self, part: &Part) {
        match &mut self.current {
            Some(current) if current.is_of(part) && part.offset <= current.bytes => {
                current.bytes = current.bytes.max(part.end());
            }
            _ if part.offset == 0 => {
                self.current = Some(Pieces::up_to(part));
            }
            _ => {}
        }
    }

    /// Nothing is under way any more, or it is to begin anew.
    pub(super) fn end(&mut self) {
        self.current = None;
    }

    pub(super) fn current(&self) -> Option<Pieces> {
        self.current
    }

    /// What to pin now, while it goes on; the caller does.
    pub(super) fn pin_due(&mut self, generation: u32, went_back: u64) -> Option<TransferRecord> {
        let went = self.current?;
        let before = self.pinned.map(|one| one.went);
        let before = before.filter(|before| (before.point, before.digest) == (went.point, went.digest));
        let since = went.bytes.saturating_sub(before.map_or(0, |before| before.bytes));
        (since >= PIN_AFTER).then(|| self.pin(went, generation, went_back))
    }

    /// What to pin when the phase ends: a record, or that there is none any more; `None` when the log says so already.
    pub(super) fn pin_at_last(&mut self, generation: u32, went_back: u64) -> Option<Option<TransferRecord>> {
        let before = self.pinned;
        match self.current {
            Some(went) => {
                let record = self.pin(went, generation, went_back);
                (before != Some(record)).then_some(Some(record))
            }
            None => self.pinned.take().map(|_| None),
        }
    }

    fn pin(&mut self, went: Pieces, generation: u32, went_back: u64) -> TransferRecord {
        let record = TransferRecord {
            generation,
            went_back,
            went,
        };
        *self.pinned.insert(record)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use milepost_engine::{Chain, Epoch, Lsn, Position};

    use crate::message::Point;

    use super::*;

    fn piece(at: u64, digest: u128, offset: u64, len: usize) -> Part {
        let position = Position {
            epoch: Epoch(1),
            lsn: Lsn(at),
            chain: Chain(at),
        };
        Part {
            point: Point::live(position),
            offset,
            total: 100 << 20,
            digest,
            piece: Bytes::from(vec![7; len]),
        }
    }

    fn sent(transfers: &Transfers) -> Option<(u128, u64)> {
        transfers.current().map(|one| (one.digest, one.bytes))
    }

    #[test]
    fn what_went_out_without_a_hole_counts_and_another_encoding_begins_anew() {
        let mut transfers = Transfers::default();
        transfers.went(&piece(9, 1, 50, 10));
        assert_eq!(sent(&transfers), None, "its beginning is missing");
        transfers.went(&piece(9, 1, 0, 50));
        transfers.went(&piece(9, 1, 40, 20));
        transfers.went(&piece(9, 1, 70, 20));
        transfers.went(&piece(9, 1, 10, 20));
        assert_eq!(sent(&transfers), Some((1, 60)));
        transfers.went(&piece(9, 2, 60, 20));
        assert_eq!(sent(&transfers), Some((1, 60)), "no beginning");
        transfers.went(&piece(9, 2, 0, 20));
        assert_eq!(sent(&transfers), Some((2, 20)));
        transfers.went(&piece(11, 2, 0, 30));
        assert_eq!(transfers.current().unwrap().point, piece(11, 2, 0, 1).point);
    }

    #[test]
    fn a_transfer_is_pinned_now_and_then_and_at_the_end_and_counts_for_its_generation_alone() {
        let mut transfers = Transfers::default();
        assert_eq!(transfers.pin_at_last(3, 1), None);
        transfers.went(&piece(9, 1, 0, 15 << 20));
        assert_eq!(transfers.pin_due(3, 1), None);
        transfers.went(&piece(9, 1, 15 << 20, 1 << 20));
        let record = transfers.pin_due(3, 1).unwrap();
        assert_eq!(record.went.bytes, 16 << 20);
        assert_eq!(
            (transfers.pin_due(3, 1), transfers.pin_at_last(3, 1)),
            (None, None)
        );
        transfers.went(&piece(9, 1, 16 << 20, 10));
        let last = transfers.pin_at_last(3, 1).unwrap().unwrap();
        assert_eq!(last.went.bytes, (16 << 20) + 10);

        let next = |generation, went_back| Transfers::of(Some(last), generation, went_back);
        assert_eq!(sent(&next(3, 1)), Some((1, (16 << 20) + 10)));
        assert_eq!((sent(&next(4, 1)), sent(&next(3, 2))), (None, None));
        assert_eq!(next(4, 1).pin_at_last(4, 1), Some(None), "of no use any more");
        let mut done = next(3, 1);
        done.end();
        assert_eq!(
            (done.pin_at_last(3, 1), done.pin_at_last(3, 1)),
            (Some(None), None)
        );
    }
}
