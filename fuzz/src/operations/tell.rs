//! [`Story::tell`]: a story, step by step, with a witness outside the processes.
//!
//! What a living process is told goes into the model. Without a fault nothing may fail; with one, an error is
//! allowed, and what it says of a commit is believed. After each power cut and at the end the store is opened by
//! a process to which nothing happens, and must be what the witness knows (E1, E2, E3, S1 to S3, Q1, Q2).

use std::collections::BTreeMap;
use std::sync::Mutex;

use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{
    CommitOutcome, Durability, Error, ErrorKind, ExpectedVersion, Lsn, Store, StreamName, StreamVersion,
};
use milepost_tests::SimRng;
use milepost_tests::crash::{
    Content, Fate, Habits, Model, STREAMS, SpaceHabits, check, draw_frame, draw_transaction, options,
    tag_of_frame,
};
use milepost_tests::disk::{Profile, SimDisk};

use super::cast::Actor;
use super::queue::{self, QueueModel};
use super::{Drawn, Expect, Seat, Step, Story};

type Outcome<T = ()> = Result<T, String>;

/// A story that is being told.
struct Telling {
    disk: SimDisk,
    habits: Habits,
    rng: SimRng,
    cast: [Actor; 2],
    model: Model,
    queue: QueueModel,
    /// Something failed since the store was last found whole.
    faulted: bool,
}

impl Story {
    /// Tells the story.
    ///
    /// # Errors
    /// The promise that was broken.
    pub fn tell(&self) -> Result<(), String> {
        let habits = Habits {
            largest: 0,
            buffered: 0,
            deeds: 0,
            pad_to: self.profile.garbage().unwrap_or(1),
            block_bytes: if self.small_blocks { 4 << 10 } else { 64 << 10 },
            space: SpaceHabits::default(),
        };
        let disk = founded(self.profile, &habits)?;
        let mut telling = Telling {
            cast: [Actor::on(&disk), Actor::on(&disk)],
            disk,
            habits,
            rng: SimRng::new(u64::from(self.seed)),
            model: Model::default(),
            queue: QueueModel::default(),
            faulted: false,
        };
        for (number, step) in self.steps.iter().enumerate() {
            let told = telling.step(*step);
            told.map_err(|text| format!("step {number}, {step:?}: {text}"))?;
        }
        telling.end()
    }
}

impl Telling {
    fn step(&mut self, step: Step) -> Outcome {
        match step {
            Step::Commit { seat, what, expect } => self.commit(seat, what, expect),
            Step::Frames { seat, what, count } => self.frames(seat, what, count),
            Step::Mark(seat) => self.mark(seat),
            Step::Sync(seat) => self.with(seat, Store::sync),
            Step::Roll(seat) => self.with(seat, |store| store.rotate(0).map(drop)),
            Step::Tend(seat) => self.with(seat, Store::tend),
            Step::Scan { seat, count, anew } => self.scan(seat, count, anew),
            Step::ScanStream { seat, stream } => self.scan_stream(seat, stream),
            Step::ReadStream { seat, stream, from } => self.read_stream(seat, stream, from),
            Step::Queue { seat, count, sync } => {
                let mut queue = self.queue.clone();
                self.with(seat, |store| queue::feed(store, count, sync, &mut queue))?;
                // A process that was killed has told nobody.
                self.queue = queue;
                Ok(())
            }
            Step::FreeQueue { seat, back } => {
                let mut queue = self.queue.clone();
                self.with(seat, |store| queue::free(store, back, &mut queue))?;
                self.queue = queue;
                Ok(())
            }
            Step::Close(seat) => self.close(seat),
            Step::Kill(seat) => {
                self.cast[seat].die(&self.disk);
                Ok(())
            }
            Step::Trap { seat, after, fault } => {
                self.cast[seat].trap.set(after, fault);
                Ok(())
            }
            Step::LoseWriteBack { evict } => self.lose_write_back(evict),
            Step::Wait { millis } => {
                self.disk
                    .advance(std::time::Duration::from_millis(u64::from(millis)));
                Ok(())
            }
            Step::AllDie => self.go_on_from(self.disk.snapshot()),
            Step::PowerCut { choice } => self.go_on_from(self.disk.crash(&SimRng::new(u64::from(choice)))),
        }
    }

    /// What every process dying now, or power lost now, leaves.
    fn end(mut self) -> Outcome {
        self.bury();
        let left = self.disk.snapshot();
        for (how, disk) in [("killed", left.snapshot()), ("power lost", left.crash(&self.rng))] {
            let (mut model, mut queue) = (self.model.clone(), self.queue.clone());
            let seen = self.examine(&disk, &mut model, &mut queue);
            seen.map_err(|text| format!("at the end, {how}: {text}"))?;
        }
        Ok(())
    }

