//! [`DamagedRecord`]: how often what comes next in a neighbour's stream came damaged, and the copy that is kept of it from the
//! third time on, so that somebody looks after the link (R6).
//!
//! ```text
//! lost, and brings what follows our place  ───► counted once a poll          ─┬─► 1, 2: dropped
//! lost, its head cannot be read            ───► counted once for each asking ─┘   3 …: a copy is kept, then dropped
//! lost, anything else                      ───► dropped
//! our place moves                          ───► forgotten, and the copies with it
//! ```
//!
//! **The same message** is what comes next: it is never sent twice with the same bytes, because its sender says other things
//! beside and packs it with what came since. One without a head is counted for who its name on the link speaks of, or for the only
//! remote on that link, and counts again only once our asking or answer, which made something come again, was another: of a burst
//! of damaged messages one counts. The count is pinned, so an agent that runs once a day gets there too.
//!
//! Guarantees: nothing of it is counted as applied, and the asking goes on as if nothing were kept (R1). Of one remote at most
//! [`super::quarantine::MOST_DAMAGED`] copies are kept, within a limit of bytes, and one record: whoever fills a folder
//! with damaged files fills neither disk nor log. Refuses to judge by it: it decides about no data.

use bincode::{Decode, Encode};
use milepost_engine::{Pinned, Result, SiteName, Store};

use crate::catalog::Catalog;
use crate::message::{Place, Point, cut, decode_header};
use crate::tracking::{PairState, Receiver};

use super::inbox::MessageKey;
use super::phase::{ReceivePhase, limits};
use super::quarantine;

/// From this time on a copy is kept and an operator told.
const THIRD: u32 = 3;
/// Longest reason that is pinned, in bytes.
const REASON_MAX: usize = 240;

/// What came damaged of a neighbour's stream since that moved last.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DamagedRecord {
    /// Generation of the pair.
    pub generation: u32,
    /// Where its stream stands here.
    pub at: Point,
    /// How often what follows came damaged.
    pub times: u32,
    /// How often we had asked and answered when it was counted last.
    pub said: u64,
    /// When it was counted first, microseconds since 1970 by the clock here; for people.
    pub since: i64,
    /// What was wrong with the last one.
    pub reason: String,
}

impl PairState for DamagedRecord {
    const PREFIX: &'static str = "damaged/";
}

impl DamagedRecord {
    /// What an operator should know of a remote: nothing before the third time.
    ///
    /// # Errors
    /// `Corrupt` for a record that is none; those of the store.
    pub fn of(store: &Store, remote: &SiteName) -> Result<Option<DamagedRecord>> {
        let record = DamagedRecord::load(store, remote)?;
        Ok(record.filter(|record| record.times >= THIRD))
    }

    fn load(store: &Store, remote: &SiteName) -> Result<Option<DamagedRecord>> {
        let record = store.pinned(&DamagedRecord::key(remote))?;
        record.map(|(value, _)| DamagedRecord::read(&value)).transpose()
    }
}

/// What came damaged over and over, as the sentences that a receiving agent ends with.
///
/// # Errors
/// As [`DamagedRecord::of`].
pub(crate) fn damaged_again(store: &Store) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for remote in Catalog::load(store)?.remotes() {
        if let Some(record) = DamagedRecord::of(store, &remote.site)? {
            all.push(format!(
                "what comes next of {} came damaged {} times ({}); copies are in `milepost quarantine list`, and it is still asked \
                 for: see what its link does to messages",
                remote.site, record.times, record.reason
            ));
        }
    }
    Ok(all)
}

/// The record of one pair, and whether copies are left of what is forgotten.
#[derive(Default)]
pub(super) struct Damaged {
    record: Option<DamagedRecord>,
    pinned: Option<DamagedRecord>,
    stale: bool,
    /// One was counted in this poll.
    counted: bool,
}

impl Damaged {
    /// As the log holds it. A crash may have left copies of what is forgotten.
    pub(super) fn load(store: &Store, remote: &SiteName, generation: u32) -> Result<Damaged> {
        let pinned = DamagedRecord::load(store, remote)?;
        let record = pinned.clone().filter(|record| record.generation == generation);
        Ok(Damaged {
            stale: record.is_none(),
            record,
            pinned,
            counted: false,
        })
    }

