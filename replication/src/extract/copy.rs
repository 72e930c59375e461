//! [`Copier`]: brings the new store what its site is due of the source's log, as if it had come over a link.
//!
//! ```text
//! source's log ─ matcher ─► transactions at their own places ─► messages ─► receive phase of the new store ─► its log
//! ```
//!
//! The new store's own `received/` record says how far it is, in the frames that hold the transactions (R1): whoever goes on
//! reads it there. Nothing of the source is locked or changed, and its writers do not wait.

use std::sync::Arc;
use std::time::Duration;

use milepost_engine::frame::{FrameKind, FrameRef};
use milepost_engine::{Chain, Error, Lsn, Position, Result, Store};
use tokio::runtime::Runtime;

use crate::agent::{Links, OpenLink, Stop};
use crate::catalog::{Catalog, Matcher};
use crate::keys::{draw_nonce, keys_of};
use crate::link::Link;
use crate::message::{self, Address, Carried, Header, Lineage, Message, Packed, Packer, Point};
use crate::planted::{self, Bug};
use crate::receive::{ReceiveOptions, ReceivePhase};
use crate::tracking::{Neighbour, PairRecords, Patience, PollCause};

use super::handed::HandedLink;
use super::plan::Plan;
use super::{Copied, Progress};

/// Largest message, in bytes.
const MESSAGE_BYTES: usize = 1 << 20;
/// The new store takes what waits once it is so much.
const WAITING_BYTES: usize = 8 << 20;
/// Memory of the receive phase, in bytes.
const MEMORY: u64 = 64 << 20;
/// Transactions of fewer events share a block and a sync.
const GROUP: u32 = 100_000;

/// A copy under way.
pub(super) struct Copier<'a> {
    source: &'a Store,
    made: Store,
    plan: &'a Plan,
    matcher: Matcher,
    header: Header,
    link: HandedLink,
    receive: ReceivePhase,
    stop: Stop,
    /// What the new store has.
    sent: Point,
    /// Everything of the source below was looked at.
    reached: Lsn,
    copied: Copied,
    // Links run on it, so it goes last.
    _runtime: Runtime,
}