    fn bury(&mut self) {
        for actor in &mut self.cast {
            actor.die(&self.disk);
        }
    }

    fn go_on_from(&mut self, disk: SimDisk) -> Outcome {
        self.bury();
        let (mut model, mut queue) = (self.model.clone(), self.queue.clone());
        self.examine(&disk, &mut model, &mut queue)?;
        (self.model, self.queue, self.faulted) = (model, queue, false);
        self.cast = [Actor::on(&disk), Actor::on(&disk)];
        self.disk = disk;
        Ok(())
    }

    /// Opens the store on a disk where nothing happens, and compares it with what is known.
    fn examine(&self, disk: &SimDisk, model: &mut Model, queue: &mut QueueModel) -> Outcome {
        let process = disk.start();
        let opened = options(&process, &self.rng, &self.habits).open_in(process.storage());
        let store = opened.map_err(|error| format!("open: {error:?}"))?;
        check(&store, model)?;
        queue::check(&store, queue)?;
        let verified = store
            .verify(&mut |_, _| ())
            .map_err(|error| format!("verify: {error:?}"))?;
        if !verified.damage.is_empty() {
            return Err(format!("verify finds damage: {:?}", verified.damage));
        }
        drop(store);
        process.kill();
        Ok(())
    }

    /// The store of a seat, opened when it is not; `None` when it cannot be opened after a fault.
    fn store(&mut self, seat: Seat) -> Outcome<Option<Store>> {
        if let Some(store) = &self.cast[seat].store {
            return Ok(Some(store.clone()));
        }
        let process = &self.cast[seat].process;
        match options(process, &self.rng, &self.habits).open_in(process.storage()) {
            Ok(store) => {
                self.cast[seat].store = Some(store.clone());
                self.notice(seat);
                Ok(Some(store))
            }
            Err(error) => {
                self.judge(seat, "open", &error)?;
                self.cast[seat].die(&self.disk);
                Ok(None)
            }
        }
    }

    fn notice(&mut self, seat: Seat) {
        self.faulted |= self.cast[seat].trap.has_sprung();
    }

    /// True when the process lives to tell what happened.
    fn heard(&mut self, seat: Seat) -> bool {
        self.notice(seat);
        let alive = self.cast[seat].process.is_alive();
        if !alive {
            self.cast[seat].die(&self.disk);
        }
        alive
    }

    /// An error is allowed after a fault; a handle that is not merely out of space is left.
    fn judge(&mut self, seat: Seat, doing: &str, error: &Error) -> Outcome {
        if !self.heard(seat) {
            return Ok(());
        }
        let wrong = match error.kind() {
            ErrorKind::Corrupt => !self.model.cache_lost,
            ErrorKind::Invalid | ErrorKind::Conflict | ErrorKind::Behind | ErrorKind::NoStore => true,
            _ => !self.faulted,
        };
        if wrong {
            return Err(format!("{doing}, faults {}: {error:?}", self.faulted));
        }
        if !matches!(error.kind(), ErrorKind::Full | ErrorKind::Unavailable) {
            self.cast[seat].die(&self.disk);
        }
        Ok(())
    }

    fn with(&mut self, seat: Seat, work: impl FnOnce(&Store) -> milepost_engine::Result<()>) -> Outcome {
        let Some(store) = self.store(seat)? else {
            return Ok(());
        };
        match work(&store) {
            Ok(()) => {
                self.heard(seat);
                Ok(())
            }
            Err(error) => self.judge(seat, "it", &error),
        }
    }

    fn expectation(&self, store: &Store, expect: Expect) -> Option<(&'static str, ExpectedVersion)> {
        let (Expect::Holds(choice) | Expect::Fails(choice)) = expect else {
            return None;
        };
        let stream = STREAMS[usize::from(choice) % STREAMS.len()];
        let now = store.stream_version(stream).ok()?;
        let next = |version: StreamVersion| StreamVersion(version.0 + 1);
        let expected = match (expect, now) {
            (Expect::Holds(_), None) => ExpectedVersion::NoStream,
            (Expect::Holds(_), Some(version)) => ExpectedVersion::Exact(version),
            (_, version) => ExpectedVersion::Exact(version.map_or(StreamVersion(0), next)),
        };
        Some((stream, expected))
    }

