//! [`Plan`]: what a store that is being made is to become. It is pinned in that store's first frame and unpinned by its last, so
//! that whoever is killed in between goes on, and nobody takes a store that is half made for a whole one.

use bincode::{Decode, Encode};
use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, Error, Lsn, Pinned, Result, SiteName, Store, StoreId};

use crate::catalog::{NewRemote, OnError, Remote, RemoteLimits, Schedule};
use crate::tracking::NOTE;

/// Its key.
pub(super) const PLAN_KEY: &[u8] = b"extract";
/// First byte of its value.
const VERSION: u8 = 1;

/// What a store is to become.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Plan {
    /// Id of the store that is copied.
    pub source: StoreId,
    /// Generation of the pair.
    pub generation: u32,
    /// What the new site subscribes to: publication, and value where it asks for one.
    pub wanted: Vec<(String, Option<String>)>,
    /// The first LSN that is copied.
    pub from: Lsn,
    /// The publications are taken as they stood here.
    pub as_of: Lsn,
    /// What the source's remote was, when that is removed and made anew.
    pub renewed: Option<Renewed>,
    /// Patterns of streams that the new site sends up.
    pub up: Vec<String>,
    /// A fresh key for the pair.
    pub fresh_key: bool,
}

/// A remote that is made anew, as it was.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Renewed {
    pub links: Vec<String>,
    pub schedule: Schedule,
    pub consolidated: bool,
    pub goes_on: bool,
    pub limits: RemoteLimits,
}

impl Renewed {
    pub(super) fn of(remote: &Remote) -> Renewed {
        Renewed {
            links: remote.links.clone(),
            schedule: remote.schedule,
            consolidated: remote.consolidated,
            goes_on: remote.on_error == OnError::GoOn,
            limits: remote.limits,
        }
    }

    pub(super) fn remote(&self, site: &SiteName) -> NewRemote {
        NewRemote {
            site: site.clone(),
            links: self.links.clone(),
            schedule: self.schedule,
            consolidated: self.consolidated,
            limits: self.limits,
            on_error: if self.goes_on {
                OnError::GoOn
            } else {
                OnError::Stop
            },
        }
    }
}

impl Plan {
    /// The record to pin.
    ///
    /// # Errors
    /// `Invalid` when it is larger than a value may be.
    pub(super) fn pin(&self) -> Result<Pinned> {
        let mut value = vec![VERSION];
        value.extend(milepost_engine::codec::encode(self)?);
        Ok(Pinned {
            key: PLAN_KEY.to_vec(),
            value: Some(value),
        })
    }

    /// The plan of a store that is not finished.
    ///
    /// # Errors
    /// `Corrupt` for bytes that are none, and for one of another version.
    pub(super) fn of(made: &Store) -> Result<Option<Plan>> {
        let Some((value, at)) = made.pinned(PLAN_KEY)? else {
            return Ok(None);
        };
        match value.split_first() {
            Some((&VERSION, bytes)) => milepost_engine::codec::decode(bytes).map(Some),
            _ => Err(Error::corrupt(
                "what this store was to become is said in a way that this program does not know",
            )
            .at_lsn(at)),
        }
    }

    /// The last frame: the store is what it was to become.
    ///
    /// # Errors
    /// As [`Store::append_frames`].
    pub(super) fn finish(made: &Store) -> Result<()> {
        let mut note = NewFrame::of_kind(NOTE, Vec::new());
        note.pin(Pinned {
            key: PLAN_KEY.to_vec(),
            value: None,
        });
        made.append_frames(vec![note], Durability::Synced).map(drop)
    }
}

/// Refuses to work with a store that is not finished.
///
/// # Errors
/// `Conflict`, which says how to go on; those of the log.
pub fn refuse_unfinished(store: &Store) -> Result<()> {
    let Some((_, at)) = store.pinned(PLAN_KEY)? else {
        return Ok(());
    };
    Err(Error::conflict(
        "this store is not finished: the command that was making it was interrupted. Run that again, which goes on where it was; or \
         remove the folder",
    )
    .at_path(store.root())
    .at_lsn(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{Records, assert_laid_out, kept_records};

    fn plan() -> Plan {
        Plan {
            source: StoreId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
            generation: 3,
            wanted: vec![("o".to_owned(), Some("be".to_owned())), ("p".to_owned(), None)],
            from: Lsn(7),
            as_of: Lsn(0x0102),
            renewed: Some(Renewed {
                links: vec!["bundle:".to_owned()],
                schedule: Schedule::EverySeconds(60),
                consolidated: true,
                goes_on: false,
                limits: RemoteLimits {
                    bytes: Some(9),
                    ..RemoteLimits::default()
                },
            }),
            up: vec!["t/*".to_owned()],
            fresh_key: true,
        }
    }

    /// Written out from docs/replication.md: a store may be finished by a later program.
    #[test]
    fn a_plan_is_laid_out_as_its_page_says_and_a_kept_one_is_read() {
        let value = plan().pin().unwrap().value.unwrap();
        let fields: [(usize, &[u8]); 10] = [
            (0, &[1]),
            (1, &0x0123_4567_89ab_cdef_0011_2233_4455_6677_u128.to_le_bytes()),
            (17, &3_u32.to_le_bytes()),
            (
                21,
                b"\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0o\x01\x02\0\0\0\0\0\0\0be\x01\0\0\0\0\0\0\0p\0",
            ),
            (59, &7_u64.to_le_bytes()),
            (67, &0x0102_u64.to_le_bytes()),
            (
                75,
                b"\x01\x01\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0bundle:\x01\0\0\0\x3c\0\0\0\0\0\0\0",
            ),
            (111, b"\x01\0\x01\x09\0\0\0\0\0\0\0\0\0\0\0\0"),
            (127, b"\x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0t/*"),
            (146, &[1]),
        ];
        assert_laid_out("extract", &value, &fields);
        let records: Records = vec![("plan".to_owned(), value)];
        for (name, kept) in kept_records("extract", &records) {
            let read: Plan = milepost_engine::codec::decode(&kept[1..]).unwrap();
            assert_eq!((name.as_str(), read), ("plan", plan()));
        }
    }
}
