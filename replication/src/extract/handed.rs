//! [`HandedLink`]: messages handed from the store that is copied to the one that is made, in one process.
//!
//! It holds what was not taken yet, and forgets it with the process: the position in the new store says what has to come again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use milepost_engine::SiteName;

use crate::link::{Batch, Incoming, Link, LinkError, LinkFuture, MessageId, PollRequest};

/// A link with nothing between.
#[derive(Clone, Default)]
pub(super) struct HandedLink {
    state: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    bytes: usize,
    messages: BTreeMap<MessageId, Vec<u8>>,
}

impl HandedLink {
    /// Hands over a message; returns the bytes that wait.
    pub(super) fn put(&self, message: Vec<u8>) -> usize {
        let mut waiting = self.lock();
        waiting.bytes += message.len();
        let id = MessageId::new(format!("{:016x}", waiting.next));
        waiting.next += 1;
        waiting.messages.insert(id, message);
        waiting.bytes
    }

    /// True when all was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().messages.is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link for HandedLink {
    fn deliver<'a>(&'a self, to: &'a SiteName, _message: &'a [u8]) -> LinkFuture<'a, ()> {
        let reason = format!("a store that is being made sends nothing to {to}");
        Box::pin(async { Err(LinkError::refused(self.address(), reason)) })
    }

    fn poll<'a>(&'a self, request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        Box::pin(async move {
            let waiting = self.lock();
            let fresh = waiting
                .messages
                .iter()
                .filter(|(id, _)| !request.skip.contains(id));
            let mut batch = Batch::default();
            batch.messages.extend(fresh.map(|(id, bytes)| Incoming {
                id: id.clone(),
                bytes: bytes.clone(),
            }));
            Ok(batch)
        })
    }

    fn remove<'a>(&'a self, ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        Box::pin(async move {
            let mut waiting = self.lock();
            for id in ids {
                let taken = waiting.messages.remove(id).map_or(0, |bytes| bytes.len());
                waiting.bytes -= taken;
            }
            Ok(())
        })
    }

    fn address(&self) -> String {
        "the store that is copied".to_owned()
    }
}
