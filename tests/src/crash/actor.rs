//! [`Actor`]: the program of one simulated process: it opens the store, commits, reads, tends, closes,
//! is killed and starts again, and tells the witness what it was told.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{
    CommitOutcome, Durability, Error, ErrorKind, ExpectedVersion, LogScan, Lsn, Options, Store, StreamVersion,
};

use crate::SimRng;
use crate::disk::{Killed, SimProcess};

use super::check::tag_of_frame;
use super::model::{Content, Fate, Model, STREAMS, draw_frame, draw_transaction};
use super::schedule::Schedule;
use super::space::{Housekeeper, SpaceHabits, Trouble};

/// What of the workload differs from seed to seed.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Largest payload, in bytes.
    pub largest: u64,
    /// Commits of 16 that are buffered.
    pub buffered: u64,
    /// Things each actor does.
    pub deeds: u64,
    /// Blocks are padded to this.
    pub pad_to: usize,
    /// Blocks are closed at this size.
    pub block_bytes: usize,
    /// How the log is kept.
    pub space: SpaceHabits,
}

/// Options of every store of a run.
#[must_use]
pub fn options(process: &SimProcess, rng: &SimRng, habits: &Habits) -> Options {
    Options::new()
        .segment_bytes(1 << 20)
        .background(false)
        .block_bytes(habits.block_bytes)
        .pad_to(habits.pad_to)
        .retention(habits.space.retention)
        .limit(habits.space.limit)
        .clock(process.clock())
        .rng(Arc::new(rng.fork()))
}

/// One process of a run, and its successors after it was killed.
pub struct Actor<'a> {
    schedule: &'a Arc<Schedule>,
    number: usize,
    rng: SimRng,
    habits: Habits,
    deeds_left: u64,
    process: Option<SimProcess>,
}

/// An open store and what its process did with it.
struct Desk {
    process: SimProcess,
    store: Store,
    scan: Option<LogScan>,
}

/// Why a desk is left: close it, or just drop it.
enum Leave {
    Cleanly,
    AsIs,
}

type Deed<T = ()> = Result<T, Leave>;

