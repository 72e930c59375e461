//! Names of streams and the patterns that select them.

use std::fmt;

use crate::{Error, Result};

/// Name of a stream: 1 to 4,096 bytes of UTF-8 without NUL. `/` separates segments, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(Box<str>);

impl StreamName {
    /// Longest name in bytes.
    pub const MAX_LEN: usize = 4096;

    /// Checks and takes a name.
    ///
    /// # Errors
    /// `Invalid` when the name is empty, too long or holds a NUL.
    pub fn new(name: impl Into<String>) -> Result<StreamName> {
        let name = name.into();
        StreamName::check(&name)?;
        Ok(StreamName(name.into_boxed_str()))
    }

    /// Checks a name without taking it.
    ///
    /// # Errors
    /// As [`StreamName::new`].
    #[inline]
    pub fn check(name: &str) -> Result<()> {
        // By eight: names are too short for what searches longer texts fast.
        let (words, rest) = name.as_bytes().as_chunks::<8>();
        let has_nul = words.iter().any(|word| has_zero(u64::from_le_bytes(*word))) || rest.contains(&0);
        if name.is_empty() || name.len() > Self::MAX_LEN || has_nul {
            return Err(refused(name));
        }
        Ok(())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The `number`-th segment, counted from 1.
    #[must_use]
    pub fn segment(name: &str, number: usize) -> Option<&str> {
        name.split('/').nth(number.checked_sub(1)?)
    }

    /// Hash by which block filters and indexes know a stream: XXH3-64, seed 0 (xxHash specification).
    #[must_use]
    #[inline]
    pub fn hash(name: &str) -> u64 {
        StreamName::hash_bytes(name.as_bytes())
    }

    /// The same for a name that is not known to be text yet.
    #[inline]
    pub(crate) fn hash_bytes(name: &[u8]) -> u64 {
        xxhash_rust::xxh3::xxh3_64(name)
    }
}

/// One of the eight bytes is 0 (Hacker's Delight, "Find First 0-Byte").
fn has_zero(word: u64) -> bool {
    word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080 != 0
}

#[cold]
fn refused(name: &str) -> Error {
    let shown: String = name.chars().take(80).collect();
    Error::invalid(format!(
        "stream name {shown:?} ({} bytes) is not 1 to {} bytes without NUL",
        name.len(),
        StreamName::MAX_LEN
    ))
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for StreamName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Selects streams by name: segments are matched one by one, `*` is any one segment and `**` any
/// number of them, none included. A star elsewhere is refused; all else is literal.
///
/// ```
/// use milepost_engine::StreamPattern;
/// let orders = StreamPattern::new("orders/*/lines/**")?;
/// assert!(orders.matches("orders/7/lines") && orders.matches("orders/7/lines/1/tax"));
/// assert!(!orders.matches("orders/lines"));
/// # Ok::<(), milepost_engine::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamPattern(Box<str>);

impl StreamPattern {
    /// Takes a pattern.
    ///
    /// # Errors
    /// `Invalid` under the rules of [`StreamName::new`].
    pub fn new(pattern: impl Into<String>) -> Result<StreamPattern> {
        let pattern = pattern.into();
        StreamName::check(&pattern)?;
        let part = pattern
            .split('/')
            .find(|segment| segment.contains('*') && !matches!(*segment, "*" | "**"));
        if let Some(part) = part {
            return Err(Error::invalid(format!(
                "segment {part:?} of the pattern {pattern:?}: a star stands for a whole segment (*) or for any \
                 number of them (**), not for a part of one"
            )));
        }
        Ok(StreamPattern(pattern.into_boxed_str()))
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True when the pattern selects `name`. Time is at most segments of the one times segments of
    /// the other (greedy matching that returns to the last `**` only).
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let (mut pattern, mut rest) = (Some(&*self.0), Some(name));
        let mut retry: Option<(Option<&str>, Option<&str>)> = None;
        while let Some(text) = rest {
            let (segment, after) = head(text);
            if let Some(left) = pattern {
                let (want, next) = head(left);
                if want == "**" {
                    retry = Some((next, rest));
                    pattern = next;
                    continue;
                }
                if want == "*" || want == segment {
                    (pattern, rest) = (next, after);
                    continue;
                }
            }
            let Some((next, Some(from))) = retry else {
                return false;
            };
            let skipped = head(from).1;
            retry = Some((next, skipped));
            (pattern, rest) = (next, skipped);
        }
        while let Some(left) = pattern {
            let (want, next) = head(left);
            if want != "**" {
                return false;
            }
            pattern = next;
        }
        true
    }
}

impl fmt::Display for StreamPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The first segment and what follows its slash, if one does.
fn head(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (text, None),
    }
}

/// A stream's version: number of an event in its stream at this site, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamVersion(pub u64);

impl fmt::Display for StreamVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a commit expects of a stream before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExpectedVersion {
    /// Nothing: a blind append.
    #[default]
    Any,
    /// The stream has no event.
    NoStream,
    /// The stream has at least one event.
    StreamExists,
    /// The stream's last event has this version.
    Exact(StreamVersion),
}

impl ExpectedVersion {
    /// True when a stream whose last event has version `last` (`None`: no event) meets it.
    #[must_use]
    pub fn is_met_by(self, last: Option<StreamVersion>) -> bool {
        match self {
            ExpectedVersion::Any => true,
            ExpectedVersion::NoStream => last.is_none(),
            ExpectedVersion::StreamExists => last.is_some(),
            ExpectedVersion::Exact(version) => last == Some(version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, by plain recursion over segments.
    fn model(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), None) => model(rest, name),
            (Some((&"**", rest)), Some((_, after))) => model(rest, name) || model(pattern, after),
            (Some((want, rest)), Some((segment, after))) => {
                (*want == "*" || want == segment) && model(rest, after)
            }
            _ => false,
        }
    }

    #[test]
    fn a_star_within_a_segment_is_refused_and_not_taken_literally() {
        for text in ["ord*", "orders/*7", "a/***/b", "**x"] {
            let error = StreamPattern::new(text).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{text}");
            assert!(error.to_string().contains("whole segment"), "{error}");
        }
        assert!(StreamPattern::new("*/a/**").is_ok());
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_its_definition_says(
            pattern in proptest::collection::vec(prop_oneof!["a", "b", Just("*".to_owned()), Just("**".to_owned())], 1..7),
            name in proptest::collection::vec("[ab]?", 1..8),
        ) {
            let (text, wanted) = (name.join("/"), pattern.join("/"));
            prop_assume!(!text.is_empty());
            let (p, n): (Vec<&str>, Vec<&str>) = (wanted.split('/').collect(), text.split('/').collect());
            prop_assert_eq!(StreamPattern::new(wanted.clone()).unwrap().matches(&text), model(&p, &n));
        }
    }
}
