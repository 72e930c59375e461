//! How an import knows where it stopped: a pinned record in the frame of each line's transaction.
//!
//! ```text
//! key    cli/import/ + digest of the first line, 16 hexadecimal digits
//! value  0 version 1 | lines 8 | digest of all lines so far 8 | name of the input
//! ```
//!
//! Record and events are one frame, so they cannot part (E1): whatever a crash keeps, the last record
//! in the log counts exactly the lines whose events are in the log. The digest refuses an input whose
//! first lines are not those that were imported.

use milepost_engine::{Pinned, Store};

use super::lines::{Lines, Mark};
use crate::failure::{Failure, Outcome};

const PREFIX: &[u8] = b"cli/import/";
const VERSION: u8 = 1;

/// Key of an input, known once its first line was read.
pub struct InputKey(Vec<u8>);

impl InputKey {
    /// The key of the input whose first line ends at `first`.
    pub fn new(first: Mark) -> InputKey {
        let mut key = PREFIX.to_vec();
        key.extend_from_slice(format!("{:016x}", first.digest).as_bytes());
        InputKey(key)
    }

    /// The record for a transaction that ends at `mark`.
    pub fn record(&self, mark: Mark, name: &str) -> Pinned {
        let mut value = vec![VERSION];
        value.extend_from_slice(&mark.lines.to_le_bytes());
        value.extend_from_slice(&mark.digest.to_le_bytes());
        value.extend_from_slice(name.as_bytes());
        Pinned {
            key: self.0.clone(),
            value: Some(value),
        }
    }

    /// Where the import of this input stopped in `store`; `None` when nothing was imported at all.
    ///
    /// # Errors
    /// Exit 1 when other inputs were imported and this one was not: resuming would double or miss.
    pub fn stopped_at<R: std::io::BufRead>(&self, store: &Store, input: &Lines<R>) -> Outcome<Option<Mark>> {
        // An import killed between its write and its sync left lines that are not durable yet and will be.
        store.sync()?;
        if let Some((value, lsn)) = store.pinned(&self.0)? {
            let mark = read(&value).ok_or_else(|| {
                Failure::failed(format!(
                    "the import record at LSN {lsn} was written by a newer milepost; use that"
                ))
            })?;
            return Ok(Some(mark));
        }
        match store.pinned_with_prefix(PREFIX)?.last() {
            None if store.receipts(None)?.is_doubted() => Err(Failure::failed(format!(
                "where an import into {} stopped may have been lost with a damaged base: compare the end of {} with \
                 `milepost export`, and import the lines that are missing without --resume",
                store.root().display(),
                input.name(),
            ))),
            None => Ok(None),
            Some((_, value, _)) => Err(Failure::failed(format!(
                "{} is not an input whose import into {} was begun (that was {}); leave --resume away to import it",
                input.name(),
                store.root().display(),
                String::from_utf8_lossy(value.get(17..).unwrap_or_default()),
            ))),
        }
    }
}

fn read(value: &[u8]) -> Option<Mark> {
    let ([version], rest) = value.split_first_chunk::<1>()?;
    let (lines, rest) = rest.split_first_chunk::<8>()?;
    let (digest, _) = rest.split_first_chunk::<8>()?;
    let mark = Mark {
        lines: u64::from_le_bytes(*lines),
        digest: u64::from_le_bytes(*digest),
    };
    (*version == VERSION).then_some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_one_of_a_newer_version_does_not() {
        let mark = Mark {
            lines: 7,
            digest: 0xfeed,
        };
        let record = InputKey::new(mark).record(mark, "history.ndjson");
        let mut value = record.value.unwrap();
        assert_eq!(read(&value), Some(mark));
        assert_eq!(&value[17..], b"history.ndjson");
        value[0] = 2;
        assert_eq!(read(&value), None);
    }
}
