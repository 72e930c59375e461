//! Freeing what the log need not keep: whole sealed segments, from the oldest on.
//!
//! ```text
//! locks of forms and space ─► how far: retention, scan, holds, durable ─► what was received in it durable ─► base durable
//!   ─► Freed published ─► segments unlinked, oldest first ─► their sidecars and older bases unlinked
//! ```
//!
//! One process at a time frees, whichever comes first. A crash between any two steps leaves the former log, or a base
//! and some files before it, which who opens the store next removes: a base is believed once it has its name, and it
//! has that before anything goes (E4). Files are unlinked and never used again, so whoever has one open reads on;
//! who comes too late is told `Behind`. Nothing is freed while the settings or a hold cannot be read.

use std::sync::Arc;

use crate::block::BlockKind;
use crate::index::base::{self, Base};
use crate::log::away::{self, Stub};
use crate::log::{Judge, LOOK_AGAIN, SegmentDir, segment_name};
use crate::planted::{self, Bug};
use crate::storage::{Cell, StorageFile};
use crate::width::to_u64;
use crate::{Error, ErrorKind, Lsn, Result, Store};

use super::space::{Retention, Space};
use super::{Shared, received, streams};

/// Most bytes of a log that may have received something that are freed at a time.
const STEP: u64 = 256 << 20;

/// Limits by age act while clock and log are not further apart than this: a day, in microseconds.
const BELIEVED: i64 = 24 * 3_600 * 1_000_000;

/// How far the log may be freed, and what keeps it from there on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeable {
    /// Everything before this is freed next; where the log begins when nothing is.
    pub end: Lsn,
    /// Up to where retention, the scan phase and each hold would let it go, the most demanding first.
    pub keepers: Vec<Keeper>,
    /// Where the log is kept by age: when the next segment behind that is old enough, microseconds since 1970.
    pub due: Option<i64>,
}

/// Who keeps the log, and from where on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// What is above this LSN is kept.
    pub from: Lsn,
    /// Who, and what lets it go, as a sentence for an operator.
    pub text: String,
}

impl Shared {
    /// The time, when it can be believed: while it is less than a day from the newest time in the log. No data goes by
    /// a clock that has jumped.
    pub(super) fn believed_now(&self) -> Option<i64> {
        let durable = self.log.control.durable();
        self.follow_freed().and_then(|()| self.catch_up(durable)).ok()?;
        let now = self.log.clock.wall_micros();
        let newest = self.streams.index.newest_time();
        (now.saturating_sub(newest).saturating_abs() < BELIEVED).then_some(now)
    }

    /// Frees what need not be kept; how many segments. Nothing when another process is at it.
    pub(super) fn free(&self) -> Result<u64> {
        self.log.check_process()?;
        self.follow_freed()?;
        if Space::read(&*self.storage, self.identity.owner)?.retention == Retention::Forever {
            return Ok(0);
        }
        let mut gone = 0;
        loop {
            let step = self.free_step()?;
            gone += step;
            if step == 0 {
                return Ok(gone);
            }
        }
    }

    /// One step of it: others who need the locks come in between.
    fn free_step(&self) -> Result<u64> {
        let Some(_forms) = self.lock_arranging()? else {
            return Ok(0);
        };
        match self.try_lock_space()? {
            Some(_lock) => self.free_locked(),
            None => Ok(0),
        }
    }

    /// The right to give segments another form, before that to free them: one that is being compressed or moved must
    /// not come back.
    fn wait_for_forms(&self) -> Result<Arc<dyn StorageFile>> {
        let clock = &self.log.clock;
        let started = clock.monotonic();
        loop {
            if let Some(lock) = self.lock_arranging()? {
                return Ok(lock);
            }
            if clock.monotonic().saturating_sub(started) >= self.log.lock_timeout {
                let text = "another process compresses or moves segments; try again when it has ended";
                return Err(Error::unavailable(text).at_path(self.storage.root()));
            }
            clock.sleep(LOOK_AGAIN);
        }
    }

