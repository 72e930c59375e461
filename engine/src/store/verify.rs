//! [`Store::verify`]: reads every block of log and queue from the disk and says what is damaged.
//!
//! ```text
//! segment ─ pread ─► header CRC, body CRC, LSN, store, chain ─► frames and events within their bounds
//!         └ its end is where the next one begins, the last one's is the durable end
//! sidecar ─► every section's CRC, and the chains that its segment's blocks gave
//! base ─► every section's CRC, and that the first segment goes on from its chain; files of what was received ─► every CRC
//! `store` ─► its CRC, and that it names the store that is open;  `log/newest` ─► names no segment that is missing
//! `space`, each hold ─► its CRC
//! archive away ─► the stub's word for the chain, and the segment is told as not verified
//! ```
//!
//! Guarantees: no byte is believed from a mapping, nothing is changed, and damage in one segment does
//! not hide damage in another (E3). Blocks behind a damaged one in the same segment are not looked at:
//! where they begin is known from it alone. Runs beside other processes, up to what was durable when it
//! began.

use std::sync::Arc;

use crate::block::{Block, BlockKind};
use crate::index::{Base, SidecarState, sidecar_state};
use crate::log::{Cursor, Form, Found, SegmentDir, away_name, newest};
use crate::storage::OpenMode;
use crate::{Chain, Error, ErrorKind, Lsn, Result};

use super::Store;
use super::identity::{Identity, STORE_FILE};
use super::received::Receipts;

/// Damages listed at most; a disk that lost everything is described well enough by these.
const DAMAGES: usize = 100;

/// What [`Store::verify`] found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Segments of the log.
    pub segments: u64,
    /// Whole blocks of the log, continuing each other.
    pub blocks: u64,
    /// Frames in them.
    pub frames: u64,
    /// Transactions among the frames.
    pub transactions: u64,
    /// Events in the transactions.
    pub events: u64,
    /// Bytes of all whole blocks, the queue's included.
    pub bytes: u64,
    /// Whole blocks of the stable queue.
    pub queue_blocks: u64,
    /// Sidecar files that are whole.
    pub sidecars: u64,
    /// Sidecar files that are not there yet; made when needed.
    pub sidecars_missing: u64,
    /// First LSNs of segments whose sidecar file is damaged; made again when needed.
    pub sidecars_damaged: Vec<Lsn>,
    /// The file `log/newest` is missing or damaged, or names an older segment than the last; the next open by a
    /// process that is alone makes it again.
    pub newest_missing: bool,
    /// Damage of the log and of the file `store`, one error for each damaged segment, at most 100.
    pub damage: Vec<Error>,
    /// Damage of the stable queue, likewise; it can be made again from the log.
    pub queue_damage: Vec<Error>,
    /// The file `space` and holds that are damaged; each error says what follows and what to do.
    pub settings_damage: Vec<Error>,
    /// What could not be looked at.
    pub unverified: Unverified,
}

/// Segments that could not be reached, because the archive that they lie in is away.
#[derive(Debug, Default)]
pub struct Unverified {
    /// How many.
    pub segments: u64,
    /// Bytes of their blocks.
    pub bytes: u64,
    /// Why, and what to do about it, once for each file or directory; at most 100.
    pub reasons: Vec<Error>,
}

impl Verified {
    /// True when everything was looked at and nothing is damaged that cannot be made again by itself.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let damages = [&self.damage, &self.queue_damage, &self.settings_damage];
        damages.into_iter().all(Vec::is_empty) && self.unverified.segments == 0
    }
}

/// Where a walk over one log stands.
pub(super) struct Walk<'a> {
    dir: &'a Arc<SegmentDir>,
    /// Chain that the next block must name, when that is known.
    chain: Option<Chain>,
    /// Chain that the segment's first block named.
    chain_before: Option<Chain>,
    at: Lsn,
}

