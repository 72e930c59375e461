//! Who a store is: its [`StoreId`] (random, for ever) and its [`SiteName`] (chosen by people).

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};

use crate::{Error, Result};

/// Identity of a store, drawn at random when it is made and never changed. Also called the site id
/// where it travels to other sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct StoreId(pub u128);

impl StoreId {
    /// The id as two 64-bit words, high then low.
    #[must_use]
    pub const fn words(self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.0.to_be_bytes();
        [
            u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            u64::from_be_bytes([i, j, k, l, m, n, o, p]),
        ]
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Name of a site: 1 to 64 characters of `a-z 0-9 . _ -`, no leading dot, so that it is a safe file
/// name on every link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteName(Box<str>);

impl SiteName {
    /// Longest name in bytes.
    pub const MAX_LEN: usize = 64;

    /// Checks and takes a name.
    ///
    /// # Errors
    /// `Invalid` when the name breaks the rule above.
    pub fn new(name: impl Into<String>) -> Result<SiteName> {
        let name = name.into();
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let fits = (1..=Self::MAX_LEN).contains(&name.len()) && !name.starts_with('.');
        if fits && name.bytes().all(allowed) {
            Ok(SiteName(name.into_boxed_str()))
        } else {
            Err(Error::invalid(format!(
                "site name {name:?} is not 1 to 64 characters of a-z 0-9 . _ - without a leading dot"
            )))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SiteName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        SiteName::new(text)
    }
}

impl AsRef<str> for SiteName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
