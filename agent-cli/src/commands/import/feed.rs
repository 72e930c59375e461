//! [`Feed`]: an input that another thread reads, so that whoever waits for it can be asked to stop.
//!
//! ```text
//! file, pipe ─► reading thread ─► at most PIECES pieces ─► Feed ─► lines
//! signal ─────► asked = true, and a wake-up if Feed waits
//! ```
//!
//! A read from a pipe that stays silent is not ended by a signal; waiting for a piece is. After the
//! request no piece is waited for or begun: the read fails, and [`Stop::is_asked`] says why.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::commands::leaving;
use crate::failure::Outcome;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait while lines are committed.
const PIECES: usize = 2;

/// An input in pieces.
pub struct Feed {
    pieces: Receiver<Piece>,
    current: Vec<u8>,
    /// Bytes of `current` that were taken.
    taken: usize,
    ended: bool,
    stop: Stop,
}

/// Whether the import was asked to stop.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

enum Piece {
    /// What was read; nothing at the end of the input.
    Read(io::Result<Vec<u8>>),
    /// Look whether a stop is asked for.
    Wake,
}

impl Feed {
    /// Begins to read `input`. SIGINT, SIGTERM and SIGHUP ask to stop; a second one ends the process.
    ///
    /// # Errors
    /// Exit 1 when signals cannot be watched.
    pub fn begin(input: impl Read + Send + 'static) -> Outcome<Feed> {
        let stop = Stop::default();
        let (feed, wake) = Feed::reading(input, stop.clone());
        leaving::when_asked(false, move || {
            stop.ask();
            // A full channel needs no wake-up: nobody waits at it.
            drop(wake.try_send(Piece::Wake));
        })?;
        Ok(feed)
    }

    fn reading(input: impl Read + Send + 'static, stop: Stop) -> (Feed, SyncSender<Piece>) {
        let (sender, pieces) = sync_channel(PIECES);
        let wake = sender.clone();
        thread::spawn(move || read_all(input, &sender));
        let feed = Feed {
            pieces,
            current: Vec::new(),
            taken: 0,
            ended: false,
            stop,
        };
        (feed, wake)
    }

    /// Tells whether a stop is asked for.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    fn rest(&self) -> &[u8] {
        self.current.get(self.taken..).unwrap_or_default()
    }

    fn next_piece(&mut self) -> io::Result<()> {
        // Asked before the wait: the request that found the channel full left no wake-up behind.
        while !self.stop.is_asked() {
            match self.pieces.recv() {
                Ok(Piece::Read(read)) => {
                    self.current = read?;
                    self.taken = 0;
                    self.ended = self.current.is_empty();
                    return Ok(());
                }
                Ok(Piece::Wake) => {}
                Err(_) => return Err(io::Error::other("the thread that reads it is gone")),
            }
        }
        Err(io::Error::other("a stop is asked for"))
    }
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest().is_empty() && !self.ended {
            self.next_piece()?;
        }
        Ok(self.rest())
    }

    fn consume(&mut self, count: usize) {
        self.taken = self.taken.saturating_add(count).min(self.current.len());
    }
}

impl Read for Feed {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(to)?;
        self.consume(read);
        Ok(read)
    }
}

impl Stop {
    /// True once a stop is asked for.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Reads to the end, to the first failure, or until nobody takes the pieces any more.
fn read_all(mut input: impl Read, to: &SyncSender<Piece>) {
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let read = match input.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read,
        };
        let last = !matches!(read, Ok(1..));
        let read = read.map(|count| {
            piece.truncate(count);
            piece
        });
        if to.send(Piece::Read(read)).is_err() || last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_comes_through_whole_and_ends_for_good() {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(3 * PIECE_BYTES + 7).collect();
        let (mut feed, _wake) = Feed::reading(io::Cursor::new(bytes.clone()), Stop::default());
        let mut read = Vec::new();
        feed.read_to_end(&mut read).unwrap();
        assert!(read == bytes);
        assert_eq!(
            feed.read(&mut [0; 4]).unwrap(),
            0,
            "the end is not waited for twice"
        );
    }

    #[test]
    fn what_waits_for_a_silent_input_is_woken_and_fails_when_a_stop_is_asked_for() {
        let (silent, _held_open) = io::pipe().unwrap();
        let stop = Stop::default();
        let (mut feed, wake) = Feed::reading(silent, stop.clone());
        let waiting = thread::spawn(move || {
            feed.fill_buf()
                .map(<[u8]>::len)
                .map_err(|error| error.to_string())
        });
        thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waiting.is_finished());
        stop.ask();
        wake.send(Piece::Wake).unwrap();
        assert_eq!(waiting.join().unwrap(), Err("a stop is asked for".to_owned()));
    }
}
