//! One request over a list of servers: the connection at hand, then up one ladder.
//!
//! The same request is asked again on the next endpoint, so only requests that may be repeated come
//! here. A ladder that is exhausted is remembered for the round.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::connection::Connection;
use super::{Shared, State};
use crate::endpoint::{Attempt, Ladder, Step};
use crate::link::LinkError;
use crate::wire::{Answer, Request, Scope};

/// What a request may depend on: the server that was reached.
#[derive(Clone, Copy)]
pub(super) struct Reached {
    /// Largest message it takes, in bytes.
    pub(super) max_message: u32,
    /// This session has taken its mailbox over in that store.
    pub(super) claimed: bool,
}

impl Shared {
    /// Asks until an endpoint answers, on the connection at hand and then up one ladder; returns who
    /// answered. A server that says "not now" for itself counts as one that failed.
    pub(super) async fn ask<'r>(
        &self,
        state: &mut State,
        request: impl Fn(Reached) -> Result<Cow<'r, Request>, LinkError>,
    ) -> Result<(usize, Answer), LinkError> {
        let round = self.round.load(Ordering::Relaxed);
        if let Some((_, error)) = state.gave_up.as_ref().filter(|(when, _)| *when == round) {
            return Err(error.clone());
        }
        let mut ladder = None;
        loop {
            let (endpoint, mut connection) = self.reach(state, round, &mut ladder).await?;
            let claimed = state.claimed.contains(&connection.store);
            let reached = Reached {
                max_message: connection.max_message,
                claimed,
            };
            let asked = match request(reached) {
                Ok(request) => connection.ask(&request, self.options.request_timeout).await,
                Err(error) => {
                    state.connection = Some((endpoint, connection));
                    return Err(error);
                }
            };
            let reason = match asked {
                Ok(Answer::NotNow {
                    scope: Scope::Server,
                    reason,
                }) => format!("says not now: {reason}"),
                Ok(answer) => {
                    state.connection = Some((endpoint, connection));
                    return Ok((endpoint, answer));
                }
                Err(error) => format!("lost while asked: {error}"),
            };
            tracing::info!(
                endpoint = self.name_of(endpoint),
                reason,
                "a connection to a server is given up"
            );
            match &mut ladder {
                Some(ladder) => Ladder::failed(ladder, reason),
                // It was connected before this request; the ladder begins at the primary.
                None => ladder = Some(self.new_ladder()),
            }
        }
    }

    /// The connection at hand, or one from further up the ladder; taken out of the state, so that a
    /// request dropped half-way leaves none behind that half a frame has left on.
    async fn reach(
        &self,
        state: &mut State,
        round: u64,
        ladder: &mut Option<Ladder>,
    ) -> Result<(usize, Connection), LinkError> {
        let at_hand = state.connection.take();
        if let Some(alive) = at_hand.filter(|(_, connection)| connection.is_alive()) {
            return Ok(alive);
        }
        let connected = self.connect(state, ladder).await;
        connected.inspect_err(|error| state.gave_up = Some((round, error.clone())))
    }

    fn new_ladder(&self) -> Ladder {
        Ladder::new(&self.endpoints, self.options.primary)
    }

    /// Climbs the ladder until an endpoint greets. The ladder stays on that rung.
    async fn connect(
        &self,
        state: &mut State,
        ladder: &mut Option<Ladder>,
    ) -> Result<(usize, Connection), LinkError> {
        let ladder = ladder.get_or_insert_with(|| self.new_ladder());
        loop {
            let Attempt {
                endpoint,
                index,
                wait,
            } = match ladder.step() {
                Step::Try(attempt) => attempt,
                Step::GiveUp(none) => {
                    return Err(LinkError::Unreachable {
                        attempts: none.attempts,
                    });
                }
            };
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            let who = (&self.own, self.session);
            let opened = Connection::open(
                &endpoint,
                who,
                self.options.connect_timeout,
                Arc::clone(&self.pushed),
            );
            match opened.await {
                Ok(connection) => {
                    if index != state.last_endpoint {
                        let from = self.name_of(state.last_endpoint);
                        let failovers = self.failovers.fetch_add(1, Ordering::Relaxed) + 1;
                        tracing::warn!(failovers, from, to = %endpoint, "went over to another server");
                        state.last_endpoint = index;
                    }
                    return Ok((index, connection));
                }
                Err(reason) => {
                    tracing::info!(%endpoint, reason, "an attempt at a server failed");
                    ladder.failed(reason);
                }
            }
        }
    }

    pub(super) fn name_of(&self, endpoint: usize) -> String {
        self.endpoints
            .endpoints()
            .get(endpoint)
            .map_or_else(String::new, ToString::to_string)
    }
}
