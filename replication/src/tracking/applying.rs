//! Applying a message: what lies after the staged position becomes frames, each with the position it leads
//! to (R1), without the events that are in our log already (R4).
//!
//! ```text
//! transaction ─ origin is ours ─► stop, a loop
//!             ─ may have come before? ─ no ─► a frame
//!                                     ├ yes: its events in our log are left out; nothing left ─► the position alone
//!                                     └ yes, and a part of it is not durable yet ─► not before that is
//!             ─ is vetoed, shares a stream with one that is in quarantine, or may have come before and nobody knows any more ─► it is
//!               kept in quarantine, or what comes before it is applied and it is refused, by the remote's policy (R6)
//!             ─ can never fit our segments ─► what comes before it is applied, it is refused
//! ```
//!
//! **May have come before**: passed on by the neighbour for another site, and not beyond the newest of that
//! site here; the neighbour's own, and not beyond the newest of it that anybody passed on to us, or what we held
//! of it when the pair began; or of its history, unless that history is all we ever received of it. Everything
//! else is new by its position. What is here may wait with another neighbour's frames in the same poll.

use std::collections::BTreeSet;

use milepost_engine::frame::NewFrame;
use milepost_engine::{Lsn, Origin, Pinned, Result, Via};

use crate::message::{self, Carried, Header, Item, Joined, Message, Point};
use crate::planted::{self, Bug};

use super::held::HeldEvent;
use super::own::{Case, InQuarantine, Judgement, OwnLog};
use super::receiver::Receiver;
use super::staged::Staged;
use super::state::{NOTE, PairState, ReceivedRecord, StopReason, newest_pin};
use super::verdict::{Apply, Refusal, Verdict};

/// Bytes of frames made of one message before they are appended: a small message may unpack to much.
const FRAMES_MAX: usize = 1 << 20;

/// What becomes of a transaction.
enum Made {
    /// Of a transaction that was committed first at this place.
    Frame(NewFrame, Origin),
    /// It is kept in quarantine.
    Kept(NewFrame),
    /// All of it is here.
    Held,
    /// Some of it may be among the frames that are not durable yet.
    Unsettled,
    /// It may have been here, and nobody knows any more.
    Refused(Refusal),
    Stop(StopReason),
}

/// True when all of a message became frames.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

/// How far a message is on its way into frames.
struct Course {
    frames: Vec<NewFrame>,
    /// Of those that are transactions.
    origins: Vec<Origin>,
    bytes: usize,
    /// Where the stream is with the transactions looked at,
    reached: Point,
    /// and with the frames made of them.
    told: Point,
    overlap: usize,
    held: usize,
    new: Staged,
}

impl Course {
    fn from(staged: Point, items: usize) -> Course {
        Course {
            frames: Vec::with_capacity(items + 1),
            origins: Vec::with_capacity(items),
            bytes: 0,
            reached: staged,
            told: staged,
            overlap: 0,
            held: 0,
            new: Staged::default(),
        }
    }

    /// Takes what was made of the transaction at `point`; a verdict when it ends the course.
    fn take(&mut self, point: Point, made: Made, own: &dyn OwnLog) -> Option<Verdict> {
        match made {
            Made::Frame(frame, origin) => {
                if let Some(reason) = own.refusal_of(&frame) {
                    return Some(Verdict::Refused(Refusal::DoesNotFit(reason)));
                }
                self.push(frame, point);
                self.origins.push(origin);
            }
            Made::Kept(frame) => self.push(frame, point),
            Made::Held => self.held += 1,
            Made::Unsettled => return Some(Verdict::Unsettled),
            Made::Refused(refusal) => return Some(Verdict::Refused(refusal)),
            Made::Stop(_) => unreachable!("ends the whole message before"),
        }
        self.reached = point;
        None
    }

    fn push(&mut self, frame: NewFrame, point: Point) {
        self.bytes += frame.encoded_len();
        self.frames.push(frame);
        self.told = point;
    }
}

impl Receiver {
    /// What lies after the staged position becomes frames.
    pub(super) fn apply(&mut self, message: &Message, own: &dyn OwnLog) -> Result<Verdict> {
        let (header, r) = (&message.header, self.staged.place());
        let mut course = Course::from(self.staged, message.items.len());
        for item in &message.items {
            if item.point().place() <= r {
                course.overlap += 1;
                if !planted::is(Bug::OverlapApplied) {
                    continue;
                }
            }
            let joined;
            let carried = match item {
                Item::Transaction(carried) => carried,
                Item::Part(part) => match self.join(header, part, own)? {
                    Err(_) if planted::is(Bug::LastPartEnds) && part.end() == part.total => {
                        return self.applied(header, course, Whole::Yes);
                    }
                    Ok(carried) => {
                        joined = carried;
                        self.joined = joined.point;
                        &joined
                    }
                    Err(verdict) => return Ok(verdict),
                },
            };
            self.note_fresh(carried, course.reached);
            let made = if course.bytes > FRAMES_MAX {
                Made::Unsettled
            } else {
                self.frame(header, carried, &mut course.new, own)?
            };
            if let Made::Stop(reason) = made {
                return Ok(self.stop(reason));
            }
            if let Some(verdict) = course.take(carried.point, made, own) {
                if course.reached == self.staged {
                    return Ok(verdict);
                }
                return self.applied(header, course, Whole::No);
            }
        }
        self.applied(header, course, Whole::Yes)
    }

