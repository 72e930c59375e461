//! What every link must do, as a suite that any link can be put through, also from another crate's tests.
//!
//! ```text
//! check(make, options) ─► for each rule: a fresh medium ─► links of several sites over it ─► kept | skipped | broken
//! ```
//!
//! The rules are those of [`Link`] (docs/links.md explains them). Each has a name, says in one sentence what must
//! hold and, when it is broken, where to look. A rule that needs what a link does not have (a push) is told as
//! `SKIPPED`, never passed over in silence. A link that hangs, panics or gives an unexpected error breaks the rule
//! that found it, and the others still run.
//!
//! It refuses to measure: nothing here asserts how fast a link is, only that a call ends at all
//! ([`Options::patience`]).

mod report;
mod rules;
mod trial;

pub use report::{Finding, Found, Report};

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use milepost_engine::SiteName;

use super::{Link, LinkFuture, MAX_MESSAGE_BYTES};
use rules::RULES;
use trial::{Stop, Trial, Verdict};

/// What several sites share: a folder, a server, a bucket. The suite opens the links of its sites over it.
pub trait Medium: Send + Sync + 'static {
    /// The link of the site `own`, opened as a process of that site opens it. Asked again for the same site, it is
    /// another process.
    fn link<'a>(&'a self, own: &'a SiteName) -> LinkFuture<'a, Arc<dyn Link>>;

    /// Ends and begins again whatever is not durable in the medium (stop a server and start it on the same
    /// files). Called while no link is open. Nothing to do where links are all there is.
    fn restart(&self) -> LinkFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Leaves behind what a process of `from` leaves that was killed while it delivered to `to`; false when
    /// deliveries of this link leave nothing.
    fn leave_half_written(&self, from: &SiteName, to: &SiteName) -> bool {
        let _ = (from, to);
        false
    }

    /// How many such left-overs of `from` there are.
    fn half_written(&self, from: &SiteName) -> usize {
        let _ = from;
        0
    }
}

/// What a link has, and how long is waited for it.
#[derive(Clone, Debug)]
pub struct Options {
    /// After this a call counts as hanging. Long, default 60 s: it tells a hang, not a slow machine.
    pub patience: Duration,
    /// Largest message the link takes. One below [`MAX_MESSAGE_BYTES`], the default, must refuse what is larger with `Invalid`.
    pub largest: usize,
    /// The link tells a waiting site that something came. Without push, the default, that rule is skipped.
    pub push: bool,
    /// Names of the only rules to run; all when there are none.
    pub only: Vec<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            patience: Duration::from_secs(60),
            largest: MAX_MESSAGE_BYTES,
            push: false,
            only: Vec::new(),
        }
    }
}

/// One thing that every link must do.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What must hold.
    pub says: &'static str,
    /// Where the author of a link looks when it does not.
    pub look_at: &'static str,
    attempt: fn(Trial) -> trial::Attempt,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// All rules, in the order in which they run.
#[must_use]
pub fn rules() -> &'static [Rule] {
    RULES
}

/// Puts a link through every rule, each over a fresh medium of `make`. Must run on a tokio runtime of several
/// threads, so that a link that blocks its thread is told and not waited for.
pub async fn check<M, F>(make: impl Fn() -> F, options: &Options) -> Report
where
    M: Medium,
    F: Future<Output = M>,
{
    let mut findings = Vec::new();
    let chosen = |rule: &&Rule| options.only.is_empty() || options.only.iter().any(|name| name == rule.name);
    for rule in RULES.iter().filter(chosen) {
        let trial = Trial::new(Arc::new(make().await), options.clone());
        let found = found(rule, trial, options).await;
        if let Found::Skipped(reason) = &found {
            // Past the capture of test harnesses: what was not tried must not look tried. Nobody else is told if it fails.
            let _ = writeln!(std::io::stderr(), "SKIPPED: rule {}: {reason}", rule.name);
        }
        findings.push(Finding { rule: *rule, found });
    }
    Report::new(findings)
}

async fn found(rule: &Rule, trial: Trial, options: &Options) -> Found {
    // Several calls may each take their patience before the rule as a whole counts as hanging.
    let most = options.patience.saturating_mul(4);
    let mut attempt = tokio::spawn((rule.attempt)(trial));
    let verdict: Verdict = match tokio::time::timeout(most, &mut attempt).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(panicked)) => Err(Stop::Broken(format!("the link panicked: {panicked}"))),
        Err(_) => {
            attempt.abort();
            Err(Stop::Broken(
                "it hangs: the rule was given up after four times the patience".to_owned(),
            ))
        }
    };
    match verdict {
        Ok(()) => Found::Kept,
        Err(Stop::Skipped(reason)) => Found::Skipped(reason),
        Err(Stop::Broken(what)) => Found::Broken(what),
    }
}

#[cfg(test)]
mod tests;