impl<'a> Copier<'a> {
    /// Goes on from what the new store has.
    ///
    /// # Errors
    /// `Conflict` when that is no position of the source; those of both stores.
    pub(super) fn open(source: &'a Store, made: &Store, plan: &'a Plan, stop: &Stop) -> Result<Copier<'a>> {
        let catalog = Catalog::as_of(source, plan.as_of)?.asked_for(made.site(), &plan.wanted);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| Error::internal(format!("cannot start a thread: {error}")))?;
        let link = HandedLink::default();
        // What is handed over is taken, also by who was asked to stop.
        let taken = Stop::new();
        let links = Links::new(opener(&link), &[], runtime.handle().clone(), taken.clone());
        let options = ReceiveOptions {
            group: GROUP,
            memory: MEMORY,
            keep: false,
            apply: true,
            patience: Patience {
                polls: u32::MAX,
                every: Duration::from_secs(60),
            },
        };
        let receive = ReceivePhase::open(made, &links, options, &taken)?;
        let sent = received(source, made, plan)?;
        let before = Lsn(plan.from.0.saturating_sub(1));
        Ok(Copier {
            source,
            made: made.clone(),
            plan,
            matcher: Matcher::new(&catalog, |_| true)?,
            header: header(source, made, plan)?,
            link,
            receive,
            stop: stop.clone(),
            reached: sent.place().at.max(before),
            sent,
            copied: Copied::default(),
            _runtime: runtime,
        })
    }

    /// What was copied so far, by this process.
    pub(super) fn copied(&self) -> Copied {
        self.copied
    }

    /// Copies what is due before `end`.
    ///
    /// # Errors
    /// `Unavailable` when it was asked to stop; those of both stores. Run again, it goes on.
    pub(super) fn copy_to(&mut self, end: Lsn, tell: &mut dyn FnMut(Progress)) -> Result<()> {
        let mut log = self.source.scan(self.reached)?;
        let mut packer = Packer::new(self.sent, MESSAGE_BYTES);
        while let Some(block) = log.next_block()? {
            if block.first_frame_lsn() >= end {
                break;
            }
            let chain = block.chain_after();
            let mut full = Vec::new();
            for frame in block.frames() {
                let frame = frame?;
                if frame.lsn() > self.reached
                    && frame.lsn() < end
                    && let Some(carried) = self.due(&frame, chain)?
                {
                    full.extend(packer.push(carried)?);
                }
            }
            self.hand(full)?;
            tell(self.progress(
                block.first_frame_lsn().max(Lsn(self.reached.0.saturating_add(1))),
                end,
            ));
            if self.stop.is_requested() {
                self.hand(packer.finish().into_iter().collect())?;
                self.take()?;
                let text = "asked to stop; run again, it goes on where it was";
                return Err(Error::unavailable(text));
            }
        }
        self.hand(packer.finish().into_iter().collect())?;
        self.take()?;
        self.reached = Lsn(end.0.saturating_sub(1)).max(self.reached);
        tell(self.progress(end, end));
        Ok(())
    }

    /// Tells the new store that it has all that it is due before the frame at `lsn`, from which on the rest comes over the link.
    ///
    /// # Errors
    /// As [`Copier::copy_to`].
    pub(super) fn end_at(&mut self, lsn: Lsn) -> Result<()> {
        let gone = || Error::corrupt("the frame that made a subscription is not in the log").at_lsn(lsn);
        let last = Point::live(self.source.position_at(lsn)?.ok_or_else(gone)?);
        let packer = Packer::new(self.sent, MESSAGE_BYTES);
        self.hand(packer.finish_at(last).into_iter().collect())?;
        self.take()
    }

    fn due(&mut self, frame: &FrameRef<'_>, chain: Chain) -> Result<Option<Carried>> {
        if frame.kind() != FrameKind::TRANSACTION {
            return Ok(None);
        }
        // What the former store sent was in it, whatever it subscribed to.
        let returns = self.plan.renewed.is_some()
            && !planted::is(Bug::ReturnedForgotten)
            && frame
                .via()?
                .is_some_and(|via| via.name == self.header.to.name.as_str());
        let (mut due, mut found) = (Vec::new(), Vec::new());
        for event in frame.events() {
            let event = event?;
            found.clear();
            self.matcher.topics_of(&event, &mut found)?;
            if returns || !found.is_empty() {
                due.push(event);
            }
        }
        if due.is_empty() {
            return Ok(None);
        }
        self.copied.transactions += 1;
        self.copied.events += milepost_engine::width::to_u64(due.len());
        let position = Position {
            epoch: frame.epoch(),
            lsn: frame.lsn(),
            chain,
        };
        let origin = frame.origin()?.map(|origin| origin.to_owned()).transpose()?;
        let mut carried = Carried::of(Point::live(position), origin, due)?;
        carried.committed_at = frame.committed_at()?;
        Ok(Some(carried))
    }

    fn hand(&mut self, packed: Vec<Packed>) -> Result<()> {
        for one in packed {
            self.sent = one.last;
            let mut header = self.header.clone();
            header.durable = self.source.watermarks().durable;
            let message = self.encode(&one.under(header))?;
            if self.link.put(message) >= WAITING_BYTES {
                self.take()?;
            }
        }
        Ok(())
    }

    /// Sealed once the new store has a key: it takes nothing else then.
    fn encode(&self, message: &Message) -> Result<Vec<u8>> {
        match keys_of(&self.made, self.source.site())?.sealing() {
            Some(key) => message::encode_sealed(message, key, draw_nonce(&**self.made.rng())),
            None => message::encode(message),
        }
    }

    /// The new store takes all that waits.
    fn take(&mut self) -> Result<()> {
        while !self.link.is_empty() {
            let received = self.receive.poll(PollCause::Due)?;
            if let Some((_, reason)) = self.receive.stopped().into_iter().next() {
                return Err(Error::conflict(format!("the new store takes no more: {reason}")));
            }
            if let Some(aside) = received.quarantined.first() {
                return Err(Error::internal(format!(
                    "the new store cannot take what it is given: {}",
                    aside.reason
                )));
            }
            if !received.moved {
                return Err(Error::internal(format!(
                    "the new store takes nothing behind {}",
                    self.sent
                )));
            }
        }
        Ok(())
    }

    fn progress(&self, at: Lsn, end: Lsn) -> Progress {
        Progress {
            from: self.plan.from,
            at,
            end,
            copied: self.copied,
        }
    }
}

/// What the new store has of the source, checked against the source's log.
fn received(source: &Store, made: &Store, plan: &Plan) -> Result<Point> {
    let neighbour = Neighbour {
        name: source.site().clone(),
        generation: plan.generation,
    };
    let records = PairRecords::load(&neighbour, |key| Ok(made.pinned(key)?.map(|(value, _)| value)))?;
    let point = records.received.point;
    if point.is_none() || source.position_at(point.position.lsn)? == Some(point.position) {
        return Ok(point);
    }
    Err(Error::conflict(format!(
        "the new store holds the log of {} to {point}, and that is not its history: it was restored meanwhile. Remove the folder and \
         begin anew",
        source.site()
    ))
    .at_path(made.root()))
}

fn header(source: &Store, made: &Store, plan: &Plan) -> Result<Header> {
    let to = Address {
        name: made.site().clone(),
        id: Some(made.id()),
    };
    let from = (source.site().clone(), source.id());
    let mut header = Header::new(from, to, plan.generation, source.epoch());
    header.lineage = Lineage::of(source)?;
    Ok(header)
}

fn opener(link: &HandedLink) -> Box<OpenLink> {
    let link = link.clone();
    Box::new(move |_: &[String]| {
        let link: Arc<dyn Link> = Arc::new(link.clone());
        Ok(link)
    })
}