    /// The transaction that a part makes whole, or what becomes of the part.
    fn join(
        &mut self,
        header: &Header,
        part: &message::Part,
        own: &dyn OwnLog,
    ) -> Result<Result<Carried, Verdict>> {
        let kept = own.keep_part(&self.neighbour.name, header.generation, part)?;
        let (joined, verdict) = match kept {
            Some(joined) => (joined, Verdict::PartKept),
            None => (self.joiner.join(part), Verdict::PartWaiting),
        };
        Ok(match joined {
            Ok(Joined::Whole(carried)) => Ok(carried),
            Ok(Joined::Waiting) => {
                if matches!(verdict, Verdict::PartKept) {
                    self.waits_for(part.point);
                }
                Err(verdict)
            }
            Err(fault) => Err(self.fault(&fault)),
        })
    }

    /// The verdict on a message of which so much became frames.
    fn applied(&mut self, header: &Header, course: Course, whole: Whole) -> Result<Verdict> {
        let whole = whole == Whole::Yes;
        let to = if whole { header.last } else { course.reached };
        let (transactions, kept) = (course.origins.len(), course.frames.len() - course.origins.len());
        let mut frames = course.frames;
        if course.told.place() < to.place() {
            frames.push(self.stretch(header, to)?);
        }
        // What a message brought itself, piece by piece, is no overlap.
        if course.overlap > 0 && self.partly != header.last {
            self.owe_answer();
        }
        self.partly = if whole { Point::NONE } else { header.last };
        self.follow(header);
        self.pin_pair(&mut frames)?;
        self.staged = to;
        self.recent.merge(&course.new);
        Ok(Verdict::Apply(Apply {
            frames,
            staged: Box::new(course.new),
            transactions,
            origins: course.origins,
            kept,
            overlap: course.overlap,
            held: course.held,
            whole,
            to,
        }))
    }

    /// A history that begins where nothing was ever received meets nothing of its own.
    fn note_fresh(&mut self, carried: &Carried, reached: Point) {
        let held = self.records.pair.as_ref().map(|pair| pair.held);
        if carried.point.back != Lsn::ZERO && reached.is_none() && held == Some(Lsn::ZERO) {
            self.fresh = Some(carried.point.position.lsn);
        }
    }

    fn frame(&self, header: &Header, carried: &Carried, new: &mut Staged, own: &dyn OwnLog) -> Result<Made> {
        let sender = header.from.id.unwrap_or_default();
        let origin = carried.origin_from(&header.from.name, sender);
        if origin.site == self.me.id {
            return Ok(came_back(header, &origin));
        }
        let passed_on = [self.recent.passed_on(origin.site), new.passed_on(origin.site)];
        let passed_on = passed_on
            .into_iter()
            .fold(own.newest_passed_on(origin.site)?, Option::max);
        let staged = [&self.recent, &*new].map(|staged| staged.newest(origin.site));
        let staged = staged.into_iter().fold(own.newest_staged(origin.site), Lsn::max);
        let may_be_held = self.may_be_held(carried, &origin, passed_on, staged, own)?;
        let is_staged = self.recent.has(&origin) || new.has(&origin) || own.is_staged(&origin);
        let (mut frame, against) = match fresh_part(carried, &origin, may_be_held, is_staged, own)? {
            Part::New(frame, against) => (*frame, against),
            Part::None => return Ok(Made::Held),
            Part::Unsettled => return Ok(Made::Unsettled),
        };
        let case = Case {
            remote: &self.neighbour.name,
            sender,
            generation: header.generation,
            carried,
            origin: &origin,
            frame: &frame,
            against,
        };
        let received = self
            .received_at(header, carried.point)
            .pin(&self.neighbour.name)?;
        match own.judge(case)? {
            Judgement::Apply => {}
            Judgement::Keep(kept) => return Ok(keep(*kept, received)),
            Judgement::Refuse(refusal) => return Ok(Made::Refused(refusal)),
        }
        new.add(&origin);
        if carried.origin.is_some() || passed_on.is_some() {
            // The first one that is passed on is not the first of its site where that is a neighbour too.
            let known = match passed_on {
                Some(known) => known,
                None => own.newest_of(origin.site)?,
            };
            let newest = known.max(staged).max(origin.lsn);
            frame.pin(newest_pin(origin.site, newest));
            new.pass_on(origin.site, newest);
        }
        frame.set_origin(origin.clone());
        frame.set_via(self.via(header, carried.point));
        if !planted::is(Bug::ApplyWithoutMoving) {
            frame.pin(received);
        }
        Ok(Made::Frame(frame, origin))
    }

