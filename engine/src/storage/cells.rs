//! Names of the words in the control page.
//!
//! ```text
//! offset  word               meaning
//! 0       Ready              last word written by who makes the page; readers of a page without it let go
//! 64      Appended           end of what was written to the log and published
//! 128     Durable            end of what is known to be on disk (S1)
//! 192     Scanned            every frame up to this LSN was seen by the scan phase
//! 256     Intent             where a write is under way, plus 1; 0 is none
//! 320     IntentLen          how many bytes it is about to write
//! 384     Poison             generation: even is healthy, odd is poisoned by a failed write or sync
//! 448     SyncBegun          end that a sync under way will make durable
//! 512     QueueAppended      end of what was written to the stable queue and published
//! 576     QueueDurable       end of the queue that is known to be on disk
//! 640     WakeDurable        counter, raised and woken when Durable moved
//! 704     WakeScanned        counter, raised and woken when Scanned or QueueAppended moved
//! 768     WakeAgents         counter, raised and woken when Durable or Scanned moved, for who waits for either or is asked to leave
//! 832     LastSyncMicros     how long the last sync took, in microseconds
//! 896     TailChain          chain at Appended; valid under the append lock without an intent
//! 960     TailSegment        first LSN of the segment that Appended lies in; likewise
//! 1024    TailEpoch          lineage epoch of the next block; likewise
//! 1088    AppendHolder       process that took the append lock last
//! 1152    AppendSince        when it did, microseconds since 1970
//! 1216    AppendWaiters      processes that wait for the append lock, or died waiting
//! 1280    WakeAppend         counter, raised and woken when the append lock is free
//! 1344    Boot               digest of the boot in which the page was made
//! 1408    Freed              where the log begins: a base that is durable holds what lay before
//! 1472    ScannedDurable     scan position whose entries are on disk, so that the log below may be freed
//! 1536    Reserve            first LSN of the active segment plus 1 while that is the reserve of a full log, else 0
//! 1600    Arranged           counter, raised before a form of a segment goes that has another by then
//! 1664    Filled             up to here the active segment was written before, be it with zeros; valid under the append lock
//! ```
//!
//! Each word has a cache line of its own, whose second word counts who sleeps until the first one moves. The page is 4,096 bytes; unused words are zero.

/// One word of the control page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the table above says what each is")]
#[repr(u16)]
pub enum Cell {
    Ready = 0,
    Appended = 64,
    Durable = 128,
    Scanned = 192,
    Intent = 256,
    IntentLen = 320,
    Poison = 384,
    SyncBegun = 448,
    QueueAppended = 512,
    QueueDurable = 576,
    WakeDurable = 640,
    WakeScanned = 704,
    WakeAgents = 768,
    LastSyncMicros = 832,
    TailChain = 896,
    TailSegment = 960,
    TailEpoch = 1024,
    AppendHolder = 1088,
    AppendSince = 1152,
    AppendWaiters = 1216,
    WakeAppend = 1280,
    Boot = 1344,
    Freed = 1408,
    ScannedDurable = 1472,
    Reserve = 1536,
    Arranged = 1600,
    Filled = 1664,
}

impl Cell {
    /// Offset of the word in the page, in bytes.
    #[must_use]
    #[expect(clippy::as_conversions, reason = "the discriminant is the offset")]
    pub const fn offset(self) -> usize {
        self as u16 as usize
    }

    /// Size of the page in bytes.
    pub const PAGE: usize = 4096;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_where_they_are_and_the_table_names_each() {
        // Processes of two programs may share a page: a word that moved would be another one for one of them. A new
        // word is a line more, added to the kept file by hand; no line ever changes.
        let source = include_str!("cells.rs");
        let row = |line: &str| {
            let mut words = line.strip_prefix("//! ")?.split_whitespace();
            let offset: usize = words.next()?.parse().ok()?;
            Some(format!("{offset} {}\n", words.next()?))
        };
        let word = |line: &str| {
            let (name, offset) = line.trim().strip_suffix(',')?.split_once(" = ")?;
            let offset: usize = offset.parse().ok()?;
            Some(format!("{offset} {name}\n"))
        };
        let code = source.split("mod tests").next().unwrap();
        let words: String = code.lines().filter_map(word).collect();
        assert_eq!(code.lines().filter_map(row).collect::<String>(), words);
        let kept = crate::golden::kept("control", words.as_bytes());
        assert_eq!(String::from_utf8(kept).unwrap(), words);
        for (number, line) in words.lines().enumerate() {
            let offset: usize = line.split_once(' ').unwrap().0.parse().unwrap();
            assert_eq!(offset, 64 * number, "a cache line each, without a gap: {line}");
            assert!(offset + 64 <= Cell::PAGE, "{line}");
        }
        assert_eq!((Cell::Ready.offset(), Cell::Filled.offset()), (0, 1_664));
    }
}
