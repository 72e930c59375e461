//! Subscriptions that change while messages are under way: random histories of one publisher against a model that knows neither
//! queue nor messages. The trap is the time between: a commit is scanned after what it was due to has ended, changed its value or its
//! patterns; it is sent after that was revoked; and a process that begins anew sends from what was confirmed.
//!
//! A send phase that is opened anew must send exactly what the model says is due behind what was confirmed, each event once, at its
//! place; one that goes on sends nothing that is not due in that moment, and misses nothing that is.
//!
//! `MILEPOST_HISTORIES=100000` for more; `MILEPOST_SEED=n` for one.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

#[path = "model/chance.rs"]
#[allow(dead_code)]
mod chance;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chance::Chance;
use milepost_engine::frame::NewFrame;
use milepost_engine::{Chain, Durability, Epoch, Event, Lsn, Origin, Position, StoreId, Via};
use milepost_replication::catalog::{NewPublication, NewSubscription, Start, SubscribeBy, SubscriptionId};
use milepost_replication::keys::PairKeys;
use milepost_replication::message::{Address, Header, Item, Limits, Message, Place, Point, decode, encode};
use milepost_replication::send::{SendPhase, Serve};
use support::{Net, Site, name};

const REMOTES: [&str; 3] = ["bern", "thun", "uri"];
const PUBLICATIONS: [&str; 3] = ["all", "chosen", "kinds"];
const VALUES: [&str; 3] = ["be", "zh", "ge"];
const STREAMS: [&str; 6] = [
    "orders/be/1",
    "orders/zh/2",
    "orders",
    "bills/be",
    "bills/ge",
    "notes",
];
const PATTERNS: [&str; 5] = ["**", "orders/**", "bills/*", "*/be/**", "notes"];
const KINDS: [&str; 2] = ["placed", "paid"];
const STEPS: u64 = 40;

/// What is due of the log, by place: ordinals of events.
type Due = BTreeMap<Place, BTreeSet<u32>>;

/// An event as it was committed.
struct Told {
    stream: &'static str,
    kind: &'static str,
    region: Option<&'static str>,
}

struct Committed {
    lsn: Lsn,
    via: Option<&'static str>,
    events: Vec<Told>,
}

/// A publication from one position to the next change; no patterns where it was removed.
struct Version {
    since: Lsn,
    patterns: Vec<&'static str>,
    kinds: Vec<&'static str>,
    by: Option<SubscribeBy>,
}

struct Subscribed {
    id: Lsn,
    publication: &'static str,
    value: Option<&'static str>,
    from: Lsn,
    until: Option<Lsn>,
    revoked: Option<Lsn>,
}

/// What is known of a remote since it was added.
#[derive(Default)]
struct Making {
    subscriptions: Vec<Subscribed>,
    confirmed: Place,
    /// Ends of messages that it was sent.
    told: Vec<Point>,
    /// What the phase that runs sent it.
    sent: Due,
}

fn is_selected(pattern: &str, stream: &str) -> bool {
    match pattern {
        "**" => true,
        "orders/**" => stream == "orders" || stream.starts_with("orders/"),
        "bills/*" => stream
            .strip_prefix("bills/")
            .is_some_and(|rest| !rest.contains('/')),
        "*/be/**" => stream.split('/').nth(1) == Some("be"),
        _ => pattern == stream,
    }
}

impl Version {
    fn selects(&self, event: &Told, value: Option<&str>) -> bool {
        let found = match &self.by {
            None => None,
            Some(SubscribeBy::Segment(_)) => event.stream.split('/').nth(1),
            Some(SubscribeBy::Header(_)) => event.region,
        };
        let patterns = self
            .patterns
            .iter()
            .any(|pattern| is_selected(pattern, event.stream));
        let kinds = self.kinds.is_empty() || self.kinds.contains(&event.kind);
        // Who chooses by a value gets no event without one.
        patterns && kinds && found == value && (self.by.is_none() || found.is_some())
    }
}