    fn commit(&mut self, seat: Seat, what: Drawn, expect: Expect) -> Outcome {
        let Some(store) = self.store(seat)? else {
            return Ok(());
        };
        let wanted = self.expectation(&store, expect);
        // A stream's version is told of what is durable, and an expectation judged by all that was appended.
        let marks = store.watermarks();
        let settled = marks.durable == marks.appended;
        if !self.heard(seat) {
            return Ok(());
        }
        let rng = SimRng::new(u64::from(what.choice));
        let tag = self.model.submit(|tag| {
            let mut content = draw_transaction(&rng, tag, what.largest);
            if let Content::Transaction { expected, .. } = &mut content {
                *expected = wanted;
            }
            content
        });
        let transaction = self.model.known[tag as usize].content.transaction();
        let outcome = store.commit_with(transaction, durability(what));
        drop(store);
        match outcome {
            Ok(_) if !self.heard(seat) => Ok(()),
            Ok(CommitOutcome::Committed(committed)) => {
                if settled && wanted.is_some() && matches!(expect, Expect::Fails(_)) {
                    return Err("a commit that expects what is not so went in".to_owned());
                }
                let told = committed.versions.first().map(|(_, version)| version.0);
                self.model.known[tag as usize].version = told;
                self.model.settle(tag, fate(what, committed.lsn))
            }
            Ok(CommitOutcome::WrongVersion(wrong)) => {
                if !settled || matches!(expect, Expect::Fails(_)) {
                    return self.model.settle(tag, Fate::Absent);
                }
                Err(format!("nobody else committed, and yet: {wrong:?}"))
            }
            Err(error) => self.refused(seat, &[tag], &error),
        }
    }

    /// A failed commit says whether it may exist, unless its process did not live to hear it.
    fn refused(&mut self, seat: Seat, tags: &[u64], error: &Error) -> Outcome {
        if !self.heard(seat) {
            return Ok(());
        }
        for tag in tags {
            match error.written() {
                None => self.model.settle(*tag, Fate::Absent)?,
                Some(lsn) if tags.len() == 1 => self.model.settle(*tag, Fate::Maybe(lsn.0))?,
                Some(_) => {}
            }
        }
        self.judge(seat, "commit", error)
    }

    fn frames(&mut self, seat: Seat, what: Drawn, count: u8) -> Outcome {
        let Some(store) = self.store(seat)? else {
            return Ok(());
        };
        let rng = SimRng::new(u64::from(what.choice));
        let (mut tags, mut frames) = (Vec::new(), Vec::new());
        for number in 0..count {
            let tag = self.model.submit(|tag| match number % 2 {
                0 => draw_frame(&rng, tag),
                _ => draw_transaction(&rng, tag, what.largest),
            });
            tags.push(tag);
            frames.push(match &*self.model.known[tag as usize].content {
                Content::Frame(kind, body) => NewFrame::of_kind(FrameKind(*kind), body.clone()),
                content => content.transaction().into_parts().0,
            });
        }
        let outcome = store.append_frames(frames, durability(what));
        drop(store);
        match outcome {
            Ok(_) if !self.heard(seat) => Ok(()),
            Ok(committed) if committed.len() != tags.len() => Err("LSNs are missing".to_owned()),
            Ok(committed) => {
                let mut settled = tags.iter().zip(&committed);
                settled.try_for_each(|(tag, committed)| self.model.settle(*tag, fate(what, committed.lsn)))
            }
            Err(error) => self.refused(seat, &tags, &error),
        }
    }

    fn mark(&mut self, seat: Seat) -> Outcome {
        let Some(store) = self.store(seat)? else {
            return Ok(());
        };
        match store.append_marker() {
            Ok(lsn) if self.heard(seat) => {
                let tag = self.model.submit(|_| Content::Marker);
                self.model.settle(tag, Fate::Durable(lsn.0))
            }
            Ok(_) => Ok(()),
            Err(error) => self.judge(seat, "marker", &error),
        }
    }

    /// What a reader is given it has seen (E2).
    fn seen(&mut self, seat: Seat, frames: &[(u64, Lsn)]) -> Outcome {
        if !self.heard(seat) {
            return Ok(());
        }
        for (tag, lsn) in frames {
            if *tag >= self.model.known.len() as u64 {
                return Err(format!("nobody wrote transaction {tag}"));
            }
            self.model.settle(*tag, Fate::Durable(lsn.0))?;
        }
        Ok(())
    }

    fn scan(&mut self, seat: Seat, count: u8, anew: bool) -> Outcome {
        let Some(store) = self.store(seat)? else {
            return Ok(());
        };
        let going = self.cast[seat].scan.take().filter(|_| !anew);
        let mut frames = Vec::new();
        let read = || {
            let mut scan = going.map_or_else(|| store.scan(Lsn::ZERO), Ok)?;
            for _ in 0..count {
                let Some(frame) = scan.next()? else { break };
                frames.extend(tag_of_frame(&frame).map(|tag| (tag, frame.lsn())));
            }
            Ok(scan)
        };
        let outcome = read();
        self.seen(seat, &frames)?;
        match outcome {
            Ok(scan) => {
                self.cast[seat].scan = Some(scan).filter(|_| self.cast[seat].store.is_some());
                Ok(())
            }
            Err(error) => self.judge(seat, "scan", &error),
        }
    }

