//! [`FrameReader`]: whole frames out of a stream of bytes, with limits on memory and time.
//!
//! `next` may be dropped at any await and called again: what has arrived stays in the reader. The
//! buffer grows with the bytes that came, never with the length that was claimed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use milepost_engine::width::to_u64;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::frame::Head;
use super::{Frame, HEADER_LEN, WireError};

/// Read at once at most, in bytes.
const CHUNK: usize = 64 << 10;
/// Bodies up to this size, in bytes, take nothing from the shared budget.
const SMALL_BODY: usize = 64 << 10;
/// Unit of the shared budget, in bytes.
const BUDGET_UNIT: usize = 1 << 10;

/// What a reader allows the other side.
#[derive(Clone)]
pub struct ReadLimits {
    /// Largest body in bytes.
    pub max_body: usize,
    /// Time to bring one frame from its first byte to its last, ...
    pub frame: Duration,
    /// ... longer for large ones: by this many bytes a second.
    pub bytes_per_second: u64,
    /// KiB that all readers of a server together may hold in large bodies.
    pub budget: Option<Arc<Semaphore>>,
}

/// Reads frames.
pub struct FrameReader<R> {
    stream: R,
    /// Bytes that came, for who listens for life.
    heard: Arc<AtomicU64>,
    limits: ReadLimits,
    buffer: Vec<u8>,
    began: Option<Instant>,
    /// Share of the budget of the frame that is being read, and of the one that was given last.
    permit: Option<OwnedSemaphorePermit>,
    given: Option<OwnedSemaphorePermit>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader over a stream whose preamble was read.
    pub fn new(stream: R, limits: ReadLimits) -> FrameReader<R> {
        FrameReader {
            stream,
            heard: Arc::default(),
            limits,
            buffer: Vec::new(),
            began: None,
            permit: None,
            given: None,
        }
    }

    /// Counts the bytes that come: as long as it grows, the other side is there.
    #[must_use]
    pub fn heard(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.heard)
    }

    /// Replaces the limit on bodies: it is small until the other side said who it is.
    pub fn set_max_body(&mut self, bytes: usize) {
        self.limits.max_body = bytes;
    }

    /// The next frame, or `None` when the other side closed the connection between two frames.
    ///
    /// # Errors
    /// `Malformed` for a length above the limit or a wrong checksum, `Silent` for a frame that takes too
    /// long, `Closed` for one that ends early, `Io`.
    pub async fn next(&mut self) -> Result<Option<Frame>, WireError> {
        // Whoever asks for the next frame is done with the last.
        self.given = None;
        loop {
            let head = Head::parse(&self.buffer, self.limits.max_body)?;
            if let Some(frame) = head.map(|head| head.frame(&self.buffer)).transpose()?.flatten() {
                self.buffer.drain(..HEADER_LEN + frame.body.len());
                self.buffer.shrink_to(CHUNK);
                self.began = (!self.buffer.is_empty()).then(Instant::now);
                self.given = self.permit.take();
                return Ok(Some(frame));
            }
            let body_len = head.map_or(0, |head| head.body_len);
            if !self.fill(body_len).await? {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(WireError::Closed)
                };
            }
        }
    }

    /// Reads what is there; false at the end of the stream.
    async fn fill(&mut self, body_len: usize) -> Result<bool, WireError> {
        let limit = self.limits.frame + seconds(body_len, self.limits.bytes_per_second);
        let deadline = self.began.map(|began| began + limit);
        let silent = || WireError::Silent(limit);
        if let Some(budget) = self
            .limits
            .budget
            .as_ref()
            .filter(|_| self.permit.is_none() && body_len > SMALL_BODY)
        {
            let units = u32::try_from(body_len / BUDGET_UNIT).unwrap_or(u32::MAX);
            let permit = Arc::clone(budget).acquire_many_owned(units);
            self.permit = within(deadline, permit).await.ok_or_else(silent)?.ok();
        }
        let wanted = (HEADER_LEN + body_len)
            .saturating_sub(self.buffer.len())
            .clamp(HEADER_LEN, CHUNK);
        self.buffer.reserve(wanted);
        let read = self.stream.read_buf(&mut self.buffer);
        let read = within(deadline, read).await.ok_or_else(silent)??;
        self.heard.fetch_add(to_u64(read), Ordering::Relaxed);
        if self.began.is_none() && read > 0 {
            self.began = Some(Instant::now());
        }
        Ok(read > 0)
    }
}

fn seconds(bytes: usize, bytes_per_second: u64) -> Duration {
    Duration::from_secs(to_u64(bytes) / bytes_per_second.max(1))
}

async fn within<F: Future>(deadline: Option<Instant>, future: F) -> Option<F::Output> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}
