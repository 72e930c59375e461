//! [`Receiver`]: what one neighbour's messages do here, as the receive phase sees it.
//!
//! ```text
//!            ┌ not its name, id, generation, lineage ─► refused or dropped
//! message ──►┤ its claims about our log ─► told (claims.rs) ─► fork? stop
//!            └ its data against log_received r:
//!                 last <= r             duplicate, answered
//!                 previous <= r < last  what lies after r, if the message proves that it goes on from r
//!                 previous > r          a gap: stays on the link, asked for in time (gap.rs)
//! ```
//!
//! **Proof.** A position is never believed by its LSN alone (R5). A message goes on from r when its
//! `previous`, or a transaction in it, is r with the same epoch and chain. An overlap that neither names
//! (r was the end of a stretch without events, or its sender is an older copy) proves nothing: it stays on
//! the link, and (r, last] is asked for, which makes the owner of the log check r and send again from r.
//!
//! **Two steps.** [`Receiver::receive`] moves the staged position; [`Receiver::durable`] makes it the
//! position that is told back, once the frames are durable (R2); [`Receiver::abandon`] returns.

use std::time::Duration;

use milepost_engine::{Lsn, Pinned, Position, Result, SiteName, StoreId};

use crate::message::{Header, Item, Joiner, Lineage, Message, MessageFault, Place, Point, Range, VERSION};
use crate::planted::{self, Bug};

use super::claims::{self, Noted};
use super::contact::{self, Contact};
use super::gap::{Gaps, Patience, PollCause};
use super::own::OwnLog;
use super::staged::Staged;
use super::state::{
    MadeRecord, Neighbour, PairRecord, PairRecords, PairState, ProbeRecord, ReceivedRecord, StopReason,
};
use super::verdict::{Leave, Refusal, Verdict};

/// Most lineages remembered as past.
const MAX_PAST_EPOCHS: usize = 64;

/// This site, as its neighbours address it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Me {
    /// Its name.
    pub name: SiteName,
    /// Id of its store.
    pub id: StoreId,
}

/// The receive phase's state of one pair.
#[derive(Clone, Debug)]
pub struct Receiver {
    pub(super) me: Me,
    pub(super) neighbour: Neighbour,
    pub(super) records: PairRecords,
    pub(super) pinned: PairRecords,
    pub(super) staged: Point,
    /// What became frames since [`Receiver::durable`] was called last.
    pub(super) recent: Staged,
    /// The subscription whose history is all that was ever received of the neighbour.
    pub(super) fresh: Option<Lsn>,
    gaps: Gaps,
    patience: Patience,
    pub(super) joiner: Joiner,
    /// The last transaction that was joined of parts; the messages with its other parts are no news.
    pub(super) joined: Point,
    /// Where the message ends of which a part was applied so far: the rest of it is no overlap.
    pub(super) partly: Point,
    /// From where on nothing of the lineages that it left is in the one that we follow, as its messages tell.
    fork: Option<Lsn>,
    /// A transaction of which pieces are kept here and others missing.
    incomplete: Option<Point>,
    /// Where the stream stands because the transaction behind was refused.
    refused_at: Option<Place>,
    /// The neighbour is sent nothing of our log any more.
    suspended: bool,
    /// Where the stream goes on in a generation that was just followed; no frame says so yet.
    carried_over: Option<Point>,
}

impl Receiver {
    /// The state as the log holds it. Transactions in parts are joined in memory up to `join_limit` bytes.
    #[must_use]
    pub fn new(
        me: Me,
        neighbour: Neighbour,
        records: PairRecords,
        patience: Patience,
        join_limit: u64,
    ) -> Receiver {
        let pinned = records.clone();
        let mut receiver = Receiver {
            me,
            neighbour,
            staged: records.received.point,
            records,
            pinned,
            recent: Staged::default(),
            fresh: None,
            gaps: Gaps::default(),
            patience,
            joiner: Joiner::new(join_limit),
            joined: Point::NONE,
            partly: Point::NONE,
            fork: None,
            incomplete: None,
            refused_at: None,
            suspended: false,
            carried_over: None,
        };
        receiver.resume_after_update();
        receiver
    }

    /// The records as they are now; those of `told` are durable after the next poll's notes.
    #[must_use]
    pub fn records(&self) -> &PairRecords {
        &self.records
    }