impl Store {
    /// Verifies every block of log and queue, every sidecar, the settings and the holds; `progress` is told bytes read
    /// and bytes in all. Damage, and what lies in an archive that is away, is in the result, not an error.
    ///
    /// # Errors
    /// `Internal` when a file cannot be read at all; `Invalid` for a block of a newer version.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified> {
        let mut found = Verified::default();
        let log = &self.log().dir;
        let (durable, queue_end) = (self.watermarks().durable, self.queue_end());
        let queue_first = self.queue_dir().list()?.first().copied().unwrap_or(queue_end);
        let total = durable.since(self.oldest()?) + queue_end.since(queue_first);
        let mut told = |found: &Verified| progress(found.bytes, total);
        let before = self.verify_base(&mut found)?;
        let firsts: Vec<Lsn> = log.list()?.into_iter().filter(|first| *first < durable).collect();
        let begins = firsts.first().copied().unwrap_or_default();
        let genesis = (Lsn::ZERO, Chain::genesis(self.id()));
        let chain = before.into_iter().chain([genesis]).find(|(at, _)| *at == begins);
        let mut walk = Walk::new(log, chain.map(|(_, chain)| chain));
        for (number, first) in firsts.iter().enumerate() {
            let next = firsts.get(number + 1).copied();
            found.segments += 1;
            let whole = walk.segment(*first, next.unwrap_or(durable), &mut found, &mut told, count_log);
            let whole = match whole {
                // Freed meanwhile, and with it the chain that the next one goes on from.
                Err(error) if error.kind() == ErrorKind::Behind => {
                    walk.chain = None;
                    continue;
                }
                whole => whole?,
            };
            if let (true, Some(end)) = (whole, next) {
                self.verify_sidecar(&walk, *first, end, &mut found)?;
            }
        }
        self.verify_queue(queue_end, &mut found, &mut told)?;
        self.verify_names(firsts.last().copied(), &mut found)?;
        self.verify_settings(&mut found)?;
        Ok(found)
    }

    /// What is kept and who keeps it: while one of these files is damaged nothing is freed.
    fn verify_settings(&self, found: &mut Verified) -> Result<()> {
        let holds = self.holds()?.into_iter().filter_map(|hold| hold.hold.err());
        let settings = self.space().err().into_iter().chain(self.archive_damage());
        found.settings_damage = settings.chain(holds).collect();
        Ok(())
    }

    /// What is left of what was freed, all of it read; where the log begins, and the chain there.
    fn verify_base(&self, found: &mut Verified) -> Result<Option<(Lsn, Chain)>> {
        let base = Base::newest(&**self.storage(), self.id())?;
        if let Some(base) = &base
            && let Err(error) = base.verify()
        {
            found.damage.push(error);
        }
        let received = Receipts::of_base(self.storage(), base.as_ref(), None);
        if let Err(error) = received.and_then(|received| received.verify()) {
            found.damage.push(error);
        }
        Ok(base.map(|base| (base.end(), base.end_chain())))
    }

    /// The files that say whose log this is and how far it goes.
    fn verify_names(&self, last: Option<Lsn>, found: &mut Verified) -> Result<()> {
        let (storage, path) = (&**self.storage(), self.root().join(STORE_FILE));
        let file = storage.open(STORE_FILE, OpenMode::Read);
        let read = file.map_err(|error| Error::io("read the file that names the store", &path, error));
        match read.and_then(|file| Identity::read(storage, &*file)) {
            Ok(identity) if identity == self.shared().identity => {}
            Ok(_) => {
                let text =
                    "the file that names the store names another one than is open; put the former back";
                found.damage.push(Error::corrupt(text).at_path(path));
            }
            Err(error) => found.damage.push(error),
        }
        let noted = newest::read(storage, self.id());
        let noted =
            noted.map_err(|error| Error::io("read which segment is the newest", self.root(), error))?;
        found.newest_missing = noted.is_none_or(|noted| Some(noted) < last);
        // A segment that was begun since is younger than what was verified.
        if let Some(lost) = noted.filter(|noted| Some(*noted) > last)
            && self.log().dir.list()?.binary_search(&lost).is_err()
        {
            let text = format!("this segment of the log is missing; {}", self.log().dir.advice());
            let name = crate::log::segment_name(BlockKind::Log, lost);
            found
                .damage
                .push(Error::corrupt(text).at_path(self.root().join(name)).at_lsn(lost));
        }
        Ok(())
    }

    fn verify_sidecar(&self, walk: &Walk<'_>, first: Lsn, end: Lsn, found: &mut Verified) -> Result<()> {
        let (Some(before), Some(after)) = (walk.chain_before, walk.chain) else {
            return Ok(());
        };
        match sidecar_state(&**self.storage(), self.id(), (first, before), (end, after))? {
            SidecarState::Whole => found.sidecars += 1,
            SidecarState::Missing => found.sidecars_missing += 1,
            SidecarState::Damaged => found.sidecars_damaged.push(first),
        }
        Ok(())
    }

    fn verify_queue(&self, end: Lsn, found: &mut Verified, told: &mut dyn FnMut(&Verified)) -> Result<()> {
        let dir = self.queue_dir();
        let firsts: Vec<Lsn> = dir.list()?.into_iter().filter(|first| *first < end).collect();
        let mut walk = Walk::new(dir, None);
        for (number, first) in firsts.iter().enumerate() {
            let next = firsts.get(number + 1).copied().unwrap_or(end);
            match walk.segment(*first, next, found, told, count_queue) {
                // Freed by a sender meanwhile, and with it the chain that the next one goes on from.
                Err(error) if error.kind() == ErrorKind::Behind => walk.chain = None,
                other => drop(other?),
            }
        }
        Ok(())
    }
}