/// The publisher, and what is remembered of it.
struct History {
    chance: Chance,
    net: Net,
    site: Site,
    running: Option<SendPhase>,
    publications: BTreeMap<&'static str, Vec<Version>>,
    remotes: BTreeMap<&'static str, Making>,
    log: Vec<Committed>,
    story: Vec<String>,
    _dir: tempfile::TempDir,
}

impl History {
    fn new(seed: u64) -> History {
        // Nothing here is about what a disk keeps.
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let net = Net::default();
        let site = Site::new(dir.path(), "hq", &net);
        let mut history = History {
            chance: Chance::new(seed),
            net,
            site,
            running: None,
            publications: BTreeMap::new(),
            remotes: BTreeMap::new(),
            log: Vec::new(),
            story: Vec::new(),
            _dir: dir,
        };
        for publication in PUBLICATIONS {
            history.publish(publication);
        }
        for remote in REMOTES {
            history.site.remote(remote);
            history.remotes.insert(remote, Making::default());
        }
        history
    }

    fn end(&self) -> Lsn {
        self.site.store.watermarks().durable
    }

    fn some<T: Copy>(&self, among: &[T]) -> Vec<T> {
        let mut some: Vec<T> = among
            .iter()
            .filter(|_| self.chance.percent(40))
            .copied()
            .collect();
        if some.is_empty() {
            some.push(self.chance.pick(among));
        }
        some
    }

    /// Makes a publication, or changes it from here on: patterns, kinds, and by what its subscribers choose.
    fn publish(&mut self, publication: &'static str) {
        let by = (publication == "chosen").then(|| match self.chance.percent(70) {
            true => SubscribeBy::Segment(2),
            false => SubscribeBy::Header("region".to_owned()),
        });
        let patterns = self.some(&PATTERNS);
        let kinds = if publication == "kinds" {
            self.some(&KINDS)
        } else {
            Vec::new()
        };
        let texts = |texts: &[&str]| -> Vec<String> { texts.iter().map(|text| (*text).to_owned()).collect() };
        let new = NewPublication::new(publication, &texts(&patterns), &texts(&kinds), by.clone());
        let versions = self.publications.entry(publication).or_default();
        let known = versions.last().is_some_and(|last| !last.patterns.is_empty());
        let made = self.site.definitions().add_publication(new, known).unwrap();
        self.story.push(format!(
            "{publication} {patterns:?} {kinds:?} {by:?} since {}",
            made.since
        ));
        versions.push(Version {
            since: made.since,
            patterns,
            kinds,
            by,
        });
    }

    /// Removes one that nobody uses, and makes it anew later.
    fn withdraw(&mut self, publication: &'static str) {
        let used = self.remotes.values().flat_map(|making| &making.subscriptions);
        let in_use = used
            .filter(|one| one.until.is_none())
            .any(|one| one.publication == publication);
        let gone = self.site.definitions().remove_publication(publication);
        let versions = self.publications.get_mut(publication).unwrap();
        let there = versions.last().is_some_and(|last| !last.patterns.is_empty());
        assert_eq!(gone.is_ok(), there && !in_use);
        if gone.is_ok() {
            self.story.push(format!("{publication} removed"));
            versions.push(Version {
                since: Lsn(self.site.store.watermarks().durable.0 - 1),
                patterns: Vec::new(),
                kinds: Vec::new(),
                by: None,
            });
        }
    }