    /// Why the pair is stopped, if it is.
    #[must_use]
    pub fn stopped(&self) -> Option<&StopReason> {
        self.records.pair.as_ref().and_then(|pair| pair.stopped.as_ref())
    }

    /// Whether the neighbour is suspended: then what it says of a stretch of our log that was freed stops nothing.
    pub fn set_suspended(&mut self, suspended: bool) {
        self.suspended = suspended;
    }

    /// Which store was made for the neighbour here: it may be another one by now.
    pub fn set_made(&mut self, made: Option<MadeRecord>) {
        self.records.made = made;
    }

    /// Where the next transaction goes on from: what is applied, durable or not.
    #[must_use]
    pub fn staged(&self) -> Point {
        self.staged
    }

    /// Order in which the messages of one poll are received: by `previous`, then `last`, so that none waits
    /// for one behind it.
    #[must_use]
    pub fn poll_order(header: &Header) -> (Place, Place) {
        (header.previous.place(), header.last.place())
    }

    /// Takes a message. `probe` is the `probe/` record as the log holds it now.
    ///
    /// # Errors
    /// Those of our own log; the message was not taken.
    pub fn receive(
        &mut self,
        message: &Message,
        probe: Option<&ProbeRecord>,
        own: &dyn OwnLog,
    ) -> Result<Verdict> {
        if let Some(verdict) = self.refuse(&message.header, own)? {
            return Ok(verdict);
        }
        let header = &message.header;
        if header.epoch == self.epoch() {
            self.fork = header.lineage.map(|lineage| lineage.doubted_to);
        }
        let probe = probe.filter(|probe| probe.generation == header.generation);
        let mut told = self.records.told.clone();
        let noted = match claims::note(&mut told, header, probe, own)? {
            Ok(noted) => {
                if told.its_request != self.records.told.its_request {
                    let first = self.records.told.serve_number.saturating_add(1);
                    self.records.note_pieces(header.pieces, first..=told.serve_number);
                }
                self.records.told = told;
                noted
            }
            // Of a suspended one nothing hangs on what it holds, and what it sends is as welcome as ever.
            Err(StopReason::Freed(_)) if self.suspended => Noted::Fine,
            Err(stop) => return Ok(self.stop(stop)),
        };
        self.records.reported.note(header);
        if let Some(pair) = &mut self.records.pair {
            pair.reads = header.reads;
        }
        let verdict = if message.has_data() {
            self.receive_data(message, own)?
        } else {
            Verdict::Noted
        };
        if verdict.leave() == Leave::WhenDurable {
            self.note_once(header, noted);
        }
        if let Verdict::Refused(refusal) = &verdict {
            self.note_refused(refusal);
        }
        Ok(verdict)
    }

    /// The neighbour is told of it, and is not asked for what waits behind it: that is on its way, and would come for nothing.
    fn note_refused(&mut self, refusal: &Refusal) {
        self.owe_answer();
        if refusal.ends_with_an_operator() {
            self.refused_at = Some(self.staged.place());
        }
    }

    /// What counts once a message, not once a poll that sees it: its probe and its suspicious claim.
    fn note_once(&mut self, header: &Header, noted: Noted) {
        if let Some(probe) = &header.probe {
            self.records.told.nonce = Some(probe.nonce);
            if !planted::is(Bug::ProbeUnanswered) {
                self.owe_answer();
            }
        }
        if noted == Noted::Lower {
            self.records.told.suspicions = self.records.told.suspicions.saturating_add(1);
        }
    }

    /// Takes the news that a message could not be decoded; `header` is its head, if that can be read
    /// ([`crate::message::decode_header`]), so that what is not of this pair does not stop it.
    ///
    /// # Errors
    /// As [`Receiver::receive`].
    pub fn receive_fault(
        &mut self,
        fault: &MessageFault,
        header: Option<&Header>,
        own: &dyn OwnLog,
    ) -> Result<Verdict> {
        if fault.is_loss() {
            return Ok(Verdict::Lost);
        }
        if let MessageFault::Untrusted(distrust) = fault {
            // Who made it is not known: nothing in its head may begin or stop anything.
            return Ok(Verdict::Refused(Refusal::Untrusted(distrust.clone())));
        }
        let refused = header
            .map(|header| self.refuse(header, own))
            .transpose()?
            .flatten();
        Ok(match refused {
            Some(verdict) => verdict,
            None => self.fault(fault),
        })
    }

