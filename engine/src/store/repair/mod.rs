//! [`Repair`]: makes a damaged log one that can be read and written again, and says what is lost.
//!
//! ```text
//! examine: nothing is changed      walk ─► damages, what each held, what each choice would lose
//! run:     what goes is kept aside, durable ─► file `repair` durable ─► steps (see `apply`) ─► file `repair` removed
//!
//! cut      | good | good | BAD | good | good |   ─►   | good | good | new epoch |
//! isolate  | good | good | BAD | good | good |   ─►   | good | good | lost | good | good | new epoch |
//! ```
//!
//! What is lost stays lost. Isolating keeps LSNs and chains of everything behind the damage: a *lost block* in its
//! place names the chain that the good block behind it goes on from. Neither hides anything: the log itself says
//! in `lost/…` records what is missing, damage is never passed over in reading (E3), and a new lineage epoch
//! begins, because the history is another one now (R5). A neighbour past a cut is found by it; one past isolated
//! damage goes on, for its positions are still true, and one that stands before it never gets what is lost.

mod apply;
mod aside;
mod base;
mod plan;
mod received;

pub use base::BaseDamage;

pub(super) use plan::REPAIR_FILE;

use std::path::Path;
use std::sync::Arc;

use crate::block::HEADER_LEN;
use crate::log::rescue;
use crate::storage::{LocalStorage, Storage};
use crate::{
    Chain, Damage, DamageKind, Epoch, Error, Loss, LostFrame, Lsn, Options, RawEnd, RawLog, RawPiece,
    ReceivedDamage, Result,
};

use plan::{Becomes, LostRange, Plan};

/// What to do about damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairHow {
    /// Drop everything from the first damaged block to the log's end.
    Cut,
    /// Drop the damaged ranges alone, and keep what is good behind them.
    Isolate,
}

/// What a choice loses, as far as it can be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Where the log ends afterwards.
    pub end: Lsn,
    /// Bytes of the log that go.
    pub bytes: u64,
    /// Transactions that are lost for certain or as far as damaged bytes can be read.
    pub transactions: u64,
    /// Events in them.
    pub events: u64,
    /// Bytes of which nothing is known.
    pub unknown_bytes: u64,
}

/// What is damaged, and what each choice would cost.
#[derive(Clone, Debug)]
pub struct Examined {
    /// Damaged ranges in log order, with what can be read of them.
    pub damages: Vec<(Damage, Loss)>,
    /// The cost of cutting.
    pub cut: Cost,
    /// The cost of isolating, or why it cannot be done.
    pub isolate: Result<Cost, String>,
    /// The base is damaged: [`Repair::renew_base`].
    pub base: Option<BaseDamage>,
    /// Files of what was received in the freed part that are damaged, oldest first: [`Repair::renew_received`].
    pub received: Vec<ReceivedDamage>,
    /// A repair of those was interrupted: [`Repair::renew_received`] finishes it.
    pub received_unlinked: bool,
    /// A repair was interrupted, and nothing else can be done but to run it again.
    pub interrupted: Option<RepairHow>,
    end: Option<RawEnd>,
}

/// What a repair did.
#[derive(Clone, Debug)]
pub struct Repaired {
    /// How.
    pub how: RepairHow,
    /// Where the log ended after it, and the new lineage begins.
    pub end: Lsn,
    /// The lineage that was left.
    pub parent: Epoch,
    /// The new lineage.
    pub epoch: Epoch,
    /// Ranges that are lost.
    pub ranges: Vec<(Lsn, Lsn)>,
    /// It finished a repair that had been interrupted.
    pub resumed: bool,
}

/// A store that nobody has open, to be repaired.
pub struct Repair {
    raw: RawLog,
    options: Options,
}

