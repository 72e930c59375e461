//! [`LockedPairs`]: pairs whose keys cannot be used, as an agent that stays tells of them; and how they end a run.
//!
//! Guarantees: each is told once, again when its reason changes or an hour has passed, and once more when it is over. A run
//! that receives or sends ends with 6 while a key file is damaged, and with 5 while a pair has no key that it can use and should have
//! one, whatever else it did: all other pairs were served.

use std::collections::BTreeMap;
use std::time::Duration;

use milepost_engine::{Result, SiteName, Store};

use crate::catalog::Catalog;
use crate::keys::keys_of;

use super::{Exit, ExitCode};

/// After this time the same is told again.
const TOLD_FOR: Duration = Duration::from_secs(3600);

/// See the module.
#[derive(Default)]
pub(super) struct LockedPairs(BTreeMap<SiteName, Told>);

struct Told {
    reason: String,
    at: Duration,
}

impl LockedPairs {
    /// Looks at all pairs, and tells what is news.
    ///
    /// # Errors
    /// Those of the log.
    pub(super) fn look(&mut self, store: &Store) -> Result<()> {
        let now = store.clock().monotonic();
        let mut locked = BTreeMap::new();
        for remote in Catalog::load(store)?.remotes() {
            if let Some(reason) = keys_of(store, &remote.site)?.locked() {
                locked.insert(remote.site.clone(), reason.to_owned());
            }
        }
        for (site, reason) in self.news(locked, now) {
            match reason {
                Some(reason) => tracing::error!(%site, "{reason}"),
                None => tracing::info!(%site, "its key can be used again"),
            }
        }
        Ok(())
    }

    /// What is to be told of pairs that are locked now; no reason for one that is no more.
    fn news(&mut self, locked: BTreeMap<SiteName, String>, now: Duration) -> Vec<(SiteName, Option<String>)> {
        let over = self.0.keys().filter(|site| !locked.contains_key(*site));
        let mut news: Vec<_> = over.map(|site| (site.clone(), None)).collect();
        self.0.retain(|site, _| locked.contains_key(site));
        for (site, reason) in locked {
            let known = self
                .0
                .get(&site)
                .is_some_and(|told| told.reason == reason && now.saturating_sub(told.at) < TOLD_FOR);
            if !known {
                news.push((site.clone(), Some(reason.clone())));
                self.0.insert(site, Told { reason, at: now });
            }
        }
        news
    }

    /// True for one that was locked at the last look: that nothing goes to it was told.
    pub(super) fn has(&self, site: &SiteName) -> bool {
        self.0.contains_key(site)
    }
}

/// A pair whose keys cannot be used, why and what to do, and how that ends a run.
pub(super) type Unusable = (SiteName, String, ExitCode);

/// All of them.
///
/// # Errors
/// Those of the log.
pub(super) fn unusable_keys(store: &Store) -> Result<Vec<Unusable>> {
    let mut unusable = Vec::new();
    for remote in Catalog::load(store)?.remotes() {
        let keys = keys_of(store, &remote.site)?;
        let code = match keys.damaged() {
            Some(_) => ExitCode::Damaged,
            // No file is damaged: its messages wait for an operator.
            None => ExitCode::Quarantined,
        };
        if let Some(reason) = keys.locked() {
            unusable.push((remote.site.clone(), reason.to_owned(), code));
        }
    }
    Ok(unusable)
}

/// How they end a run.
pub(super) fn exit_of_keys(unusable: &[Unusable]) -> Exit {
    let exits = unusable
        .iter()
        .map(|(_, reason, code)| Exit::because(*code, reason.as_str()));
    exits.fold(Exit::DONE, Exit::and)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_pair_is_told_once_then_after_an_hour_or_when_it_changes_and_when_it_is_over() {
        let mut pairs = LockedPairs::default();
        let site: SiteName = "bern".parse().unwrap();
        let mut look = |reason: Option<&str>, seconds: u64| {
            let locked = reason.map(|reason| (site.clone(), reason.to_owned()));
            let news = pairs.news(locked.into_iter().collect(), Duration::from_secs(seconds));
            news.into_iter().map(|(_, reason)| reason).collect::<Vec<_>>()
        };
        let told = |reason: &str| vec![Some(reason.to_owned())];
        assert_eq!(look(Some("damaged"), 10), told("damaged"));
        assert_eq!(look(Some("damaged"), 11), []);
        assert_eq!(look(Some("damaged"), 3609), []);
        assert_eq!(look(Some("damaged"), 3610), told("damaged"));
        assert_eq!(look(Some("damaged"), 3611), []);
        assert_eq!(look(Some("gone"), 3612), told("gone"));
        assert_eq!(look(None, 3613), [None]);
        assert_eq!(look(None, 3614), []);
        assert_eq!(look(Some("gone"), 3615), told("gone"));
    }
}
