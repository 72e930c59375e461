//! [`ServingRecord`]: which of the ranges that a neighbour asked for have gone out, and how far the one has that is not out whole, so that who is
//! interrupted goes on from there and not from its beginning.
//!
//! ```text
//! range number n ─ message, message, piece, piece ─ delivered ─► reached, pieces ── when the phase ends ──► serving/<remote>
//! link fails │ bundle full │ phase ends ─► range number n again: behind `reached`, from `pieces` on
//! ```
//!
//! A hint, as [`super::TransferRecord`] is one: what is lost on the way is asked for anew, under another number, and then goes from its beginning.

use bincode::{Decode, Encode};

use crate::message::{Item, Message, Pieces, Point, Range};

use super::state::PairState;

/// What a send phase had served when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ServingRecord {
    /// Generation of the pair.
    pub generation: u32,
    /// [`super::ToldRecord::went_back`] at that time: it counts only as long as the neighbour has not gone back since.
    pub went_back: u64,
    /// Ranges up to this number went out whole.
    pub served: u64,
    /// The one that did not; 0 for none.
    pub number: u64,
    /// It went out to here,
    pub reached: Point,
    /// and of the transaction behind so much.
    pub pieces: Option<Pieces>,
}

impl PairState for ServingRecord {
    const PREFIX: &'static str = "serving/";
}

impl ServingRecord {
    /// True when it says nothing that a process without it would not do.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.served == 0 && self.number == 0
    }
}

/// What a message of a range brings.
#[derive(Clone, Copy, Debug)]
pub struct Went {
    last: Point,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Everything up to its last point.
    Whole,
    /// These bytes of a transaction, from the offset on.
    Piece(u64, Pieces),
    /// Nothing that could be gone on from.
    Other,
}

impl Went {
    /// What this one brings.
    #[must_use]
    pub fn of(message: &Message) -> Went {
        let ends = |item: &Item| match item {
            Item::Transaction(_) => true,
            Item::Part(part) => part.end() == part.total,
        };
        let step = match message.items.as_slice() {
            items if items.iter().all(ends) => Step::Whole,
            [Item::Part(part)] => Step::Piece(part.offset, Pieces::up_to(part)),
            _ => Step::Other,
        };
        Went {
            last: message.header.last,
            step,
        }
    }
}

/// What a send phase knows of serving one neighbour.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Serving {
    /// Ranges up to this number went out whole.
    pub(super) served: u64,
    range: Option<OfRange>,
}

#[derive(Clone, Copy, Debug)]
struct OfRange {
    number: u64,
    reached: Point,
    pieces: Option<Pieces>,
}

impl Serving {
    /// That of a process that begins and finds `record`.
    pub(super) fn of(record: Option<ServingRecord>, generation: u32, went_back: u64) -> Serving {
        let counts = record.filter(|one| (one.generation, one.went_back) == (generation, went_back));
        let Some(one) = counts else {
            return Serving::default();
        };
        let range = OfRange {
            number: one.number,
            reached: one.reached,
            pieces: one.pieces,
        };
        Serving {
            served: one.served,
            range: (one.number > 0).then_some(range),
        }
    }

    pub(super) fn record(&self, generation: u32, went_back: u64) -> ServingRecord {
        let open = self.range.filter(|range| range.number > self.served);
        ServingRecord {
            generation,
            went_back,
            served: self.served,
            number: open.map_or(0, |range| range.number),
            reached: open.map_or(Point::NONE, |range| range.reached),
            pieces: open.and_then(|range| range.pieces),
        }
    }

    /// Where a range goes on, or begins.
    pub(super) fn begin(&mut self, number: u64, range: Range) -> Point {
        let within = |one: &OfRange| {
            one.number == number
                && one.reached.place() >= range.after.place()
                && one.reached.place() < range.up_to.place()
        };
        match self.range.filter(within) {
            Some(one) => one.reached,
            None => {
                self.range = Some(OfRange {
                    number,
                    reached: range.after,
                    pieces: None,
                });
                range.after
            }
        }
    }

