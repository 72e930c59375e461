//! Writing a batch of commits under the append lock.
//!
//! ```text
//! lock ─► repair ─► judge expectations ─► seal blocks ─► announce ─► one pwritev ─► publish ─► unlock
//!                                              └ does not fit: roll (S2) and go on
//! ```
//!
//! Nothing is synced here but at a roll; who must know that its commit is on disk waits in
//! [`Log::make_durable`] afterwards, while the next batch is written.

use std::io::ErrorKind as Io;

use crate::block::{BlockBuilder, BlockInPieces, BlockKind, Seal};
use crate::frame::EncodedFrame;
use crate::planted::{self, Bug};
use crate::sync::MutexGuard;
use crate::width::to_u64;
use crate::{
    Error, ErrorKind, ExpectedVersion, Lsn, Result, StreamName, StreamVersion, WrongExpectedVersion,
};

use super::Log;
use super::control::Tail;
use super::judge::{Judge, Verdict};
use super::lock::AppendLock;
use super::recover::zero;
use super::segment::Segment;
use crate::storage::write_all;

/// Most bytes that a handle keeps for its next block.
const MOST_ROOM: usize = 1 << 20;

/// Frames that one caller wants committed together, and what it expects.
pub(crate) struct Request {
    pub frames: Vec<EncodedFrame>,
    pub expectations: Vec<(StreamName, ExpectedVersion)>,
}

/// What became of a request, before any sync.
pub(crate) enum Written {
    /// Its frames are in the log, below `end`.
    Appended {
        lsns: Vec<Lsn>,
        end: Lsn,
        versions: Vec<(StreamName, StreamVersion)>,
    },
    /// An expectation was not met; the state that caused it lies below `end`.
    Wrong { wrong: WrongExpectedVersion, end: Lsn },
}

/// A batch on its way into blocks.
struct Batch<'a> {
    requests: &'a [Request],
    outcomes: Vec<Option<Result<Written>>>,
    /// Frames in the open block, as (request, is its last frame).
    open: Vec<usize>,
    /// Sealed blocks that go out with the next write, and the requests of their frames.
    sealed: Vec<(BlockInPieces<'a>, Vec<usize>)>,
    builder: BlockBuilder<'a>,
    tail: Tail,
    /// The limit of the log refused a block.
    limited: bool,
}

impl Log {
    /// Writes requests in order; one result for each. Called by the leader of a group commit. What the limit of the
    /// log refuses is written once more when some of it could be freed, and otherwise what may use the reserve.
    pub(crate) fn write(&self, requests: &[Request], judge: &dyn Judge) -> Vec<Result<Written>> {
        self.make_room_ahead(requests, judge);
        let (mut outcomes, mut refused) = self.write_once(requests, judge);
        let mut full = None;
        // Each time more was freed; what is durable moves on meanwhile, and with it what may go.
        while let Some(from) = refused {
            full = judge.make_room();
            if full.is_some() {
                break;
            }
            let rest = requests.get(from..).unwrap_or_default();
            outcomes.truncate(from);
            let (again, still) = self.write_once(rest, judge);
            outcomes.extend(again);
            refused = still.map(|still| from + still);
        }
        let Some(from) = refused else { return outcomes };
        for (number, (request, outcome)) in requests.iter().zip(&mut outcomes).enumerate() {
            // What comes before is in the log, the last of it perhaps in part.
            if number >= from && request.is_control() {
                let (alone, _) = self.write_once(std::slice::from_ref(request), judge);
                *outcome = alone.into_iter().next().unwrap_or_else(|| Err(no_outcome()));
            }
            if let (Err(error), Some(told)) = (&outcome, &full)
                && error.kind() == ErrorKind::Full
            {
                let text = Error::full(format!("{error}; {told}"));
                *outcome = Err(match error.written() {
                    Some(lsn) => text.maybe_written(lsn),
                    None => text,
                });
            }
        }
        outcomes
    }

