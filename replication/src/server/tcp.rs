//! [`serve`]: accepts clients until told to stop or the message store breaks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use milepost_engine::{Error, Options};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::session::{End, Session};
use super::{EmbeddedStore, MailboxLimits, MessageStore};
use crate::wire::{Answer, MAX_BODY, Preamble, ReadLimits, Scope};

/// Rest after the system refused a connection (too many open files): trying at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server allows its clients.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Clients at once, default 512, well below the descriptors a process usually has; one more is told
    /// "not now".
    pub connections: usize,
    /// Time for a client to say who it is, default 5 s.
    pub handshake: Duration,
    /// Silence between two requests, default 15 min.
    pub idle: Duration,
    /// Time to bring one frame, and for large ones 1 s more per 16 KiB, default 30 s.
    pub frame: Duration,
    /// Time for a client to read an answer, default 2 min.
    pub write: Duration,
    /// Bytes that large frames of all clients may hold at once, default 256 MiB.
    pub memory: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits {
            connections: 512,
            handshake: Duration::from_secs(5),
            idle: Duration::from_secs(15 * 60),
            frame: Duration::from_secs(30),
            write: Duration::from_secs(120),
            memory: 256 << 20,
        }
    }
}

/// How `milepost serve` is called.
#[derive(Clone)]
pub struct ServeOptions {
    /// Address to listen on, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Directory of the message store; made when it is missing. Servers that share it form a group.
    pub store: PathBuf,
    /// How the store is made and opened.
    pub options: Options,
    /// What mailboxes take.
    pub mailboxes: MailboxLimits,
    /// What clients may do.
    pub limits: ServerLimits,
}

impl ServeOptions {
    /// Defaults for an address and a store.
    pub fn new(listen: impl Into<String>, store: impl Into<PathBuf>) -> ServeOptions {
        ServeOptions {
            listen: listen.into(),
            store: store.into(),
            options: Options::new(),
            mailboxes: MailboxLimits::default(),
            limits: ServerLimits::default(),
        }
    }
}

/// Why a server ended or did not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address as given.
        listen: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// The message store cannot be opened, or broke: start the server again.
    #[error("the message store cannot be used: {0}")]
    Store(#[from] Error),
}

/// Runs a server until `shutdown` is ready: opens the store (or makes it), listens, tells `bound` the
/// address, serves.
///
/// # Errors
/// `Listen`; `Store` when it cannot be opened, or when this process's handle of it died.
pub async fn serve(
    options: ServeOptions,
    bound: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let ServeOptions {
        listen,
        store,
        options,
        mailboxes,
        limits,
    } = options;
    let refused = |source| ServerError::Listen {
        listen: listen.clone(),
        source,
    };
    let listener = TcpListener::bind(&listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let opened =
        tokio::task::spawn_blocking(move || EmbeddedStore::open_or_init(&store, options, mailboxes)).await;
    let store =
        opened.unwrap_or_else(|_| Err(Error::internal("opening the message store was stopped half-way")))?;
    bound(address);
    accept(listener, Arc::new(store), limits, shutdown).await
}

/// Serves the clients of a listener from a message store until `shutdown` is ready. Clients that are
/// connected then lose their connection and nothing else.
///
/// # Errors
/// `Store` when this process's handle of it died.
pub async fn accept(
    listener: TcpListener,
    store: Arc<dyn MessageStore>,
    limits: ServerLimits,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let read = ReadLimits {
        max_body: MAX_BODY,
        frame: limits.frame,
        bytes_per_second: 16 << 10,
        // At least one frame of the largest kind must fit, or it would wait for ever.
        budget: Some(Arc::new(Semaphore::new(limits.memory.max(MAX_BODY) / 1024))),
    };
    let (broken, mut breaks) = mpsc::channel(1);
    // Dropped at the end, which ends every session.
    let mut sessions = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => return Ok(()),
            Some(error) = breaks.recv() => return Err(ServerError::Store(error)),
            Some(_) = sessions.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if sessions.len() >= limits.connections => turn_away(&stream),
            Ok((stream, peer)) => {
                let (store, read, broken) = (Arc::clone(&store), read.clone(), broken.clone());
                sessions.spawn(async move {
                    let end = match Session::greet(stream, store, limits, read).await {
                        Ok(session) => session.run().await,
                        Err(end) => end,
                    };
                    tracing::debug!(%peer, reason = %end, "a client's session ended");
                    if let End::Broken(error) = end {
                        // No room: another session has said it.
                        let _ = broken.try_send(error);
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Says "not now" without waiting: what does not fit the socket's empty buffer is not said.
fn turn_away(stream: &TcpStream) {
    let answer = Answer::NotNow {
        scope: Scope::Server,
        reason: "it has as many clients as it takes".to_owned(),
    };
    if let Ok(frame) = answer.to_frame(0).encode() {
        let _ = stream.try_write(&[&Preamble::OURS.encode(), frame.as_slice()].concat());
    }
}
