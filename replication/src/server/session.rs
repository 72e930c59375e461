//! One client's connection: greeting, then requests answered one after another, and Waiting told
//! unasked.
//!
//! Every wait has a limit: for the greeting, for a frame once begun, for silence between frames, for
//! a client that does not read. A client that breaks the protocol loses its connection and nothing
//! else. A session that polls takes its site's mailbox over; one that only puts does not, so a site's
//! sender and receiver may be two processes.

use std::sync::Arc;
use std::time::Duration;

use milepost_engine::width::u32_to_usize;
use milepost_engine::{Error, SiteName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

use super::ServerLimits;
use super::store::{MailboxPoll, MessageStore, StoreError};
use crate::wire::{
    Answer, ErrorCode, FrameReader, MAX_BODY, MessageKey, PREAMBLE_LEN, Preamble, ReadLimits, Request, Scope,
    WireError,
};

/// Largest frame before a client has said who it is, in bytes.
const MAX_HELLO: usize = 1 << 10;
/// Most messages in one Deliver.
const MAX_DELIVER_COUNT: usize = 4096;
/// Most bytes in one Deliver, unless one message alone is larger.
const MAX_DELIVER_BYTES: usize = 4 << 20;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The client left.
    #[error("the client left")]
    Left,
    /// It kept silent for too long.
    #[error("the client kept silent for too long")]
    Idle,
    /// It broke the protocol or its connection broke.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// The message store can no longer be used by this process.
    #[error("the message store can no longer be used: {0}")]
    Broken(Error),
}

/// What is known of the client.
pub(super) struct Session {
    store: Arc<dyn MessageStore>,
    limits: ServerLimits,
    reader: FrameReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    site: SiteName,
    number: u64,
    /// It polls its mailbox, so it is told of arrivals; and of which the last.
    polls: bool,
    told: u64,
}

impl Session {
    /// Greets a client.
    pub(super) async fn greet(
        stream: TcpStream,
        store: Arc<dyn MessageStore>,
        limits: ServerLimits,
        read: ReadLimits,
    ) -> Result<Session, End> {
        // Small answers must not wait for more to send.
        stream.set_nodelay(true).map_err(WireError::from)?;
        let limit = limits.handshake;
        let greeting = timeout(limit, greeting(stream, &store, read)).await;
        let (reader, mut writer, site, number) = greeting.map_err(|_| WireError::Silent(limit))??;
        let welcome = Answer::Welcome {
            store: store.id(),
            max_message: u32::try_from(store.max_message()).unwrap_or(u32::MAX),
            name: store.name().clone(),
        };
        write(&mut writer, &welcome, 0, limits.write).await?;
        Ok(Session {
            store,
            limits,
            reader,
            writer,
            site,
            number,
            polls: false,
            told: 0,
        })
    }

