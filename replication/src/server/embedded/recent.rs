//! [`Recent`]: the newest messages in memory, so that one that is fetched soon after it came is not
//! read back from the log. A cache: what it lacks is read from the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use milepost_engine::Lsn;

/// Messages by LSN, up to a limit of bytes.
pub(crate) struct Recent {
    messages: BTreeMap<Lsn, Arc<[u8]>>,
    bytes: usize,
    max_bytes: usize,
}

impl Recent {
    /// An empty cache of at most `max_bytes`.
    pub(crate) fn new(max_bytes: usize) -> Recent {
        Recent {
            messages: BTreeMap::new(),
            bytes: 0,
            max_bytes,
        }
    }

    /// Keeps a message, at the cost of older ones.
    pub(crate) fn insert(&mut self, lsn: Lsn, message: &[u8]) {
        if message.len() > self.max_bytes {
            return;
        }
        self.bytes += message.len();
        if let Some(former) = self.messages.insert(lsn, Arc::from(message)) {
            self.bytes -= former.len();
        }
        while self.bytes > self.max_bytes {
            let Some((_, oldest)) = self.messages.pop_first() else {
                break;
            };
            self.bytes -= oldest.len();
        }
    }

    /// The message at an LSN.
    pub(crate) fn get(&self, lsn: Lsn) -> Option<Arc<[u8]>> {
        self.messages.get(&lsn).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_messages_stay_within_the_limit() {
        let mut recent = Recent::new(25);
        for lsn in 1..=5 {
            recent.insert(Lsn(lsn), &[0; 10]);
        }
        recent.insert(Lsn(9), &[0; 26]);
        recent.insert(Lsn(5), &[1; 12]);
        let kept: Vec<u64> = (1..=9).filter(|lsn| recent.get(Lsn(*lsn)).is_some()).collect();
        assert_eq!(kept, [4, 5]);
        assert_eq!(recent.bytes, 22);
        assert_eq!(recent.get(Lsn(5)).unwrap()[0], 1);
    }
}