impl<'a> Walk<'a> {
    /// Before a first segment whose first block must name `chain`, when that is known.
    pub(super) fn new(dir: &'a Arc<SegmentDir>, chain: Option<Chain>) -> Walk<'a> {
        Walk {
            dir,
            chain,
            chain_before: None,
            at: Lsn::ZERO,
        }
    }

    /// Chain after the last block, when that was whole.
    pub(super) fn chain(&self) -> Option<Chain> {
        self.chain
    }

    /// Verifies the blocks of [first, end); true when all are whole.
    pub(super) fn segment(
        &mut self,
        first: Lsn,
        end: Lsn,
        found: &mut Verified,
        told: &mut dyn FnMut(&Verified),
        count: fn(&Block<'_>, &mut Verified) -> Result<()>,
    ) -> Result<bool> {
        self.chain_before = None;
        self.at = first;
        let segment = match self.dir.open(first) {
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(self.damaged(error, found)),
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                return self.unreached((first, end), error, found);
            }
            opened => opened?,
        };
        let mut cursor = Cursor::new(self.dir, &segment);
        while self.at < end {
            let block = match cursor.block(self.at, self.chain) {
                Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(self.damaged(error, found)),
                // Its disk was taken away, or does not give it.
                Err(error) if segment.form() == Form::Away && error.kind() == ErrorKind::Internal => {
                    return self.unreached((first, end), error, found);
                }
                block => block?,
            };
            let reason = match block {
                Found::Block(block, _) if block.header().end() > end => {
                    "a block reaches beyond the end of its segment or of the log".to_owned()
                }
                Found::Block(block, _) => match count(&block, found) {
                    Ok(()) => {
                        let header = block.header();
                        self.chain_before.get_or_insert(header.chain);
                        (self.at, self.chain) = (header.end(), Some(block.chain_after()));
                        told(found);
                        continue;
                    }
                    Err(error) => error.to_string(),
                },
                Found::Nothing(reason) => cursor.explained(self.at, reason)?,
            };
            let error = cursor.corrupt(self.at, &reason);
            return Ok(self.damaged(error, found));
        }
        Ok(true)
    }

    /// Notes a segment that lies in an archive which is away; its stub says how the chain goes on.
    fn unreached(&mut self, (first, end): (Lsn, Lsn), error: Error, found: &mut Verified) -> Result<bool> {
        let Some(stub) = self.dir.only_away(first)? else {
            return Err(error);
        };
        if stub.end != end || self.chain.is_some_and(|chain| chain != stub.chain_before) {
            let text = "the file that says that this segment is in the archive does not fit the segments beside it: put \
                        the right one in its place, or bring the segment back by hand and remove this file";
            let path = self.dir.storage().root().join(away_name(first));
            return Ok(self.damaged(Error::corrupt(text).at_path(path).at_lsn(first), found));
        }
        let unverified = &mut found.unverified;
        unverified.segments += 1;
        unverified.bytes += end.since(self.at.max(first));
        let told = |reason: &Error| reason.path() == error.path();
        if unverified.reasons.len() < DAMAGES && !unverified.reasons.iter().any(told) {
            unverified.reasons.push(error);
        }
        (self.chain_before, self.chain) = (Some(stub.chain_before), Some(stub.chain_after));
        Ok(true)
    }

    /// Lists damage, behind which the segment is not looked at; false.
    fn damaged(&mut self, error: Error, found: &mut Verified) -> bool {
        let told = match self.dir.kind() {
            BlockKind::Log => &mut found.damage,
            BlockKind::Queue => &mut found.queue_damage,
        };
        if told.len() < DAMAGES {
            told.push(error);
        }
        // The damaged block would have said how the chain goes on.
        self.chain = None;
        false
    }
}

pub(super) fn count_log(block: &Block<'_>, found: &mut Verified) -> Result<()> {
    let (mut frames, mut transactions, mut events) = (0u32, 0u64, 0u32);
    for frame in block.frames() {
        let frame = frame?;
        frame.check_sections()?;
        for event in frame.events() {
            event?.check()?;
            events += 1;
        }
        transactions += u64::from(frame.event_count() > 0);
        frames += 1;
    }
    let header = block.header();
    if (frames, events) != (header.frame_count, header.event_count) {
        return Err(Error::corrupt(
            "the block holds other numbers of frames and events than its header says",
        ));
    }
    found.blocks += 1;
    found.frames += u64::from(frames);
    found.transactions += transactions;
    found.events += u64::from(events);
    found.bytes += u64::from(header.block_len);
    Ok(())
}

fn count_queue(block: &Block<'_>, found: &mut Verified) -> Result<()> {
    for frame in block.frames() {
        (frame?.events().try_for_each(|event| event.map(|_| ())))?;
    }
    found.queue_blocks += 1;
    found.bytes += u64::from(block.header().block_len);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{Options, Transaction};

    /// A store of three segments, two of them sealed with their sidecars, closed.
    fn three_segments(dir: &Path) {
        let store = Options::new()
            .segment_bytes(1 << 20)
            .init(dir, "here".parse().unwrap())
            .unwrap();
        for round in 0..3 {
            for number in 0..40 {
                let mut transaction = Transaction::new();
                transaction
                    .push_parts(&format!("s/{number}"), "k", &[round; 500])
                    .unwrap();
                store.commit(transaction).unwrap().committed().unwrap();
            }
            if round < 2 {
                assert!(store.rotate(0).unwrap());
            }
        }
        store.close().unwrap();
        // Whoever asks first after opening makes the sidecars that are missing.
        let store = Options::new().open(dir).unwrap();
        store.stream_version("s/1").unwrap();
        store.close().unwrap();
    }

    fn flip(path: &Path, offset: usize) {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[offset] ^= 0x10;
        std::fs::write(path, bytes).unwrap();
    }

    fn files(dir: &Path, ending: &str) -> Vec<std::path::PathBuf> {
        let all = std::fs::read_dir(dir.join("log"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = all
            .filter(|path| path.extension().is_some_and(|found| found == ending))
            .collect();
        files.sort();
        files
    }

    #[test]
    fn a_whole_store_verifies_and_its_counts_are_those_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        three_segments(dir.path());
        let store = Options::new().open(dir.path()).unwrap();
        let mut last = (0, 0);
        let found = store.verify(&mut |done, total| last = (done, total)).unwrap();
        assert!(
            found.damage.is_empty() && found.sidecars_damaged.is_empty(),
            "{found:?}"
        );
        assert_eq!((found.segments, found.transactions, found.events), (3, 120, 120));
        assert_eq!(last.0, last.1);
        assert_eq!(found.sidecars + found.sidecars_missing, 2);
    }

    #[test]
    fn a_damaged_store_file_and_a_witness_that_is_gone_are_told_while_the_store_is_open() {
        let dir = tempfile::tempdir().unwrap();
        three_segments(dir.path());
        let store = Options::new().open(dir.path()).unwrap();
        assert!(!store.verify(&mut |_, _| ()).unwrap().newest_missing);
        flip(&dir.path().join("log/newest"), 20);
        let found = store.verify(&mut |_, _| ()).unwrap();
        assert!(found.newest_missing && found.damage.is_empty(), "{found:?}");
        flip(&dir.path().join("store"), 60);
        let found = store.verify(&mut |_, _| ()).unwrap();
        assert_eq!(found.damage.len(), 1);
        assert!(found.damage[0].path().unwrap().ends_with("store"));
        flip(&dir.path().join("store"), 60);
        // A witness that knows of a later segment (E3).
        flip(&dir.path().join("log/newest"), 20);
        let segments = files(dir.path(), "log");
        std::fs::remove_file(&segments[2]).unwrap();
        let found = store.verify(&mut |_, _| ()).unwrap();
        assert!(!found.damage.is_empty());
        assert!(
            found
                .damage
                .iter()
                .all(|damage| damage.kind() == crate::ErrorKind::Corrupt)
        );
    }

    #[test]
    fn a_changed_bit_in_each_of_two_sealed_segments_is_reported_twice_and_others_are_still_read() {
        // E3: opening reads the last segment only, so damage in older ones is for verify to find.
        let dir = tempfile::tempdir().unwrap();
        three_segments(dir.path());
        let segments = files(dir.path(), "log");
        flip(&segments[0], 700);
        flip(&segments[1], 9_000);
        let store = Options::new().open(dir.path()).unwrap();
        let found = store.verify(&mut |_, _| ()).unwrap();
        assert_eq!(found.damage.len(), 2);
        for (damage, path) in found.damage.iter().zip(&segments) {
            assert_eq!(damage.kind(), crate::ErrorKind::Corrupt);
            assert_eq!(damage.path(), Some(path.as_path()));
            assert!(damage.lsn().is_some());
        }
        assert!(found.transactions >= 40, "the last segment is whole: {found:?}");
    }

    #[test]
    fn damage_in_the_queue_is_told_apart_and_goes_with_its_files() {
        let dir = tempfile::tempdir().unwrap();
        three_segments(dir.path());
        let store = Options::new().open(dir.path()).unwrap();
        let lock = store.lock_phase(crate::Phase::Scan).unwrap();
        let mut queue = store.queue_writer(&lock).unwrap();
        let mut last = crate::Lsn::ZERO;
        for byte in 0..3 {
            // Two segments, so that opening looks at the last one only.
            let (kind, body) = (
                crate::frame::FrameKind(crate::frame::FrameKind::QUEUE_FIRST),
                vec![byte; 900_000],
            );
            let frame = crate::frame::NewFrame::of_kind(kind, body);
            last = last.plus(1);
            queue
                .append(vec![crate::QueueEntry { lsn: last, frame }], last)
                .unwrap();
        }
        queue.sync().unwrap();
        drop((queue, lock));
        store.close().unwrap();
        let mut segments: Vec<_> = std::fs::read_dir(dir.path().join("queue")).unwrap().collect();
        segments.sort_by_key(|entry| entry.as_ref().unwrap().path());
        assert!(segments.len() >= 2);
        flip(&segments[0].as_ref().unwrap().path(), 5_000);
        let store = Options::new().open(dir.path()).unwrap();
        let found = store.verify(&mut |_, _| ()).unwrap();
        assert!(found.damage.is_empty(), "{found:?}");
        assert_eq!(found.queue_damage.len(), 1);
        assert!(
            found.queue_damage[0]
                .to_string()
                .contains("remove all files of its folder queue")
        );
        store.close().unwrap();
        for segment in segments {
            std::fs::remove_file(segment.unwrap().path()).unwrap();
        }
        let store = Options::new().open(dir.path()).unwrap();
        assert_eq!(store.scanned_through(), crate::Lsn::ZERO, "all is scanned again");
        let found = store.verify(&mut |_, _| ()).unwrap();
        assert!(found.damage.is_empty() && found.queue_damage.is_empty());
    }

    #[test]
    fn a_damaged_sidecar_is_told_and_is_no_damage_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        three_segments(dir.path());
        for path in files(dir.path(), "idx") {
            let len = std::fs::metadata(&path).unwrap().len();
            flip(&path, usize::try_from(len).unwrap() - 1);
        }
        let expected = files(dir.path(), "idx").len();
        let store = Options::new().open(dir.path()).unwrap();
        let found = store.verify(&mut |_, _| ()).unwrap();
        assert!(found.damage.is_empty());
        assert_eq!((found.sidecars_damaged.len(), expected > 0), (expected, true));
    }
}
