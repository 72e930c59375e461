//! What a store takes of its disk, what is freed next and who keeps the rest.

use std::time::Duration;

use milepost_engine::{DiskUse, Lsn, Result, Store};
use milepost_replication::folders::{Folder, Folders, folders};
use serde::Serialize;

use super::super::verify::Damage;
use crate::arguments::{keep, moment};
use crate::failure::Outcome;
use crate::output::{self, Out};

/// The facts, as `--json` shows them under `disk`.
#[derive(Serialize)]
pub struct Disk {
    log: u64,
    spares: u64,
    sidecars: u64,
    base: u64,
    queue: u64,
    views: u64,
    /// Files and bytes of parts, quarantine and keys.
    #[serde(flatten)]
    folders: Folders,
    free: Option<u64>,
    total: Option<u64>,
    bytes_per_day: Option<u64>,
    full_in_days: Option<u64>,
    /// Not there where the settings are damaged.
    retention: Option<String>,
    limit: Option<u64>,
    freed_next: u64,
    /// When the next segment behind that is old enough, where the log is kept by age.
    due: Option<i64>,
    keepers: Vec<Keeper>,
    holds: usize,
    #[serde(skip)]
    over: Duration,
    #[serde(skip)]
    full_in: Option<Duration>,
}

#[derive(Serialize)]
struct Keeper {
    from: Option<u64>,
    text: String,
}

const DAY: u64 = 86_400;
/// Time over which the newest segments were written below which they tell no rate.
const YOUNG: Duration = Duration::from_secs(60);

/// Asks the store. Settings and holds that are damaged are told, and keep everything.
pub fn gather(store: &Store, damage: &mut Vec<Damage>) -> Result<Disk> {
    let (disk, space, begins) = (store.disk()?, store.space(), store.oldest()?);
    let mut keepers = Vec::new();
    let (freed_next, due) = match &space {
        Ok(_) => {
            let freeable = store.freeable()?;
            keepers.extend(freeable.keepers.into_iter().map(|keeper| Keeper {
                from: (keeper.from < Lsn::MAX).then_some(keeper.from.0),
                text: keeper.text,
            }));
            (freeable.end.since(begins), freeable.due)
        }
        Err(error) => {
            keepers.push(Keeper {
                from: Some(0),
                text: "the settings of space cannot be read, so nothing is freed".to_owned(),
            });
            damage.push(Damage::from(error));
            (0, None)
        }
    };
    damage.extend(store.archive_damage().iter().map(Damage::from));
    let (space, holds) = (space.ok(), store.holds()?);
    damage.extend(
        holds
            .iter()
            .filter_map(|hold| hold.hold.as_ref().err())
            .map(Damage::from),
    );
    // What a few moments say of a day is no rate.
    let is_rate = disk.over >= YOUNG;
    let full_in = disk.full_in().filter(|_| is_rate);
    Ok(Disk {
        log: disk.log,
        spares: disk.spares,
        sidecars: disk.sidecars,
        base: disk.base,
        queue: disk.queue,
        views: disk.views,
        folders: folders(store)?,
        free: disk.free,
        total: disk.total,
        bytes_per_day: per_day(&disk).filter(|_| is_rate),
        full_in_days: full_in.map(|time| time.as_secs() / DAY),
        retention: space.as_ref().map(|space| keep::text(space.retention)),
        limit: space.as_ref().map(|space| space.limit),
        freed_next,
        due,
        keepers,
        holds: holds.len(),
        over: disk.over,
        full_in,
    })
}

fn per_day(disk: &DiskUse) -> Option<u64> {
    let day = Duration::from_secs(DAY).as_micros();
    let grew = u128::from(disk.grew).saturating_mul(day);
    let rate = grew.checked_div(disk.over.as_micros())?;
    u64::try_from(rate).ok()
}

