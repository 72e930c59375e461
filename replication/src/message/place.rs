//! Where a remote's stream is: [`Place`], [`Point`] and [`Range`].
//!
//! ```text
//! Place  = (at, back)            live commit: (its LSN, 0); history of a subscription that starts at s: (s, h), h < s
//! Point  = Place + epoch + chain what travels and is told back; 32 bytes: epoch 8 | at 8 | back 8 | chain 8
//! Range  = (after, up to]        what is missing; 64 bytes: after 32 | up to 32
//! ```
//!
//! Places are compared by `at`, then `back`. Points are not ordered: an LSN of another lineage names other
//! bytes (R5), so every comparison of two points says which part of them it compares.

use std::fmt;

use bincode::{Decode, Encode};
use milepost_engine::{Chain, Epoch, Lsn, Position};

use super::bytes::{Front, Put};

/// A place in a remote's stream of one lineage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// LSN of a live commit, or where the subscription whose history this is starts.
    pub at: Lsn,
    /// 0 for a live commit, else the LSN that history is read from.
    pub back: Lsn,
}

impl Place {
    /// Before everything.
    pub const NONE: Place = Place {
        at: Lsn::ZERO,
        back: Lsn::ZERO,
    };

    /// The place of a live commit.
    #[must_use]
    pub const fn live(lsn: Lsn) -> Place {
        Place {
            at: lsn,
            back: Lsn::ZERO,
        }
    }

    /// The place of a commit at `read_from` in the history of a subscription that starts at `starts`.
    #[must_use]
    pub const fn history(starts: Lsn, read_from: Lsn) -> Place {
        Place {
            at: starts,
            back: read_from,
        }
    }

    /// LSN of the commit itself.
    #[must_use]
    pub fn commit_lsn(self) -> Lsn {
        if self.back == Lsn::ZERO {
            self.at
        } else {
            self.back
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.back == Lsn::ZERO {
            write!(f, "{}", self.at)
        } else {
            write!(f, "{}<{}", self.back, self.at)
        }
    }
}

/// A place with the position that proves it: what a site tells about its own log, and what its
/// neighbour stores unchecked and tells back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Point {
    /// Epoch, LSN (the place's `at`) and chain after the block that holds it.
    pub position: Position,
    /// 0 for a live commit, else the LSN that history is read from.
    pub back: Lsn,
}

impl Point {
    /// Before everything: nothing was sent, received or confirmed yet.
    pub const NONE: Point = Point {
        position: Position {
            epoch: Epoch(0),
            lsn: Lsn::ZERO,
            chain: Chain(0),
        },
        back: Lsn::ZERO,
    };
    /// Encoded length in bytes.
    pub const LEN: usize = 32;

    /// The point of a live commit.
    #[must_use]
    pub const fn live(position: Position) -> Point {
        Point {
            position,
            back: Lsn::ZERO,
        }
    }

    /// Its place.
    #[must_use]
    pub const fn place(&self) -> Place {
        Place {
            at: self.position.lsn,
            back: self.back,
        }
    }

    /// True for [`Point::NONE`].
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.place() == Place::NONE
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.position.epoch.0);
        out.put_u64(self.position.lsn.0);
        out.put_u64(self.back.0);
        out.put_u64(self.position.chain.0);
    }

    /// Reads 32 bytes; `None` when they are not there or are no point: history lies before where its
    /// subscription starts, and "nothing" has one form.
    pub(super) fn take(front: &mut Front<'_>) -> Option<Point> {
        let (epoch, at) = (Epoch(front.u64()?), Lsn(front.u64()?));
        let (back, chain) = (Lsn(front.u64()?), Chain(front.u64()?));
        let point = Point {
            position: Position {
                epoch,
                lsn: at,
                chain,
            },
            back,
        };
        let fits = if at == Lsn::ZERO {
            point == Point::NONE
        } else {
            back < at
        };
        fits.then_some(point)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("none");
        }
        write!(
            f,
            "{}/{}/{}",
            self.position.epoch,
            self.place(),
            self.position.chain
        )
    }
}

/// A stretch of a remote's stream: (after, up to].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Range {
    /// What the asker holds.
    pub after: Point,
    /// The last it misses, as its owner told it.
    pub up_to: Point,
}

impl Range {
    /// True when the range holds no place.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.up_to.place() <= self.after.place()
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}]", self.after.place(), self.up_to.place())
    }
}