    /// Answers until the client leaves.
    pub(super) async fn run(mut self) -> End {
        let mut arrivals = self.store.arrivals();
        loop {
            match self.next_event(&mut arrivals).await {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    async fn next_event(&mut self, arrivals: &mut watch::Receiver<u64>) -> Result<(), End> {
        let frame = tokio::select! {
            frame = timeout(self.limits.idle, self.reader.next()) => frame.map_err(|_| End::Idle)??,
            () = changed(arrivals), if self.polls => return self.tell().await,
        };
        let frame = frame.ok_or(End::Left)?;
        let Some(request) = Request::of_frame(&frame)? else {
            return Ok(());
        };
        let number = frame.request;
        drop(frame);
        let (answer, end) = match self.answer(request).await {
            Ok(answer) => (answer, None),
            Err(error) => refusal(error),
        };
        write(&mut self.writer, &answer, number, self.limits.write).await?;
        end.map_or(Ok(()), Err)
    }

    /// Tells the client that something came since it was last told or polled.
    async fn tell(&mut self) -> Result<(), End> {
        let last = self.store.last_arrival(&self.site);
        if last > self.told {
            self.told = last;
            write(&mut self.writer, &Answer::Waiting, 0, self.limits.write).await?;
        }
        Ok(())
    }

    async fn answer(&mut self, request: Request) -> Result<Answer, StoreError> {
        match request {
            Request::Hello { .. } => Ok(error(ErrorCode::Invalid, "a second Hello on one connection")),
            Request::Ping => Ok(Answer::Pong),
            Request::Put { message, .. }
                if message.is_empty() || message.len() > self.store.max_message() =>
            {
                let most = self.store.max_message();
                Ok(error(
                    ErrorCode::Invalid,
                    format!("a message has 1 to {most} bytes"),
                ))
            }
            Request::Put { to, id, message } => {
                let key = MessageKey {
                    from: self.site.clone(),
                    id,
                };
                self.store.put(to, key, message).await?;
                Ok(Answer::Stored)
            }
            Request::Remove { keys } => {
                self.store.remove(self.site.clone(), keys).await?;
                Ok(Answer::Removed)
            }
            Request::Poll {
                store,
                after,
                max_count,
                max_bytes,
                first,
                skip,
            } => {
                let request = MailboxPoll {
                    after: if store == self.store.id() { after } else { 0 },
                    max_count: u32_to_usize(max_count).min(MAX_DELIVER_COUNT),
                    max_bytes: u32_to_usize(max_bytes).min(MAX_DELIVER_BYTES),
                    skip: skip.into_iter().collect(),
                };
                self.poll(first, request).await
            }
        }
    }

    async fn poll(&mut self, first: bool, request: MailboxPoll) -> Result<Answer, StoreError> {
        if !self.store.claim(self.site.clone(), self.number, first).await? {
            self.polls = false;
            let reason = format!(
                "a newer session of {} polls its mailbox; is another copy of this site running?",
                self.site
            );
            return Ok(error(ErrorCode::Superseded, reason));
        }
        self.polls = true;
        // What comes while the store is asked is told, at worst once too often.
        self.told = self.store.last_arrival(&self.site);
        let delivery = self.store.poll(self.site.clone(), request).await?;
        Ok(Answer::Deliver {
            store: self.store.id(),
            next: delivery.next,
            messages: delivery.messages,
        })
    }
}

/// Preambles, then who the client is.
async fn greeting(
    mut stream: TcpStream,
    store: &Arc<dyn MessageStore>,
    read: ReadLimits,
) -> Result<(FrameReader<OwnedReadHalf>, OwnedWriteHalf, SiteName, u64), WireError> {
    stream.write_all(&Preamble::OURS.encode()).await?;
    let mut theirs = [0; PREAMBLE_LEN];
    stream.read_exact(&mut theirs).await?;
    Preamble::OURS.agree(Preamble::decode(&theirs)?)?;
    let (read_half, writer) = stream.into_split();
    let mut reader = FrameReader::new(
        read_half,
        ReadLimits {
            max_body: MAX_HELLO,
            ..read
        },
    );
    loop {
        let frame = reader.next().await?.ok_or(WireError::Closed)?;
        match Request::of_frame(&frame)? {
            Some(Request::Hello { site, session }) => {
                reader.set_max_body(MAX_BODY);
                tracing::debug!(%site, session, store = %store.name(), "a client is connected");
                return Ok((reader, writer, site, session));
            }
            Some(_) => return Err(WireError::malformed("its first frame is not a Hello")),
            None => {}
        }
    }
}

/// Writes an answer, or gives up on a client that does not read.
async fn write(
    writer: &mut OwnedWriteHalf,
    answer: &Answer,
    request: u32,
    limit: Duration,
) -> Result<(), WireError> {
    let bytes = answer.to_frame(request).encode()?;
    timeout(limit, writer.write_all(&bytes))
        .await
        .map_err(|_| WireError::Silent(limit))??;
    Ok(())
}

/// What a client is told when the store did not do it, and whether the session ends.
fn refusal(failure: StoreError) -> (Answer, Option<End>) {
    match failure {
        StoreError::Full(reason) => (
            Answer::NotNow {
                scope: Scope::Request,
                reason,
            },
            None,
        ),
        StoreError::NotNow(reason) => (
            Answer::NotNow {
                scope: Scope::Server,
                reason,
            },
            None,
        ),
        StoreError::Refused(reason) => (error(ErrorCode::Refused, reason), None),
        StoreError::Broken(broken) => {
            let reason = "this server's message store must be opened again".to_owned();
            (
                Answer::NotNow {
                    scope: Scope::Server,
                    reason,
                },
                Some(End::Broken(broken)),
            )
        }
    }
}

fn error(code: ErrorCode, reason: impl Into<String>) -> Answer {
    Answer::Error {
        code,
        reason: reason.into(),
    }
}

/// Waits for a change; for ever when none can come any more.
async fn changed(arrivals: &mut watch::Receiver<u64>) {
    if arrivals.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
