//! Milepost's engine: an event-sourced store whose log is the only truth.
//!
//! ```text
//! Transaction ─► Store::commit ─► log (group ─► append ─► durable) ─┬─► Store::scan: in order, and a tail
//!                                                                  ├─► index: Store::read_stream, pinned records
//!                                                                  ├─► queue: what remotes are still due
//!                                                                  └─► view: projections over sled
//! ```
//!
//! A store is a directory on a local file system. Any number of processes may open it, commit and
//! read at once; nothing is lost when one of them dies. What is promised, with the numbers that code
//! and tests cite:
//!
//! - **E1** An acknowledged commit survives any crash, kill or power cut; an unacknowledged one is whole
//!   or absent.
//! - **E2** A reader at position P has seen every transaction up to P; positions below durable are never
//!   skipped or used again.
//! - **E3** Damage below durable is reported, never skipped.
//! - **E4** Derived files may be deleted while the store is closed; the next open answers as before.
//! - **E5** No process can corrupt or hide another's commits, nor block them by dying.
//! - **S1** Durable is raised only after one's own sync of bytes that were written behind one's own
//!   descriptor, and while nothing was poisoned. **S2** A segment begins when its predecessor is durable
//!   to its end. **S3** Recovery writes again and syncs what it keeps beyond what is known durable.
//! - **Q1** Queue entries and scan position advance together. **Q2** The queue is freed by what all
//!   remotes confirmed, and never waits for the log.
//!
//! The engine is synchronous and knows no sockets, no replication and no time but what
//! [`Options`] gives it. All files go through [`storage::Storage`]; all `unsafe` is in one module below
//! it. Bytes on disk are specified in `docs/format.md`.
//!
//! Start with [`Options`], [`Store`], [`Transaction`] and [`Event`]:
//!
//! ```no_run
//! use milepost_engine::{Event, Options, StreamVersion, Transaction};
//!
//! let store = Options::new().open_or_init("till", "bern".parse()?)?;    // a folder, and the name of this site
//! let mut sale = Transaction::new();
//! sale.push(&Event::new("sales/till-3", "sold", br#"{"article":17}"#)?)?;
//! let committed = store.commit(sale)?.committed()?;                 // on disk when this returns
//! for event in store.read_stream("sales/till-3", StreamVersion(0))? {
//!     println!("{} {}", event?.version, committed.lsn);
//! }
//! # Ok::<(), milepost_engine::Error>(())
//! ```
#![cfg_attr(test, allow(clippy::as_conversions))]

pub mod block;
pub mod clock;
pub mod codec;
mod error;
mod event;
pub mod frame;
#[cfg(test)]
#[path = "../../tests/fixtures/golden.rs"]
mod golden;
pub mod index;
mod log;
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
mod position;
mod queue;
mod site;
pub mod storage;
mod store;
mod stream;
pub mod sync;
mod transaction;
pub mod view;
pub mod width;

pub use error::{Error, ErrorKind, Result};
pub use event::{Event, RecordedEvent};
pub use frame::{Origin, Pinned, Via};
pub use log::{InPlace, LogScan, StreamScan};
pub use position::{Chain, Epoch, Lsn, Position};
pub use queue::{QueueEntry, QueueLookup, QueuePlace, QueueReader, QueueWriter};
pub use site::{SiteName, StoreId};
pub use store::{
    Archived, BackedUp, Backup, BackupFacts, BaseDamage, Beginning, Compressed, Cost, Damage, DamageKind,
    DiskUse, Durability, Examined, Forgotten, ForkAt, Freeable, Hold, Keeper, Loss, LostFrame, NamedHold,
    NewLineage, News, Options, Phase, PhaseLock, PutBack, RawEnd, RawLog, RawPiece, Receipt, Receipts,
    ReceivedDamage, Repair, RepairHow, Repaired, Restored, Retention, Space, Store, StreamReader, Unverified,
    Verified, Watermarks, Writer,
};
pub use stream::{ExpectedVersion, StreamName, StreamPattern, StreamVersion};
pub use transaction::{CommitOutcome, Committed, Transaction, TransactionId, WrongExpectedVersion};
