//! What a site remembers of bundles: pinned records, for numbers and for people.
//!
//! | key | value | written by |
//! |---|---|---|
//! | `bundles/out/<remote>` | [`Outgoing`]: what was exported for it | export, with the send lock, once a bundle has its name |
//! | `bundles/in/<remote>` | [`Incoming`]: whose bundles came, and what it acknowledges | import, with the receive lock, once their effect is durable |
//!
//! They decide nothing about data: what was received and confirmed says tracking. A number lost with a kill is drawn
//! again, an acknowledgement lost comes with the next bundle.

use bincode::{Decode, Encode};
use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, Epoch, Pinned, Result, SiteName, Store};
use serde::Serialize;

use super::ranges::Ranges;
use crate::catalog::Catalog;
use crate::message::Point;
use crate::tracking::{NOTE, Neighbour, PairRecords, PairState};

/// Key prefix of [`Outgoing`].
pub const OUT_PREFIX: &str = "bundles/out/";
/// Key prefix of [`Incoming`].
pub const IN_PREFIX: &str = "bundles/in/";

/// Most exported bundles that are remembered for each remote; the newest.
const MOST_REMEMBERED: usize = 32;

/// What was exported for a remote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Outgoing {
    /// Lineage of our log in which the numbers count; in another they begin at 1 again.
    pub epoch: Epoch,
    /// Number of the last bundle.
    pub number: u64,
    /// The newest bundles, oldest first.
    pub bundles: Vec<Exported>,
}

/// One exported bundle.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Exported {
    /// Its number.
    pub number: u64,
    /// Its id.
    pub id: u128,
    /// When it was made, microseconds since 1970.
    pub created: i64,
    /// Messages in it.
    pub messages: u32,
    /// Transactions in them.
    pub transactions: u64,
    /// Length of the file.
    pub bytes: u64,
    /// What the remote has once it imported this bundle and those before.
    pub last: Point,
}

/// What came from a remote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Incoming {
    /// Lineage of the remote's log in which `taken` counts.
    pub epoch: Epoch,
    /// Bundles that were taken whole.
    pub taken: Ranges,
    /// Lineage of our log in which `acknowledged` counts.
    pub acknowledged_epoch: Epoch,
    /// Our bundles that the remote took whole, as its bundles tell.
    pub acknowledged: Ranges,
}

impl PairState for Outgoing {
    const PREFIX: &'static str = OUT_PREFIX;
}

impl PairState for Incoming {
    const PREFIX: &'static str = IN_PREFIX;
}

impl Outgoing {
    /// Adds a bundle that has its name.
    pub fn add(&mut self, one: Exported) {
        self.number = one.number;
        self.bundles.push(one);
        let surplus = self.bundles.len().saturating_sub(MOST_REMEMBERED);
        self.bundles.drain(..surplus);
    }

    /// What is remembered, in the lineage that the log is in now.
    ///
    /// # Errors
    /// Those of the store.
    pub fn load(store: &Store, remote: &SiteName) -> Result<Outgoing> {
        let epoch = store.epoch();
        let known: Option<Outgoing> = read(store, remote)?;
        Ok(known.filter(|known| known.epoch == epoch).unwrap_or(Outgoing {
            epoch,
            ..Outgoing::default()
        }))
    }
}

impl Incoming {
    /// What is remembered.
    ///
    /// # Errors
    /// Those of the store.
    pub fn load(store: &Store, remote: &SiteName) -> Result<Incoming> {
        Ok(read(store, remote)?.unwrap_or_default())
    }

