//! The last step of sending: a message gets its header, becomes bytes, sealed where its pair has a key, and goes to its link.
//!
//! Guarantees: a pair that should have a key and has none that may be used is sent nothing.

use milepost_engine::Result;
use milepost_engine::width::to_u64;

use crate::keys::{PairKeys, draw_nonce};
use crate::link::{Link, LinkError};
use crate::message::{Message, Packed, encode, encode_sealed};

use super::phase::{Pair, SendPhase, Sent};

impl SendPhase {
    pub(super) fn deliver_packed(
        &self,
        pair: &mut Pair,
        link: &dyn Link,
        packed: Vec<Packed>,
        sent: &mut Sent,
    ) -> Result<Result<(), LinkError>> {
        for one in packed {
            let message = one.under(pair.sender.header(&self.own_end()));
            if let Err(error) = self.deliver(pair, link, &message, sent)? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// Hands one message to the link, sealed where its pair has a key. Everything in it is durable here (R2): the queue is made of what
    /// the scan read, and the scan stops at durable.
    pub(super) fn deliver(
        &self,
        pair: &mut Pair,
        link: &dyn Link,
        message: &Message,
        sent: &mut Sent,
    ) -> Result<Result<(), LinkError>> {
        let bytes = match &pair.keys {
            PairKeys::Locked(reason) => return Ok(Err(LinkError::invalid(reason))),
            keys => match keys.sealing() {
                Some(key) => encode_sealed(message, key, draw_nonce(&**self.store.rng()))?,
                None => encode(message)?,
            },
        };
        let name = pair.remote.site.clone();
        match self.links.finish(link.deliver(&name, &bytes)) {
            Some(Ok(())) => {
                pair.sender.delivered(message, self.now());
                sent.messages += 1;
                sent.bytes += to_u64(bytes.len());
                tracing::debug!(to = %name, last = %message.header.last.place(), bytes = bytes.len(), "sent");
                Ok(Ok(()))
            }
            Some(Err(error)) => Ok(Err(error)),
            None => Ok(Err(LinkError::not_now(link.address(), "the agent is leaving"))),
        }
    }
}