    /// As [`Log::write`]; and from which request on the limit of the log refused them.
    fn write_once(&self, requests: &[Request], judge: &dyn Judge) -> (Vec<Result<Written>>, Option<usize>) {
        let exclusive = self.appending.lock();
        match self.begin(requests, judge) {
            Ok((lock, verdicts)) => {
                let (outcomes, limited) = self.write_locked(requests, verdicts, &exclusive);
                drop(lock);
                let absent = |outcome: &Result<Written>| {
                    outcome.as_ref().is_err_and(|error| error.written().is_none())
                };
                let written = outcomes.iter().rposition(|outcome| !absent(outcome));
                let refused = limited.then(|| written.map_or(0, |last| last + 1));
                (outcomes, refused)
            }
            Err(error) => (requests.iter().map(|_| Err(error.again())).collect(), None),
        }
    }

    /// Takes the lock, repairs, and judges the expectations over at most a little new log.
    fn begin(&self, requests: &[Request], judge: &dyn Judge) -> Result<(AppendLock<'_>, Vec<Verdict>)> {
        loop {
            self.control.check_poison(self.generation)?;
            let lock = self.lock_append()?;
            self.control.check_poison(self.generation)?;
            self.repair()?;
            if requests.iter().all(|request| request.expectations.is_empty()) {
                return Ok((lock, requests.iter().map(|_| Verdict::blind()).collect()));
            }
            let appended = self.control.appended();
            if judge.lag(appended) > super::judge::MOST_UNDER_LOCK {
                drop(lock);
                judge.catch_up(appended)?;
                continue;
            }
            if !planted::is(Bug::StaleExpectation) {
                judge.catch_up(appended)?;
            }
            let verdicts = super::judge::judge_all(requests, judge)?;
            return Ok((lock, verdicts));
        }
    }

