//! [`KeptLink`]: messages that were set aside, as a link, so that they are received once more by the phase itself, with all that it
//! guarantees. What is taken leaves the folder as it would leave a link; what is refused again stays.

use std::collections::BTreeSet;

use milepost_engine::{SiteName, Store};

use crate::link::{Batch, Incoming, Link, LinkError, LinkFuture, MessageId, PollCursor, PollRequest};

use super::quarantine::{Quarantined, quarantined, read_message, remove_message};

/// See the module.
pub(crate) struct KeptLink {
    store: Store,
    /// Files that are given out, under the store's directory.
    only: BTreeSet<String>,
}

impl KeptLink {
    /// A link with these files alone.
    pub(crate) fn new(store: &Store, only: BTreeSet<String>) -> KeptLink {
        KeptLink {
            store: store.clone(),
            only,
        }
    }

    fn failed(&self, error: &milepost_engine::Error) -> LinkError {
        LinkError::refused(self.address(), error.to_string())
    }

    fn batch(&self, request: PollRequest<'_>) -> Result<Batch, LinkError> {
        let after = request.after.map(PollCursor::as_str).unwrap_or_default();
        let all = quarantined(&self.store).map_err(|error| self.failed(&error))?;
        let wanted = |one: &Quarantined| {
            one.file.as_str() > after
                && self.only.contains(&one.file)
                && !request.skip.contains(&MessageId::new(one.file.as_str()))
        };
        let (mut batch, mut bytes) = (Batch::default(), 0);
        for one in all.into_iter().filter(wanted) {
            if let Some(last) = batch.messages.last()
                && (bytes >= request.max_bytes || batch.messages.len() >= request.max_count)
            {
                batch.next = Some(PollCursor::new(last.id.as_str()));
                break;
            }
            let message = read_message(&self.store, &one.file).map_err(|error| self.failed(&error))?;
            bytes += message.len();
            batch.messages.push(Incoming {
                id: MessageId::new(one.file),
                bytes: message,
            });
        }
        Ok(batch)
    }
}

impl Link for KeptLink {
    fn deliver<'a>(&'a self, _to: &'a SiteName, _message: &'a [u8]) -> LinkFuture<'a, ()> {
        Box::pin(async { Err(LinkError::refused(self.address(), "nothing is sent over it")) })
    }

    fn poll<'a>(&'a self, request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        Box::pin(async move { self.batch(request) })
    }

    fn remove<'a>(&'a self, ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        Box::pin(async move {
            let removed = ids
                .iter()
                .try_for_each(|id| remove_message(&self.store, id.as_str()).map(|_| ()));
            removed.map_err(|error| self.failed(&error))
        })
    }

    fn address(&self) -> String {
        "quarantine".to_owned()
    }
}