    /// A link took a message of the range that was begun; `there` is what the neighbour had before of the transaction that it misses.
    pub(super) fn went(&mut self, went: Went, there: Option<Pieces>) {
        let Some(range) = &mut self.range else { return };
        match went.step {
            Step::Whole => (range.reached, range.pieces) = (went.last, None),
            Step::Piece(offset, pieces) => {
                let is_same = |one: &Pieces| {
                    (one.point, one.digest, one.total) == (pieces.point, pieces.digest, pieces.total)
                };
                let known = [range.pieces, there].into_iter().flatten().filter(is_same);
                let before = known.map(|one| one.bytes).max().unwrap_or(0);
                if offset <= before {
                    range.pieces = Some(Pieces {
                        bytes: pieces.bytes.max(before),
                        ..pieces
                    });
                }
            }
            Step::Other => {}
        }
    }

    /// What of the transaction behind need not go again, under this number.
    pub(super) fn pieces(&self, number: u64) -> Option<Pieces> {
        self.range.filter(|range| range.number == number)?.pieces
    }

    /// It all is to go again.
    pub(super) fn forget(&mut self) {
        *self = Serving::default();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use milepost_engine::{Chain, Epoch, Lsn, Position};

    use crate::message::Part;

    use super::*;

    fn point(at: u64) -> Point {
        Point::live(Position {
            epoch: Epoch(1),
            lsn: Lsn(at),
            chain: Chain(at),
        })
    }

    fn range(after: u64, up_to: u64) -> Range {
        Range {
            after: point(after),
            up_to: point(up_to),
        }
    }

    fn whole(last: u64) -> Went {
        Went {
            last: point(last),
            step: Step::Whole,
        }
    }

    fn piece(of: u64, offset: u64, len: usize) -> Went {
        let part = Part {
            point: point(of),
            offset,
            total: 1_000,
            digest: u128::from(of),
            piece: Bytes::from(vec![7; len]),
        };
        Went {
            last: point(0),
            step: Step::Piece(offset, Pieces::up_to(&part)),
        }
    }

    #[test]
    fn a_range_that_was_cut_goes_on_behind_what_went_and_another_from_its_beginning() {
        let mut serving = Serving::default();
        assert_eq!(serving.begin(3, range(10, 90)), point(10));
        serving.went(whole(40), None);
        serving.went(piece(70, 100, 50), None);
        assert_eq!(serving.pieces(3), None, "a hole before it");
        serving.went(piece(70, 0, 100), None);
        serving.went(piece(70, 100, 50), None);
        assert_eq!(serving.begin(3, range(10, 90)), point(40));
        assert_eq!(serving.pieces(3).unwrap().bytes, 150);
        assert_eq!(serving.pieces(4), None);

        let record = serving.record(7, 1);
        assert_eq!((record.served, record.number, record.reached), (0, 3, point(40)));
        let mut next = Serving::of(Some(record), 7, 1);
        assert_eq!(
            (next.begin(3, range(10, 90)), next.pieces(3).unwrap().bytes),
            (point(40), 150)
        );
        for (generation, went_back) in [(8, 1), (7, 2)] {
            let mut other = Serving::of(Some(record), generation, went_back);
            assert_eq!(other.begin(3, range(10, 90)), point(10));
        }
        assert_eq!(
            next.begin(3, range(50, 90)),
            point(50),
            "more was received meanwhile"
        );
        assert_eq!(serving.begin(4, range(10, 90)), point(10), "asked for anew");
        serving.served = 4;
        assert_eq!(serving.record(7, 1).number, 0, "it is out whole");
        serving.forget();
        assert!(serving.record(7, 1).is_nothing());
    }

    #[test]
    fn what_the_neighbour_had_is_no_hole() {
        let mut serving = Serving::default();
        let _: Point = serving.begin(1, range(10, 90));
        let there = match piece(70, 0, 300).step {
            Step::Piece(_, pieces) => Some(pieces),
            _ => None,
        };
        serving.went(piece(70, 300, 100), there);
        assert_eq!(serving.pieces(1).unwrap().bytes, 400);
        serving.went(whole(70), there);
        assert_eq!(serving.pieces(1), None);
    }
}