    fn via(&self, header: &Header, point: Point) -> Via {
        Via {
            site: header.from.id.unwrap_or_default(),
            name: self.neighbour.name.clone(),
            generation: header.generation,
            position: point.position,
            back: point.back,
        }
    }

    /// False when the transaction is surely not in our log yet.
    fn may_be_held(
        &self,
        carried: &Carried,
        origin: &Origin,
        passed_on: Option<Lsn>,
        staged: Lsn,
        own: &dyn OwnLog,
    ) -> Result<bool> {
        if carried.origin.is_some() {
            let newest = match passed_on {
                Some(newest) => newest,
                None => own.newest_of(origin.site)?,
            };
            return Ok(origin.lsn <= newest.max(staged)
                || (passed_on.is_none() && own.forgot_newest(origin.site, &origin.name)?));
        }
        let held = self
            .records
            .pair
            .as_ref()
            .map(|pair| pair.held)
            .unwrap_or_default();
        let history = carried.point.back != Lsn::ZERO && self.fresh != Some(carried.point.position.lsn);
        Ok(history || origin.lsn <= held.max(passed_on.unwrap_or_default()))
    }

    /// A stretch in which nothing is new to us moves the position all the same (R1).
    fn stretch(&self, header: &Header, to: Point) -> Result<NewFrame> {
        let mut frame = NewFrame::of_kind(NOTE, Vec::new());
        frame.pin(self.received_at(header, to).pin(&self.neighbour.name)?);
        Ok(frame)
    }

    fn received_at(&self, header: &Header, point: Point) -> ReceivedRecord {
        ReceivedRecord {
            generation: header.generation,
            point,
        }
    }

    /// The pair's record goes with the first frame after it changed, so that no position is ever ours
    /// without knowing whose.
    fn pin_pair(&mut self, frames: &mut [NewFrame]) -> Result<()> {
        let changed = self
            .records
            .pair
            .as_ref()
            .filter(|_| self.records.pair != self.pinned.pair);
        if let (Some(pair), Some(frame)) = (changed, frames.first_mut()) {
            frame.pin(pair.pin(&self.neighbour.name)?);
        }
        Ok(())
    }
}

fn came_back(header: &Header, origin: &Origin) -> Made {
    let text = format!(
        "{} sent back our own transaction {}",
        header.from.name, origin.lsn
    );
    Made::Stop(StopReason::Loop(text))
}

/// R1: what is kept in quarantine and the position are one frame.
fn keep(mut kept: NewFrame, received: Pinned) -> Made {
    if planted::is(Bug::VetoApplied) {
        kept = NewFrame::of_kind(NOTE, Vec::new());
    }
    kept.pin(received);
    Made::Kept(kept)
}

/// What of a transaction is not in our log.
enum Part {
    /// These events, and why they cannot be applied all the same.
    New(Box<NewFrame>, Option<Refusal>),
    /// Nothing: all of it is here, or in quarantine.
    None,
    /// Some of it may be among the frames that are not durable yet.
    Unsettled,
}

fn fresh_part(
    carried: &Carried,
    origin: &Origin,
    may_be_held: bool,
    is_staged: bool,
    own: &dyn OwnLog,
) -> Result<Part> {
    match own.in_quarantine(origin, carried)? {
        InQuarantine::No => {}
        InQuarantine::Yes => return Ok(Part::None),
        InQuarantine::NotYet => return Ok(Part::Unsettled),
    }
    if !may_be_held || planted::is(Bug::OriginForgotten) {
        return Ok(Part::New(Box::new(carried.frame()), None));
    }
    if is_staged {
        return Ok(Part::Unsettled);
    }
    let held = own.events_of(origin)?;
    let mut events = HeldEvent::all_of(carried)?;
    events.retain(|event| !held.contains(event));
    if events.is_empty() {
        return Ok(Part::None);
    }
    let what = format!("transaction {} of {}", origin.lsn, origin.name);
    let against = own.forgot(origin)?.map(|why| Refusal::Forgotten { what, why });
    let ordinals: BTreeSet<u32> = events.iter().map(|event| event.ordinal).collect();
    let frame = carried.frame_with(|ordinal| ordinals.contains(&ordinal))?;
    Ok(Part::New(Box::new(frame), against))
}