    /// What another bundle says, of the lineage `epoch` of its sender, in the lineage `own` of ours; true when it is news.
    pub fn hear(
        &mut self,
        (epoch, own): (Epoch, Epoch),
        acknowledged: (Epoch, &Ranges),
        taken: Option<u64>,
    ) -> bool {
        let before = self.clone();
        if let Some(number) = taken {
            if self.epoch != epoch {
                // The sender was restored, and counts from 1 again.
                (self.epoch, self.taken) = (epoch, Ranges::default());
            }
            self.taken.add(number);
        }
        let (its_epoch, ranges) = acknowledged;
        // An older bundle that comes late knows less, and one from before a restore nothing.
        let is_known = self.acknowledged_epoch == own && ranges.highest() < self.acknowledged.highest();
        if ranges.highest() > 0 && its_epoch == own && !is_known {
            (self.acknowledged_epoch, self.acknowledged) = (its_epoch, ranges.clone());
        }
        *self != before
    }
}

fn read<T: PairState>(store: &Store, remote: &SiteName) -> Result<Option<T>> {
    let value = store.pinned(&T::key(remote))?;
    value.map(|(value, _)| T::read(&value)).transpose()
}

/// Makes a record durable, and with it what else is to change.
///
/// # Errors
/// Those of the store.
pub fn keep<T: PairState>(
    store: &Store,
    remote: &SiteName,
    record: &T,
    also: impl IntoIterator<Item = Pinned>,
) -> Result<()> {
    let mut note = NewFrame::of_kind(NOTE, Vec::new());
    note.pin(record.pin(remote)?);
    also.into_iter().for_each(|pin| note.pin(pin));
    store.append_frames(vec![note], Durability::Synced).map(|_| ())
}

/// What is known of the bundles to and from a remote.
#[derive(Clone, Debug, Serialize)]
pub struct RemoteBundles {
    /// Name of the site.
    pub remote: String,
    /// The newest bundles that were exported for it, oldest first.
    pub exported: Vec<ExportedFacts>,
    /// Ranges of numbers of its bundles that were taken whole here.
    pub imported: Vec<(u64, u64)>,
    /// Ranges of numbers below the highest that were not.
    pub missing: Vec<(u64, u64)>,
}

/// One exported bundle.
#[derive(Clone, Debug, Serialize)]
pub struct ExportedFacts {
    /// Its number.
    pub number: u64,
    /// Its id, in hexadecimal.
    pub id: String,
    /// When it was made, microseconds since 1970.
    pub created: i64,
    /// Messages in it.
    pub messages: u32,
    /// Transactions in them.
    pub transactions: u64,
    /// Length of the file.
    pub bytes: u64,
    /// The remote said that it took it whole.
    pub acknowledged: bool,
    /// The remote confirmed all transactions up to its last.
    pub confirmed: bool,
}

/// The bundles of each remote of which any is known.
///
/// # Errors
/// Those of the store.
pub fn bundles(store: &Store) -> Result<Vec<RemoteBundles>> {
    let catalog = Catalog::load(store)?;
    let mut found = Vec::new();
    for remote in catalog.remotes() {
        let (out, came) = (
            Outgoing::load(store, &remote.site)?,
            Incoming::load(store, &remote.site)?,
        );
        if out.bundles.is_empty() && came == Incoming::default() {
            continue;
        }
        let neighbour = Neighbour {
            name: remote.site.clone(),
            generation: remote.generation,
        };
        let records = PairRecords::load(&neighbour, |key| Ok(store.pinned(key)?.map(|(value, _)| value)))?;
        let confirmed = records.told.confirmed;
        let fact = |one: &Exported| ExportedFacts {
            number: one.number,
            id: format!("{:032x}", one.id),
            created: one.created,
            messages: one.messages,
            transactions: one.transactions,
            bytes: one.bytes,
            acknowledged: came.acknowledged_epoch == out.epoch && came.acknowledged.has(one.number),
            confirmed: confirmed.place() >= one.last.place(),
        };
        found.push(RemoteBundles {
            remote: remote.site.to_string(),
            exported: out.bundles.iter().map(fact).collect(),
            imported: came.taken.as_slice().to_vec(),
            missing: came.taken.missing_below(came.taken.highest()),
        });
    }
    Ok(found)
}