    pub(super) fn lock_append(&self) -> Result<AppendLock<'_>> {
        AppendLock::take(
            &self.lock_file,
            &self.control,
            &*self.clock,
            self.lock_timeout,
            self.process,
        )
    }

    fn write_locked(
        &self,
        requests: &[Request],
        verdicts: Vec<Verdict>,
        exclusive: &MutexGuard<'_, ()>,
    ) -> (Vec<Result<Written>>, bool) {
        let tail = self.control.tail();
        let mut batch = Batch {
            requests,
            outcomes: requests.iter().map(|_| None).collect(),
            open: Vec::new(),
            sealed: Vec::new(),
            builder: BlockBuilder::reusing(std::mem::take(&mut *self.block_room.lock())),
            tail,
            limited: false,
        };
        let error = self.write_blocks(&mut batch, verdicts, exclusive).err();
        let (tail, limited) = (batch.tail.at, batch.limited);
        let outcomes = batch.outcomes.into_iter().zip(requests);
        let outcomes = outcomes.map(|(outcome, request)| settle(outcome, request, tail, error.as_ref()));
        (outcomes.collect(), limited)
    }

    fn write_blocks(
        &self,
        batch: &mut Batch<'_>,
        verdicts: Vec<Verdict>,
        exclusive: &MutexGuard<'_, ()>,
    ) -> Result<()> {
        for (number, verdict) in verdicts.into_iter().enumerate() {
            let versions = match verdict {
                Verdict::Accepted(versions) => versions,
                Verdict::Wrong(wrong) => {
                    let end = Lsn::ZERO;
                    batch.set(number, Ok(Written::Wrong { wrong, end }));
                    continue;
                }
            };
            let Some(request) = batch.requests.get(number) else {
                continue;
            };
            batch.set(
                number,
                Ok(Written::Appended {
                    lsns: Vec::new(),
                    end: Lsn::ZERO,
                    versions,
                }),
            );
            for frame in &request.frames {
                if !batch.builder.is_empty() && batch.builder.len_with(frame) > self.block_bytes {
                    self.seal(batch, exclusive)?;
                }
                batch.builder.push_borrowed(frame);
                batch.open.push(number);
            }
        }
        if !batch.builder.is_empty() {
            self.seal(batch, exclusive)?;
        }
        self.flush(batch, exclusive)
    }

    /// Closes the open block; rolls first when it does not fit the active segment.
    fn seal(&self, batch: &mut Batch<'_>, exclusive: &MutexGuard<'_, ()>) -> Result<()> {
        let builder = std::mem::take(&mut batch.builder);
        let seal = Seal {
            kind: BlockKind::Log,
            close: false,
            owner: self.dir.owner(),
            epoch: batch.tail.epoch,
            lsn: batch.tail.at,
            durable: self.control.durable(),
            nonce: self.nonce,
            chain: batch.tail.chain,
            aux: 0,
        };
        let block = builder.seal_in_pieces(&seal, self.pad_to);
        let members = std::mem::take(&mut batch.open);
        let segment = self.dir.open(batch.tail.segment)?;
        let len = u64::from(block.header.block_len);
        let rolls = segment.offset(block.header.end()) > segment.len();
        let control = members
            .iter()
            .all(|number| batch.requests.get(*number).is_some_and(Request::is_control));
        if let Err(full) = self.check_limit(batch.tail, rolls.then_some(len), control) {
            batch.limited = true;
            return self.flush(batch, exclusive).and(Err(full));
        }
        if rolls {
            let rolled = self.flush(batch, exclusive);
            let rolled = rolled.and_then(|()| self.roll(batch.tail, len, exclusive));
            batch.tail.segment = rolled?;
        }
        batch.tail.at = block.header.end();
        batch.tail.chain = block.header.chain_after();
        batch.sealed.push((block, members));
        Ok(())
    }

    /// Writes and publishes the sealed blocks, which lie in the active segment one after another.
    fn flush(&self, batch: &mut Batch<'_>, _exclusive: &MutexGuard<'_, ()>) -> Result<()> {
        let sealed = std::mem::take(&mut batch.sealed);
        let Some((first, _)) = sealed.first() else {
            return Ok(());
        };
        let (from, pieces): (Lsn, Vec<&[u8]>) = (
            first.header.lsn,
            sealed.iter().flat_map(|(block, _)| block.pieces()).collect(),
        );
        let wrote = self.write_pieces(batch.tail, from, &pieces);
        for (block, members) in &sealed {
            for (number, lsn) in members.iter().zip(&block.frame_lsns) {
                match &wrote {
                    Ok(()) => batch.wrote(*number, *lsn, block.header.end()),
                    Err(error) => batch.failed(*number, error, *lsn),
                }
            }
        }
        let largest = sealed.into_iter().map(|(block, _)| block.front);
        let largest = largest.filter(|bytes| bytes.capacity() <= MOST_ROOM);
        if let Some(bytes) = largest.max_by_key(Vec::capacity) {
            *self.block_room.lock() = bytes;
        }
        wrote
    }

    /// Announces, writes and publishes `pieces` so that `tail` is the new end.
    pub(super) fn write_pieces(&self, tail: Tail, from: Lsn, pieces: &[&[u8]]) -> Result<()> {
        let segment = self.dir.open(tail.segment)?;
        assert!(
            from >= segment.first && tail.at <= segment.end(),
            "E2: a write stays within its segment"
        );
        assert_eq!(
            from,
            self.control.appended(),
            "E5: a write continues what was published"
        );
        let len = tail.at.since(from);
        let zeros = self.zeros_behind(&segment, tail.at, len);
        let with_zeros: Vec<&[u8]> = pieces
            .iter()
            .copied()
            .chain(super::recover::zeros(zeros))
            .collect();
        self.control.announce(from, len);
        let Err(error) = write_all(&*segment.file, &with_zeros, segment.offset(from)) else {
            if zeros > 0 {
                self.filled(tail.at.plus(zeros));
            }
            self.control.publish(tail);
            self.control.clear_intent();
            return Ok(());
        };
        let path = self.dir.path(&segment);
        if is_full(&error) {
            // No space is no damage: the range is zeroed, and the next commit tries again. When even
            // that fails, the intent stays and whoever comes next repairs; until then whole blocks may
            // stand there, and nobody may say that they are absent.
            let start = segment.offset(from);
            if !planted::is(Bug::FullLeavesBytes) && zero(&*segment.file, start, start + len).is_err() {
                return Err(Error::full(
                    "no space for a commit, nor to undo what was written of it: the next commit undoes it; free some",
                )
                .at_path(path)
                .at_lsn(from)
                .maybe_written(from)
                .caused_by(error));
            }
            self.sync_zeros(&segment)?;
            self.control.clear_intent();
            return Err(
                Error::full("no space for a commit; nothing was written, free some and try again")
                    .at_path(path)
                    .at_lsn(from)
                    .caused_by(error),
            );
        }
        self.control.set_poisoned(self.generation);
        Err(
            Error::closed("a write failed: this handle is dead; check the disk and open the store again")
                .at_path(path)
                .at_lsn(from)
                .caused_by(error),
        )
    }

    /// Appends an empty block that names `durable` as such, when the log still ends there and its last
    /// block does not say so; not synced itself.
    pub(crate) fn append_close(&self, durable: Lsn) -> Result<()> {
        let _exclusive = self.appending.lock();
        let lock = self.lock_append()?;
        self.control.check_poison(self.generation)?;
        self.repair()?;
        let tail = self.control.tail();
        let segment = self.dir.open(tail.segment)?;
        let seal = Seal {
            kind: BlockKind::Log,
            close: true,
            owner: self.dir.owner(),
            epoch: tail.epoch,
            lsn: tail.at,
            durable: self.control.durable(),
            nonce: self.nonce,
            chain: tail.chain,
            aux: 0,
        };
        let block = BlockBuilder::new().seal(&seal, self.pad_to);
        if tail.at == durable && block.header.end() <= segment.end() && !self.ends_with_close(tail)? {
            let (at, chain) = (block.header.end(), block.header.chain_after());
            self.write_pieces(Tail { at, chain, ..tail }, tail.at, &[&block.bytes])?;
        }
        drop(lock);
        Ok(())
    }

    /// True when the log's last block was written by a clean close.
    fn ends_with_close(&self, tail: Tail) -> Result<bool> {
        let header_len = to_u64(crate::block::HEADER_LEN.next_multiple_of(self.pad_to));
        let Some(at) = tail
            .at
            .0
            .checked_sub(header_len)
            .filter(|at| *at >= tail.segment.0)
        else {
            return Ok(false);
        };
        let mut cursor = super::cursor::Cursor::new(&self.dir, &self.dir.open(tail.segment)?);
        let found = cursor.block(Lsn(at), None)?;
        Ok(matches!(found, super::cursor::Found::Block(block, _) if block.header().close))
    }

    /// Finishes what a dead holder of the append lock left: zeroes what it announced and did not
    /// publish, and finds the tail again by walking headers (E5).
    pub(super) fn repair(&self) -> Result<()> {
        let Some((at, len)) = self.control.intent() else {
            return Ok(());
        };
        if planted::is(Bug::NoTailRepair) {
            self.control.clear_intent();
            return Ok(());
        }
        let appended = self.control.appended();
        if len == 0 || appended < at.plus(len) {
            let first = self.dir.first_at_or_before(at)?;
            let first = first.ok_or_else(|| Error::internal("the active segment is gone").at_lsn(at))?;
            let segment = self.dir.open(first)?;
            let (from, to) = (
                segment.offset(at),
                segment.offset(at.plus(len)).min(segment.len()),
            );
            zero(&*segment.file, from, to).map_err(|error| {
                Error::io("zero what a dead writer left", self.dir.path(&segment), error).at_lsn(at)
            })?;
            self.sync_zeros(&segment)?;
            if len == 0 {
                self.sync_segment_names()?;
            }
            tracing::warn!(
                lsn = at.0,
                bytes = len,
                "a writer died in the middle of a write; its bytes were removed"
            );
        }
        let tail = self.find_tail(appended)?;
        self.control.publish(tail);
        self.control.clear_intent();
        Ok(())
    }

    /// Zeros over removed bytes are synced by who wrote them, before anything takes their place: a block
    /// said to be absent must not come back with a power cut, nor garbage stand behind the last block
    /// of a segment that is rolled next (S2).
    fn sync_zeros(&self, segment: &Segment) -> Result<()> {
        if planted::is(Bug::SkipZeroSync) {
            return Ok(());
        }
        self.sync_or_poison(segment).map_err(|error| {
            Error::closed("removed bytes may still be on disk: this handle is dead; open the store again")
                .at_path(self.dir.path(segment))
                .caused_by(error)
        })
    }

    /// S2: a roller that died may have named a segment without syncing the folder.
    fn sync_segment_names(&self) -> Result<()> {
        let (storage, folder) = (self.dir.storage(), self.dir.folder());
        storage.sync_dir(folder).map_err(|error| {
            self.control.set_poisoned(self.generation);
            Error::closed("a new segment's name may not be durable; open the store again")
                .at_path(storage.root().join(folder))
                .caused_by(error)
        })
    }

    /// The tail at `appended`, from the headers before it.
    fn find_tail(&self, appended: Lsn) -> Result<Tail> {
        let before = self
            .dir
            .list()?
            .into_iter()
            .take_while(|first| *first < appended)
            .last();
        let before =
            before.ok_or_else(|| Error::internal("the log has no first segment").at_lsn(appended))?;
        let mut cursor = super::cursor::Cursor::new(&self.dir, &self.dir.open(before)?);
        let (mut at, mut chain, mut epoch) = (before, None, self.control.tail().epoch);
        while at < appended {
            match cursor.block(at, chain)? {
                super::cursor::Found::Block(block, _) => {
                    (at, epoch) = (block.header().end(), block.header().epoch);
                    chain = Some(block.chain_after());
                }
                super::cursor::Found::Nothing(reason) => return Err(cursor.corrupt(at, &reason)),
            }
        }
        let chain =
            chain.ok_or_else(|| Error::internal("no block ends where the log ends").at_lsn(appended))?;
        let segment = self.dir.first_at_or_before(appended)?.unwrap_or(before);
        Ok(Tail {
            at: appended,
            chain,
            segment,
            epoch,
        })
    }
}

