//! [`Logged`]: a transaction of a site's log, as the model and the log are compared by.

use milepost_engine::frame::{Events, FrameKind, FrameRef};
use milepost_engine::{Lsn, StoreId};
use milepost_replication::message::{Carried, Place};
use milepost_replication::quarantine::{HELD, HELD_PREFIX, HeldRecord};

/// An event as the model and the log are compared by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub stream: String,
    pub kind: String,
    /// The header that subscribers may choose by.
    pub region: Option<String>,
    pub payload: String,
}

/// A transaction of a site's log.
#[derive(Clone, Debug)]
pub struct Logged {
    pub lsn: Lsn,
    /// Where it was first committed.
    pub origin: (String, Lsn),
    /// Where it came from: neighbour, generation, place in that one's stream.
    pub via: Option<(String, u32, Place)>,
    /// With their ordinals at the origin.
    pub events: Vec<(u32, Told)>,
    pub what: What,
}

/// Which of those held: neighbour and number.
pub type HeldName = (String, u64);

/// What a frame does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It applies a transaction, maybe one that was held.
    Applied(Option<HeldName>),
    /// It holds one.
    Held(HeldName),
    /// One is held no longer.
    Ended(HeldName),
}

impl Logged {
    pub fn is_applied(&self) -> bool {
        matches!(self.what, What::Applied(_))
    }
}

/// Names the site of an origin, which is the log's own where it is none: by its store's id and its name.
pub type Naming<'a> = &'a dyn Fn(Option<(StoreId, &str)>) -> String;

/// What a frame of a log does, if it is one that the model knows of.
pub fn logged(named: Naming<'_>, frame: &FrameRef<'_>) -> Option<Logged> {
    let mut pins = frame.pinned().unwrap().into_iter();
    let held = pins.find(|pin| pin.key.starts_with(HELD_PREFIX.as_bytes()));
    let name = held.map(|pin| (held_name(pin.key), pin.value));
    match (frame.kind(), name) {
        (HELD, Some((name, Some(value)))) => Some(held_of(named, frame, name, value)),
        (FrameKind::TRANSACTION, name) => Some(applied(named, frame, name.map(|(name, _)| name))),
        (_, Some((name, None))) => Some(Logged {
            lsn: frame.lsn(),
            origin: (String::new(), Lsn::ZERO),
            via: Some((name.0.clone(), 0, Place::NONE)),
            events: Vec::new(),
            what: What::Ended(name),
        }),
        _ => None,
    }
}

fn applied(named: Naming<'_>, frame: &FrameRef<'_>, ends: Option<HeldName>) -> Logged {
    let origin = frame.origin().unwrap();
    let via = frame.via().unwrap().map(|via| {
        let place = Place {
            at: via.position.lsn,
            back: via.back,
        };
        (via.name.to_owned(), via.generation, place)
    });
    Logged {
        lsn: frame.lsn(),
        origin: origin.map_or_else(
            || (named(None), frame.lsn()),
            |origin| (named(Some((origin.site, origin.name))), origin.lsn),
        ),
        via,
        events: told_of(frame.events()),
        what: What::Applied(ends),
    }
}

fn held_name(key: &[u8]) -> HeldName {
    let text = std::str::from_utf8(key).unwrap();
    let (remote, number) = text.strip_prefix(HELD_PREFIX).unwrap().split_once('/').unwrap();
    (remote.to_owned(), u64::from_str_radix(number, 16).unwrap())
}

fn held_of(named: Naming<'_>, frame: &FrameRef<'_>, name: HeldName, value: &[u8]) -> Logged {
    let record: HeldRecord = milepost_engine::codec::decode(value).unwrap();
    let carried = Carried::decode(frame.body()).unwrap();
    Logged {
        lsn: frame.lsn(),
        origin: (
            named(Some((record.origin, &record.origin_name))),
            record.origin_lsn,
        ),
        via: Some((name.0.clone(), record.generation, record.point.place())),
        events: told_of(carried.events()),
        what: What::Held(name),
    }
}

fn told_of(events: Events<'_>) -> Vec<(u32, Told)> {
    let told = events.map(|event| {
        let event = event.unwrap();
        let told = Told {
            stream: event.stream().unwrap().to_owned(),
            kind: event.kind().unwrap().to_owned(),
            region: event.headers().get("region").unwrap().map(str::to_owned),
            payload: String::from_utf8(event.payload.to_vec()).unwrap(),
        };
        (event.ordinal, told)
    });
    told.collect()
}