impl Repair {
    /// Takes the store in `dir`, alone. Nothing is changed yet.
    ///
    /// # Errors
    /// `NoStore` when there is none; `Unavailable` while anybody has it open; `Invalid` for a backup.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Repair> {
        Repair::open_in(Arc::new(LocalStorage::new(dir.as_ref().to_path_buf())), options)
    }

    /// [`Repair::open`] over any storage.
    ///
    /// # Errors
    /// As [`Repair::open`].
    pub fn open_in(storage: Arc<dyn Storage>, options: Options) -> Result<Repair> {
        options.check()?;
        super::open::refuse_file_system(&*storage, &options)?;
        let raw = RawLog::open_in(storage)?;
        if raw.is_backup() {
            let text = "this is a backup: `milepost backup` with --check copies again what is damaged in it";
            return Err(Error::invalid(text).at_path(raw.storage.root()));
        }
        Ok(Repair { raw, options })
    }

    /// Takes segments in an archive that is away for missing ones: what is isolated then is lost for good here, though
    /// its files may be there again.
    #[must_use]
    pub fn without_archive(mut self) -> Repair {
        self.raw.without_archive = true;
        self
    }

    /// What is wrong with the file that says whose the archive is, as [`crate::Store::archive_damage`].
    #[must_use]
    pub fn archive_damage(&self) -> Option<Error> {
        crate::log::away::mark_damage(&*self.raw.storage, self.raw.identity.owner)
    }

    /// Reads the whole log and says what is damaged; changes nothing.
    ///
    /// # Errors
    /// `Internal` when a file cannot be read at all; `Corrupt` when there is no segment.
    pub fn examine(&self) -> Result<Examined> {
        let interrupted = Plan::read(&*self.raw.storage, self.raw.identity.owner.id)?;
        let mut found = Examined {
            damages: Vec::new(),
            cut: Cost::default(),
            isolate: Ok(Cost::default()),
            base: None,
            received: Vec::new(),
            received_unlinked: false,
            interrupted: interrupted.map(|plan| plan.how),
            end: None,
        };
        if found.interrupted.is_some() {
            return Ok(found);
        }
        found.base = self.base_damage()?;
        if found.base.is_none() {
            let (received, linked) = self.received_damage()?;
            (found.received, found.received_unlinked) = (received, !linked);
        }
        let (mut lost, mut behind) = (Cost::default(), Cost::default());
        let end = self.raw.walk(&mut |piece| {
            match piece {
                RawPiece::Damage(damage) => {
                    let loss = self.raw.loss(damage)?;
                    lost.add_loss(damage, &loss);
                    found.damages.push((damage.clone(), loss));
                }
                RawPiece::Block(block) if !found.damages.is_empty() => {
                    behind.bytes += u64::from(block.header().block_len);
                    behind.events += u64::from(block.header().event_count);
                    for frame in block.frames() {
                        behind.transactions += u64::from(frame?.event_count() > 0);
                    }
                }
                RawPiece::Block(_) => {}
            }
            Ok(())
        })?;
        found.cut = Cost {
            end: found.damages.first().map_or(end.at, |(damage, _)| damage.at),
            bytes: lost.bytes + behind.bytes,
            transactions: lost.transactions + behind.transactions,
            events: lost.events + behind.events,
            unknown_bytes: lost.unknown_bytes,
        };
        let kept = trailing(&found.damages, end.at);
        found.isolate = isolable(&found.damages).map(|()| Cost { end: kept, ..lost });
        if !found.damages.is_empty() && self.leaves_nothing(kept)? {
            let text = "nothing whole is left behind what was freed, so no log can go on from there: restore a backup";
            found.isolate = found.isolate.and(Err(text.to_owned()));
        }
        found.end = Some(end);
        Ok(found)
    }

    /// Repairs. `told` is told every frame that is lost, in log order; a repair that was interrupted is finished
    /// as it was begun, and tells nothing again: the list is in `damaged`.
    ///
    /// # Errors
    /// `Invalid` when nothing is damaged, or the choice cannot be made, with the reason; otherwise as
    /// [`Repair::examine`]; `Full`. Run it again after an error.
    pub fn run(self, how: RepairHow, told: &mut dyn FnMut(&LostFrame)) -> Result<Repaired> {
        let storage = Arc::clone(&self.raw.storage);
        if self.raw.identity.pad_to > 1 {
            // What a power cut took while it was written again is no damage: there is a second copy.
            rescue::put_back(&self.raw.dir, Chain::genesis(self.raw.identity.owner.id))?;
        }
        super::open::forget_page(&*storage)?;
        let begun = Plan::read(&*storage, self.raw.identity.owner.id)?;
        let resumed = begun.is_some();
        let plan = match begun {
            Some(plan) => plan,
            None => {
                let found = self.examine()?;
                let plan = self.plan(how, &found)?;
                self.refuse_archived(&plan)?;
                aside::keep(&self.raw, &plan, &found, told)?;
                plan.write(&*storage)?;
                plan
            }
        };
        apply::apply(&self.raw, &plan, &self.options)?;
        Plan::remove(&*storage)?;
        Ok(Repaired {
            how: plan.how,
            end: plan.end,
            parent: plan.parent,
            epoch: plan.epoch,
            ranges: plan.ranges.iter().map(|range| (range.at, range.end)).collect(),
            resumed,
        })
    }

    fn plan(&self, how: RepairHow, found: &Examined) -> Result<Plan> {
        let (Some((first, _)), Some(end)) = (found.damages.first(), found.end) else {
            return Err(found.no_damage());
        };
        if let (RepairHow::Isolate, Err(reason)) = (how, &found.isolate) {
            return Err(Error::invalid(reason.clone()).at_lsn(first.at));
        }
        if how == RepairHow::Cut && self.leaves_nothing(first.at)? {
            let text = "the log's beginning was freed, and a cut here would leave nothing of the rest: isolate the damage \
                        instead, if anything behind it is whole, or restore a backup";
            return Err(Error::invalid(text).at_lsn(first.at));
        }
        let genesis = Chain::genesis(self.raw.identity.owner.id);
        let segment_of = |at: Lsn| self.raw.dir.first_at_or_before(Lsn(at.0.saturating_sub(1)));
        let rng = &self.options.rng;
        let mut plan = Plan {
            how,
            store: self.raw.identity.owner.id,
            epoch: Epoch(rng.next_u64()),
            parent: Epoch(0),
            nonce: rng.next_u64(),
            time: self.options.clock.wall_micros(),
            end: first.at,
            chain: first.chain_before.unwrap_or(genesis),
            last: segment_of(first.at)?.unwrap_or_default(),
            damaged: segment_of(first.at.plus(1))?.unwrap_or_default(),
            durable: end.durable,
            ranges: Vec::new(),
        };
        plan.damaged = plan.damaged.min(plan.last);
        if how == RepairHow::Cut {
            plan.parent = self.epoch_before(first.at)?;
            plan.ranges = vec![LostRange {
                at: first.at,
                end: end.at.max(end.durable).max(first.end),
                chain_before: plan.chain,
                chain_after: Chain::default(),
                becomes: Becomes::Nothing,
            }];
            return Ok(plan);
        }
        plan.end = trailing(&found.damages, end.at);
        plan.ranges = self.ranges(&found.damages, plan.end)?;
        // The last good block before the end names chain and epoch.
        (plan.chain, plan.parent) = if plan.end == end.at && end.chain.is_some() {
            (end.chain.unwrap_or_default(), end.epoch)
        } else {
            (plan.chain, self.epoch_before(plan.end)?)
        };
        if let Some(trailing) = found.damages.iter().find(|(damage, _)| damage.at == plan.end) {
            plan.chain = trailing.0.chain_before.unwrap_or(plan.chain);
        }
        plan.last = segment_of(plan.end)?.unwrap_or_default();
        Ok(plan)
    }

    /// Whether a log whose beginning was freed and that ends at `end` would hold no block.
    fn leaves_nothing(&self, end: Lsn) -> Result<bool> {
        Ok(end > Lsn::ZERO && self.raw.dir.list()?.first() >= Some(&end))
    }

    /// What lies in an archive is not written by a repair. Of what a cut takes away whole the stubs go.
    fn refuse_archived(&self, plan: &Plan) -> Result<()> {
        let written = |first: &Lsn| match plan.how {
            RepairHow::Cut => *first == plan.last,
            RepairHow::Isolate => {
                let holds = |range: &&LostRange| range.becomes == Becomes::Blocks && range.at >= *first;
                let next = plan.ranges.iter().filter(holds).map(|range| range.at).min();
                *first == plan.last || next.is_some_and(|at| self.holds(*first, at))
            }
        };
        for first in self.raw.dir.list()?.iter().copied().filter(written) {
            if self.raw.dir.only_away(first)?.is_some() {
                let back = "a segment that the repair has to write lies in the archive, and nothing was changed: bring it \
                            back with `milepost archive` and --back, then repair; where that ends at a segment that is \
                            missing there, what comes before it is here by then";
                let gone = "a segment that the cut has to write lies in the archive, which is taken for lost, and nothing was \
                            changed: `milepost repair` with --isolate and --without-archive keeps what is here";
                let cut = plan.how == RepairHow::Cut;
                let text = if cut && self.raw.without_archive {
                    gone
                } else {
                    back
                };
                return Err(Error::invalid(text)
                    .at_path(self.raw.storage.root())
                    .at_lsn(first));
            }
        }
        Ok(())
    }

    /// Whether the segment that begins at `first` is the one that holds `at`.
    fn holds(&self, first: Lsn, at: Lsn) -> bool {
        self.raw
            .dir
            .first_at_or_before(at)
            .is_ok_and(|holding| holding == Some(first))
    }

    /// What becomes of each damaged range when the rest stays. The chain runs through neighbouring ones.
    fn ranges(&self, damages: &[(Damage, Loss)], end: Lsn) -> Result<Vec<LostRange>> {
        let mut ranges: Vec<LostRange> = Vec::new();
        let genesis = Chain::genesis(self.raw.identity.owner.id);
        for (damage, _) in damages {
            let former = ranges.last().filter(|former| former.end == damage.at);
            let chain_before = damage.chain_before.or(former.map(|former| former.chain_after));
            let chain_before = chain_before.unwrap_or(genesis);
            let held = match self.raw.dir.first_at_or_before(damage.at)? {
                Some(first) => match self.raw.dir.open(first) {
                    Err(error) => self.raw.passed_over(first, error).map(|_| false)?,
                    segment => damage.end <= segment?.end(),
                },
                None => false,
            };
            ranges.push(LostRange {
                at: damage.at,
                end: damage.end,
                chain_before,
                // Unknown only where the next range is lost too: then any word does.
                chain_after: damage.chain_after.unwrap_or(chain_before),
                becomes: match held {
                    _ if damage.at >= end => Becomes::Nothing,
                    true => Becomes::Blocks,
                    false => Becomes::File,
                },
            });
        }
        Ok(ranges)
    }

    /// Epoch of the last whole block that ends at or before `at`.
    fn epoch_before(&self, at: Lsn) -> Result<Epoch> {
        let mut epoch = Epoch(0);
        self.raw.walk(&mut |piece| {
            if let RawPiece::Block(block) = piece
                && block.header().end() <= at
            {
                epoch = block.header().epoch;
            }
            Ok(())
        })?;
        Ok(epoch)
    }
}