    fn subscribe(&mut self, remote: &'static str, publication: &'static str) {
        let there = self.publications[publication]
            .last()
            .is_some_and(|last| !last.patterns.is_empty());
        let value = (publication == "chosen").then(|| self.chance.pick(&VALUES));
        let making = &self.remotes[remote].subscriptions;
        let twin =
            |one: &Subscribed| one.until.is_none() && one.publication == publication && one.value == value;
        if !there || making.iter().any(twin) {
            return;
        }
        let start = match self.chance.below(4) {
            0 | 1 => Start::Now,
            2 => Start::Beginning,
            _ if self.log.is_empty() => Start::Now,
            _ => Start::At(self.log[self.chance.below(self.log.len() as u64) as usize].lsn),
        };
        let new = NewSubscription {
            remote: name(remote),
            publication: publication.to_owned(),
            value: value.map(str::to_owned),
            start,
        };
        let made = self.site.definitions().add_subscription(new).unwrap();
        self.story.push(format!(
            "{remote} gets {publication} {value:?} from {} as {}",
            made.from, made.id
        ));
        self.remotes
            .get_mut(remote)
            .unwrap()
            .subscriptions
            .push(Subscribed {
                id: made.id.lsn(),
                publication,
                value,
                from: made.from,
                until: None,
                revoked: None,
            });
    }

    /// Ends or revokes one that goes on, or revokes one that ended; another value is that and a new one.
    fn end_one(&mut self, remote: &'static str, revoke: bool, another: bool) {
        let making = self.remotes.get_mut(remote).unwrap();
        let open = |one: &&mut Subscribed| one.until.is_none() || (revoke && one.revoked.is_none());
        let mut open: Vec<&mut Subscribed> = making.subscriptions.iter_mut().filter(open).collect();
        if open.is_empty() {
            return;
        }
        let number = self.chance.below(open.len() as u64) as usize;
        let one = &mut open[number];
        let ended = self
            .site
            .definitions()
            .remove_subscription(SubscriptionId(one.id.0), revoke)
            .unwrap();
        (one.until, one.revoked) = (ended.until, ended.revoked);
        self.story.push(format!("{remote} {} ends {ended:?}", one.id));
        let publication = one.publication;
        if another {
            self.subscribe(remote, publication);
        }
    }

    /// The pair is made anew: nothing of the former one is due any more.
    fn make_anew(&mut self, remote: &'static str) {
        while self.remotes[remote]
            .subscriptions
            .iter()
            .any(|one| one.until.is_none())
        {
            self.end_one(remote, false, false);
        }
        self.site.definitions().remove_remote(&name(remote)).unwrap();
        self.site.remote(remote);
        self.story.push(format!("{remote} is made anew"));
        self.remotes.insert(remote, Making::default());
        self.net.steal(remote);
    }

    fn commit(&mut self) {
        let via = self.chance.percent(15).then(|| self.chance.pick(&REMOTES));
        let mut frame = NewFrame::transaction();
        let mut events = Vec::new();
        for ordinal in 0..1 + self.chance.below(4) as u32 {
            let told = Told {
                stream: self.chance.pick(&STREAMS),
                kind: self.chance.pick(&KINDS),
                region: self.chance.percent(60).then(|| self.chance.pick(&VALUES)),
            };
            let mut event = Event::new(told.stream, told.kind, *b"{}").unwrap();
            if let Some(region) = told.region {
                event = event.header("region", region).unwrap();
            }
            frame.push_event(ordinal, &event).unwrap();
            events.push(told);
        }
        if let Some(via) = via {
            came_from(&mut frame, via, self.end());
        }
        let made = self
            .site
            .store
            .append_frames(vec![frame], Durability::Synced)
            .unwrap();
        let lsn = made[0].lsn;
        self.log.push(Committed { lsn, via, events });
    }

    /// What is due to a remote of all that is scanned, if it had nothing behind what it confirmed.
    fn due(&self, remote: &str) -> Due {
        let (making, scanned) = (&self.remotes[remote], self.site.store.scanned_through());
        let mut due = Due::new();
        for one in self.log.iter().filter(|one| one.via != Some(remote)) {
            for (ordinal, event) in one.events.iter().enumerate() {
                let place = self.place(making, one.lsn, event);
                if let Some(place) = place.filter(|place| place.at <= scanned && *place > making.confirmed) {
                    due.entry(place).or_default().insert(ordinal as u32);
                }
            }
        }
        due
    }

