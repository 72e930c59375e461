//! [`Trial`]: one rule's own medium, and the calls that rules are made of.
//!
//! Every call is guarded: an error, a hang or an endless round is what the rule found, with the words of the link.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use milepost_engine::SiteName;

use super::{Medium, Options};
use crate::link::{Batch, Incoming, Link, LinkError, MessageId, PollCursor, PollRequest};

/// Batches before a round counts as endless: no rule has a fraction as many messages.
const MOST_BATCHES: usize = 1_024;

/// A rule at work.
pub type Attempt = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// What a rule came to, or a step of it.
pub type Verdict<T = ()> = Result<T, Stop>;

/// Why a rule goes no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It does not hold.
    Broken(String),
    /// It cannot be tried.
    Skipped(String),
}

/// One rule's medium.
#[derive(Clone)]
pub struct Trial {
    pub(super) medium: Arc<dyn Medium>,
    pub(super) options: Options,
}

/// Says what was seen where something else must be.
pub fn broken<T>(what: impl fmt::Display) -> Verdict<T> {
    Err(Stop::Broken(what.to_string()))
}

/// A payload of `len` bytes that no other `seed` gives, of every value a byte may have.
pub fn payload(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
    let mut bytes = Vec::with_capacity(len.saturating_add(8));
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

impl Trial {
    pub(super) fn new(medium: Arc<dyn Medium>, options: Options) -> Trial {
        Trial { medium, options }
    }

    /// A name for a site.
    pub fn site(&self, name: &str) -> Verdict<SiteName> {
        SiteName::new(name).map_err(|error| Stop::Broken(error.to_string()))
    }

    /// Another process's link of a site.
    pub async fn link(&self, own: &SiteName) -> Verdict<Arc<dyn Link>> {
        self.called("opening a link", self.medium.link(own)).await
    }

    /// One call, which must end, and end well.
    pub async fn called<T>(
        &self,
        call: &str,
        future: impl Future<Output = Result<T, LinkError>>,
    ) -> Verdict<T> {
        match self.ended(call, future).await? {
            Ok(value) => Ok(value),
            Err(error) => broken(format!("{call} fails: {error}")),
        }
    }

    /// One call, which must end.
    pub async fn ended<T>(&self, call: &str, future: impl Future<Output = T>) -> Verdict<T> {
        let ended = tokio::time::timeout(self.options.patience, future).await;
        ended.map_err(|_| Stop::Broken(format!("{call} hangs")))
    }

    /// Delivers one message.
    pub async fn deliver(&self, link: &Arc<dyn Link>, to: &SiteName, message: &[u8]) -> Verdict {
        let call = format!("delivering {} bytes", message.len());
        self.called(&call, link.deliver(to, message)).await
    }

    /// One batch.
    pub async fn batch(
        &self,
        link: &Arc<dyn Link>,
        after: Option<&PollCursor>,
        skip: &BTreeSet<MessageId>,
        (max_count, max_bytes): (usize, usize),
    ) -> Verdict<Batch> {
        let request = PollRequest {
            after,
            skip,
            max_count,
            max_bytes,
        };
        let batch = self.called("polling", link.poll(request)).await?;
        if batch.messages.len() > max_count {
            return broken(format!(
                "a batch has {} messages, asked for at most {max_count}",
                batch.messages.len()
            ));
        }
        Ok(batch)
    }

    /// A round in batches of a size: all that waits for the link's site.
    pub async fn round_of(
        &self,
        link: &Arc<dyn Link>,
        skip: &BTreeSet<MessageId>,
        size: (usize, usize),
    ) -> Verdict<Vec<Incoming>> {
        link.begin_round();
        let (mut found, mut after, mut batches) = (Vec::new(), None, 0_usize);
        loop {
            let batch = self.batch(link, after.as_ref(), skip, size).await?;
            found.extend(batch.messages);
            batches += 1;
            let Some(next) = batch.next else { return Ok(found) };
            if batches >= MOST_BATCHES {
                return broken(format!(
                    "a round has not ended after {batches} batches, which gave {} messages; its cursor is {:?}",
                    found.len(),
                    next.as_str()
                ));
            }
            after = Some(next);
        }
    }

    /// A round in batches as the receive phase asks for them.
    pub async fn round(&self, link: &Arc<dyn Link>) -> Verdict<Vec<Incoming>> {
        self.round_of(link, &BTreeSet::new(), (256, 16 << 20)).await
    }

    /// Removes messages.
    pub async fn remove(&self, link: &Arc<dyn Link>, ids: &[MessageId]) -> Verdict {
        self.called("removing", link.remove(ids)).await
    }

    /// A round gives exactly these, in whatever order; each perhaps more than once.
    pub async fn waits(&self, link: &Arc<dyn Link>, expected: &[Vec<u8>]) -> Verdict<Vec<Incoming>> {
        let found = self.round(link).await?;
        same(&found, expected)?;
        Ok(found)
    }

    /// A moment, in which work that a dropped call left may go on.
    pub async fn moment(&self) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What was found is what was expected, each at least once, whole and unchanged.
pub fn same(found: &[Incoming], expected: &[Vec<u8>]) -> Verdict {
    let is: BTreeSet<&[u8]> = found.iter().map(|one| one.bytes.as_slice()).collect();
    let must: BTreeSet<&[u8]> = expected.iter().map(Vec::as_slice).collect();
    if let Some(extra) = is.difference(&must).next() {
        return broken(format!(
            "a message of {} bytes is given that was never delivered like that",
            extra.len()
        ));
    }
    match must.difference(&is).next() {
        Some(missing) => broken(format!(
            "a message of {} bytes that was delivered is not given",
            missing.len()
        )),
        None => Ok(()),
    }
}

/// Names of messages.
pub fn ids(found: &[Incoming]) -> Vec<MessageId> {
    found.iter().map(|one| one.id.clone()).collect()
}