    /// Counts one, unless that was done for the same asking or in the same poll; how often it came by now.
    fn count(&mut self, receiver: &Receiver, has_head: bool, now: i64, reason: &str) -> u32 {
        let told = &receiver.records().told;
        let first = DamagedRecord {
            generation: receiver.records().generation(),
            at: receiver.staged(),
            times: 1,
            said: told.ask_number.saturating_add(told.answers_due),
            since: now,
            reason: cut(reason, REASON_MAX).to_owned(),
        };
        let same = |known: &DamagedRecord| known.generation == first.generation && known.at == first.at;
        let counted = match self.record.take().filter(same) {
            None => first,
            Some(known) if self.counted || (known.said == first.said && !has_head) => known,
            Some(known) => DamagedRecord {
                times: known.times.saturating_add(1),
                since: known.since,
                ..first
            },
        };
        self.counted = true;
        self.record.insert(counted).times
    }

    /// Ends a poll.
    pub(super) fn poll_ended(&mut self) {
        self.counted = false;
    }

    /// What changed since [`Damaged::noted`]; it is forgotten where the stream has moved.
    pub(super) fn note(&mut self, remote: &SiteName, receiver: &Receiver) -> Result<Option<Pinned>> {
        let (at, generation) = (receiver.staged(), receiver.records().generation());
        let stands = |record: &DamagedRecord| record.at == at && record.generation == generation;
        if !self.record.as_ref().is_none_or(stands) {
            (self.record, self.stale) = (None, true);
        }
        if self.record == self.pinned {
            return Ok(None);
        }
        match &self.record {
            Some(record) => record.pin(remote).map(Some),
            None => Ok(Some(Pinned {
                key: DamagedRecord::key(remote),
                value: None,
            })),
        }
    }

    /// It is durable: copies of what is forgotten go.
    pub(super) fn noted(&mut self, store: &Store, remote: &SiteName) -> Result<()> {
        self.pinned.clone_from(&self.record);
        if std::mem::take(&mut self.stale) {
            quarantine::clear_damaged(store, remote)?;
        }
        Ok(())
    }
}

impl ReceivePhase {
    /// A message counts as lost and leaves its link; of what comes damaged over and over a copy is kept first.
    pub(super) fn lose(
        &mut self,
        sender: Option<&SiteName>,
        key: MessageKey,
        bytes: &[u8],
        why: &str,
    ) -> Result<()> {
        let sender = sender.cloned().or_else(|| self.named_by(&key));
        let applies = self.applies();
        let pair = sender.as_ref().and_then(|sender| self.pairs.get_mut(sender));
        if let (Some(pair), Some(sender), true) = (pair, &sender, applies)
            && let Some(has_head) = may_bring_next(bytes, pair.receiver.staged().place())
        {
            let now = self.store.clock().wall_micros();
            let times = pair.damaged.count(&pair.receiver, has_head, now, why);
            if times >= THIRD {
                let reason = format!("it came damaged {times} times: {why}");
                tracing::error!(message = %key.id, %sender, reason, "what comes next is damaged over and over");
                if !quarantine::keep_damaged(&self.store, sender.as_str(), bytes, &reason)? {
                    tracing::warn!(message = %key.id, %sender, "no copy of it is kept: there are as many as may be");
                }
            }
        }
        self.leave(key);
        Ok(())
    }

    /// Whose message one without a head may be: what its name on the link begins with, or the only remote there.
    fn named_by(&self, key: &MessageKey) -> Option<SiteName> {
        let named = key
            .id
            .as_str()
            .rsplit_once('-')
            .and_then(|(name, _)| SiteName::new(name).ok());
        if let Some(name) = named.filter(|name| self.pairs.contains_key(name)) {
            return Some(name);
        }
        let mut there = self.pairs.iter().filter(|(_, pair)| pair.link == key.link);
        let only = there.next().map(|(name, _)| name.clone());
        only.filter(|_| there.next().is_none())
    }
}

/// Whether a damaged message has a head that says that it brings what follows `place` (true), or none that can be read (false).
fn may_bring_next(bytes: &[u8], place: Place) -> Option<bool> {
    match decode_header(bytes, &limits()) {
        Ok(header) => (header.previous.place() <= place && place < header.last.place()).then_some(true),
        Err(_) => Some(false),
    }
}