    /// By the filters nothing is missed of what a scan finds.
    fn scan_stream(&mut self, seat: Seat, stream: u8) -> Outcome {
        let Some(store) = self.store(seat)? else {
            return Ok(());
        };
        let name = STREAMS[usize::from(stream) % STREAMS.len()];
        let read = || -> milepost_engine::Result<_> {
            let mut filtered = store.scan_stream(&StreamName::new(name)?, Lsn::ZERO)?;
            let (mut some, mut all) = (Vec::new(), Vec::new());
            while let Some((frame, event)) = filtered.next()? {
                some.push((frame.lsn(), event.payload.to_vec()));
            }
            let mut scan = store.scan(Lsn::ZERO)?;
            while let Some(frame) = scan.next()? {
                for event in frame.events() {
                    let event = event?;
                    if event.stream()? == name {
                        all.push((frame.lsn(), event.payload.to_vec()));
                    }
                }
            }
            Ok((some, all))
        };
        match read() {
            Ok(_) if !self.heard(seat) => Ok(()),
            Ok((some, all)) if some == all => Ok(()),
            Ok((some, all)) => Err(format!(
                "of {name} the filters give {} events, the scan {}",
                some.len(),
                all.len()
            )),
            Err(error) => self.judge(seat, "scan of a stream", &error),
        }
    }

    fn read_stream(&mut self, seat: Seat, stream: u8, from: u8) -> Outcome {
        let Some(store) = self.store(seat)? else {
            return Ok(());
        };
        let name = STREAMS[usize::from(stream) % STREAMS.len()];
        let from = u64::from(from);
        let read = store
            .read_stream(name, StreamVersion(from))
            .and_then(|events| events.collect::<milepost_engine::Result<Vec<_>>>());
        let events = match read {
            Ok(events) => events,
            Err(error) => return self.judge(seat, "read of a stream", &error),
        };
        if let Some((due, event)) = (from..).zip(&events).find(|(due, event)| event.version.0 != *due) {
            return Err(format!(
                "{name} reads version {} where {due} is due",
                event.version
            ));
        }
        let tags = events.iter().filter_map(|event| {
            let tag = event
                .payload
                .first_chunk()
                .map(|bytes| u64::from_le_bytes(*bytes))?;
            Some((tag, event.lsn))
        });
        let frames: Vec<(u64, Lsn)> = tags.collect();
        self.seen(seat, &frames)
    }

    fn close(&mut self, seat: Seat) -> Outcome {
        self.cast[seat].scan = None;
        let Some(store) = self.cast[seat].store.take() else {
            return Ok(());
        };
        let outcome = store.close();
        if let Err(error) = outcome {
            self.judge(seat, "close", &error)?;
        }
        self.heard(seat);
        self.cast[seat].die(&self.disk);
        Ok(())
    }

    fn lose_write_back(&mut self, evict: bool) -> Outcome {
        let onlooker = self.disk.start();
        let names = onlooker
            .storage()
            .list("log")
            .map_err(|error| error.to_string())?;
        onlooker.kill();
        let newest = names.into_iter().filter(|name| name.ends_with(".log")).max();
        let Some(newest) = newest else { return Ok(()) };
        let newest = format!("log/{newest}");
        self.disk.fail_writeback(&newest);
        self.faulted = true;
        if evict {
            self.disk.evict(&newest);
            self.model.cache_lost = true;
        }
        Ok(())
    }
}

/// A machine with a new store. Made once for each kind of disk: most stories are short.
fn founded(profile: Profile, habits: &Habits) -> Outcome<SimDisk> {
    static MADE: Mutex<BTreeMap<Profile, SimDisk>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().map_err(|error| error.to_string())?;
    if let Some(disk) = made.get(&profile) {
        return Ok(disk.snapshot());
    }
    let disk = SimDisk::like(profile, 1);
    let founder = disk.start();
    let site = "bern".parse().map_err(|error| format!("{error:?}"))?;
    let store = options(&founder, &SimRng::new(1), habits).init_in(founder.storage(), site);
    drop(store.map_err(|error| format!("init: {error:?}"))?);
    founder.kill();
    Ok(made.entry(profile).or_insert(disk).snapshot())
}

fn durability(what: Drawn) -> Durability {
    if what.buffered {
        Durability::Buffered
    } else {
        Durability::Synced
    }
}

fn fate(what: Drawn, lsn: Lsn) -> Fate {
    if what.buffered {
        Fate::Buffered(lsn.0)
    } else {
        Fate::Durable(lsn.0)
    }
}
