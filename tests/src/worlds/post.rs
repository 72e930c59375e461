//! [`Post`]: links over the server's own message store, on a simulated machine of its own whose server processes die and which loses power.
//!
//! ```text
//! Link of a site ─► one of two servers ─► EmbeddedStore, both over one store on SimDisk
//! ```
//!
//! What lies between, sockets and sessions, is left out: they hold nothing. What a server acknowledged must be there, whichever server is asked,
//! until its addressee has it removed (R2).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use milepost_engine::SiteName;
use milepost_engine::clock::Rng;
use milepost_replication::link::{
    Batch, Incoming, Link, LinkError, LinkFuture, MessageId, PollCursor, PollRequest,
};
use milepost_replication::server::{Delivery, EmbeddedStore, MailboxPoll, MessageStore, StoreError};
use milepost_replication::wire::MessageKey;

use super::chance::Chance;
use super::process::runtime;
use super::servers::{Group, Server};
use super::trace::Trace;
use super::wire::Wire;

/// See the module.
#[derive(Clone)]
pub struct Post {
    group: Arc<Mutex<Group>>,
    /// Counts what is sent, as of any link.
    wire: Wire,
    chance: Chance,
}

impl Post {
    pub fn new(chance: Chance, wire: &Wire, trace: &Trace) -> Result<Post, String> {
        let group = Group::new(Chance::new(chance.next_u64()), trace)?;
        Ok(Post {
            group: Arc::new(Mutex::new(group)),
            wire: wire.clone(),
            chance,
        })
    }

    fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn pass(&self, pause: Duration) {
        self.group().disk().advance(pause);
    }

    /// Nothing befalls anybody any more.
    pub fn calm(&self) {
        self.group().is_calm = true;
    }

    /// Operations, and their hash; kills and power cuts.
    pub fn totals(&self) -> (u64, u64, u64, u64) {
        self.group().totals()
    }

    pub fn lose_power(&self) {
        self.group().lose_power();
    }

    pub fn end(&self, own: &str) -> Arc<dyn Link> {
        Arc::new(End {
            post: self.clone(),
            own: SiteName::new(own).unwrap(),
        })
    }

    /// Everything that was acknowledged and not removed is given out (R2).
    pub fn check(&self) -> Result<(), String> {
        let (server, expected) = {
            let group = self.group();
            if group.acknowledged.is_empty() {
                return Ok(());
            }
            (group.calm_server()?, group.acknowledged.clone())
        };
        let mut sites: BTreeSet<SiteName> = BTreeSet::new();
        sites.extend(expected.keys().map(|(to, _)| to.clone()));
        for site in sites {
            let given = runtime().block_on(all_of(&server, &site));
            let given = given.map_err(|error| format!("the message store cannot be read: {error}"))?;
            let of_site = expected.iter().filter(|((to, _), _)| *to == site);
            for ((to, key), bytes) in of_site {
                let same = given
                    .iter()
                    .any(|(other, message)| other == key && message == bytes);
                if !same {
                    return Err(format!(
                        "a message of {} for {to} was acknowledged by a server, and none has it (R2)",
                        key.from
                    ));
                }
            }
        }
        Ok(())
    }
}

async fn all_of(server: &EmbeddedStore, site: &SiteName) -> Result<Vec<(MessageKey, Vec<u8>)>, StoreError> {
    let (mut given, mut after) = (Vec::new(), 0);
    loop {
        let request = MailboxPoll {
            after,
            max_count: 1_000,
            max_bytes: 1 << 30,
            skip: BTreeSet::new(),
        };
        let Delivery { messages, next } = server.poll(site.clone(), request).await?;
        given.extend(messages.into_iter().map(|one| (one.key, one.message)));
        if next == 0 {
            return Ok(given);
        }
        after = next;
    }
}

struct End {
    post: Post,
    own: SiteName,
}

/// What a link says of a server that died, or would not.
fn told(error: &StoreError) -> LinkError {
    match error {
        StoreError::Full(text) | StoreError::NotNow(text) => LinkError::not_now("server", text.as_str()),
        StoreError::Refused(text) => LinkError::refused("server", text.as_str()),
        StoreError::Broken(error) => LinkError::unreachable("server", error.to_string()),
        other => LinkError::unreachable("server", other.to_string()),
    }
}

impl End {
    /// A server that is up, or none.
    fn server(&self) -> Result<Server, LinkError> {
        self.post
            .group()
            .server()
            .map_err(|text| LinkError::unreachable("server", text))
    }

    /// What became of a request that a server was asked.
    fn asked<T>(&self, server: &Server, answer: Result<T, StoreError>) -> Result<T, LinkError> {
        self.post
            .group()
            .answered(server)
            .map_err(|text| LinkError::unreachable("server", text))?;
        answer.map_err(|error| told(&error))
    }

    async fn put(&self, to: &SiteName, key: &MessageKey, message: &[u8]) -> Result<(), LinkError> {
        let server = self.server()?;
        let answer = server
            .store()
            .put(to.clone(), key.clone(), message.to_vec())
            .await;
        self.asked(&server, answer)?;
        let mut group = self.post.group();
        group
            .acknowledged
            .insert((to.clone(), key.clone()), message.to_vec());
        Ok(())
    }
}

impl Link for End {
    fn deliver<'a>(&'a self, to: &'a SiteName, message: &'a [u8]) -> LinkFuture<'a, ()> {
        Box::pin(async move {
            self.post.wire.note(self.own.as_str(), to.as_str(), message);
            let words = (self.post.chance.next_u64(), self.post.chance.next_u64());
            let key = MessageKey {
                from: self.own.clone(),
                id: u128::from(words.0) << 64 | u128::from(words.1),
            };
            match self.put(to, &key, message).await {
                // The next server of the list is asked the same.
                Err(error) if error.is_unreachable() => self.put(to, &key, message).await,
                answer => answer,
            }
        })
    }

    fn poll<'a>(&'a self, request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        Box::pin(async move {
            let request = MailboxPoll {
                after: request
                    .after
                    .map_or(0, |after| after.as_str().parse().unwrap_or(0)),
                max_count: request.max_count.min(20),
                max_bytes: request.max_bytes,
                skip: request.skip.iter().filter_map(key_of).collect(),
            };
            let server = self.server()?;
            let answer = server.store().poll(self.own.clone(), request).await;
            let Delivery { messages, next } = self.asked(&server, answer)?;
            let messages = messages.into_iter().map(|one| Incoming {
                id: MessageId::new(format!("{}:{:032x}", one.key.from, one.key.id)),
                bytes: one.message,
            });
            Ok(Batch {
                messages: messages.collect(),
                next: (next > 0).then(|| PollCursor::new(next.to_string())),
            })
        })
    }

    fn remove<'a>(&'a self, ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        Box::pin(async move {
            let keys: Vec<MessageKey> = ids.iter().filter_map(key_of).collect();
            // From now on it may be gone.
            for key in &keys {
                self.post
                    .group()
                    .acknowledged
                    .remove(&(self.own.clone(), key.clone()));
            }
            let server = self.server()?;
            let answer = server.store().remove(self.own.clone(), keys).await;
            self.asked(&server, answer)
        })
    }

    fn address(&self) -> String {
        "memory://".to_owned()
    }
}

fn key_of(id: &MessageId) -> Option<MessageKey> {
    let (from, id) = id.as_str().split_once(':')?;
    Some(MessageKey {
        from: from.parse().ok()?,
        id: u128::from_str_radix(id, 16).ok()?,
    })
}