    /// Frees for a log that is at its limit; why nothing went, and what to do about it.
    pub(super) fn free_for_room(&self) -> Option<String> {
        let begins = self.log.control.lsn(Cell::Freed);
        let free = || {
            // What is not durable yet keeps what retention would let go.
            self.log.make_durable(self.log.control.appended())?;
            let _forms = self.wait_for_forms()?;
            let _lock = self.lock_space()?;
            self.free_locked()
        };
        let freed = free();
        // Another process may have been at it.
        if self.log.control.lsn(Cell::Freed) > begins {
            return None;
        }
        let keepers = freed.and_then(|_| self.freeable());
        Some(match keepers {
            Ok(freeable) => {
                let keeps = |keeper: &Keeper| match keeper.from {
                    Lsn::MAX => keeper.text.clone(),
                    from => format!("from {from} on: {}", keeper.text),
                };
                let list: Vec<String> = freeable.keepers.iter().map(keeps).collect();
                format!(
                    "raise the limit with `milepost space --limit`, move segments to another disk with `milepost archive` and \
                     --to, or let go of what keeps the log: {}",
                    list.join("; ")
                )
            }
            Err(error) => format!("and nothing can be freed: {error}"),
        })
    }

    /// Frees a first step of what may go, by who has the locks of forms and of space; how many segments.
    pub(super) fn free_locked(&self) -> Result<u64> {
        self.log.control.check_poison(self.log.generation)?;
        self.sweep_holds()?;
        let end = self.step_to(self.freeable()?.end)?;
        if end > self.log.control.lsn(Cell::Freed) {
            self.write_base(end)?;
        }
        self.remove_freed()
    }

    /// Up to where to free next: what was received is gathered in memory, so no more than some segments at a time.
    fn step_to(&self, end: Lsn) -> Result<Lsn> {
        let begins = self.log.control.lsn(Cell::Freed);
        if end.since(begins) <= STEP || !self.may_have_received(end)? {
            return Ok(end);
        }
        let firsts = self.log.dir.list()?;
        let mut steps = firsts.iter().filter(|first| **first > begins && **first <= end);
        let within = steps
            .clone()
            .take_while(|first| first.since(begins) <= STEP)
            .last();
        Ok(within.or(steps.next()).copied().unwrap_or(end))
    }

    /// Makes what is left of the log before `end` durable, and tells all processes that it begins there.
    fn write_base(&self, end: Lsn) -> Result<()> {
        if planted::is(Bug::UnlinkBeforeBase) {
            self.unlink(&before(&self.log.dir, end)?)?;
        }
        let received = self.keep_received(end)?;
        let (_, before) = self.streams.index.freed();
        let scanned = self.log.control.lsn(Cell::ScannedDurable).max(before);
        let bytes = self.streams.index.base_before(end, scanned, received)?;
        base::write(&*self.storage, end, &bytes, self.log.rng.next_u64())?;
        self.log.control.cells().raise(Cell::Freed, end.0);
        self.follow_freed()
    }

    /// Removes the files of what was freed, by this process or by one that died; how many segments.
    fn remove_freed(&self) -> Result<u64> {
        let (storage, dir, begins) = (&*self.storage, &self.log.dir, self.log.control.lsn(Cell::Freed));
        let gone = before(dir, begins)?;
        if gone.is_empty() && base::ends(storage)?.len() <= 1 {
            return Ok(0);
        }
        self.unlink(&gone)?;
        base::remove_older(storage, begins)?;
        self.sweep_archive();
        tracing::info!(
            segments = gone.len(),
            begins = begins.0,
            "a part of the log was freed"
        );
        Ok(to_u64(gone.len()))
    }

    /// A base that stands behind where the log is said to begin is of a process that died before it said so, and who
    /// recovers the store next would believe it. So it counts from now on: a hold or a setting that was acknowledged
    /// behind it must not be overtaken by it. For who has the lock of space.
    pub(super) fn adopt_base(&self) -> Result<()> {
        let (storage, control) = (&*self.storage, &self.log.control);
        let newest = base::ends(storage)?.last().copied().unwrap_or_default();
        if newest <= control.lsn(Cell::Freed) {
            return Ok(());
        }
        let Some(base) = Base::newest(storage, self.identity.owner.id)? else {
            return Ok(());
        };
        sync_names(&self.log.dir)?;
        control.cells().raise(Cell::Freed, base.end().0);
        self.follow_freed()
    }

    fn unlink(&self, firsts: &[Lsn]) -> Result<()> {
        unlink(&self.log.dir, firsts)
    }