impl Examined {
    /// Why the log is not repaired, of which no block is damaged.
    fn no_damage(&self) -> Error {
        Error::invalid(match &self.base {
            Some(_) => {
                "no block of the log is damaged, but the base is: repair that (`milepost repair` with --base)"
            }
            None if self.received_unlinked => {
                "no block of the log is damaged, but what was received is: repair that (`milepost repair` with --received)"
            }
            None => "nothing is damaged: there is nothing to repair",
        })
    }
}

impl Cost {
    fn add_loss(&mut self, damage: &Damage, loss: &Loss) {
        if damage.kind == DamageKind::Parted {
            return;
        }
        let bytes = damage.end.since(damage.at);
        self.bytes += bytes;
        let transactions = loss.frames.iter().filter(|frame| frame.events > 0);
        self.transactions += crate::width::to_u64(transactions.count());
        self.events += loss
            .frames
            .iter()
            .map(|frame| u64::from(frame.events))
            .sum::<u64>();
        if loss.frames.is_empty() && loss.named != Some((0, 0)) {
            self.unknown_bytes += bytes;
        }
    }
}

/// Where two histories meet nobody can say which of them is this store's; and a lost block takes a header's length.
fn isolable(damages: &[(Damage, Loss)]) -> Result<(), String> {
    let fits = |len: u64| len >= crate::width::to_u64(HEADER_LEN) && len.is_multiple_of(8);
    let odd = |(damage, _): &&(Damage, Loss)| {
        !matches!(damage.kind, DamageKind::Parted | DamageKind::End) && !fits(damage.end.since(damage.at))
    };
    if let Some((odd, _)) = damages.iter().find(odd) {
        return Err(format!(
            "{} bytes are missing at LSN {}, which no block can stand for: a file of the log has a wrong name; give \
             it back its own, or cut there",
            odd.end.since(odd.at),
            odd.at
        ));
    }
    match damages
        .iter()
        .find(|(damage, _)| damage.kind == DamageKind::Parted)
    {
        Some((parted, _)) => Err(format!(
            "two histories meet at LSN {}: what stands behind it does not belong to what stands before; put the \
             right file in its place, or cut there",
            parted.at
        )),
        None => Ok(()),
    }
}

/// Where the log ends when damaged ranges with nothing good behind them are dropped.
fn trailing(damages: &[(Damage, Loss)], end: Lsn) -> Lsn {
    let mut at = end;
    for (damage, _) in damages.iter().rev() {
        if damage.kind == DamageKind::End || damage.end == at {
            at = damage.at;
        }
    }
    at
}

#[cfg(test)]
mod tests;
