//! [`Past`]: live transactions that a remote had confirmed, so that the queue let them go, and that it has
//! no more: it was put back to an older copy. They are read from the log and judged again.
//!
//! ```text
//! log    ──── after ·········· once ─────────► queue
//!              └ from the log, ┘└ never confirmed, so still in the queue (Q2)
//!                as the scan judged then
//! ```
//!
//! What matched is decided by the publications in force at each transaction, who is due it by the
//! subscriptions in force now, exactly as for an entry of the queue. Refuses to go on where the log no longer
//! has what is missing (`Behind`).

use milepost_engine::frame::{EventRef, FrameKind, FrameRef};
use milepost_engine::{LogScan, Lsn, Position, Result, SiteName, Store};

use crate::catalog::{Catalog, Matcher, Subscription, Topic, TopicId};
use crate::message::{Carried, Point};

use super::heirs::Heirs;
use super::history::Found;

/// One remote's live transactions, read from the log.
pub struct Past {
    log: LogScan,
    catalog: Catalog,
    matcher: Matcher,
    found: Vec<TopicId>,
    store: Store,
    heirs: Heirs,
    /// Behind this commit and before what is `ahead` nothing is due.
    after: Lsn,
    ahead: Option<Carried>,
}

impl Past {
    /// Behind the commit at `after`. Before the first of the `subscriptions` nothing was due, so that is not read.
    ///
    /// # Errors
    /// `Behind` when the log no longer has it.
    pub fn open(store: &Store, subscriptions: &[&Subscription], after: Lsn) -> Result<Past> {
        let first = subscriptions.iter().map(|one| one.id.lsn()).min();
        let from = after.max(first.unwrap_or(store.watermarks().durable));
        let catalog = Catalog::as_of(store, from)?;
        Ok(Past {
            log: store.scan(from)?,
            store: store.clone(),
            heirs: Heirs::default(),
            matcher: Matcher::new(&catalog, |_| true)?,
            catalog,
            found: Vec::new(),
            after,
            ahead: None,
        })
    }

    /// True when what it finds next is the first behind the commit at `after`.
    #[must_use]
    pub fn goes_on_from(&self, after: Lsn) -> bool {
        let next = self
            .ahead
            .as_ref()
            .map_or(self.log.position(), |ahead| ahead.point.position.lsn);
        self.after <= after && (after < next || after == self.log.position())
    }

    /// LSN of the first transaction at or before `until` that `remote` is due; looks at most at `frames`
    /// frames. `End` also when the durable log ends first.
    ///
    /// # Errors
    /// Those of reading the log.
    pub fn peek(
        &mut self,
        remote: &SiteName,
        subscriptions: &[&Subscription],
        until: Lsn,
        frames: usize,
    ) -> Result<Found<Lsn>> {
        if let Some(ahead) = &self.ahead {
            let at = ahead.point.position.lsn;
            return Ok(if at <= until { Found::Due(at) } else { Found::End });
        }
        for _ in 0..frames {
            if self.log.position() >= until {
                return Ok(Found::End);
            }
            let Past {
                log,
                catalog,
                matcher,
                found,
                store,
                heirs,
                ..
            } = self;
            // The chain of the block that holds the frame is known once the scan has entered it.
            let Some(frame) = log.next()? else {
                return Ok(Found::End);
            };
            if catalog.follow(&frame)? {
                *matcher = Matcher::new(catalog, |_| true)?;
                continue;
            }
            let mut due = Vec::new();
            for (event, revoked) in judge(&frame, remote, subscriptions, matcher, found)? {
                if heirs.want((store, subscriptions), &event, frame.lsn(), revoked)? {
                    due.push(event);
                }
            }
            if due.is_empty() || frame.lsn() > until {
                continue;
            }
            let (lsn, epoch, committed_at) = (frame.lsn(), frame.epoch(), frame.committed_at()?);
            let origin = frame.origin()?.map(|origin| origin.to_owned()).transpose()?;
            let mut carried = Carried::of(Point::NONE, origin, due)?;
            carried.committed_at = committed_at;
            carried.point = Point::live(Position {
                epoch,
                lsn,
                chain: log.chain(),
            });
            self.ahead = Some(carried);
            return Ok(Found::Due(lsn));
        }
        Ok(Found::NotYet)
    }

    /// The first transaction at or before `until` that `remote` is due, as [`Past::peek`] finds it.
    ///
    /// # Errors
    /// As [`Past::peek`].
    pub fn next(
        &mut self,
        remote: &SiteName,
        subscriptions: &[&Subscription],
        until: Lsn,
        frames: usize,
    ) -> Result<Found<Carried>> {
        Ok(match self.peek(remote, subscriptions, until, frames)? {
            Found::Due(_) => self.take().map_or(Found::End, Found::Due),
            Found::NotYet => Found::NotYet,
            Found::End => Found::End,
        })
    }

    /// The transaction that was found last.
    pub fn take(&mut self) -> Option<Carried> {
        let carried = self.ahead.take()?;
        self.after = carried.point.position.lsn;
        Some(carried)
    }
}

/// Events of a frame that a remote is due live, each with the moment when the last subscription that gives it was
/// revoked, if all are.
fn judge<'a>(
    frame: &FrameRef<'a>,
    remote: &SiteName,
    subscriptions: &[&Subscription],
    matcher: &mut Matcher,
    found: &mut Vec<TopicId>,
) -> Result<Vec<(EventRef<'a>, Option<Lsn>)>> {
    let mut due = Vec::new();
    let came_from_it = frame.via()?.is_some_and(|via| via.name == remote.as_str());
    if frame.kind() != FrameKind::TRANSACTION || came_from_it {
        return Ok(due);
    }
    for event in frame.events() {
        let event = event?;
        found.clear();
        matcher.topics_of(&event, found)?;
        let topics: Vec<&Topic> = found.iter().filter_map(|id| matcher.topic(*id)).collect();
        let gives = |one: &&&Subscription| {
            let under = |topic: &&Topic| one.publication == topic.publication && one.value == topic.value;
            one.covers_live(frame.lsn()) && topics.iter().any(under)
        };
        // In force is longer than revoked at any moment.
        let ends = subscriptions.iter().filter(gives).map(|one| one.revoked);
        if let Some(last) = ends.max_by_key(|revoked| revoked.unwrap_or(Lsn::MAX)) {
            due.push((event, last));
        }
    }
    Ok(due)
}