    /// Where an event is due: at the place that the first one gave it who wanted it, as long as at every moment since one did.
    fn place(&self, making: &Making, lsn: Lsn, event: &Told) -> Option<Place> {
        let mut now: Option<(Place, Lsn)> = None;
        // In the order in which they began to want it.
        let live = making
            .subscriptions
            .iter()
            .filter(|one| one.id < lsn)
            .map(|one| (lsn, one));
        let later = making
            .subscriptions
            .iter()
            .filter(|one| one.id > lsn)
            .map(|one| (one.id, one));
        for (begins, one) in live.chain(later) {
            let within = match begins == lsn {
                true => one.until.is_none_or(|until| lsn < until),
                false => one.from <= lsn,
            };
            let versions = &self.publications[one.publication];
            let version = versions.iter().rev().find(|version| version.since < begins);
            if !within || !version.is_some_and(|version| version.selects(event, one.value)) {
                continue;
            }
            let ends = one.revoked.unwrap_or(Lsn::MAX);
            now = match now {
                Some((place, until)) if until > begins => Some((place, until.max(ends))),
                _ if begins == lsn => Some((Place::live(lsn), ends)),
                _ => Some((Place::history(one.id, lsn), ends)),
            };
        }
        now.filter(|(_, until)| *until == Lsn::MAX)
            .map(|(place, _)| place)
    }

    /// What messages to a remote bring, in the order in which it would take them.
    fn arrived(&mut self, remote: &'static str) -> Vec<(Place, BTreeSet<u32>)> {
        let mut brought = Vec::new();
        for bytes in self.net.steal(remote) {
            let message = decode(&bytes, &Limits::default(), &PairKeys::Unsealed).unwrap();
            if message.header.last != message.header.previous {
                self.remotes
                    .get_mut(remote)
                    .unwrap()
                    .told
                    .push(message.header.last);
            }
            for item in message.items {
                let Item::Transaction(carried) = item else {
                    panic!("no transaction here is longer than a message");
                };
                let ordinals = carried.events().map(|event| event.unwrap().ordinal);
                brought.push((carried.point.place(), ordinals.collect()));
            }
        }
        brought.sort();
        brought
    }

    /// A send phase begins: what it sends is what is due, no less, no more, nothing twice.
    fn send_anew(&mut self) {
        self.running = None;
        let mut phase = self.site.send_phase();
        phase.round(Serve::Everybody).unwrap();
        for remote in REMOTES {
            let brought = self.arrived(remote);
            let due: Vec<_> = self.due(remote).into_iter().collect();
            assert_eq!(
                brought, due,
                "{remote} is not sent what it is due: {:#?}",
                self.story
            );
            self.remotes.get_mut(remote).unwrap().sent = brought.into_iter().collect();
        }
        self.running = Some(phase);
    }

    /// The send phase that runs goes on: nothing that is not due, and nothing is left out.
    fn send_on(&mut self) {
        let Some(mut phase) = self.running.take() else {
            return self.send_anew();
        };
        phase.round(Serve::Everybody).unwrap();
        for remote in REMOTES {
            let (brought, due) = (self.arrived(remote), self.due(remote));
            for (place, ordinals) in &brought {
                let all = due.get(place).is_some_and(|due| ordinals.is_subset(due));
                assert!(
                    all,
                    "{remote} is sent {ordinals:?} at {place}, due is {due:?}: {:#?}",
                    self.story
                );
            }
            let sent = &mut self.remotes.get_mut(remote).unwrap().sent;
            for (place, ordinals) in brought {
                assert!(
                    sent.insert(place, ordinals).is_none(),
                    "{remote} is sent {place} twice"
                );
            }
            for (place, ordinals) in due {
                let whole = sent.get(&place).is_some_and(|sent| ordinals.is_subset(sent));
                assert!(
                    whole,
                    "{remote} is not sent {ordinals:?} at {place}: {:#?}",
                    self.story
                );
            }
        }
        self.running = Some(phase);
    }

