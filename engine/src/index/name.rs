//! Names of sidecar files: `log/<16 hex digits of the segment's first LSN>.idx`, and the temporary
//! name under which one is written before it is moved into place; and of bases, `log/base-<16 hex digits>`. Printed
//! and parsed only here.

use crate::Lsn;

/// Folder of segments and sidecars.
pub(super) const FOLDER: &str = "log";

const SUFFIX: &str = ".idx";
const TEMPORARY: &str = ".idx.tmp-";
const BASE: &str = "base-";
const DIGITS: usize = 16;

/// Path of the base of a log that begins at `end`.
pub(super) fn base(end: Lsn) -> String {
    format!("{FOLDER}/{BASE}{:016x}", end.0)
}

/// Where the log begins whose base a file of the folder is, if it is one.
#[must_use]
pub fn base_end(file: &str) -> Option<Lsn> {
    hex(file.strip_prefix(BASE)?).map(Lsn)
}

/// Path of the sidecar of the segment that begins at `first`.
pub(super) fn sidecar(first: Lsn) -> String {
    format!("{FOLDER}/{:016x}{SUFFIX}", first.0)
}

/// Path under which that sidecar is written; `word` keeps processes apart.
pub(super) fn temporary(first: Lsn, word: u64) -> String {
    format!("{FOLDER}/{:016x}{TEMPORARY}{word:016x}", first.0)
}

/// The segment whose sidecar a file of the folder is, if it is one.
#[must_use]
pub fn sidecar_segment(file: &str) -> Option<Lsn> {
    hex(file.strip_suffix(SUFFIX)?).map(Lsn)
}

/// True when a file of the folder is a sidecar that was not finished.
#[must_use]
pub fn is_unfinished_sidecar(file: &str) -> bool {
    file.split_once(TEMPORARY)
        .is_some_and(|(first, word)| hex(first).is_some() && hex(word).is_some())
}

fn hex(text: &str) -> Option<u64> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let fits = text.len() == DIGITS && text.bytes().all(lower);
    fits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_parsed_as_it_was_printed_and_no_other() {
        let first = Lsn(0x00ab_cdef);
        let file = sidecar(first);
        assert_eq!(sidecar_segment(file.strip_prefix("log/").unwrap()), Some(first));
        let unfinished = temporary(first, 7);
        assert!(is_unfinished_sidecar(unfinished.strip_prefix("log/").unwrap()));
        assert_eq!(sidecar_segment(unfinished.strip_prefix("log/").unwrap()), None);
        assert_eq!(base_end(base(first).strip_prefix("log/").unwrap()), Some(first));
        for other in [
            "",
            ".idx",
            "1.idx",
            "0000000000abcdeF.idx",
            "+000000000abcdef.idx",
            "0000000000abcdef.seg",
        ] {
            assert_eq!(sidecar_segment(other), None, "{other}");
            assert!(!is_unfinished_sidecar(other), "{other}");
            assert_eq!(base_end(other), None, "{other}");
        }
    }
}
