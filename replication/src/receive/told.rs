//! [`Told`]: what hooks are told once it is durable: transactions that were applied, and holes that are asked for.

use milepost_engine::frame::FrameKind;
use milepost_engine::{Lsn, Origin, SiteName};

use crate::hooks::{Applied, MessageMissing, SharedHooks};
use crate::tracking::{Apply, Receiver};

/// Transactions that became frames, until these are durable.
#[derive(Default)]
pub(super) struct Told {
    /// Whose, where they were committed first, how many events.
    waiting: Vec<(SiteName, Origin, u32)>,
}

impl Told {
    /// Notes what a message's frames apply, where there are hooks.
    pub(super) fn note(&mut self, sender: &SiteName, apply: &Apply, hooks: &SharedHooks) {
        if hooks.is_none() {
            return;
        }
        let transactions = apply
            .frames
            .iter()
            .filter(|frame| frame.kind() == FrameKind::TRANSACTION);
        for (frame, origin) in transactions.zip(&apply.origins) {
            self.waiting
                .push((sender.clone(), origin.clone(), frame.event_count()));
        }
    }

    /// All of them are durable, at these LSNs.
    pub(super) fn settled(&mut self, lsns: Vec<Lsn>, hooks: &SharedHooks) {
        let waiting = std::mem::take(&mut self.waiting);
        let Some(hooks) = hooks else {
            return;
        };
        for ((remote, origin, events), lsn) in waiting.into_iter().zip(lsns) {
            hooks.after_apply(&Applied {
                remote,
                origin,
                events,
                lsn,
            });
        }
    }

    /// They were given up.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

/// Tells what is asked for since the number of the last asking was `before`.
pub(super) fn tell_missing(sender: &SiteName, receiver: &Receiver, before: u64, hooks: &SharedHooks) {
    let told = &receiver.records().told;
    let Some(hooks) = hooks.as_ref().filter(|_| told.ask_number != before) else {
        return;
    };
    for range in &told.asks {
        hooks.message_missing(&MessageMissing {
            from: sender,
            range: *range,
        });
    }
}
