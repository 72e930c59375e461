//! What is believed to be of a neighbour: the first thing that is asked of a message under its name, before that is put in
//! order, unpacked or noted in any way.
//!
//! ```text
//! checksum wrong                                         damaged on the way: lost
//! no seal, or a wrong one, or one of a dropped key       lost, told
//! a seal of a key that is not here, keys out of order    stays on its link, told; looked at again when keys change
//! the seal that the pair asks for                        to the inbox
//! ```
//!
//! Guarantees: what is not believed changes nothing of its pair, so whoever can write to a link can lose messages, which any
//! link may (R3), and nothing else. It is told in `distrust/<remote>` until all that came in a poll was believed and nothing
//! waits. Refuses to keep copies of it, but for the few of what comes over and over (`damaged`): whoever made it would say how many.

use std::collections::BTreeSet;

use milepost_engine::{Pinned, Result, SiteName, Store};

use crate::keys::{DistrustRecord, KeyId, PairKeys, ProvenRecord, keys_of};
use crate::message::{Distrust, MessageFault, check_seal};
use crate::tracking::PairState;

use super::inbox::MessageKey;
use super::phase::{ReceivePhase, limits};
use super::received::{Received, SetAside};

/// What a pair's keys are here, and what came under them.
pub(super) struct Trust {
    keys: PairKeys,
    /// What is not believed and stays on its link.
    waiting: BTreeSet<MessageKey>,
    /// The newest key, once a message under it came.
    proven: Option<KeyId>,
    pinned_proven: Option<KeyId>,
    /// Why something was not believed, in this poll.
    doubted: Option<String>,
    /// Something was, in this poll.
    believed: bool,
    told: Option<DistrustRecord>,
    pinned_told: Option<DistrustRecord>,
}

impl Trust {
    /// As files and log hold it.
    pub(super) fn load(store: &Store, remote: &SiteName) -> Result<Trust> {
        let told = store.pinned(&DistrustRecord::key(remote))?;
        let told = told.map(|(value, _)| DistrustRecord::read(&value)).transpose()?;
        let keys = keys_of(store, remote)?;
        let proven = match &keys {
            PairKeys::Sealed { proven, .. } => *proven,
            _ => None,
        };
        Ok(Trust {
            keys,
            waiting: BTreeSet::new(),
            proven,
            pinned_proven: proven,
            doubted: None,
            believed: false,
            told: told.clone(),
            pinned_told: told,
        })
    }

    pub(super) fn keys(&self) -> &PairKeys {
        &self.keys
    }

    /// What changed since [`Trust::noted`].
    pub(super) fn notes(&self, remote: &SiteName) -> Result<Vec<Pinned>> {
        let mut pins = Vec::new();
        if let Some(key) = self.proven.filter(|_| self.proven != self.pinned_proven) {
            pins.push(ProvenRecord { key: key.0 }.pin(remote)?);
        }
        if self.told != self.pinned_told {
            pins.push(match &self.told {
                Some(told) => told.pin(remote)?,
                None => Pinned {
                    key: DistrustRecord::key(remote),
                    value: None,
                },
            });
        }
        Ok(pins)
    }

    pub(super) fn noted(&mut self) {
        self.pinned_proven = self.proven;
        self.pinned_told.clone_from(&self.told);
    }

    /// A message was believed.
    fn believe(&mut self, key: Option<KeyId>) {
        self.believed = true;
        let newest = match &self.keys {
            PairKeys::Sealed { ring, .. } => ring.keys().first().map(|one| one.key.id()),
            _ => None,
        };
        // A late message under the former key proves nothing new.
        if key.is_some() && key == newest {
            self.proven = key;
        }
    }

    /// Ends a poll.
    fn judge(&mut self, now: i64) {
        let (doubted, believed) = (self.doubted.take(), std::mem::take(&mut self.believed));
        match doubted {
            Some(reason) => {
                let since = self.told.as_ref().map_or(now, |told| told.since);
                self.told = Some(DistrustRecord { since, reason });
            }
            None if believed && self.waiting.is_empty() => self.told = None,
            None => {}
        }
    }
}

impl ReceivePhase {
    /// True for a message that its sender can have made. Another one is told, and lost or left on its link.
    pub(super) fn is_trusted(
        &mut self,
        sender: &SiteName,
        key: &MessageKey,
        bytes: &[u8],
        received: &mut Received,
    ) -> Result<bool> {
        let Some(pair) = self.pairs.get_mut(sender) else {
            return Ok(false);
        };
        let fault = match check_seal(bytes, &limits(), &pair.trust.keys) {
            Ok(under) => {
                pair.trust.believe(under);
                return Ok(true);
            }
            Err(fault) => fault,
        };
        if let MessageFault::Untrusted(distrust) = &fault {
            self.distrust(sender, key, distrust, received);
        } else {
            tracing::warn!(message = %key.id, %fault, "a message was damaged on the way");
        }
        if fault.is_loss() {
            self.lose(Some(sender), key.clone(), bytes, &fault.to_string())?;
        }
        Ok(false)
    }

    fn distrust(
        &mut self,
        sender: &SiteName,
        key: &MessageKey,
        distrust: &Distrust,
        received: &mut Received,
    ) {
        let reason = distrust.to_string();
        if matches!(distrust, Distrust::Locked(_)) {
            // The agent tells of the pair, and not of each message that waits for its key.
            tracing::debug!(message = %key.id, %sender, reason, "a message waits for a key");
        } else {
            tracing::warn!(message = %key.id, %sender, reason, "a message is not believed to be of its sender");
        }
        if distrust.is_news() {
            received.quarantined.push(SetAside {
                message: key.id.clone(),
                sender: sender.to_string(),
                reason: reason.clone(),
            });
        }
        if let Some(pair) = self.pairs.get_mut(sender) {
            if distrust.is_news() {
                pair.trust.doubted.get_or_insert(reason);
            }
            if !distrust.is_loss() {
                pair.trust.waiting.insert(key.clone());
                self.done.insert(key.clone());
            }
        }
    }

    /// The keys of a remote as they are now. What was judged by others is judged anew: it is all on its link.
    pub(super) fn look_at_keys(&mut self, remote: &SiteName) -> Result<()> {
        let keys = keys_of(&self.store, remote)?;
        let Some(pair) = self.pairs.get_mut(remote) else {
            return Ok(());
        };
        let alike = pair.trust.keys.trust_alike(&keys);
        pair.trust.keys = keys;
        if alike {
            return Ok(());
        }
        for key in std::mem::take(&mut pair.trust.waiting) {
            self.done.remove(&key);
        }
        for order in self.inbox.orders(remote) {
            self.inbox.remove(remote, &order);
        }
        Ok(())
    }

    /// True while some neighbour's messages are not believed.
    #[must_use]
    pub fn distrusts(&self) -> bool {
        self.pairs.values().any(|pair| pair.trust.told.is_some())
    }

    /// Ends a poll for what is told of messages that were not believed.
    pub(super) fn judge_trust(&mut self) {
        let now = self.store.clock().wall_micros();
        self.pairs.values_mut().for_each(|pair| pair.trust.judge(now));
    }
}