    /// How far the log may be freed.
    pub(super) fn freeable(&self) -> Result<Freeable> {
        let control = &self.log.control;
        let (durable, active) = (control.durable(), streams::active_segment(&self.log));
        self.follow_freed()?;
        self.catch_up(durable)?;
        let space = Space::read(&*self.storage, self.identity.owner)?;
        let begins = control.lsn(Cell::Freed);
        let mut keepers = vec![self.kept_by_retention(space.retention, durable)?];
        keepers.extend(self.kept_by_scan(space.retention));
        if !planted::is(Bug::HoldIgnored) {
            keepers.extend(self.holds()?.iter().filter_map(kept_by_hold));
        }
        keepers.sort_by_key(|keeper| keeper.from);
        let bound = keepers.first().map_or(begins, |keeper| keeper.from);
        // The log begins with a block that is durable and says how the chain goes on: not with an active segment that
        // is empty yet.
        let begun = Lsn(active.0.saturating_sub(u64::from(durable <= active)));
        let bound = bound.min(begun);
        let firsts = self.log.dir.list()?;
        let mut end = firsts.iter().copied().take_while(|first| *first <= bound).last();
        if planted::is(Bug::FreeTooMuch) && durable > active {
            end = firsts
                .iter()
                .copied()
                .find(|first| *first > bound && *first <= active)
                .or(end);
        }
        let end = end.unwrap_or(begins).max(begins);
        let due = self.due_behind(end, space.retention)?;
        Ok(Freeable { end, keepers, due })
    }

    /// Whether time alone frees some of the log.
    pub(super) fn is_kept_by_age(&self) -> Result<bool> {
        let space = Space::read(&*self.storage, self.identity.owner)?;
        Ok(matches!(space.retention, Retention::Age(_)))
    }

    /// When the first sealed segment that ends behind `end` is old enough.
    fn due_behind(&self, end: Lsn, retention: Retention) -> Result<Option<i64>> {
        let Retention::Age(age) = retention else {
            return Ok(None);
        };
        let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let mut due = None;
        self.streams.index.sealed_times(&mut |until, last| {
            due = (until > end).then_some(last.saturating_add(micros));
            due.is_none()
        })?;
        Ok(due)
    }

    pub(super) fn kept_by_retention(&self, retention: Retention, durable: Lsn) -> Result<Keeper> {
        let change = "`milepost space --retention` changes it";
        let keeper = |from, text: String| Keeper { from, text };
        Ok(match retention {
            Retention::Forever => keeper(Lsn::ZERO, format!("retention is forever; {change}")),
            Retention::UntilScanned => keeper(Lsn::MAX, format!("retention is until-scanned; {change}")),
            Retention::Bytes(bytes) => keeper(
                Lsn(durable.0.saturating_sub(bytes)),
                format!("retention keeps the newest {bytes} bytes; {change}"),
            ),
            Retention::Age(age) => {
                let seconds = age.as_secs();
                let text = format!("retention keeps what is younger than {seconds} s; {change}");
                let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
                match self.believed_now() {
                    Some(now) => keeper(self.older_than(now.saturating_sub(micros))?, text),
                    None => keeper(
                        Lsn::ZERO,
                        format!(
                            "{text}; the clock is more than a day from the newest time in the log, so nothing goes by age until something is \
                             written, or `milepost space --clock-is-right` says that it may"
                        ),
                    ),
                }
            }
        })
    }

    /// End of the sealed segments whose blocks are all from before a moment.
    fn older_than(&self, moment: i64) -> Result<Lsn> {
        let mut end = self.log.control.lsn(Cell::Freed);
        self.streams.index.sealed_times(&mut |until, last| {
            let older = last < moment;
            if older {
                end = until;
            }
            older
        })?;
        Ok(end)
    }

    /// Q2: the log is freed by the scan, where there is one, and only as far as the queue is on the disk: lost entries
    /// are made again from the log.
    pub(super) fn kept_by_scan(&self, retention: Retention) -> Option<Keeper> {
        let control = &self.log.control;
        let in_use = control.lsn(Cell::Scanned) > Lsn::ZERO || retention == Retention::UntilScanned;
        if !in_use || planted::is(Bug::ScanIgnored) {
            return None;
        }
        let text = "the scan phase has not passed it; let the agent scan (`milepost agent`)";
        Some(Keeper {
            from: control.lsn(Cell::ScannedDurable),
            text: text.to_owned(),
        })
    }

    /// Removes holds whose time is over. The caller has the lock of space.
    fn sweep_holds(&self) -> Result<()> {
        for hold in self.holds()?.iter().filter(|hold| hold.expired) {
            tracing::warn!(
                hold = hold.name,
                "the time of a hold is over; it holds nothing any more"
            );
            self.remove_hold(&hold.name)?;
        }
        Ok(())
    }