impl Disk {
    /// Prints them for people.
    pub fn print(&self, out: &mut Out) -> Outcome {
        out.line(format_args!(
            "disk          log {}, spares {}, sidecars {}, base {}, queue {}, views {}",
            about(self.log),
            about(self.spares),
            about(self.sidecars),
            about(self.base),
            about(self.queue),
            about(self.views)
        ))?;
        let Folders {
            parts,
            quarantine,
            keys,
        } = self.folders;
        out.line(format_args!(
            "replication   parts {}, quarantine {}, keys {}",
            in_files(parts),
            in_files(quarantine),
            in_files(keys)
        ))?;
        let limit = match self.limit {
            None => "an unknown limit".to_owned(),
            Some(0) => "no limit".to_owned(),
            Some(limit) => format!("a limit of {}", keep::bytes_text(limit)),
        };
        let holds = match self.holds {
            1 => "one hold".to_owned(),
            holds => format!("{holds} holds"),
        };
        out.line(format_args!(
            "retention     {}, {limit}, {holds}",
            self.retention.as_deref().unwrap_or("unknown")
        ))?;
        let due = self.due.map_or_else(String::new, |at| {
            format!("; the next segment is old enough at {}", moment::text(at))
        });
        out.line(format_args!("freed next    {}{due}", about(self.freed_next)))?;
        for keeper in &self.keepers {
            let from = keeper
                .from
                .map_or_else(String::new, |from| format!("from {from} on: "));
            out.line(format_args!(
                "  keeps       {from}{}",
                output::shown(&keeper.text)
            ))?;
        }
        if let (Some(free), Some(total)) = (self.free, self.total) {
            out.line(format_args!(
                "disk free     {} of {}{}",
                about(free),
                about(total),
                self.forecast()
            ))?;
        }
        Ok(())
    }

    fn forecast(&self) -> String {
        match self.full_in {
            Some(time) => format!(
                "; at the rate of the last {} full in about {}, if nothing is freed",
                span(self.over),
                span(time)
            ),
            None => "; there is no rate yet at which the log grows".to_owned(),
        }
    }
}

/// Bytes, rounded to three digits.
fn about(bytes: u64) -> String {
    let units = [(1u64 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, letter)) => format!("{}.{}{letter}", bytes / unit, bytes % unit * 10 / unit),
        None => bytes.to_string(),
    }
}

fn in_files(folder: Folder) -> String {
    match folder.files {
        0 => "0".to_owned(),
        1 => format!("{} in 1 file", about(folder.bytes)),
        files => format!("{} in {files} files", about(folder.bytes)),
    }
}

/// A span of time in its largest unit.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [
        (365 * DAY, "years"),
        (DAY, "days"),
        (3_600, "hours"),
        (60, "minutes"),
    ];
    match units.into_iter().find(|(unit, _)| seconds >= 2 * unit) {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_are_short() {
        assert_eq!(about(1_023), "1023");
        assert_eq!(about((3 << 30) + (1 << 29)), "3.5G");
        assert_eq!(span(Duration::from_secs(119)), "119 seconds");
        assert_eq!(span(Duration::from_secs(40 * DAY)), "40 days");
        assert_eq!(span(Duration::from_secs(4 * 365 * DAY)), "4 years");
    }

    #[test]
    fn the_disk_is_full_when_what_is_left_is_written_at_the_same_rate() {
        let disk = DiskUse {
            free: Some(100),
            grew: 10,
            over: Duration::from_secs(3 * DAY),
            ..DiskUse::default()
        };
        assert_eq!(disk.full_in(), Some(Duration::from_secs(30 * DAY)));
        assert_eq!(per_day(&disk), Some(3));
        for unknown in [
            DiskUse { free: None, ..disk },
            DiskUse { grew: 0, ..disk },
            DiskUse {
                over: Duration::ZERO,
                ..disk
            },
        ] {
            assert_eq!(unknown.full_in(), None);
        }
    }
}
