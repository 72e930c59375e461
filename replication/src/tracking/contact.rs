//! Is a message of this pair: for us, from the site we met, of our generation, of a lineage not left?
//!
//! First contact pins who the neighbour is; from then on another store under its name is refused until an
//! operator rejoins it; of an earlier making it is kept aside, for it may be what a store that was replaced had on its way. A higher generation than ours is the neighbour's word that it made the pair anew, and
//! we follow; what is of a lower one is late and dropped, and answered, for its sender may not know yet. What
//! is of a lineage that its sender left is dropped. Nothing else of such a message is looked at.

use milepost_engine::{Lsn, StoreId};

use crate::message::{Header, Point};
use crate::planted::{self, Bug};

use super::receiver::Me;
use super::state::{Neighbour, PairRecord, PairRecords, ReceivedRecord, ReportedRecord, ToldRecord};
use super::verdict::{FormerSite, Refusal, Verdict};

/// What a message's addresses, generation and lineage come to.
pub(super) enum Contact {
    /// Of this pair.
    Known,
    /// Of this pair, and the first: the records are these from now on.
    First(Box<PairRecords>),
    /// Not of this pair, or the pair is stopped.
    Not(Verdict),
}

/// Judges a message by its head.
pub(super) fn judge(me: &Me, neighbour: &Neighbour, records: &PairRecords, header: &Header) -> Contact {
    let from = header.from.id.unwrap_or_default();
    if header.from.name != neighbour.name || header.to.name != me.name {
        return Contact::Not(Verdict::Refused(Refusal::Misdirected));
    }
    let (ours, theirs) = (records.generation(), header.generation);
    let other = Verdict::OtherGeneration { ours, theirs };
    if header.to.id.is_some_and(|id| id != me.id) || from == me.id {
        // A pair that was made anew here since, after a removal without a word of the remote yet, was another one's before.
        let may_be_it = records.pair.as_ref().is_none_or(|pair| pair.site == from);
        // It was on its way to the store that this one replaces.
        return Contact::Not(match may_be_it && from != me.id && theirs < ours {
            true => other,
            false => Verdict::Refused(Refusal::NotForThisStore),
        });
    }
    let (met, made) = (records.pair.as_ref().map(|pair| pair.site), records.made);
    let known = met.or(made.map(|made| made.store));
    if let Some(known) = known.filter(|known| *known != from) {
        // Where that store was made for the remote here, no other can be it.
        let is_made = made.is_some_and(|made| made.store == known);
        if is_made || theirs < ours {
            return Contact::Not(former_site((known, ours), header, other));
        }
    }
    let Some(pair) = &records.pair else {
        return if theirs < ours {
            Contact::Not(other)
        } else {
            Contact::First(Box::new(meet(records, header, from)))
        };
    };
    if pair.site != from {
        Contact::Not(Verdict::Refused(Refusal::OtherSite {
            known: pair.site,
            came: from,
        }))
    } else if theirs > pair.generation {
        Contact::First(Box::new(meet(records, header, from)))
    } else if theirs < pair.generation && !planted::is(Bug::AcceptOldGeneration) {
        Contact::Not(other)
    } else if let Some(reason) = &pair.stopped {
        Contact::Not(Verdict::Stopped(reason.clone()))
    } else if pair.past_epochs.contains(&header.epoch) {
        Contact::Not(Verdict::PastLineage)
    } else {
        Contact::Known
    }
}

/// Of another store under the remote's name, which was replaced or is of an earlier making. What it carries may be nowhere else; what carries nothing is
/// late.
fn former_site(known: (StoreId, u32), header: &Header, late: Verdict) -> Verdict {
    if header.previous == header.last {
        return late;
    }
    Verdict::FormerSite(FormerSite {
        known,
        came: (header.from.id.unwrap_or_default(), header.generation),
    })
}

/// First contact pins site, lineage and generation. A higher generation than ours begins anew.
fn meet(records: &PairRecords, header: &Header, site: StoreId) -> PairRecords {
    let generation = header.generation;
    let mut met = records.clone();
    met.pair = Some(PairRecord {
        site,
        epoch: header.epoch,
        // What it left is never new, though a message of it may come after this one.
        past_epochs: header.lineage.iter().map(|lineage| lineage.parent).collect(),
        generation,
        held: Lsn::ZERO,
        reads: header.reads,
        stopped: None,
    });
    if generation != records.generation() {
        met.received = ReceivedRecord {
            generation,
            point: Point::NONE,
        };
        // What it had confirmed may be freed, and it may ask for all of it again.
        met.told = ToldRecord {
            generation,
            confirmed_once: records.told.confirmed_at_most(),
            ..ToldRecord::default()
        };
        (met.probe, met.sent) = (None, None);
        met.reported = ReportedRecord {
            generation,
            ..ReportedRecord::default()
        };
    }
    met
}