    /// Takes over what another process, or this one, has freed: the index begins at the new base, and files before it
    /// are let go of.
    pub(super) fn follow_freed(&self) -> Result<()> {
        while self.streams.index.begins() < self.log.control.lsn(Cell::Freed) {
            // Before the base is looked for: more may be freed meanwhile, and its base is not what is looked for.
            let wanted = self.log.control.lsn(Cell::Freed);
            let base = Base::newest(&*self.storage, self.identity.owner.id)?;
            let Some(base) = base.filter(|base| base.end() >= wanted) else {
                let text = "the base file of the log, which begins here, is missing or damaged: put it back from a copy \
                            or restore a backup";
                return Err(Error::corrupt(text)
                    .at_path(self.storage.root().join("log"))
                    .at_lsn(wanted));
            };
            self.streams.rebase(&base, &self.log)?;
            self.log.dir.forget_before(base.end());
        }
        Ok(())
    }
}

/// Finishes what a crash left of freeing, for who is alone in the store; where the log begins.
pub(super) fn finish(dir: &Arc<SegmentDir>) -> Result<Lsn> {
    let storage = &**dir.storage();
    let firsts = dir.list()?;
    let Some(base) = Base::newest(storage, dir.owner().id)? else {
        return match firsts.first() {
            Some(first) if *first > Lsn::ZERO => Err(missing_base(dir, *first)),
            _ => Ok(Lsn::ZERO),
        };
    };
    let begins = base.end();
    if firsts.binary_search(&begins).is_err() {
        let name = segment_name(BlockKind::Log, begins);
        let text = "the log begins with this segment, which is missing; nothing was changed: put it back or restore a \
                    backup";
        return Err(Error::corrupt(text)
            .at_path(storage.root().join(name))
            .at_lsn(begins));
    }
    let gone: Vec<Lsn> = firsts.into_iter().filter(|first| *first < begins).collect();
    if !gone.is_empty() {
        // Who wrote the base may have died before its name was durable (E4).
        sync_names(dir)?;
    }
    unlink(dir, &gone)?;
    base::remove_older(storage, begins)?;
    received::remove_strays(storage, begins)?;
    Ok(begins)
}

fn before(dir: &SegmentDir, end: Lsn) -> Result<Vec<Lsn>> {
    Ok(dir.list()?.into_iter().filter(|first| *first < end).collect())
}

fn sync_names(dir: &SegmentDir) -> Result<()> {
    let (storage, folder) = (dir.storage(), dir.folder());
    let synced = storage.sync_dir(folder);
    synced.map_err(|error| Error::io("sync the folder of segments", storage.root().join(folder), error))
}

fn missing_base(dir: &SegmentDir, first: Lsn) -> Error {
    let text = "the log begins here, and no whole base file says what was before: its first files are missing, or the \
                base is; nothing was changed: put them back, restore a backup, or see what `milepost repair` can save";
    let hint = crate::log::away::hint(&**dir.storage(), dir.owner(), Lsn::ZERO);
    Error::corrupt(format!("{text}{hint}"))
        .at_path(dir.storage().root().join(dir.folder()))
        .at_lsn(first)
}

/// Unlinks segments in every form that they have, oldest first.
fn unlink(dir: &SegmentDir, firsts: &[Lsn]) -> Result<()> {
    for first in firsts {
        let stub = dir.stub(*first).ok().flatten();
        for name in dir.names_of(*first)? {
            match dir.storage().unlink(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let path = dir.storage().root().join(name);
                    return Err(Error::io("free a segment", path, error));
                }
                _ => {}
            }
        }
        dir.forget(*first);
        if let Some(stub) = stub {
            unlink_archived(dir, &stub);
        }
    }
    Ok(())
}

/// Removes a freed segment from the archive. What is left there when it cannot be reached is no part of the log, and
/// goes when it can (`store/orphans`).
fn unlink_archived(dir: &SegmentDir, stub: &Stub) {
    let name = dir.archived_name(stub);
    let storage = &**dir.storage();
    let removed = away::archive(storage, dir.owner(), stub.first).and_then(|archive| {
        away::refuse_others(storage, &*archive)?;
        let path = archive.root().join(&name);
        let unlinked = archive.unlink(&name);
        unlinked.map_err(|error| Error::io("free an archived segment", path, error))
    });
    if let Err(error) = removed {
        tracing::warn!(%error, name, "a segment was freed and its file stays in the archive until that is there again");
    }
}

