//! [`ServerLink`]: Milepost servers as a link, with failover over a list of endpoints.
//!
//! ```text
//! request ─► connection alive? ─yes─► ask ─► answer
//!                 │ no                 └─ silent, cut, "not now" ─┐
//!                 └──────► ladder: next endpoint ◄────────────────┘   exhausted: Unreachable, naming all
//! ```
//!
//! The same request is asked again on the next endpoint: a Put carries a key that is stored once, a
//! removal of what is gone is success, a poll changes nothing. So a server that dies at any moment
//! loses and doubles nothing. A request climbs one ladder at most, so it ends. Once a ladder is
//! exhausted the link answers everything with that error until the next round begins.

mod connection;
mod failover;
mod name;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use milepost_engine::clock::Rng;
use milepost_engine::width::u32_to_usize;
use milepost_engine::{SiteName, StoreId};
use tokio::sync::{Mutex, Notify};

use self::connection::Connection;
use self::failover::Reached;
use super::{Batch, Incoming, Link, LinkError, LinkFuture, MessageId, PollRequest};
use crate::endpoint::{EndpointList, PrimaryRetries};
use crate::wire::{Answer, Delivered, ErrorCode, MAX_KEYS, MessageKey, Request};

/// Most bytes asked for by one poll, while the caller asks for more: what one answer holds.
const MAX_POLL_BYTES: usize = 4 << 20;

/// How a [`ServerLink`] fails over.
#[derive(Clone, Copy, Debug)]
pub struct ServerLinkOptions {
    /// Further attempts at the primary before the alternates (`-fr`, `-fd`), default none.
    pub primary: PrimaryRetries,
    /// Time limit of each attempt, for name, connection and greeting together, default 5 s.
    pub connect_timeout: Duration,
    /// Silence after which a request's connection counts as dead, default 30 s; sending a large message may
    /// take 1 s more per 16 KiB.
    pub request_timeout: Duration,
    /// Number of this process among those of its site, random; default drawn by the link. Links of one
    /// process that may reach one group of servers by different lists must share it, or the newer
    /// takes the mailbox over from the older.
    pub session: Option<u64>,
    /// The process is one round from start to end (batch): a ladder that is exhausted stays so, whatever
    /// its phases begin. Default no.
    pub one_round: bool,
}

impl Default for ServerLinkOptions {
    fn default() -> Self {
        ServerLinkOptions {
            primary: PrimaryRetries::default(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            session: None,
            one_round: false,
        }
    }
}

/// Milepost servers as a link, as one site sees them. Clones share one connection, one ladder and one
/// count of failovers; the phases of a process share a clone.
#[derive(Clone)]
pub struct ServerLink {
    shared: Arc<Shared>,
}

struct Shared {
    own: SiteName,
    endpoints: EndpointList,
    options: ServerLinkOptions,
    rng: Arc<dyn Rng>,
    session: u64,
    /// Held while a request is under way, retries and all: the phases take turns on one connection and
    /// one ladder.
    state: Mutex<State>,
    pushed: Arc<Notify>,
    round: AtomicU64,
    failovers: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Taken out while it is used: a request dropped half-way leaves none behind.
    connection: Option<(usize, Connection)>,
    /// The endpoint last connected to.
    last_endpoint: usize,
    /// The round in which no endpoint was reached, and the error.
    gave_up: Option<(u64, LinkError)>,
    /// Stores in which this session has taken its mailbox over.
    claimed: BTreeSet<StoreId>,
}

impl ServerLink {
    /// The link of the site `own` over a list of endpoints, primary first. Opens nothing yet.
    pub fn new(
        own: SiteName,
        endpoints: EndpointList,
        options: ServerLinkOptions,
        rng: Arc<dyn Rng>,
    ) -> ServerLink {
        let session = options.session.unwrap_or_else(|| rng.next_u64());
        let shared = Shared {
            own,
            endpoints,
            options,
            rng,
            session,
            state: Mutex::default(),
            pushed: Arc::default(),
            round: AtomicU64::new(0),
            failovers: AtomicU64::new(0),
        };
        ServerLink {
            shared: Arc::new(shared),
        }
    }
}

impl Link for ServerLink {
    fn begin_round(&self) {
        if !self.shared.options.one_round {
            self.shared.round.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn deliver<'a>(&'a self, to: &'a SiteName, message: &'a [u8]) -> LinkFuture<'a, ()> {
        Box::pin(async move {
            super::check_size(message)?;
            self.shared.deliver(to, message).await
        })
    }

    fn poll<'a>(&'a self, request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        Box::pin(self.shared.poll(request))
    }

