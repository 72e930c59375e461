//! Lines of an input: numbered, bounded, and digested so that a later run knows the input again.
//!
//! The digest covers every line so far, each followed by one line feed whether or not the input ends
//! with one; so an input that grew since is still known by its first lines. A byte order mark before the
//! first line is no part of it. An input that begins like a compressed file or like UTF-16 is refused
//! with what to do.

use std::io::{BufRead, Read};

use xxhash_rust::xxh3::Xxh3;

use crate::failure::{Failure, Outcome};

/// Longest line in bytes: 64 MiB, the default size of a segment, which a transaction has to fit.
pub const LINE_LIMIT: u64 = 64 << 20;

/// The first bytes of inputs that are no lines of UTF-8, what those are, and what makes lines of them.
const OTHER_FORMATS: [(&[u8], &str, &str); 6] = [
    (&[0x1f, 0x8b], "compressed", "gunzip -c"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "compressed", "zstd -dc"),
    (b"\xfd7zXZ\0", "compressed", "xz -dc"),
    (b"BZh", "compressed", "bunzip2 -c"),
    (&[0xff, 0xfe], "UTF-16", "iconv -f UTF-16 -t UTF-8"),
    (&[0xfe, 0xff], "UTF-16", "iconv -f UTF-16 -t UTF-8"),
];

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Where an input stands after a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Lines so far.
    pub lines: u64,
    /// Digest of all of them.
    pub digest: u64,
}

/// Reads lines one by one.
pub struct Lines<R> {
    input: R,
    name: String,
    buffer: Vec<u8>,
    digest: Xxh3,
    number: u64,
    bytes: u64,
    cut: bool,
}

impl<R: BufRead> Lines<R> {
    /// Lines of `input`, called `name` in messages.
    pub fn new(input: R, name: String) -> Lines<R> {
        Lines {
            input,
            name,
            buffer: Vec::new(),
            digest: Xxh3::new(),
            number: 0,
            bytes: 0,
            cut: false,
        }
    }

    /// Goes to the next line; false at the end of the input.
    ///
    /// # Errors
    /// Exit 1 when the line is longer than [`LINE_LIMIT`], or the input cannot be read or begins as none of
    /// lines does.
    pub fn advance(&mut self) -> Outcome<bool> {
        self.buffer.clear();
        let mut bounded = (&mut self.input).take(LINE_LIMIT + 1);
        let read = bounded.read_until(b'\n', &mut self.buffer);
        self.number += 1;
        let read = read.map_err(|error| self.refuse(&format!("cannot be read: {error}")))?;
        if read == 0 {
            self.number -= 1;
            return Ok(false);
        }
        self.bytes += milepost_engine::width::to_u64(read);
        self.cut = self.buffer.last() != Some(&b'\n');
        if !self.cut {
            self.buffer.pop();
        } else if self.buffer.len() > milepost_engine::width::to_usize(LINE_LIMIT) {
            return Err(self.refuse(&format!(
                "is longer than {LINE_LIMIT} bytes; split the transaction"
            )));
        }
        if self.number == 1 {
            self.check_beginning()?;
        }
        self.digest.update(&self.buffer);
        self.digest.update(b"\n");
        Ok(true)
    }

    /// Takes a byte order mark away, and refuses what needs another program first.
    fn check_beginning(&mut self) -> Outcome {
        if self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.buffer.drain(..BYTE_ORDER_MARK.len());
        }
        let found = OTHER_FORMATS
            .iter()
            .find(|(magic, _, _)| self.buffer.starts_with(magic));
        match found {
            Some((_, format, command)) => Err(Failure::failed(format!(
                "{} is {format}: {command} FILE | milepost import … --input -",
                self.name
            ))),
            None => Ok(()),
        }
    }

    /// The line.
    ///
    /// # Errors
    /// Exit 1 when it is not UTF-8.
    pub fn text(&self) -> Outcome<&str> {
        std::str::from_utf8(&self.buffer).map_err(|error| self.refuse(&format!("is not UTF-8: {error}")))
    }

    /// True when the line has nothing but blanks.
    pub fn is_blank(&self) -> bool {
        self.buffer.iter().all(u8::is_ascii_whitespace)
    }

    /// True when the input ended before the line did, or never ends its last line.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// A failure that names input, line and reason.
    pub fn refuse(&self, reason: &str) -> Failure {
        Failure::failed(format!("{}, line {}: {reason}", self.name, self.number))
    }

    /// Where the input stands, the line included.
    pub fn mark(&self) -> Mark {
        Mark {
            lines: self.number,
            digest: self.digest.digest(),
        }
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the input is called.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_a_line_is_the_same_with_and_without_a_last_line_feed() {
        let marks = |text: &'static str| {
            let mut lines = Lines::new(text.as_bytes(), "x".into());
            let mut marks = Vec::new();
            while lines.advance().unwrap() {
                marks.push(lines.mark());
            }
            marks
        };
        assert_eq!(marks("a\n\nb"), marks("a\n\nb\n"));
        assert_eq!(marks("a\nb\nc")[..2], marks("a\nb")[..]);
        assert_ne!(marks("a\nb")[1], marks("ab\n\n")[1]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line_and_stays_in_others() {
        let mut lines = Lines::new(&b"\xef\xbb\xbfa\n\xef\xbb\xbfb"[..], "x".into());
        assert!(lines.advance().unwrap());
        let mut plain = Lines::new(&b"a\n"[..], "x".into());
        assert!(plain.advance().unwrap());
        assert_eq!((lines.text().unwrap(), lines.mark()), ("a", plain.mark()));
        assert!(!lines.is_cut() && lines.advance().unwrap() && lines.is_cut());
        assert_eq!(lines.text().unwrap(), "\u{feff}b");
    }

    #[test]
    fn a_line_beyond_the_limit_is_refused_before_more_of_it_is_read() {
        let mut lines = Lines::new(std::io::BufReader::new(std::io::repeat(b'x')), "endless".into());
        let failure = lines.advance().unwrap_err();
        assert!(
            failure.to_string().starts_with("endless, line 1: is longer than"),
            "{failure}"
        );
    }
}
