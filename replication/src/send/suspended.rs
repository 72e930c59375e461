//! [`SuspendedRecord`]: a remote for which nothing is kept any more, and [`LimitRecord`]: one that is near that.
//!
//! ```text
//! limit/<remote>      near, or reached: since when, when it was told last     warned once, not by every process
//! suspended/<remote>  durable BEFORE anything is freed for it (R1)             gone with the remote, and only so
//! ```
//!
//! Both name the making of the remote (the LSN that added it), not the pair's generation: a generation is raised by the
//! neighbour too, and a suspended remote that came back by that would have a hole in its stream. One that is removed and added
//! again is another remote: its subscriptions say what it gets.

use bincode::{Decode, Encode};
use milepost_engine::{Lsn, Result, Store};

use crate::catalog::Remote;
use crate::message::Point;
use crate::tracking::PairState;

/// Key prefix of [`SuspendedRecord`].
pub const SUSPENDED_PREFIX: &str = "suspended/";
/// Key prefix of [`LimitRecord`].
pub const LIMIT_PREFIX: &str = "limit/";

/// Which limit was reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum LimitCause {
    /// That by bytes.
    #[default]
    Bytes,
    /// That by age.
    Age,
}

/// Why nothing is kept for a remote any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SuspendedRecord {
    /// LSN of the frame that added the remote: of another making the record says nothing.
    pub added: Lsn,
    /// When, microseconds since 1970 by the clock here.
    pub since: i64,
    /// Which limit was reached,
    pub cause: LimitCause,
    /// what was kept then, in bytes or seconds,
    pub kept: u64,
    /// and what was allowed.
    pub limit: u64,
    /// What it had confirmed: all that it is due behind this is given up.
    pub confirmed: Point,
    /// The scan had come to here.
    pub scanned: Lsn,
}

impl PairState for SuspendedRecord {
    const PREFIX: &'static str = SUSPENDED_PREFIX;
}

impl SuspendedRecord {
    /// Why, what was given up, and the way back, as a sentence for an operator.
    #[must_use]
    pub fn text(&self, remote: &Remote) -> String {
        let site = &remote.site;
        let kept = match self.cause {
            LimitCause::Bytes => format!("{} bytes were kept for it, of {} allowed", self.kept, self.limit),
            LimitCause::Age => format!(
                "it had not confirmed for {} s what it was due, of {} s allowed",
                self.kept, self.limit
            ),
        };
        let from = match self.confirmed.is_none() {
            true => "all that it was due is given up, because it had confirmed nothing".to_owned(),
            false => format!(
                "all that it was due behind {}, the last it had confirmed, is given up",
                self.confirmed.place()
            ),
        };
        format!(
            "{kept}; {from} (the scan had come to {}). What it sends is still received. It never goes on by itself: `milepost \
             remote remove DIR {site}` and `remote add` it again, with subscriptions from what the log still has, or bring it a \
             whole copy with `milepost resync DIR --remote {site} --to NEWDIR`",
            self.scanned
        )
    }
}

/// How a remote stands to its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitState {
    /// Well below.
    #[default]
    Fine,
    /// At 70 % or more, and not below 60 % since.
    Near,
    /// At 100 % or more, and not below 90 % since.
    Reached,
    /// Given up.
    Suspended,
}

/// What was told of a remote's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct LimitRecord {
    /// As in [`SuspendedRecord`].
    pub added: Lsn,
    /// Near or reached.
    pub state: LimitState,
    /// Since when, microseconds since 1970 by the clock here.
    pub since: i64,
    /// When it was told last.
    pub told: i64,
}

impl PairState for LimitRecord {
    const PREFIX: &'static str = LIMIT_PREFIX;
}

/// Why nothing is kept for a remote, if so.
///
/// # Errors
/// Those of the store; `Corrupt` for a record that cannot be read.
pub fn suspended(store: &Store, remote: &Remote) -> Result<Option<SuspendedRecord>> {
    let record = store.pinned(&SuspendedRecord::key(&remote.site))?;
    let record = record
        .map(|(value, _)| SuspendedRecord::read(&value))
        .transpose()?;
    Ok(record.filter(|record| record.added == remote.added))
}

/// What was told of its limits.
///
/// # Errors
/// As [`suspended`].
pub fn limit_told(store: &Store, remote: &Remote) -> Result<LimitRecord> {
    let record = store.pinned(&LimitRecord::key(&remote.site))?;
    let record = record.map(|(value, _)| LimitRecord::read(&value)).transpose()?;
    Ok(record
        .filter(|record| record.added == remote.added)
        .unwrap_or(LimitRecord {
            added: remote.added,
            ..LimitRecord::default()
        }))
}

#[cfg(test)]
mod tests {
    use milepost_engine::{Chain, Epoch, Position};

    use super::*;
    use crate::golden::{Records, assert_laid_out, kept_records};

    fn given_up() -> SuspendedRecord {
        SuspendedRecord {
            added: Lsn(0x100),
            since: 1_700_000_000_000_000,
            cause: LimitCause::Age,
            kept: 90,
            limit: 80,
            confirmed: Point {
                position: Position {
                    epoch: Epoch(0xe1),
                    lsn: Lsn(0x200),
                    chain: Chain(0xc1),
                },
                back: Lsn(0x180),
            },
            scanned: Lsn(0x300),
        }
    }

    fn told() -> LimitRecord {
        LimitRecord {
            added: Lsn(0x100),
            state: LimitState::Reached,
            since: 1_700_000_000_000_000,
            told: 1_700_000_000_000_001,
        }
    }

    #[test]
    fn records_of_limits_are_written_and_read_as_ever() {
        let hq = "hq".parse().unwrap();
        let pins = [given_up().pin(&hq).unwrap(), told().pin(&hq).unwrap()];
        let text =
            |pinned: milepost_engine::Pinned| (String::from_utf8(pinned.key).unwrap(), pinned.value.unwrap());
        let written: Records = pins.into_iter().map(text).collect();
        let kept = kept_records("limits", &written);
        assert_eq!(kept, written);
        assert_eq!(SuspendedRecord::read(&kept[0].1).unwrap(), given_up());
        assert_eq!(LimitRecord::read(&kept[1].1).unwrap(), told());
        // docs/replication.md, "Limits".
        let since = 1_700_000_000_000_000_i64.to_le_bytes();
        let fields: &[(usize, &[u8])] = &[
            (0, &0x100_u64.to_le_bytes()),
            (8, &since),
            (16, &[1, 0, 0, 0]),
            (20, &90u64.to_le_bytes()),
            (28, &80u64.to_le_bytes()),
            (36, &0xe1_u64.to_le_bytes()),
            (44, &0x200_u64.to_le_bytes()),
            (52, &0xc1_u64.to_le_bytes()),
            (60, &0x180_u64.to_le_bytes()),
            (68, &0x300_u64.to_le_bytes()),
        ];
        assert_laid_out("suspended/hq", &kept[0].1, fields);
        let fields: &[(usize, &[u8])] = &[
            (0, &0x100_u64.to_le_bytes()),
            (8, &[2, 0, 0, 0]),
            (12, &since),
            (20, &1_700_000_000_000_001_i64.to_le_bytes()),
        ];
        assert_laid_out("limit/hq", &kept[1].1, fields);
    }
}
