//! Tracking, rule by rule: a receiver at `bern`, a sender at `hq`, and messages made by hand.

mod claims;
mod golden;
mod held;
mod patience;
mod receiving;
mod sending;

use std::time::Duration;

use milepost_engine::frame::NewFrame;
use milepost_engine::{Chain, Epoch, Error, Event, Lsn, Origin, Position, Result, SiteName, StoreId};

use super::*;
use crate::message::{Address, Carried, Header, Item, Message, Point};

const HQ: StoreId = StoreId(1);
const BERN: StoreId = StoreId(2);
/// Lineage of the neighbour's log in these tests.
const ITS_EPOCH: Epoch = Epoch(0xe1);
/// Lineage of our own log.
const OUR_EPOCH: Epoch = Epoch(0x0e);

/// A point of the neighbour's stream.
fn at(lsn: u64) -> Point {
    in_epoch(ITS_EPOCH, lsn)
}

fn in_epoch(epoch: Epoch, lsn: u64) -> Point {
    if lsn == 0 {
        return Point::NONE;
    }
    Point::live(Position {
        epoch,
        lsn: Lsn(lsn),
        chain: Chain(lsn ^ epoch.0),
    })
}

/// A point of our own log, which has a commit at every multiple of ten up to 1,000.
fn ours(lsn: u64) -> Point {
    in_epoch(OUR_EPOCH, lsn)
}

/// Our own log, and what of others is in it: LSN at its origin and ordinal.
#[derive(Default)]
struct Ours {
    held: Vec<(Origin, HeldEvent)>,
    pinned: Vec<(StoreId, Lsn)>,
    /// No transaction of more events than this fits.
    most_events: Option<u32>,
    fails: bool,
    /// What told of the rest was lost.
    forgets: bool,
    /// So were pinned records.
    doubts: bool,
    /// An earlier lineage, and where it was left.
    left: Option<(Epoch, Lsn)>,
}

impl OwnLog for Ours {
    fn position_at(&self, lsn: Lsn) -> Result<Option<Position>> {
        if self.fails {
            return Err(Error::unavailable("no"));
        }
        let there = lsn.0 > 0 && lsn.0 <= 1000 && lsn.0.is_multiple_of(10);
        Ok(there.then(|| ours(lsn.0).position))
    }

    fn has_left(&self, position: Position) -> Result<bool> {
        Ok(self
            .left
            .is_some_and(|(epoch, fork)| position.epoch == epoch && position.lsn >= fork))
    }

    fn newest_passed_on(&self, site: StoreId) -> Result<Option<Lsn>> {
        let found = self.pinned.iter().find(|(known, _)| *known == site);
        Ok(found.map(|(_, newest)| *newest))
    }

    fn newest_of(&self, site: StoreId) -> Result<Lsn> {
        let held = self.held.iter().filter(|(origin, _)| origin.site == site);
        Ok(held.map(|(origin, _)| origin.lsn).max().unwrap_or_default())
    }

    fn events_of(&self, origin: &Origin) -> Result<Vec<HeldEvent>> {
        let same =
            |known: &Origin| (known.site, known.epoch, known.lsn) == (origin.site, origin.epoch, origin.lsn);
        let held = self.held.iter().filter(|(known, _)| same(known));
        Ok(held.map(|(_, event)| *event).collect())
    }

    fn forgot(&self, _: &Origin) -> Result<Option<String>> {
        Ok(self.forgets.then(|| "lost".to_owned()))
    }

    fn forgot_newest(&self, _: StoreId, _: &SiteName) -> Result<bool> {
        Ok(self.forgets)
    }

    fn doubts_records(&self) -> Result<bool> {
        Ok(self.doubts)
    }

    fn is_staged(&self, _: &Origin) -> bool {
        // Frames are in this log as soon as they are made.
        false
    }

    fn newest_staged(&self, _: StoreId) -> Lsn {
        Lsn::ZERO
    }

    fn refusal_of(&self, frame: &NewFrame) -> Option<String> {
        let most = self.most_events?;
        (frame.event_count() > most).then(|| format!("{} events do not fit", frame.event_count()))
    }
}

fn header() -> Header {
    let to = Address {
        name: "bern".parse().unwrap(),
        id: Some(BERN),
    };
    let mut header = Header::new(("hq".parse().unwrap(), HQ), to, 1, ITS_EPOCH);
    header.durable = Lsn(u64::MAX);
    header
}

fn carried(point: Point) -> Carried {
    let mut frame = NewFrame::transaction();
    frame
        .push_event(
            0,
            &Event::new("orders/1", "placed", point.position.lsn.0.to_le_bytes()).unwrap(),
        )
        .unwrap();
    Carried::with_events_of(point, None, &frame)
}

/// A message of the transactions at these LSNs after `previous`, ending with the last.
fn data(previous: u64, lsns: &[u64]) -> Message {
    let mut header = header();
    header.previous = at(previous);
    header.last = at(lsns.last().copied().unwrap_or(previous));
    Message {
        header,
        items: lsns
            .iter()
            .map(|lsn| Item::Transaction(carried(at(*lsn))))
            .collect(),
    }
}

fn receiver_from(records: PairRecords, polls: u32) -> Receiver {
    let me = Me {
        name: "bern".parse().unwrap(),
        id: BERN,
    };
    let neighbour = Neighbour {
        name: "hq".parse().unwrap(),
        generation: 1,
    };
    Receiver::new(
        me,
        neighbour,
        records,
        Patience {
            polls,
            every: Duration::from_secs(60),
        },
        1 << 20,
    )
}

fn empty() -> PairRecords {
    let neighbour = Neighbour {
        name: "hq".parse().unwrap(),
        generation: 1,
    };
    PairRecords::load(&neighbour, |_| Ok(None)).unwrap()
}

/// A receiver that never heard of its neighbour.
fn fresh() -> Receiver {
    receiver_from(empty(), 1)
}

/// A receiver that has the neighbour's stream up to `lsn`, in messages of one transaction at each ten.
fn holding(lsn: u64) -> Receiver {
    let mut receiver = fresh();
    for lsn in (10..=lsn).step_by(10) {
        assert!(matches!(
            take(&mut receiver, &data(lsn - 10, &[lsn])),
            Verdict::Apply(_)
        ));
    }
    receiver.durable();
    receiver.noted();
    receiver
}

fn take(receiver: &mut Receiver, message: &Message) -> Verdict {
    receiver.receive(message, None, &Ours::default()).unwrap()
}

fn answers_due(receiver: &Receiver) -> u64 {
    receiver.records().told.answers_due
}

fn origin(site: StoreId, lsn: u64) -> Origin {
    Origin {
        site,
        name: "bern".parse().unwrap(),
        epoch: OUR_EPOCH,
        lsn: Lsn(lsn),
    }
}
