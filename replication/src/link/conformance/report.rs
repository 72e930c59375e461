//! [`Report`]: what became of each rule, for the author of a link.

use std::fmt;

use super::Rule;

/// What became of one rule.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// What became of it.
    pub found: Found,
}

/// What may become of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It held.
    Kept,
    /// It could not be tried, for this reason.
    Skipped(String),
    /// It did not hold; this is what was seen.
    Broken(String),
}

/// What became of all rules.
#[derive(Clone, Debug)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(findings: Vec<Finding>) -> Report {
        Report { findings }
    }

    /// Every rule that was chosen, in order.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Names of the broken rules.
    #[must_use]
    pub fn broken(&self) -> Vec<&'static str> {
        self.names(|found| matches!(found, Found::Broken(_)))
    }

    /// Names of the rules that could not be tried.
    #[must_use]
    pub fn skipped(&self) -> Vec<&'static str> {
        self.names(|found| matches!(found, Found::Skipped(_)))
    }

    /// The report of a link that broke no rule; one that ran no rule conforms to nothing.
    ///
    /// # Errors
    /// The report, as text, when a rule was broken or none was tried.
    pub fn conforming(self) -> Result<Report, String> {
        if self.broken().is_empty() && self.findings.iter().any(|one| one.found == Found::Kept) {
            Ok(self)
        } else {
            Err(self.to_string())
        }
    }

    fn names(&self, is_meant: impl Fn(&Found) -> bool) -> Vec<&'static str> {
        let meant = self.findings.iter().filter(|one| is_meant(&one.found));
        meant.map(|one| one.rule.name).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { rule, found } in &self.findings {
            match found {
                Found::Kept => writeln!(f, "kept     {}: {}", rule.name, rule.says)?,
                Found::Skipped(reason) => {
                    writeln!(f, "SKIPPED  {}: {} ({reason})", rule.name, rule.says)?;
                }
                Found::Broken(what) => {
                    writeln!(f, "BROKEN   {}: {}", rule.name, rule.says)?;
                    writeln!(f, "         seen: {what}")?;
                    writeln!(f, "         look at: {}", rule.look_at)?;
                }
            }
        }
        let (all, broken, skipped) = (self.findings.len(), self.broken().len(), self.skipped().len());
        let kept = all.saturating_sub(broken + skipped);
        write!(f, "{all} rules: {kept} kept, {skipped} skipped, {broken} broken")
    }
}