fn kept_by_hold(hold: &super::NamedHold) -> Option<Keeper> {
    let from = hold.holds_from()?;
    let name = &hold.name;
    let what = match &hold.hold {
        Ok(hold) => format!("the hold {name} ({}) of {}", hold.kind, hold.owner),
        Err(error) => format!("the hold {name}: {error}"),
    };
    Some(Keeper {
        from,
        text: format!("{what}; `milepost hold drop` ends it"),
    })
}

impl Store {
    /// How far the log may be freed at this moment, and who keeps the rest.
    ///
    /// # Errors
    /// `Corrupt` when the settings of space are damaged, or for damage in the log (E3).
    pub fn freeable(&self) -> Result<Freeable> {
        self.shared().freeable()
    }

    /// The time, when limits by age may act on data: while it is less than a day from the newest time in the log.
    #[must_use]
    pub fn believed_now(&self) -> Option<i64> {
        self.shared().believed_now()
    }

    /// An operator says that the clock is right, however far it is from the newest time in the log: limits by age act again, here and in
    /// every process. What is written to the log says so as well.
    ///
    /// # Errors
    /// As [`Store::append_marker`].
    pub fn confirm_clock(&self) -> Result<()> {
        self.append_marker().map(|_| ())
    }

    /// Frees what need not be kept, as the store's thread does by itself; how many segments.
    ///
    /// # Errors
    /// As [`Store::freeable`]; `Full` without space for the base, and then nothing is freed.
    pub fn free(&self) -> Result<u64> {
        let freed = self.shared().free()?;
        self.sweep_archive()?;
        Ok(freed)
    }

    /// As [`Store::scan_from`], and says so: from now on the log is freed by the scan (Q1). Under the lock of who frees,
    /// because who found no scan in use may be about to free what this one would begin with.
    pub(crate) fn begin_scan(&self, queue_end: Lsn, scanned: Lsn, anew: bool) -> Result<Lsn> {
        let _lock = self.shared().lock_space()?;
        let from = self.scan_from(scanned, anew)?;
        // No frame lies at 1, and 0 would say that nobody scans.
        self.log().control.publish_entries(queue_end, from.max(Lsn(1)));
        Ok(from)
    }

    /// Where the scan of a queue that ends at `scanned` goes on: where the log begins, for a first one, and for one that
    /// begins `anew`.
    pub(crate) fn scan_from(&self, scanned: Lsn, anew: bool) -> Result<Lsn> {
        let begins = self.beginning()?.lsn();
        if !anew && self.lacks_queue(scanned)? {
            return Err(lost_queue(begins).at_path(self.root().join("queue")));
        }
        Ok(scanned.max(begins))
    }

    /// True when the scan had come further than a queue that ends at `scanned`, and the log does not have the rest.
    pub(crate) fn lacks_queue(&self, scanned: Lsn) -> Result<bool> {
        self.shared().follow_freed()?;
        let (begins, before) = self.shared().streams.index.freed();
        Ok(scanned < begins && scanned < before)
    }

    /// Time of the newest event or record of the log; 0 when that is not known.
    pub(super) fn newest_time(&self) -> Result<i64> {
        let shared = self.shared();
        shared.follow_freed()?;
        shared.catch_up(shared.log.control.durable())?;
        Ok(shared.streams.index.newest_time())
    }

    /// All pinned records whose key begins with `prefix` as they were where the log begins: what was freed left them.
    ///
    /// # Errors
    /// `Corrupt` when the base is damaged.
    pub fn pinned_when_freed(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>, Lsn)>> {
        self.shared().follow_freed()?;
        self.shared().streams.index.pinned_in_base(prefix)
    }

    /// First version of a stream that was not freed; 0 where nothing of it was.
    ///
    /// # Errors
    /// `Corrupt` when the base is damaged.
    pub fn stream_start(&self, stream: &str) -> Result<crate::StreamVersion> {
        self.shared().follow_freed()?;
        self.shared()
            .streams
            .index
            .freed_of(stream)
            .map(crate::StreamVersion)
    }
}

/// Q2: the log was freed because the queue had it.
pub(super) fn lost_queue(log_begins: Lsn) -> Error {
    Error::corrupt(format!(
        "the stable queue is damaged or missing, and the log that it was made from was freed up to {log_begins}; nothing was \
         changed: put the files of the folder queue back, or remove them: then the scan makes again what remotes are due of \
         what the log still has, and refuses where one has not confirmed the rest"
    ))
    .at_lsn(log_begins)
}

/// True for what a reader is told that was overtaken, and who looks again may not meet.
pub(super) fn is_behind(error: &Error) -> bool {
    error.kind() == ErrorKind::Behind
}