    pub(super) fn fault(&mut self, fault: &MessageFault) -> Verdict {
        match fault {
            MessageFault::Damaged(_) => Verdict::Lost,
            MessageFault::TooLarge { .. } => Verdict::Refused(Refusal::TooLarge(fault.clone())),
            MessageFault::NeedsNewer { version, .. } => {
                self.stop(StopReason::NeedsNewer(*version, fault.to_string()))
            }
            MessageFault::Contradiction(_) => self.stop(StopReason::Contradiction(fault.to_string())),
            MessageFault::Untrusted(distrust) => Verdict::Refused(Refusal::Untrusted(distrust.clone())),
        }
    }

    /// The frames of every [`Verdict::Apply`] so far are durable: the staged position is ours to tell.
    pub fn durable(&mut self) {
        self.records.received.point = self.staged;
        self.recent = Staged::default();
    }

    /// Appending failed: what is durable counts, the rest comes again from the link.
    pub fn abandon(&mut self) {
        self.staged = self.records.received.point;
        self.recent = Staged::default();
        self.joiner.clear();
    }

    /// Of this transaction pieces are kept here, and others are missing: one that gets none for long is a gap like any other.
    pub fn waits_for(&mut self, transaction: Point) {
        self.incomplete = Some(transaction);
    }

    /// False for a transaction that is here, or that the neighbour left with an earlier lineage: its pieces are of no use. What
    /// it committed in that one before it left is in this one too, and still to come (R1).
    #[must_use]
    pub fn may_come(&self, transaction: Point) -> bool {
        let Position { epoch, lsn, .. } = transaction.position;
        let is_past = |pair: &PairRecord| pair.past_epochs.contains(&epoch);
        let is_left =
            self.fork.is_some_and(|fork| lsn >= fork) && self.records.pair.as_ref().is_some_and(is_past);
        transaction.place() > self.records.received.point.place() && !is_left
    }

    /// Ends a poll: counts patience and asks for what is missing.
    pub fn poll_ended(&mut self, now: Duration, cause: PollCause) {
        let after = self.staged;
        let of_use = |point: &Point| point.place() > after.place() && self.may_come(*point);
        self.incomplete = self.incomplete.filter(of_use);
        if let Some(up_to) = self.incomplete {
            self.gaps.see(Range { after, up_to }, false);
        }
        let due = self
            .gaps
            .poll_ended(self.staged.place(), now, cause, self.patience);
        let due = due.filter(|_| self.refused_at != Some(self.staged.place()));
        let told = &mut self.records.told;
        told.asks
            .retain(|range| range.up_to.place() > self.staged.place());
        if let Some(range) = due {
            told.ask_number = told.ask_number.saturating_add(1);
            told.asks = vec![Range {
                after: self.staged,
                up_to: range.up_to,
            }];
        }
    }

    /// True while a hole in its stream is open.
    #[must_use]
    pub fn has_gap(&self) -> bool {
        self.gaps.is_open()
    }

    /// Records that changed since they were pinned last, to be pinned in one note frame per poll for all
    /// remotes. Call [`Receiver::noted`] when that frame is durable.
    ///
    /// # Errors
    /// `Invalid` when a record is larger than a value may be.
    pub fn notes(&self) -> Result<Vec<Pinned>> {
        let mut pins = Vec::new();
        if self.records.told != self.pinned.told {
            pins.push(self.records.told.pin(&self.neighbour.name)?);
        }
        if let Some(pair) = self
            .records
            .pair
            .as_ref()
            .filter(|_| self.records.pair != self.pinned.pair)
        {
            pins.push(pair.pin(&self.neighbour.name)?);
        }
        if let Some(asked) = self
            .records
            .asked
            .filter(|_| self.records.asked != self.pinned.asked)
        {
            pins.push(asked.pin(&self.neighbour.name)?);
        }
        pins.extend(self.records.news_of_trouble(&self.pinned, &self.neighbour.name)?);
        // Unless frames have moved it: those say so themselves, and may come before this.
        if let Some(point) = self.carried_over.filter(|point| *point == self.staged) {
            let generation = self.records.generation();
            pins.push(ReceivedRecord { generation, point }.pin(&self.neighbour.name)?);
        }
        Ok(pins)
    }

