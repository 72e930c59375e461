//! [`Store::disk`]: what a store takes of its disk, what is left of that, and when it will be full.

use std::time::Duration;

use crate::index::base_end;
use crate::log::{Cursor, Found};
use crate::storage::{OpenMode, Storage};
use crate::{Error, ErrorKind, Lsn, Result, Store};

/// Segments over whose time the rate is taken.
const LOOK_BACK: usize = 16;
/// Folders within folders that are looked into: `views/<name>/sled`.
const DEEPEST: u32 = 4;

/// What a store takes of its disk, in bytes, and how fast its log grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// Segments of the log as they lie in its folder; the active one at its full length.
    pub log: u64,
    /// Segments made ahead of need.
    pub spares: u64,
    /// Sidecar indexes.
    pub sidecars: u64,
    /// What is left of freed segments.
    pub base: u64,
    /// The stable queue.
    pub queue: u64,
    /// Views.
    pub views: u64,
    /// What the file system has left; `None` where it does not say.
    pub free: Option<u64>,
    /// Its size.
    pub total: Option<u64>,
    /// How much the log grew in [`DiskUse::over`], by the times in its newest segments.
    pub grew: u64,
    /// Time in which it did.
    pub over: Duration,
}

impl DiskUse {
    /// When the disk is full at this rate, if nothing is freed.
    #[must_use]
    pub fn full_in(&self) -> Option<Duration> {
        let free = u128::from(self.free?);
        let micros = (free * self.over.as_micros()).checked_div(u128::from(self.grew))?;
        (!self.over.is_zero()).then(|| Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
    }
}

impl Store {
    /// What the store takes of its disk, what is left, and how fast the log grows.
    ///
    /// # Errors
    /// `Internal` when files cannot be listed; `Corrupt` for damage in the log (E3).
    pub fn disk(&self) -> Result<DiskUse> {
        let (storage, root) = (&**self.storage(), self.root());
        let failed = |error| Error::io("ask what the store takes of the disk", root, error);
        let mut disk = DiskUse::default();
        let segments = self.segments()?;
        for (number, (first, len)) in segments.iter().enumerate() {
            let next = segments.get(number + 1);
            disk.log += next.map_or(*len, |(next, _)| next.since(*first));
        }
        disk.log = disk.log.saturating_sub(self.log().dir.saved()?);
        for name in storage.list("log").map_err(failed)? {
            let kind = if name.starts_with("spare-") {
                &mut disk.spares
            } else if name.contains(".idx") {
                &mut disk.sidecars
            } else if base_end(&name).is_some() || super::received::end_of(&name).is_some() {
                &mut disk.base
            } else {
                continue;
            };
            *kind += bytes_of(storage, &format!("log/{name}"), 0);
        }
        disk.queue = bytes_of(storage, "queue", DEEPEST);
        disk.views = bytes_of(storage, "views", DEEPEST);
        let left = storage.disk().map_err(failed)?;
        (disk.free, disk.total) = (left.map(|(free, _)| free), left.map(|(_, total)| total));
        (disk.grew, disk.over) = self.growth(&segments)?;
        Ok(disk)
    }

    /// How much the log grew over its newest segments, and in which time.
    fn growth(&self, segments: &[(Lsn, u64)]) -> Result<(u64, Duration)> {
        let newest = segments.len().saturating_sub(LOOK_BACK);
        let Some((first, _)) = segments.get(newest) else {
            return Ok((0, Duration::ZERO));
        };
        let dir = &self.log().dir;
        let segment = match dir.open(*first) {
            // In an archive that is not there: what else is known of the disk is worth telling.
            Err(error) if error.kind() == ErrorKind::Unavailable => return Ok((0, Duration::ZERO)),
            segment => segment?,
        };
        let mut cursor = Cursor::new(dir, &segment);
        let begun = match cursor.block(*first, None)? {
            Found::Block(block, _) if !block.header().lost => block.header().first_time,
            // Who stands for what was lost does not know when that was written.
            _ => return Ok((0, Duration::ZERO)),
        };
        let durable = self.watermarks().durable;
        let micros = self.newest_time()?.saturating_sub(begun);
        Ok((
            durable.since(*first),
            Duration::from_micros(u64::try_from(micros).unwrap_or(0)),
        ))
    }
}

/// Length of a file, or of all files in a folder; what is not there, or goes meanwhile, has none.
fn bytes_of(storage: &dyn Storage, name: &str, deep: u32) -> u64 {
    if let Ok(names) = storage.list(name)
        && deep > 0
    {
        return names
            .iter()
            .map(|inner| bytes_of(storage, &format!("{name}/{inner}"), deep - 1))
            .sum();
    }
    let file = storage.open(name, OpenMode::Read);
    file.and_then(|file| file.len()).unwrap_or(0)
}
