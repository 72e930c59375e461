//! [`Header`]: what a message says besides the transactions it carries. Encoded by `envelope`.

use bincode::{Decode, Encode};
use milepost_engine::{Epoch, Lsn, Result, SiteName, Store, StoreId};

use super::{Pieces, Point, Range};

/// Who sends or is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Name of the site.
    pub name: SiteName,
    /// Id of its store; `None` for an addressee we never heard from.
    pub id: Option<StoreId>,
}

/// What a message says besides its transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Highest message version its sender reads.
    pub reads: u16,
    /// Sender; its id is always told.
    pub from: Address,
    /// Addressee.
    pub to: Address,
    /// Generation of the pair.
    pub generation: u32,
    /// Lineage epoch of the sender's log.
    pub epoch: Epoch,
    /// Durable end of the sender's log, at or above every position of its own that it tells.
    pub durable: Lsn,
    /// What the sender sent this remote before; what the message carries follows it directly.
    pub previous: Point,
    /// What the addressee has once it applied the message. Equal to `previous` when nothing is carried.
    pub last: Point,
    /// Of the addressee's log: what the sender has in its log. Stop sending up to here.
    pub received: Point,
    /// Of the addressee's log: what the sender will never ask for again. At or below `received`.
    pub confirmed: Point,
    /// Where the sender's lineage began, when it is not the first.
    pub lineage: Option<Lineage>,
    /// What the sender misses of the addressee's stream.
    pub requests: Option<Requests>,
    /// Asks the addressee to say what it has.
    pub probe: Option<Probe>,
    /// Answers the probe with this nonce.
    pub answer: Option<u64>,
    /// What of the addressee's stream the sender has in quarantine.
    pub trouble: Option<Trouble>,
    /// The pair was made anew in its place.
    pub rejoined: Option<Rejoined>,
    /// With requests: what the sender has of the transaction in parts that it misses.
    pub pieces: Option<Pieces>,
}

impl Header {
    /// A header that tells nothing but who speaks.
    #[must_use]
    pub fn new(from: (SiteName, StoreId), to: Address, generation: u32, epoch: Epoch) -> Header {
        Header {
            reads: super::VERSION,
            from: Address {
                name: from.0,
                id: Some(from.1),
            },
            to,
            generation,
            epoch,
            durable: Lsn::ZERO,
            previous: Point::NONE,
            last: Point::NONE,
            received: Point::NONE,
            confirmed: Point::NONE,
            lineage: None,
            requests: None,
            probe: None,
            answer: None,
            trouble: None,
            rejoined: None,
            pieces: None,
        }
    }
}

/// What the sender says of its stream after it made the pair anew in its place: an addressee that follows need not have all again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejoined {
    /// Places mean what they meant in every generation from this one on.
    pub since: u32,
    /// Nothing speaks against the sender's own log: what was told in its present lineage is still true.
    pub is_sound: bool,
}

/// The parent of a lineage and where it left it: the log up to `fork` is the parent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// Epoch that was left.
    pub parent: Epoch,
    /// Durable end of what was taken over from it.
    pub fork: Lsn,
    /// From the fork up to here the log has something under the parent's epoch that others may not have there: a position in it is the
    /// sender's only if its chain is. The fork itself where nothing is in doubt.
    pub doubted_to: Lsn,
}

impl Lineage {
    /// That of a store's log.
    ///
    /// # Errors
    /// `Corrupt` for damage in the log (E3).
    pub fn of(store: &Store) -> Result<Option<Lineage>> {
        let Some((parent, fork)) = store.lineage()? else {
            return Ok(None);
        };
        Ok(Some(Lineage {
            parent,
            fork,
            doubted_to: store.lineage_begins()?.max(fork),
        }))
    }
}

/// Ranges that the sender of a message misses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    /// Number of the request at its site: two messages with one number ask the same thing once.
    pub number: u64,
    /// At most [`Requests::MAX_RANGES`].
    pub ranges: Vec<Range>,
}

impl Requests {
    /// Most ranges in one message.
    pub const MAX_RANGES: usize = 16;
}

/// "What have you got?" The answer repeats the nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Random; ties the answer to this probe, so that no older message can pass for it.
    pub nonce: u64,
    /// What the prober sent last.
    pub log_sent: Point,
}

/// What a site could not apply of its neighbour's stream, as it tells that neighbour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Trouble {
    /// Transactions kept in quarantine.
    pub held: u32,
    /// Messages set aside.
    pub refused: u32,
    /// The first of them, at most [`Trouble::MAX_CASES`].
    pub cases: Vec<TroubleCase>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TroubleCase {
    /// Where a transaction that is held stands in the stream; [`Point::NONE`] for a message that was set aside.
    pub point: Point,
    /// Why, at most [`Trouble::MAX_REASON`] bytes.
    pub reason: String,
}

impl Trouble {
    /// Most cases in one message.
    pub const MAX_CASES: usize = 4;
    /// Longest reason in bytes; what is longer is cut by who writes it.
    pub const MAX_REASON: usize = 240;

    /// True when there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.held == 0 && self.refused == 0
    }
}