    /// The notes are durable: messages whose verdict was noted may leave the link.
    pub fn noted(&mut self) {
        self.pinned.told = self.records.told.clone();
        self.pinned.pair = self.records.pair.clone();
        self.pinned.reported = self.records.reported.clone();
        self.pinned.asked = self.records.asked;
        self.carried_over = None;
    }

    /// Refuses what is not of this pair; first contact settles who is.
    fn refuse(&mut self, header: &Header, own: &dyn OwnLog) -> Result<Option<Verdict>> {
        match contact::judge(&self.me, &self.neighbour, &self.records, header) {
            Contact::Known => Ok(None),
            Contact::First(mut met) => {
                if let Some(pair) = &mut met.pair {
                    // With what the former pair brought in this very poll.
                    let staged = self.recent.newest(pair.site).max(own.newest_staged(pair.site));
                    pair.held = match own.forgot_newest(pair.site, &self.neighbour.name)? {
                        // Each is looked for then, and refused where nobody knows.
                        true => Lsn::MAX,
                        false => own.newest_of(pair.site)?.max(staged),
                    };
                }
                if met.generation() != self.records.generation() {
                    met.received.point = self.goes_on(header, own)?;
                    self.staged = met.received.point;
                    self.carried_over = Some(self.staged).filter(|point| !point.is_none());
                    self.gaps = Gaps::default();
                    self.incomplete = None;
                    self.joiner.clear();
                }
                self.records = *met;
                Ok(None)
            }
            // Its folder was put back by hand, and began a lineage of its own since: by now it says where both were still one.
            Contact::Not(Verdict::Stopped(StopReason::Parted(None, _)))
                if left_before(header, self.staged).is_some() =>
            {
                let lineage = left_before(header, self.staged);
                Ok(lineage.map(|lineage| self.stop(parted(lineage, self.staged))))
            }
            Contact::Not(verdict) => {
                if matches!(verdict, Verdict::OtherGeneration { ours, theirs } if theirs < ours) {
                    // Its sender may not know yet; without a word from us it would go on for ever.
                    self.owe_answer();
                }
                Ok(Some(verdict))
            }
        }
    }

    /// Where the stream of a pair that its neighbour made anew goes on: behind what both have, where the neighbour says that places
    /// are what they were, and which history it left where. Otherwise all of it comes again, and what is here is known (R1).
    fn goes_on(&self, header: &Header, own: &dyn OwnLog) -> Result<Point> {
        let r = self.records.received.point;
        let Some(rejoined) = header
            .rejoined
            .filter(|rejoined| rejoined.since <= self.records.generation())
        else {
            return Ok(Point::NONE);
        };
        let left = header
            .lineage
            .filter(|lineage| lineage.parent == r.position.epoch);
        match left {
            Some(lineage) if r.position.lsn <= lineage.fork => Ok(r),
            Some(lineage) => {
                let last = own.last_before(&self.neighbour.name, lineage.parent, lineage.fork)?;
                Ok(last.unwrap_or(Point::NONE))
            }
            None if header.epoch == r.position.epoch && rejoined.is_sound => Ok(r),
            None => Ok(Point::NONE),
        }
    }

    /// A pair that is at its beginning may have lost its place with a damaged base, and then its history comes again (R1).
    fn begin_again(&mut self, own: &dyn OwnLog) -> Result<()> {
        let Some(pair) = &mut self.records.pair else {
            return Ok(());
        };
        let held = match own.doubts_records()? {
            true => Lsn::MAX,
            false => own.newest_of(pair.site)?,
        };
        pair.held = pair.held.max(held);
        Ok(())
    }

