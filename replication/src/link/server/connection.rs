//! [`Connection`]: one greeted connection to one server.
//!
//! One request is under way at a time; a task reads beside it, so that a Waiting that comes unasked is
//! heard at once. A connection whose request failed or was dropped half-way is not used again: half a
//! frame may have left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use milepost_engine::width::to_u64;
use milepost_engine::{SiteName, StoreId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::endpoint::Endpoint;
use crate::wire::{
    Answer, FrameReader, MAX_BODY, PREAMBLE_LEN, Preamble, ReadLimits, Request, Scope, WireError,
};

/// Slowest transfer that is waited for, in bytes a second.
const BYTES_PER_SECOND: u64 = 16 << 10;

/// A greeted connection.
pub(super) struct Connection {
    writer: OwnedWriteHalf,
    answers: mpsc::Receiver<Result<(u32, Answer), WireError>>,
    reading: AbortHandle,
    /// Bytes that came from the server.
    heard: Arc<AtomicU64>,
    last_request: u32,
    /// The server's message store.
    pub(super) store: StoreId,
    /// Largest message it takes, in bytes.
    pub(super) max_message: u32,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Connection {
    /// Connects and greets, all within `limit`; name resolution too. `pushed` is told of every Waiting
    /// and of the end of the connection.
    pub(super) async fn open(
        endpoint: &Endpoint,
        who: (&SiteName, u64),
        limit: Duration,
        pushed: Arc<Notify>,
    ) -> Result<Connection, String> {
        if endpoint.tls() {
            // Never in the clear what was asked for under TLS.
            return Err("this program has no TLS yet: write milepost:// for a link without it".to_owned());
        }
        let greeted = timeout(limit, greet(endpoint, who));
        let (reader, writer, welcome) = match greeted.await {
            Ok(greeted) => greeted.map_err(|error| error.to_string())?,
            Err(_) => return Err(format!("no connection and greeting within {limit:?}")),
        };
        match welcome {
            Answer::Welcome {
                store, max_message, ..
            } => {
                let (sender, answers) = mpsc::channel(1);
                let heard = reader.heard();
                let reading = tokio::spawn(read(reader, sender, pushed)).abort_handle();
                Ok(Connection {
                    writer,
                    answers,
                    reading,
                    heard,
                    last_request: 0,
                    store,
                    max_message,
                })
            }
            Answer::NotNow { reason, .. } => Err(format!("says not now: {reason}")),
            Answer::Error { reason, .. } => Err(format!("refuses: {reason}")),
            other => Err(format!("greets with {other:?}")),
        }
    }

    /// False once the server is known to be gone.
    pub(super) fn is_alive(&self) -> bool {
        !self.reading.is_finished()
    }

    /// Asks and waits for the answer. Given up when nothing is heard for `limit`; writing the request may
    /// take longer where it is large, and the reader gives an answer its time once it has begun.
    pub(super) async fn ask(&mut self, request: &Request, limit: Duration) -> Result<Answer, WireError> {
        self.last_request = self.last_request.wrapping_add(1).max(1);
        let bytes = request.to_frame(self.last_request).encode()?;
        let writing = limit + Duration::from_secs(to_u64(bytes.len()) / BYTES_PER_SECOND);
        timeout(writing, self.writer.write_all(&bytes))
            .await
            .map_err(|_| WireError::Silent(writing))??;
        loop {
            let heard = self.heard.load(Ordering::Relaxed);
            match timeout(limit, self.answer()).await {
                Ok(answer) => return answer,
                Err(_) if self.heard.load(Ordering::Relaxed) == heard => {
                    return Err(WireError::Silent(limit));
                }
                Err(_) => {}
            }
        }
    }

    /// The answer to the last request. May be dropped and asked for again.
    async fn answer(&mut self) -> Result<Answer, WireError> {
        loop {
            match self.answers.recv().await.ok_or(WireError::Closed)?? {
                (number, answer) if number == self.last_request => return Ok(answer),
                // What a server that is going down says unasked answers everything.
                (
                    0,
                    answer @ Answer::NotNow {
                        scope: Scope::Server, ..
                    },
                ) => return Ok(answer),
                _ => {}
            }
        }
    }
}

/// Connects, exchanges preambles, says who we are, reads the first answer.
async fn greet(
    endpoint: &Endpoint,
    (site, session): (&SiteName, u64),
) -> Result<(FrameReader<OwnedReadHalf>, OwnedWriteHalf, Answer), WireError> {
    let mut stream = TcpStream::connect((endpoint.host(), endpoint.port())).await?;
    stream.set_nodelay(true)?;
    let hello = Request::Hello {
        site: site.clone(),
        session,
    }
    .to_frame(1)
    .encode()?;
    stream
        .write_all(&[&Preamble::OURS.encode(), hello.as_slice()].concat())
        .await?;
    let mut theirs = [0; PREAMBLE_LEN];
    stream.read_exact(&mut theirs).await?;
    Preamble::OURS.agree(Preamble::decode(&theirs)?)?;
    let (reader, writer) = stream.into_split();
    let limits = ReadLimits {
        max_body: MAX_BODY,
        frame: Duration::from_secs(30),
        bytes_per_second: BYTES_PER_SECOND,
        budget: None,
    };
    let mut reader = FrameReader::new(reader, limits);
    loop {
        let frame = reader.next().await?.ok_or(WireError::Closed)?;
        if let Some(answer) = Answer::of_frame(&frame)? {
            return Ok((reader, writer, answer));
        }
    }
}

/// Reads until the connection ends.
async fn read(
    mut reader: FrameReader<OwnedReadHalf>,
    answers: mpsc::Sender<Result<(u32, Answer), WireError>>,
    pushed: Arc<Notify>,
) {
    loop {
        let answer = match reader.next().await {
            Ok(Some(frame)) => Answer::of_frame(&frame).map(|answer| Some((frame.request, answer))),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let told = match answer {
            Ok(Some((_, Some(Answer::Waiting)))) => {
                pushed.notify_one();
                continue;
            }
            Ok(Some((_, None))) => continue,
            Ok(Some((number, Some(answer)))) => answers.send(Ok((number, answer))).await.is_ok(),
            Ok(None) => false,
            Err(error) => {
                // Nobody listens when the connection was given up meanwhile.
                let _ = answers.send(Err(error)).await;
                false
            }
        };
        if !told {
            pushed.notify_one();
            return;
        }
    }
}
