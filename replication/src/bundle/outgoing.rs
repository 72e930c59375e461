//! [`BundleLink`]: a bundle that is being made, as the link of the send phase, and [`ByBundleOnly`], what agents see of it.

use std::sync::{Arc, Mutex, PoisonError};

use milepost_engine::width::to_u64;
use milepost_engine::{Error, Result, SiteName};
use serde::Serialize;

use super::writer::{BundleWriter, failed};
use crate::keys::PairKeys;
use crate::link::{Batch, Link, LinkError, LinkFuture, MessageId, PollRequest, check_size};
use crate::message::{Item, Limits, decode};

/// What `bundle:` says where a link's address is told.
const ADDRESS: &str = "bundle:";

/// A bundle that is being made. `Ok` of its `deliver` does not mean durable: whoever exports lets nothing count as sent
/// before [`BundleLink::take`] gave the file and that has its name (R2).
#[derive(Clone)]
pub struct BundleLink {
    to: SiteName,
    most_bytes: Option<u64>,
    /// Those of the pair, to count what goes sealed.
    keys: Arc<PairKeys>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    writer: Option<BundleWriter>,
    /// Something did not fit any more.
    full: Option<String>,
    /// The file failed.
    failure: Option<Error>,
    transactions: u64,
    cut: Option<Cut>,
}

/// A transaction of which some pieces fitted and the next one did not: those that are left are for the next bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// Its LSN.
    pub lsn: u64,
    /// Its bytes, uncompressed.
    pub bytes: u64,
}

/// What became of a bundle's messages.
pub struct Filled {
    /// The file, to be finished.
    pub writer: BundleWriter,
    /// Why not all that is due is in it.
    pub full: Option<String>,
    /// Transactions that end in it; one in parts counts with its last.
    pub transactions: u64,
    /// The transaction that did not fit whole.
    pub cut: Option<Cut>,
}

impl BundleLink {
    /// The link to `to` over a file of at most so many bytes.
    #[must_use]
    pub fn new(to: SiteName, keys: PairKeys, writer: BundleWriter, most_bytes: Option<u64>) -> BundleLink {
        let state = State {
            writer: Some(writer),
            ..State::default()
        };
        BundleLink {
            to,
            most_bytes,
            keys: Arc::new(keys),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Takes the file out: nothing more is delivered.
    ///
    /// # Errors
    /// What the file failed with; it is gone then.
    pub fn take(&self) -> Result<Filled> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = state.failure.take() {
            state.writer = None;
            return Err(failure);
        }
        let writer = state.writer.take();
        let writer = writer.ok_or_else(|| Error::internal("the bundle was taken before"))?;
        let full = state.full.take();
        let transactions = state.transactions;
        Ok(Filled {
            writer,
            full,
            transactions,
            cut: state.cut,
        })
    }

    fn deliver_now(&self, to: &SiteName, message: &[u8]) -> Result<(), LinkError> {
        check_size(message)?;
        if *to != self.to {
            return Err(LinkError::invalid(format!(
                "the bundle is for {}, not for {to}",
                self.to
            )));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State {
            writer: Some(writer),
            full,
            failure,
            transactions,
            cut,
        } = &mut *state
        else {
            return Err(LinkError::not_now(ADDRESS, "the bundle is finished"));
        };
        if failure.is_some() {
            return Err(LinkError::not_now(ADDRESS, "the file failed before"));
        }
        let needed = writer.len_with(message.len());
        if let Some(most) = self.most_bytes.filter(|most| needed > *most) {
            let reason = format!(
                "the next message would make the bundle {needed} bytes long, above the limit of {most}"
            );
            *full = Some(reason.clone());
            *cut = cut_by(message, &self.keys);
            return Err(LinkError::not_now(ADDRESS, reason));
        }
        if let Err(error) = writer.append(message) {
            let error = failed("write", writer.temporary(), error);
            let reason = error.to_string();
            *failure = Some(error);
            return Err(LinkError::not_now(ADDRESS, reason));
        }
        *transactions += ends_in(message, &self.keys);
        Ok(())
    }
}

/// The transaction of which a message is a piece.
fn cut_by(message: &[u8], keys: &PairKeys) -> Option<Cut> {
    match decode(message, &Limits::default(), keys).ok()?.items.first()? {
        Item::Part(part) => Some(Cut {
            lsn: part.point.place().commit_lsn().0,
            bytes: part.total,
        }),
        Item::Transaction(_) => None,
    }
}

/// How many transactions end in a message; what is no message has none.
fn ends_in(message: &[u8], keys: &PairKeys) -> u64 {
    let Ok(message) = decode(message, &Limits::default(), keys) else {
        return 0;
    };
    let ends = |item: &&Item| match item {
        Item::Transaction(_) => true,
        Item::Part(part) => part.offset.saturating_add(to_u64(part.piece.len())) >= part.total,
    };
    to_u64(message.items.iter().filter(ends).count())
}

impl Link for BundleLink {
    fn deliver<'a>(&'a self, to: &'a SiteName, message: &'a [u8]) -> LinkFuture<'a, ()> {
        Box::pin(async { self.deliver_now(to, message) })
    }

    fn poll<'a>(&'a self, _request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        Box::pin(async { Ok(Batch::default()) })
    }

    fn remove<'a>(&'a self, _ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn address(&self) -> String {
        ADDRESS.to_owned()
    }
}

/// What agents see of a remote that is reached by bundles alone: nothing waits there, and nothing can be sent.
pub(crate) struct ByBundleOnly;

impl Link for ByBundleOnly {
    fn deliver<'a>(&'a self, to: &'a SiteName, _message: &'a [u8]) -> LinkFuture<'a, ()> {
        let reason = format!("it is carried: milepost bundle export --remote {to}");
        Box::pin(async { Err(LinkError::refused(ADDRESS, reason)) })
    }

    fn poll<'a>(&'a self, _request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        Box::pin(async { Ok(Batch::default()) })
    }

    fn remove<'a>(&'a self, _ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn address(&self) -> String {
        ADDRESS.to_owned()
    }
}
