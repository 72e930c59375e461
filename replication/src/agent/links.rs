//! [`Links`]: the links of one process, each opened once and shared by its phases and remotes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use milepost_engine::{Error, Result, SiteName};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::catalog::{Catalog, Remote};
use crate::link::{Batch, Link, LinkError, LinkFuture, MessageId, PollRequest};

use super::Stop;
use super::open::effective;

/// How long a call in hand may go on after all were asked to stop.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// Number of a link within its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkNumber(usize);

impl fmt::Display for LinkNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Opens a link from its addresses, the primary first.
pub type OpenLink = dyn Fn(&[String]) -> Result<Arc<dyn Link>> + Send + Sync;

/// The links of one process.
#[derive(Clone)]
pub struct Links {
    shared: Arc<Shared>,
    runtime: Handle,
    stop: Stop,
    /// In batch: the links whose only round has begun.
    begun: Option<Arc<Mutex<BTreeSet<LinkNumber>>>>,
}

struct Shared {
    open: Box<OpenLink>,
    /// Replace the addresses of remotes that are on servers, or of all when none is (`-x`).
    endpoints: Vec<String>,
    known: Mutex<Vec<(Vec<String>, Arc<dyn Link>)>>,
}

impl Links {
    /// Links opened by `open`, whose futures run on `runtime`; waits end when `stop` is requested.
    /// `endpoints`, when there are any, replace the addresses of remotes that are on servers, or of all when
    /// none is.
    #[must_use]
    pub fn new(open: Box<OpenLink>, endpoints: &[String], runtime: Handle, stop: Stop) -> Links {
        let shared = Shared {
            open,
            endpoints: endpoints.to_vec(),
            known: Mutex::new(Vec::new()),
        };
        Links {
            shared: Arc::new(shared),
            runtime,
            stop,
            begun: None,
        }
    }

    /// The same for a batch run: all its phases share one round, and with it one ladder of attempts.
    #[must_use]
    pub fn for_one_round(mut self) -> Links {
        self.begun = Some(Arc::default());
        self
    }

    /// Begins a round on a link: one that found no server tries again. In batch only the first counts.
    ///
    /// # Errors
    /// `Internal` for a number of another process.
    pub fn begin_round(&self, number: LinkNumber) -> Result<()> {
        let fresh = match &self.begun {
            Some(begun) => begun
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(number),
            None => true,
        };
        if fresh {
            self.get(number)?.begin_round();
        }
        Ok(())
    }

    /// The link of one of the catalog's remotes. Addresses that lead nowhere are a link that refuses everything with the
    /// reason, so that the other remotes are served.
    #[must_use]
    pub fn of(&self, remote: &Remote, catalog: &Catalog) -> LinkNumber {
        let wanted = effective(remote, catalog, &self.shared.endpoints);
        let mut known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = known.iter().position(|(addresses, _)| addresses == wanted) {
            return LinkNumber(number);
        }
        let link = (self.shared.open)(wanted).unwrap_or_else(|error| {
            Arc::new(NoLink {
                addresses: wanted.join(" "),
                reason: error.to_string(),
            })
        });
        known.push((wanted.to_vec(), link));
        LinkNumber(known.len() - 1)
    }

    /// A link by number.
    ///
    /// # Errors
    /// `Internal` for a number of another process.
    pub fn get(&self, number: LinkNumber) -> Result<Arc<dyn Link>> {
        let known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        let link = known.get(number.0).map(|(_, link)| Arc::clone(link));
        link.ok_or_else(|| Error::internal(format!("there is no link {number}")))
    }

    /// Runs one call of a link to its end, or to the moment when all shall stop: then `None`, and the
    /// call may have happened or not (R3).
    pub fn run<T>(&self, call: impl Future<Output = Result<T, LinkError>>) -> Option<Result<T, LinkError>> {
        self.run_for(call, Duration::ZERO)
    }

    /// As [`Links::run`] for what is in hand when all shall stop: it has a moment to end.
    pub fn finish<T>(
        &self,
        call: impl Future<Output = Result<T, LinkError>>,
    ) -> Option<Result<T, LinkError>> {
        self.run_for(call, FINISH_WITHIN)
    }

    fn run_for<T>(
        &self,
        call: impl Future<Output = Result<T, LinkError>>,
        grace: Duration,
    ) -> Option<Result<T, LinkError>> {
        let given_up = async {
            self.stop.requested().await;
            tokio::time::sleep(grace).await;
        };
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                done = call => Some(done),
                () = given_up => None,
            }
        })
    }

    /// Waits until the phases shall stop, which may be asked for apart from what these links wait for.
    pub(super) fn until_requested(&self, stop: &Stop) {
        self.runtime.block_on(stop.requested());
    }

    /// Waits until one of the links has something for us (true), `limit` has passed, or all shall stop.
    #[must_use]
    pub fn wait_for_push(&self, numbers: &[LinkNumber], limit: Duration) -> bool {
        let links: Vec<_> = numbers
            .iter()
            .filter_map(|number| self.get(*number).ok())
            .collect();
        self.runtime.block_on(async {
            let mut waits = JoinSet::new();
            for link in links {
                waits.spawn(async move {
                    match link.wait_for_push(limit).await {
                        Ok(pushed) => pushed,
                        // The connection went while waiting: the next poll makes another; until then
                        // nothing more is told here.
                        Err(_) => std::future::pending().await,
                    }
                });
            }
            tokio::select! {
                pushed = first_true(&mut waits) => pushed,
                () = tokio::time::sleep(limit) => false,
                () = self.stop.requested() => false,
            }
        })
    }
}

/// Stands for addresses that no link can be made of.
struct NoLink {
    addresses: String,
    reason: String,
}

impl NoLink {
    fn refuse<T: Send + 'static>(&self) -> LinkFuture<'_, T> {
        Box::pin(async { Err(LinkError::refused(self.addresses.as_str(), self.reason.as_str())) })
    }
}

impl Link for NoLink {
    fn deliver<'a>(&'a self, _to: &'a SiteName, _message: &'a [u8]) -> LinkFuture<'a, ()> {
        self.refuse()
    }

    fn poll<'a>(&'a self, _request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        self.refuse()
    }

    fn remove<'a>(&'a self, _ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        self.refuse()
    }

    fn address(&self) -> String {
        self.addresses.clone()
    }
}

async fn first_true(waits: &mut JoinSet<bool>) -> bool {
    while let Some(pushed) = waits.join_next().await {
        if pushed.unwrap_or(false) {
            return true;
        }
    }
    std::future::pending().await
}