    /// A remote says that it has some of what it was sent; that is never sent again.
    fn confirm(&mut self, remote: &'static str) {
        let making = &self.remotes[remote];
        if making.told.is_empty() {
            return;
        }
        let point = self.chance.pick(&making.told);
        if point.place() <= making.confirmed {
            return;
        }
        let catalog = self.site.definitions().catalog().unwrap();
        let generation = catalog.remote(&name(remote)).unwrap().generation;
        let to = Address {
            name: name("hq"),
            id: Some(self.site.store.id()),
        };
        let mut header = Header::new((name(remote), id_of(remote)), to, generation, Epoch(7));
        (header.received, header.confirmed) = (point, point);
        self.net.put("hq", encode(&Message::bare(header)).unwrap());
        self.site.receive();
        self.story.push(format!("{remote} confirms {}", point.place()));
        self.remotes.get_mut(remote).unwrap().confirmed = point.place();
    }

    fn step(&mut self) {
        let remote = self.chance.pick(&REMOTES);
        let publication = self.chance.pick(&PUBLICATIONS);
        match self.chance.below(100) {
            0..38 => self.commit(),
            38..52 => self.subscribe(remote, publication),
            52..57 => self.end_one(remote, false, false),
            57..62 => self.end_one(remote, true, false),
            62..68 => self.end_one(remote, self.chance.percent(50), true),
            68..74 => self.publish(publication),
            74..75 => self.withdraw(publication),
            75..77 => self.make_anew(remote),
            77..89 => self.site.scan(),
            89..93 => self.send_on(),
            93..96 => self.send_anew(),
            _ => self.confirm(remote),
        }
    }
}

fn id_of(remote: &str) -> StoreId {
    StoreId(1 + u128::from(remote.as_bytes()[0]))
}

/// As if a neighbour had sent it.
fn came_from(frame: &mut NewFrame, remote: &str, lsn: Lsn) {
    let position = Position {
        epoch: Epoch(7),
        lsn,
        chain: Chain(1),
    };
    frame.set_origin(Origin {
        site: id_of(remote),
        name: name(remote),
        epoch: Epoch(7),
        lsn,
    });
    frame.set_via(Via {
        site: id_of(remote),
        name: name(remote),
        generation: 1,
        position,
        back: Lsn::ZERO,
    });
}

/// How many places were due at the end, and of them how many of a subscription's history.
fn lives(seed: u64) -> (usize, usize) {
    let mut history = History::new(seed);
    for _ in 0..STEPS {
        history.step();
    }
    history.site.scan();
    history.send_on();
    history.send_anew();
    let all: Vec<Due> = REMOTES.iter().map(|remote| history.due(remote)).collect();
    let places = || all.iter().flat_map(BTreeMap::keys);
    (
        places().count(),
        places().filter(|place| place.back > Lsn::ZERO).count(),
    )
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

#[test]
fn a_remote_is_sent_what_it_is_subscribed_to_and_nothing_else_however_that_changes() {
    let seeds = match number("MILEPOST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MILEPOST_HISTORIES").unwrap_or(2_000),
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let run = |worker: u64| {
        let (mut due, mut history) = (0, 0);
        for seed in seeds.clone().filter(|seed| seed % workers == worker) {
            let lived = std::panic::catch_unwind(|| lives(seed));
            let (all, old) = lived.unwrap_or_else(|_| {
                panic!("MILEPOST_SEED={seed} cargo test -p milepost-replication --test subscriptions")
            });
            (due, history) = (due + all, history + old);
        }
        (due, history)
    };
    let (mut due, mut history) = (0, 0);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers)
            .map(|worker| scope.spawn(move || run(worker)))
            .collect();
        for one in running {
            let (all, old) = one.join().unwrap();
            (due, history) = (due + all, history + old);
        }
    });
    println!(
        "{} histories: {due} places due at their ends, {history} of them of a history",
        seeds.end - seeds.start
    );
    assert!(seeds.end - seeds.start < 100 || (due > 100 && history > 100));
}