    fn remove<'a>(&'a self, ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        Box::pin(self.shared.remove(ids))
    }

    fn wait_for_push(&self, limit: Duration) -> LinkFuture<'_, bool> {
        Box::pin(async move {
            Ok(tokio::time::timeout(limit, self.shared.pushed.notified())
                .await
                .is_ok())
        })
    }

    fn failovers(&self) -> u64 {
        self.shared.failovers.load(Ordering::Relaxed)
    }

    fn address(&self) -> String {
        let texts = self.shared.endpoints.endpoints().iter().map(ToString::to_string);
        texts.collect::<Vec<_>>().join(", ")
    }
}

impl Shared {
    async fn deliver(&self, to: &SiteName, message: &[u8]) -> Result<(), LinkError> {
        // One key for all attempts of this delivery: that makes repeating it safe.
        let id = u128::from(self.rng.next_u64()) << 64 | u128::from(self.rng.next_u64());
        let put = Request::Put {
            to: to.clone(),
            id,
            message: message.to_vec(),
        };
        let request = |server: Reached| match message.len() <= u32_to_usize(server.max_message) {
            true => Ok(Cow::Borrowed(&put)),
            false => Err(LinkError::invalid(format!(
                "a message of {} bytes is larger than the {} the server takes: lower --message-bytes",
                message.len(),
                server.max_message
            ))),
        };
        let mut state = self.state.lock().await;
        match self.ask(&mut state, request).await? {
            (_, Answer::Stored) => Ok(()),
            (endpoint, other) => Err(self.refusal(endpoint, other)),
        }
    }

    async fn poll(&self, request: PollRequest<'_>) -> Result<Batch, LinkError> {
        let PollRequest {
            after,
            skip,
            max_count,
            max_bytes,
        } = request;
        let place = after.map(|cursor| {
            name::place(cursor).ok_or_else(|| LinkError::invalid("a cursor of another kind of link"))
        });
        let (asked_store, after) = place.transpose()?.unwrap_or_default();
        let skip: Vec<MessageKey> = skip
            .iter()
            .filter_map(name::message_key)
            .take(u32_to_usize(MAX_KEYS))
            .collect();
        let max_bytes = max_bytes.min(MAX_POLL_BYTES);
        let poll = |server: Reached| {
            Ok(Cow::Owned(Request::Poll {
                store: asked_store,
                after,
                max_count: u32::try_from(max_count).unwrap_or(u32::MAX),
                max_bytes: u32::try_from(max_bytes).unwrap_or(u32::MAX),
                first: !server.claimed,
                skip: skip.clone(),
            }))
        };
        let mut state = self.state.lock().await;
        match self.ask(&mut state, poll).await? {
            (
                endpoint,
                Answer::Deliver {
                    store,
                    next,
                    messages,
                },
            ) => {
                if next != 0 && store == asked_store && next <= after {
                    let endpoint = self.name_of(endpoint);
                    let reason =
                        format!("its list of messages goes from {after} to {next}, so it would never end");
                    return Err(LinkError::Refused { endpoint, reason });
                }
                state.claimed.insert(store);
                let incoming = |one: Delivered| Incoming {
                    id: name::message_id(&one.key),
                    bytes: one.message,
                };
                let messages = messages.into_iter().map(incoming).collect();
                Ok(Batch {
                    messages,
                    next: (next != 0).then(|| name::cursor(store, next)),
                })
            }
            (endpoint, other) => Err(self.refusal(endpoint, other)),
        }
    }

    async fn remove(&self, ids: &[MessageId]) -> Result<(), LinkError> {
        let keys = ids.iter().map(|id| {
            let foreign = || LinkError::invalid(format!("{id:?} is not the name of a message on a server"));
            name::message_key(id).ok_or_else(foreign)
        });
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        let mut state = self.state.lock().await;
        for keys in keys.chunks(u32_to_usize(MAX_KEYS)) {
            let remove = Request::Remove { keys: keys.to_vec() };
            match self.ask(&mut state, |_| Ok(Cow::Borrowed(&remove))).await? {
                (_, Answer::Removed) => {}
                (endpoint, other) => return Err(self.refusal(endpoint, other)),
            }
        }
        Ok(())
    }

    /// What an answer that is not the one hoped for means to the caller.
    fn refusal(&self, endpoint: usize, answer: Answer) -> LinkError {
        let endpoint = self.name_of(endpoint);
        match answer {
            Answer::NotNow { reason, .. } => LinkError::NotNow { endpoint, reason },
            Answer::Error {
                code: ErrorCode::Invalid,
                reason,
            } => LinkError::Invalid { reason },
            Answer::Error { reason, .. } => LinkError::Refused { endpoint, reason },
            other => LinkError::Refused {
                endpoint,
                reason: format!("it answered {} to something else", other.name()),
            },
        }
    }
}

#[cfg(test)]
mod tests;
