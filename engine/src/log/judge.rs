//! Judging expectations: what a commit demands of a stream, against the log up to its very end.
//!
//! The index that knows versions belongs to the store; the log sees it as a [`Judge`].

use std::collections::HashMap;

use crate::{Lsn, Result, StreamName, StreamVersion, WrongExpectedVersion};

use super::append::Request;

/// Most bytes of new log that are indexed under the append lock: 1 MiB.
pub(crate) const MOST_UNDER_LOCK: u64 = 1 << 20;

/// Knows the version of every stream up to some position.
pub(crate) trait Judge {
    /// Bytes between what is known and `end`.
    fn lag(&self, end: Lsn) -> u64;
    /// Learns what lies below `end`, durable or not.
    fn catch_up(&self, end: Lsn) -> Result<()>;
    /// Version of the stream's last event.
    fn version_of(&self, stream: &str) -> Result<Option<StreamVersion>>;
    /// The log is at its limit: frees what may go. `None` when something went, else why not, for the operator.
    fn make_room(&self) -> Option<String>;
}

/// What is decided on a request before it is written.
pub(crate) enum Verdict {
    /// It goes ahead; versions after it of the streams it named.
    Accepted(Vec<(StreamName, StreamVersion)>),
    /// It does not.
    Wrong(WrongExpectedVersion),
}

impl Verdict {
    /// For a request without expectations in a batch without any.
    pub(crate) fn blind() -> Verdict {
        Verdict::Accepted(Vec::new())
    }
}

/// Judges the requests of a batch one after another, each seeing those accepted before it.
pub(crate) fn judge_all(requests: &[Request], judge: &dyn Judge) -> Result<Vec<Verdict>> {
    let mut added: HashMap<String, u64> = HashMap::new();
    requests
        .iter()
        .map(|request| judge_one(request, judge, &mut added))
        .collect()
}

fn judge_one(request: &Request, judge: &dyn Judge, added: &mut HashMap<String, u64>) -> Result<Verdict> {
    let current = |stream: &str, added: &HashMap<String, u64>| -> Result<Option<StreamVersion>> {
        let more = added.get(stream).copied().unwrap_or(0);
        let count = judge.version_of(stream)?.map_or(0, |version| version.0 + 1) + more;
        Ok(count.checked_sub(1).map(StreamVersion))
    };
    for (stream, expected) in &request.expectations {
        let actual = current(stream.as_str(), added)?;
        if !expected.is_met_by(actual) {
            let (stream, expected) = (stream.clone(), *expected);
            return Ok(Verdict::Wrong(WrongExpectedVersion {
                stream,
                expected,
                actual,
            }));
        }
    }
    for frame in &request.frames {
        for event in frame.events() {
            *added.entry(event?.stream()?.to_owned()).or_default() += 1;
        }
    }
    let named = request.expectations.iter();
    let versions = named.filter_map(|(stream, _)| {
        let version = current(stream.as_str(), added).transpose()?;
        Some(version.map(|version| (stream.clone(), version)))
    });
    Ok(Verdict::Accepted(versions.collect::<Result<_>>()?))
}
