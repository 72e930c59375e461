//! The forms in which a segment may lie in the folder of its log, and their names.
//!
//! ```text
//! log/0000000003ff9c40.log   raw: as its blocks were written
//! log/0000000003ff9c40.mpz   packed: compressed (log/packed)
//! log/0000000003ff9c40.away  away: in the archive, of which this is the stub (log/away)
//! queue/0000000000000000.mpq the queue's segments are raw
//! ```
//!
//! Names are printed and parsed here and nowhere else; what is no name of a segment is none.

use crate::Lsn;
use crate::block::BlockKind;

/// The form in which a segment lies in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// As its blocks were written.
    Raw,
    /// Sealed and compressed.
    Packed,
    /// In the archive; a stub says so.
    Away,
}

/// Ending of a compressed segment of the log.
const PACKED: &str = ".mpz";
/// Ending of the stub of one that lies in the archive.
const AWAY: &str = ".away";

/// Folder and ending of a log's files.
pub(super) const fn place(kind: BlockKind) -> (&'static str, &'static str) {
    match kind {
        BlockKind::Log => ("log", ".log"),
        BlockKind::Queue => ("queue", ".mpq"),
    }
}

/// Name of the file that begins at `first`, with its folder: the one place that prints it.
pub(crate) fn segment_name(kind: BlockKind, first: Lsn) -> String {
    let (folder, ending) = place(kind);
    format!("{folder}/{:016x}{ending}", first.0)
}

/// Name of the compressed segment of the log that begins at `first`, with its folder.
pub(crate) fn packed_name(first: Lsn) -> String {
    let (folder, _) = place(BlockKind::Log);
    format!("{folder}/{:016x}{PACKED}", first.0)
}

/// Name of the stub of the segment that begins at `first`, with its folder.
pub(crate) fn away_name(first: Lsn) -> String {
    let (folder, _) = place(BlockKind::Log);
    format!("{folder}/{:016x}{AWAY}", first.0)
}

/// First LSN and form of the segment called `name` within its folder: the one place that parses it.
pub(crate) fn parse_segment_name(kind: BlockKind, name: &str) -> Option<(Lsn, Form)> {
    let forms = [
        (place(kind).1, Form::Raw),
        (PACKED, Form::Packed),
        (AWAY, Form::Away),
    ];
    let of_kind = if kind == BlockKind::Log { forms.len() } else { 1 };
    let named = |(ending, form): &(&str, Form)| Some((first_lsn(name.strip_suffix(*ending)?)?, *form));
    forms.iter().take(of_kind).find_map(named)
}

fn first_lsn(digits: &str) -> Option<Lsn> {
    let plain = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    plain
        .then(|| u64::from_str_radix(digits, 16).ok().map(Lsn))
        .flatten()
}