impl Batch<'_> {
    fn set(&mut self, number: usize, outcome: Result<Written>) {
        if let Some(slot) = self.outcomes.get_mut(number) {
            *slot = Some(outcome);
        }
    }

    /// A frame of a request is in the log.
    fn wrote(&mut self, number: usize, lsn: Lsn, block_end: Lsn) {
        if let Some(Some(Ok(Written::Appended { lsns, end, .. }))) = self.outcomes.get_mut(number) {
            lsns.push(lsn);
            *end = block_end;
        }
    }

    /// A frame of a request failed. Earlier frames of the same request may be there, and after a
    /// failed write of unknown extent this one too.
    fn failed(&mut self, number: usize, error: &Error, lsn: Lsn) {
        let before = match self.outcomes.get(number) {
            Some(Some(Ok(Written::Appended { lsns, .. }))) => lsns.first().copied(),
            Some(Some(Err(_))) => return,
            _ => None,
        };
        let absent = error.kind() == ErrorKind::Full && error.written().is_none();
        let maybe = before.or((!absent).then_some(lsn));
        let error = error.again();
        self.set(
            number,
            Err(maybe.map_or_else(|| error.again(), |lsn| error.again().maybe_written(lsn))),
        );
    }
}

/// The final word on a request: in the log with all its frames, refused, or failed. `tail` is the end
/// of the whole batch.
fn settle(
    outcome: Option<Result<Written>>,
    request: &Request,
    tail: Lsn,
    error: Option<&Error>,
) -> Result<Written> {
    let failed = || match error {
        Some(error) => error.again(),
        None => no_outcome(),
    };
    match outcome {
        Some(Ok(Written::Appended { lsns, .. })) if lsns.len() < request.frames.len() => Err(lsns
            .first()
            .map_or_else(failed, |first| failed().maybe_written(*first))),
        // What caused a refusal may stand in an earlier request of the same batch: it is in the log only
        // with the batch's end, and nowhere when the batch failed.
        Some(Ok(Written::Wrong { wrong, .. })) if error.is_none() => Ok(Written::Wrong { wrong, end: tail }),
        Some(Ok(Written::Wrong { .. })) | None => Err(failed()),
        Some(outcome) => outcome,
    }
}

fn no_outcome() -> Error {
    Error::internal("a commit was neither written nor refused")
}

/// Errors that leave the file's earlier bytes in doubt to nobody.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge | Io::WriteZero
    )
}