impl<'a> Actor<'a> {
    /// The actor of a number.
    pub fn new(schedule: &'a Arc<Schedule>, number: usize, rng: SimRng, habits: Habits) -> Actor<'a> {
        Actor {
            schedule,
            number,
            rng,
            habits,
            deeds_left: habits.deeds,
            process: None,
        }
    }

    /// Does all its deeds, in as many processes as it takes.
    pub fn live(mut self) {
        self.schedule.enter(self.number);
        let mut attempts = 40;
        while self.deeds_left > 0 && attempts > 0 && !self.schedule.has_failed() {
            attempts -= 1;
            match std::panic::catch_unwind(AssertUnwindSafe(|| self.live_once())) {
                Err(payload) if !payload.is::<Killed>() && self.is_alive() => {
                    self.schedule
                        .fail(format!("a process panicked: {}", panic_text(&*payload)));
                }
                _ => {}
            }
        }
        self.schedule.leave(self.number);
    }

    /// What a killed process runs into on its way out nobody sees.
    fn is_alive(&self) -> bool {
        self.process.as_ref().is_some_and(SimProcess::is_alive)
    }

    fn live_once(&mut self) {
        let process = self.schedule.disk().directed(Arc::clone(self.schedule) as _);
        self.schedule.enrol(process.number(), self.number);
        self.process = Some(process.clone());
        let opened = options(&process, &self.rng, &self.habits).open_in(process.storage());
        let store = match opened {
            Ok(store) => store,
            Err(error) => return self.judge(&process, "open", &error),
        };
        let mut desk = Desk {
            process,
            store,
            scan: None,
        };
        let leave = loop {
            if self.deeds_left == 0 {
                break if self.rng.chance(3, 4) {
                    Leave::Cleanly
                } else {
                    Leave::AsIs
                };
            }
            self.deeds_left -= 1;
            if let Err(leave) = self.deed(&mut desk) {
                break leave;
            }
        };
        let Desk { process, store, scan } = desk;
        drop(scan);
        if matches!(leave, Leave::Cleanly)
            && let Err(error) = store.close()
        {
            self.judge(&process, "close", &error);
        }
        process.kill();
    }

    /// An error that a living process must not see stops the run.
    fn judge(&self, process: &SimProcess, doing: &str, error: &Error) {
        let unexpected = match error.kind() {
            ErrorKind::Corrupt => !self.schedule.model.lock().unwrap().cache_lost,
            ErrorKind::Invalid | ErrorKind::Conflict | ErrorKind::Behind => true,
            _ => false,
        };
        if unexpected && process.is_alive() {
            self.schedule.fail(format!("{doing} failed: {error:?}"));
        }
    }

    fn answer<T>(&self, desk: &Desk, doing: &str, result: Result<T, Error>) -> Deed<T> {
        result.map_err(|error| {
            self.judge(&desk.process, doing, &error);
            Leave::AsIs
        })
    }

    fn deed(&mut self, desk: &mut Desk) -> Deed {
        if self.rng.chance(self.habits.space.often, 16) {
            return self.keep(desk);
        }
        match self.rng.below(32) {
            0..=12 => self.commit(desk),
            13..=14 => self.expect(desk),
            15..=16 => self.append(desk),
            17..=18 => self.mark(desk),
            19 => self.answer(desk, "rotate", desk.store.rotate(0)).map(|_| ()),
            20..=21 => self.answer(desk, "tend", desk.store.tend()),
            22 => self.answer(desk, "sync", desk.store.sync()),
            23..=26 => self.scan(desk),
            27..=28 => self.read(desk),
            29 => self.look(desk),
            30 => Err(Leave::Cleanly),
            _ if self.rng.chance(1, 2) => Err(Leave::AsIs),
            _ => self.arrange(desk),
        }
    }

    /// Does something about what is kept of the log.
    fn keep(&self, desk: &Desk) -> Deed {
        let keeper = Housekeeper {
            store: &desk.store,
            process: &desk.process,
            model: &self.schedule.model,
            rng: &self.rng,
            habits: &self.habits.space,
            number: self.number,
        };
        match keeper.work() {
            Ok(()) => Ok(()),
            // Another process does it, or there is no room for it.
            Err(Trouble::Failed(_, error))
                if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Full) =>
            {
                Ok(())
            }
            Err(Trouble::Failed(doing, error)) => self.answer(desk, doing, Err(error)),
            Err(Trouble::Broken(text)) => {
                self.schedule.fail(text);
                Err(Leave::AsIs)
            }
        }
    }

    /// Gives sealed segments another form; there are some by then.
    fn arrange(&self, desk: &Desk) -> Deed {
        if self.rng.chance(1, 4) {
            return self.arranged(desk, desk.store.decompress(&mut |_, _| ()).map(drop));
        }
        for _ in 0..self.rng.below(3) {
            self.answer(desk, "rotate", desk.store.rotate(0))?;
        }
        self.arranged(desk, desk.store.compress(&mut |_, _| ()).map(drop))
    }

