//! Skeleton of the map.
#![cfg_attr(test, allow(clippy::as_conversions))]

pub mod block;
pub mod clock;
pub mod codec;
mod error;
mod event;
pub mod frame;
pub mod index;
mod log;
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
pub use log::LogScan;
pub use position::{Chain, Epoch, Lsn, Position};
pub use queue::{QueueEntry, QueueReader, QueueWriter};
pub use site::{SiteName, StoreId};
pub use store::{Durability, Options, Phase, PhaseLock, Store, StreamReader, Watermarks};
pub use stream::{ExpectedVersion, StreamName, StreamPattern, StreamVersion};
pub use transaction::{CommitOutcome, Committed, Transaction, TransactionId, WrongExpectedVersion};