    fn receive_data(&mut self, message: &Message, own: &dyn OwnLog) -> Result<Verdict> {
        let (header, r) = (&message.header, self.staged);
        let (previous, last) = (header.previous, header.last);
        // The one point of the message at our own place, if it names one, proves or refutes it.
        let mut points = [previous, last]
            .into_iter()
            .chain(message.items.iter().map(Item::point));
        let ours = points.find(|point| point.place() == r.place());
        if let Some(lineage) = left_before(header, r)
            && !planted::is(Bug::ForkUnseen)
            && (r.position.lsn >= lineage.doubted_to || ours.is_some_and(|point| point != r))
        {
            return Ok(self.stop(parted(lineage, r)));
        }
        if previous.place() > r.place() && planted::is(Bug::GapIgnored) {
            return self.apply(message, own);
        }
        if previous.place() > r.place() {
            let range = Range {
                after: r,
                up_to: previous,
            };
            self.gaps.see(range, false);
            return Ok(Verdict::Gap(range));
        }
        match ours {
            Some(point) if point != r && header.epoch == self.epoch() && !planted::is(Bug::ForkUnseen) => {
                let text = format!("it tells {point} where we hold {r}");
                Ok(self.stop(StopReason::Parted(None, text)))
            }
            _ if last.place() <= r.place() => {
                let rest =
                    matches!(message.items.as_slice(), [Item::Part(part)] if part.point == self.joined);
                if !rest {
                    self.owe_answer();
                }
                Ok(Verdict::Duplicate)
            }
            Some(point) if point == r || planted::is(Bug::ForkUnseen) => {
                if r.is_none() {
                    self.begin_again(own)?;
                }
                self.apply(message, own)
            }
            _ => {
                let range = Range {
                    after: r,
                    up_to: last,
                };
                self.gaps.see(range, true);
                Ok(Verdict::Unproven(range))
            }
        }
    }

    /// Follows a neighbour into its new lineage, once a message proved that it goes on from where we are.
    pub(super) fn follow(&mut self, header: &Header) {
        let Some(pair) = self
            .records
            .pair
            .as_mut()
            .filter(|pair| pair.epoch != header.epoch)
        else {
            return;
        };
        let parent = header.lineage.map(|lineage| lineage.parent);
        // One that left a lineage which we saw left is a late message of a lineage between, or of an older backup. If it
        // counted as the newest, the newest would be late for ever.
        if parent.is_some_and(|parent| pair.past_epochs.contains(&parent)) {
            return;
        }
        // What was missing of the lineage that is left may be nowhere any more; what is missing of this one will show.
        self.records.told.asks.clear();
        self.gaps = Gaps::default();
        self.incomplete = None;
        self.fork = header.lineage.map(|lineage| lineage.doubted_to);
        let past = std::mem::replace(&mut pair.epoch, header.epoch);
        // What was restored twice before it was heard of left one that we never saw, and its messages may still come.
        let unseen = parent.filter(|parent| *parent != past);
        pair.past_epochs
            .extend([Some(past), unseen].into_iter().flatten());
        let too_many = pair.past_epochs.len().saturating_sub(MAX_PAST_EPOCHS);
        pair.past_epochs.drain(..too_many);
    }

    fn epoch(&self) -> milepost_engine::Epoch {
        self.records
            .pair
            .as_ref()
            .map(|pair| pair.epoch)
            .unwrap_or_default()
    }

    pub(super) fn owe_answer(&mut self) {
        self.records.told.answers_due = self.records.told.answers_due.saturating_add(1);
    }

    pub(super) fn stop(&mut self, reason: StopReason) -> Verdict {
        if let Some(pair) = &mut self.records.pair {
            pair.stopped = Some(reason.clone());
        }
        Verdict::Stopped(reason)
    }

    /// A pair that waited for a newer program goes on with it.
    fn resume_after_update(&mut self) {
        if let Some(pair) = &mut self.records.pair
            && matches!(pair.stopped, Some(StopReason::NeedsNewer(version, _)) if version <= VERSION && version != 0)
        {
            pair.stopped = None;
        }
    }

    /// Bytes held for transactions in parts.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.joiner.held()
    }
}

/// The lineage of a message, when it left the one of `r` before that: then `r` is its sender's only where that is in doubt, and
/// only if its chain is.
fn left_before(header: &Header, r: Point) -> Option<Lineage> {
    header.lineage.filter(|lineage| {
        lineage.parent == r.position.epoch
            && header.epoch != r.position.epoch
            && r.position.lsn > lineage.fork
    })
}

fn parted(lineage: Lineage, r: Point) -> StopReason {
    let text = format!(
        "its log left the one we know at {}, and we hold it to {r}",
        lineage.fork
    );
    StopReason::Parted(Some(lineage.fork), text)
}