    fn arranged(&self, desk: &Desk, result: Result<(), Error>) -> Deed {
        match result {
            // Another process does it, or there is no room for another form yet.
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Full) => Ok(()),
            other => self.answer(desk, "compress", other),
        }
    }

    fn durability(&self) -> Durability {
        if self.rng.chance(self.habits.buffered, 16) {
            Durability::Buffered
        } else {
            Durability::Synced
        }
    }

    fn commit(&mut self, desk: &Desk) -> Deed {
        let draw = |tag| draw_transaction(&self.rng, tag, self.habits.largest);
        let tag = self.schedule.model.lock().unwrap().submit(draw);
        self.commit_tag(desk, tag)
    }

    fn expect(&mut self, desk: &Desk) -> Deed {
        let stream = *self.rng.pick(&STREAMS);
        let version = self.answer(desk, "stream_version", desk.store.stream_version(stream))?;
        let wanted = match version {
            None => ExpectedVersion::NoStream,
            Some(_) if self.rng.chance(1, 4) => ExpectedVersion::StreamExists,
            Some(version) => ExpectedVersion::Exact(version),
        };
        let tag = self.schedule.model.lock().unwrap().submit(|tag| {
            let mut content = draw_transaction(&self.rng, tag, 100);
            if let Content::Transaction { expected, .. } = &mut content {
                *expected = Some((stream, wanted));
            }
            content
        });
        self.commit_tag(desk, tag)
    }

    fn commit_tag(&self, desk: &Desk, tag: u64) -> Deed {
        let durability = self.durability();
        let content = Arc::clone(&self.schedule.model.lock().unwrap().known[tag as usize].content);
        match desk.store.commit_with(content.transaction(), durability) {
            Ok(CommitOutcome::Committed(committed)) => {
                if let Some((_, StreamVersion(version))) = committed.versions.first() {
                    self.schedule.model.lock().unwrap().known[tag as usize].version = Some(*version);
                }
                self.settle(desk, tag, fate_of(durability, committed.lsn));
            }
            Ok(CommitOutcome::WrongVersion(_)) => self.settle(desk, tag, Fate::Absent),
            Err(error) => {
                self.refused(desk, &[tag], &error);
                if error.kind() != ErrorKind::Full && error.kind() != ErrorKind::Unavailable {
                    return Err(Leave::AsIs);
                }
            }
        }
        Ok(())
    }

    /// A failed commit says whether it may exist, unless its process did not live to hear it.
    fn refused(&self, desk: &Desk, tags: &[u64], error: &Error) {
        self.judge(&desk.process, "commit", error);
        if !desk.process.is_alive() {
            return;
        }
        for tag in tags {
            match error.written() {
                None => self.settle(desk, *tag, Fate::Absent),
                Some(lsn) if tags.len() == 1 => self.settle(desk, *tag, Fate::Maybe(lsn.0)),
                Some(_) => {}
            }
        }
    }

    fn append(&mut self, desk: &Desk) -> Deed {
        let durability = self.durability();
        let (mut tags, mut frames) = (Vec::new(), Vec::new());
        for _ in 0..1 + self.rng.below(4) {
            let mut model = self.schedule.model.lock().unwrap();
            let tag = model.submit(|tag| match self.rng.chance(1, 2) {
                true => draw_frame(&self.rng, tag),
                false => draw_transaction(&self.rng, tag, self.habits.largest / 4),
            });
            tags.push(tag);
            frames.push(match &*model.known[tag as usize].content {
                Content::Frame(kind, body) => NewFrame::of_kind(FrameKind(*kind), body.clone()),
                content => content.transaction().into_parts().0,
            });
        }
        match desk.store.append_frames(frames, durability) {
            Ok(committed) => {
                if committed.len() != tags.len() {
                    self.schedule
                        .fail("append_frames told fewer LSNs than frames".to_owned());
                }
                for (tag, committed) in tags.iter().zip(&committed) {
                    self.settle(desk, *tag, fate_of(durability, committed.lsn));
                }
                Ok(())
            }
            Err(error) => {
                self.refused(desk, &tags, &error);
                if matches!(error.kind(), ErrorKind::Full | ErrorKind::Unavailable) {
                    Ok(())
                } else {
                    Err(Leave::AsIs)
                }
            }
        }
    }

    fn mark(&mut self, desk: &Desk) -> Deed {
        match desk.store.append_marker() {
            Ok(lsn) => {
                let mut model = self.schedule.model.lock().unwrap();
                let tag = model.submit(|_| Content::Marker);
                drop(model);
                self.settle(desk, tag, Fate::Durable(lsn.0));
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::Full | ErrorKind::Unavailable) => Ok(()),
            Err(error) => self.answer(desk, "append_marker", Err(error)),
        }
    }

    /// Reads on where the last scan stopped: what it is given it has seen (E2).
    fn scan(&mut self, desk: &mut Desk) -> Deed {
        if desk.scan.is_none() || self.rng.chance(1, 4) {
            desk.scan = self.begin_scan(desk)?;
        }
        let Some(mut scan) = desk.scan.take() else {
            return Ok(());
        };
        for _ in 0..self.rng.below(40) {
            let seen = match scan.next() {
                Ok(Some(frame)) => tag_of_frame(&frame).map(|tag| (tag, frame.lsn().0)),
                Ok(None) => break,
                Err(error) => return self.overtaken(desk, "scan", scan.position(), error),
            };
            if let Some((tag, lsn)) = seen {
                self.settle(desk, tag, Fate::Durable(lsn));
            }
        }
        desk.scan = Some(scan);
        Ok(())
    }

    /// A scan from where the log begins; none when that was freed meanwhile.
    fn begin_scan(&self, desk: &Desk) -> Deed<Option<LogScan>> {
        let begins = self.answer(desk, "oldest", desk.store.oldest())?;
        match desk.store.scan(begins) {
            Err(error) => self.overtaken(desk, "scan", begins, error).map(|()| None),
            Ok(scan) => Ok(Some(scan)),
        }
    }

    /// A reader at `at` is told `Behind` when the log begins later by now, and only then.
    fn overtaken(&self, desk: &Desk, doing: &str, at: Lsn, error: Error) -> Deed {
        let behind =
            error.kind() == ErrorKind::Behind && self.answer(desk, "oldest", desk.store.oldest())? > at;
        if behind {
            Ok(())
        } else {
            self.answer(desk, doing, Err(error))
        }
    }

    fn read(&self, desk: &Desk) -> Deed {
        let stream = *self.rng.pick(&STREAMS);
        let start = self.answer(desk, "stream_start", desk.store.stream_start(stream))?;
        let first = start.0 + self.rng.below(5);
        let reader = match desk.store.read_stream(stream, StreamVersion(first)) {
            Err(error) => return self.overtaken_in(desk, stream, first, error),
            Ok(reader) => reader,
        };
        for (due, event) in (first..).zip(reader) {
            let event = match event {
                Err(error) => return self.overtaken_in(desk, stream, due, error),
                Ok(event) => event,
            };
            if event.version.0 != due {
                self.schedule.fail(format!(
                    "{stream} reads version {} where {due} was due",
                    event.version
                ));
            }
            if let Some(tag) = super::model::tag_of(&event.payload) {
                self.settle(desk, tag, Fate::Durable(event.lsn.0));
                self.tell(desk, |model| model.see_version(stream, due, tag));
            }
        }
        Ok(())
    }

    /// As [`Actor::overtaken`], of a version of a stream.
    fn overtaken_in(&self, desk: &Desk, stream: &str, version: u64, error: Error) -> Deed {
        let behind = error.kind() == ErrorKind::Behind
            && self
                .answer(desk, "stream_start", desk.store.stream_start(stream))?
                .0
                > version;
        if behind {
            Ok(())
        } else {
            self.answer(desk, "read_stream", Err(error))
        }
    }

    fn look(&self, desk: &Desk) -> Deed {
        let marks = desk.store.watermarks();
        if !desk.process.is_alive() {
            return Err(Leave::AsIs);
        }
        if marks.durable > marks.appended {
            self.schedule
                .fail(format!("durable is beyond appended: {marks:?}"));
        }
        let mut model = self.schedule.model.lock().unwrap();
        model.durable = model.durable.max(marks.durable.0);
        Ok(())
    }

    fn settle(&self, desk: &Desk, tag: u64, fate: Fate) {
        self.tell(desk, |model| match fate {
            Fate::Durable(lsn) => model.see(tag, lsn),
            fate => model.settle(tag, fate),
        });
    }

    fn tell(&self, desk: &Desk, tell: impl FnOnce(&mut Model) -> Result<(), String>) {
        // What a killed process believes to have heard nobody heard.
        if !desk.process.is_alive() {
            return;
        }
        let result = tell(&mut self.schedule.model.lock().unwrap());
        if let Err(text) = result {
            self.schedule.fail(text);
        }
    }
}

fn fate_of(durability: Durability, lsn: Lsn) -> Fate {
    match durability {
        Durability::Synced => Fate::Durable(lsn.0),
        Durability::Buffered => Fate::Buffered(lsn.0),
    }
}

/// What a panic said.
pub fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without words".to_owned())
}
