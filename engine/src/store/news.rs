//! [`News`]: waiting for whatever moves, the durable end or the scan position, without looking again and again.

use std::time::Duration;

use super::Store;
use crate::storage::Cell;

/// How often something had moved: see [`Store::news`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News(u64);

impl Store {
    /// What has moved so far, in all processes. Taken before a look at the store, it makes sure that nothing is missed that moves
    /// during the look.
    ///
    /// ```
    /// use std::time::Duration;
    /// use milepost_engine::{Options, Transaction};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().init(dir.path().join("s"), "bern".parse()?)?;
    /// let news = store.news();
    /// let before = store.watermarks().durable;                        // the look
    /// assert!(!store.wait_for_news(news, Duration::from_millis(1)));  // nothing moved since
    ///
    /// let mut sale = Transaction::new();
    /// sale.push_parts("till-3", "sold", b"17")?;
    /// store.commit(sale)?.committed()?;
    /// assert!(store.wait_for_news(news, Duration::from_secs(60)));    // at once
    /// assert!(store.watermarks().durable > before);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn news(&self) -> News {
        News(self.log().control.cells().load(Cell::WakeAgents))
    }

    /// Waits until something moved since `seen` was taken, [`Store::stir`] was called, or `limit` has passed; false when only
    /// time did. What moves ends the wait at once, but for what a process moved that was killed in the nanoseconds before it told:
    /// that shows with the next thing that moves, or after `limit`. A store that failed (`Closed`) moves once more.
    #[must_use]
    pub fn wait_for_news(&self, seen: News, limit: Duration) -> bool {
        let (cells, clock) = (self.log().control.cells(), self.clock());
        let started = clock.monotonic();
        while self.news() == seen {
            let waited = clock.monotonic().saturating_sub(started);
            let Some(left) = limit.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return false;
            };
            cells.wait(Cell::WakeAgents, seen.0, left);
        }
        true
    }

    /// Ends the waits for news of all threads and processes: for who asks its own to leave.
    pub fn stir(&self) {
        self.log().control.bump(Cell::WakeAgents);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{Durability, Options, Transaction};

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_commit_that_is_durable_a_scan_position_and_who_stirs_end_a_wait_and_what_is_only_written_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Options::new()
            .init(dir.path().join("s"), "bern".parse().unwrap())
            .unwrap();
        let other = Options::new().open(dir.path().join("s")).unwrap();
        let commit = |durability| {
            let mut transaction = Transaction::new();
            transaction.push_parts("a", "b", b"c").unwrap();
            drop(store.commit_with(transaction, durability).unwrap());
        };
        let news = other.news();
        commit(Durability::Buffered);
        assert!(!other.wait_for_news(news, Duration::from_millis(1)));
        let ends_a_wait = |act: &dyn Fn()| {
            let news = other.news();
            std::thread::scope(|scope| {
                let waits = scope.spawn(|| other.wait_for_news(news, LONG));
                act();
                assert!(waits.join().unwrap());
            });
        };
        ends_a_wait(&|| commit(Durability::Synced));
        ends_a_wait(&|| store.log().control.publish_scanned(store.watermarks().durable));
        ends_a_wait(&|| store.stir());
    }
}
