//! [`Packed`]: what hooks are told of messages that go into a bundle: nothing, before that has its name.
//!
//! To the send phase the bundle is a link that took them. Should the bundle not be finished, they are made again, and nobody was told.

use std::sync::{Arc, Mutex, PoisonError};

use milepost_engine::SiteName;

use crate::hooks::{Hooks, MessageSent, RemoteLimit};
use crate::message::Point;

/// See the module.
pub(super) struct Packed {
    hooks: Arc<dyn Hooks>,
    sent: Mutex<Vec<Sent>>,
}

struct Sent {
    to: SiteName,
    bytes: usize,
    transactions: usize,
    last: Point,
}

impl Packed {
    pub(super) fn new(hooks: Arc<dyn Hooks>) -> Packed {
        Packed {
            hooks,
            sent: Mutex::default(),
        }
    }

    /// The bundle has its name.
    pub(super) fn tell(&self) {
        let sent = std::mem::take(&mut *self.sent.lock().unwrap_or_else(PoisonError::into_inner));
        for one in &sent {
            self.hooks.message_sent(&MessageSent {
                to: &one.to,
                bytes: one.bytes,
                transactions: one.transactions,
                last: one.last,
            });
        }
    }
}

impl Hooks for Packed {
    fn message_sent(&self, sent: &MessageSent<'_>) {
        let one = Sent {
            to: sent.to.clone(),
            bytes: sent.bytes,
            transactions: sent.transactions,
            last: sent.last,
        };
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    }

    fn remote_limit(&self, limit: &RemoteLimit<'_>) {
        self.hooks.remote_limit(limit);
    }
}
