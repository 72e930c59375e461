//! Standard output: one object a line for programs, text for people.
//!
//! A reader that goes away (`milepost export … | head`) ends the command quietly with exit 0; every
//! other failed write is told.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use crate::failure::{Exit, Failure, Outcome};

/// Buffered standard output. Call [`Out::flush`] before waiting and at the end.
pub struct Out {
    to: BufWriter<StdoutLock<'static>>,
}

impl Out {
    /// Takes standard output.
    pub fn new() -> Out {
        Out {
            to: BufWriter::with_capacity(64 << 10, io::stdout().lock()),
        }
    }

    /// Writes one value as one line of compact JSON.
    pub fn json(&mut self, value: &impl Serialize) -> Outcome {
        serde_json::to_writer(&mut self.to, value).map_err(|error| failed(error.into()))?;
        self.to.write_all(b"\n").map_err(failed)
    }

    /// Writes one line of text.
    pub fn line(&mut self, text: fmt::Arguments<'_>) -> Outcome {
        writeln!(self.to, "{text}").map_err(failed)
    }

    /// Hands everything written so far to the reader.
    pub fn flush(&mut self) -> Outcome {
        self.to.flush().map_err(failed)
    }
}

/// A name as people may see it: characters that steer a terminal, break a line or turn the direction of
/// writing are written out.
pub fn shown(name: &str) -> Cow<'_, str> {
    written_out(name, is_hidden)
}

/// As [`shown`] for a text of several lines.
pub fn shown_lines(text: &str) -> Cow<'_, str> {
    written_out(text, |letter| letter != '\n' && is_hidden(letter))
}

/// Control characters, and those of Unicode that order or hide what stands beside them.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn written_out(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return text.into();
    }
    let plain = |letter: char| {
        if hidden(letter) {
            letter.escape_default().to_string()
        } else {
            letter.to_string()
        }
    };
    text.chars().map(plain).collect::<String>().into()
}

/// Prints one fact in the form asked for.
pub fn tell(json: bool, value: &impl Serialize, text: fmt::Arguments<'_>) -> Outcome {
    let mut out = Out::new();
    if json {
        out.json(value)?
    } else {
        out.line(text)?
    }
    out.flush()
}

/// Prints bytes as they are.
///
/// # Errors
/// Exit 1 when standard output cannot be written.
pub fn bytes(bytes: &[u8]) -> Outcome {
    let mut out = Out::new();
    out.to.write_all(bytes).map_err(failed)?;
    out.flush()
}

/// Prints facts one a line in the form asked for; how many there were.
pub fn list<'a, T: Serialize + 'a>(
    json: bool,
    facts: impl Iterator<Item = &'a T>,
    text: impl Fn(&T) -> String,
) -> Outcome<usize> {
    let (mut out, mut count) = (Out::new(), 0);
    for fact in facts {
        count += 1;
        if json {
            out.json(fact)?
        } else {
            out.line(format_args!("{}", text(fact)))?
        }
    }
    out.flush()?;
    Ok(count)
}

fn failed(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::new(Exit::Quiet, String::new());
    }
    Failure::failed(format!("cannot write to standard output: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_or_turns_the_writing_is_written_out_and_nothing_else() {
        assert_eq!(shown("Zürich 东京 👩‍🚀"), "Zürich 东京 👩‍🚀");
        assert_eq!(shown("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(shown("a\u{202e}b\n"), "a\\u{202e}b\\n");
        assert_eq!(shown_lines("a\nb\r\u{2066}"), "a\nb\\r\\u{2066}");
    }
}
