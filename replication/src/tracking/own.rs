//! [`OwnLog`]: our own log, as far as tracking asks it.

use milepost_engine::frame::NewFrame;
use milepost_engine::{Epoch, Lsn, Origin, Position, Result, SiteName, StoreId};

use crate::message::{Carried, Joined, MessageFault, Part, Point};

use super::held::HeldEvent;
use super::verdict::Refusal;

/// A transaction of a neighbour's that is new here, and about to become a frame.
pub struct Case<'a> {
    /// The neighbour that brought it.
    pub remote: &'a SiteName,
    /// Id of its store.
    pub sender: StoreId,
    /// Generation of the pair.
    pub generation: u32,
    /// The transaction as it came.
    pub carried: &'a Carried,
    /// Where it was committed first.
    pub origin: &'a Origin,
    /// A frame with those of its events that are not here yet.
    pub frame: &'a NewFrame,
    /// Why it cannot be applied, if that is known already.
    pub against: Option<Refusal>,
}

/// What becomes of it.
pub enum Judgement {
    /// It is appended.
    Apply,
    /// In its place this frame is, which keeps it in quarantine (R6).
    Keep(Box<NewFrame>),
    /// It is not taken, and its stream stands before it.
    Refuse(Refusal),
}

/// Whether a transaction is kept in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InQuarantine {
    /// It is not, or not all of it.
    No,
    /// It is.
    Yes,
    /// It will be, once the frames made in this poll are durable.
    NotYet,
}

/// Our own log. What is asked of it is durable, unless it is said to be staged.
pub trait OwnLog {
    /// Position of the frame that begins exactly at `lsn`; `None` when none does.
    ///
    /// # Errors
    /// Those of the store.
    fn position_at(&self, lsn: Lsn) -> Result<Option<Position>>;

    /// True for a position of an earlier lineage of our log from behind where we left it, unless its chain shows that it is in our log:
    /// true once, and ours no more.
    ///
    /// # Errors
    /// Those of the store.
    fn has_left(&self, position: Position) -> Result<bool>;

    /// The pinned record `origin/` of a site, if there is one: the highest LSN of a commit of its, in any of
    /// its lineages, that is in our log or staged. A transaction beyond it is surely new.
    ///
    /// # Errors
    /// Those of the store.
    fn newest_passed_on(&self, site: StoreId) -> Result<Option<Lsn>>;

    /// The same, found in the log itself: [`Lsn::ZERO`] when nothing of the site is in it. May read all of it.
    ///
    /// # Errors
    /// Those of the store.
    fn newest_of(&self, site: StoreId) -> Result<Lsn>;

    /// The events of the transaction that `origin` names, in whatever frames they came.
    ///
    /// # Errors
    /// Those of the store.
    fn events_of(&self, origin: &Origin) -> Result<Vec<HeldEvent>>;

    /// Why there may be more of that transaction in what was received than [`OwnLog::events_of`] gives, if there may: what
    /// told it was lost, or never kept.
    ///
    /// # Errors
    /// Those of the store.
    fn forgot(&self, origin: &Origin) -> Result<Option<String>>;

    /// True when [`OwnLog::newest_of`] may be too low for a site of that name, for the same reason.
    ///
    /// # Errors
    /// Those of the store.
    fn forgot_newest(&self, site: StoreId, name: &SiteName) -> Result<bool>;

    /// The last point of a neighbour's stream that our log has, of one lineage and not behind `fork`. Reads all of the log.
    ///
    /// # Errors
    /// Those of the store.
    fn last_before(&self, _neighbour: &SiteName, _epoch: Epoch, _fork: Lsn) -> Result<Option<Point>> {
        Ok(None)
    }

    /// True when pinned records may be lost, since a repair: that there is none of a pair's position does not say that nothing
    /// was received.
    ///
    /// # Errors
    /// Those of the store.
    fn doubts_records(&self) -> Result<bool>;

    /// True while a transaction became a frame, from whatever neighbour it came, and is not in the log yet.
    fn is_staged(&self, origin: &Origin) -> bool;

    /// Highest LSN of a site's transactions of which that is true.
    fn newest_staged(&self, site: StoreId) -> Lsn;

    /// Why a frame can never be appended here, or `None`.
    fn refusal_of(&self, frame: &NewFrame) -> Option<String>;

    /// Keeps a piece of a transaction beside the log, durable with the next sync of what this poll brought, and hands out the
    /// transaction when none is missing. `None` where nothing is kept: then its message is to stay on its link.
    ///
    /// # Errors
    /// Those of the files; the piece is not kept then.
    fn keep_part(
        &self,
        _neighbour: &SiteName,
        _generation: u32,
        _part: &Part,
    ) -> Result<Option<Result<Joined, MessageFault>>> {
        Ok(None)
    }

    /// Whether all events of a transaction are kept in quarantine already.
    ///
    /// # Errors
    /// Those of the store.
    fn in_quarantine(&self, _origin: &Origin, _carried: &Carried) -> Result<InQuarantine> {
        Ok(InQuarantine::No)
    }

    /// What becomes of a transaction: asked once for each that is about to become a frame, in their order. A frame that it was
    /// answered with is appended, unless the whole poll fails.
    ///
    /// # Errors
    /// Those of the store, and of the application's hooks: then the transaction is not taken, and comes again.
    fn judge(&self, case: Case<'_>) -> Result<Judgement> {
        Ok(match case.against {
            Some(refusal) => Judgement::Refuse(refusal),
            None => Judgement::Apply,
        })
    }
}
