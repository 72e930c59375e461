//! [`KeyLine`]: a key as one line of text, on its way to the neighbour.
//!
//! ```text
//! milepost-key-1 hq bern <64 hexadecimal digits of the key> <8 of the CRC-32 of all before, without the space>
//! ```
//!
//! Guarantees: a typing error is told; so is a key that is for other sites. Refuses everything else. The text is zeroed
//! when it is dropped, and `Debug` shows sites and id.

use std::fmt;
use std::io::{self, Read};

use milepost_engine::width::to_u64;
use milepost_engine::{Error, ErrorKind, Result, SiteName};
use zeroize::Zeroizing;

use super::pair_key::PairKey;

const FORMAT: &str = "milepost-key-1";
/// Longest line that is read, in bytes.
const LONGEST: usize = 512;

/// A key and the two sites that it is for.
pub struct KeyLine {
    /// Who drew it, then the neighbour.
    pub sites: (SiteName, SiteName),
    /// The secret.
    pub key: PairKey,
}

impl KeyLine {
    /// The line, without its end.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let (one, other) = &self.sites;
        let mut text = Zeroizing::new(String::with_capacity(LONGEST));
        text.push_str(&format!("{FORMAT} {one} {other} "));
        self.key.bytes().iter().for_each(|byte| {
            for nibble in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(nibble.into(), 16));
            }
        });
        let check = crc32fast::hash(text.as_bytes());
        text.push_str(&format!(" {check:08x}"));
        text
    }

    /// Reads a line from a file or a pipe, and no more than a line can be long.
    ///
    /// # Errors
    /// `Invalid` as [`KeyLine::parse`]; `Internal` when it cannot be read.
    pub fn read(from: &mut dyn io::Read) -> Result<KeyLine> {
        // It never grows, so that no copy of a secret is left where it was.
        let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST + 1));
        let read = io::Read::take(from, to_u64(LONGEST + 1)).read_to_end(&mut bytes);
        read.map_err(|error| Error::new(ErrorKind::Internal, "cannot read the key").caused_by(error))?;
        KeyLine::parse(std::str::from_utf8(&bytes).unwrap_or_default())
    }

    /// Reads a line; what stands around it is left out.
    ///
    /// # Errors
    /// `Invalid` for anything else.
    pub fn parse(text: &str) -> Result<KeyLine> {
        let bad = |what: &str| {
            Error::invalid(format!(
                "this is no key: {what}; a key is one line that begins with {FORMAT:?}, as `milepost key add --to` writes it"
            ))
        };
        let text = text.trim_ascii();
        if text.len() > LONGEST {
            return Err(bad("it is too long"));
        }
        let mut words = text.split(' ');
        let mut word = || words.next().unwrap_or_default();
        let (format, one, other, hex, check) = (word(), word(), word(), word(), word());
        if format != FORMAT {
            return Err(bad("it begins otherwise"));
        }
        let covered = text.rsplit_once(' ').map_or("", |(covered, _)| covered);
        let told = u32::from_str_radix(check, 16).ok().filter(|_| check.len() == 8);
        if words.next().is_some() || told != Some(crc32fast::hash(covered.as_bytes())) {
            return Err(bad(
                "its check does not fit, so something of it was changed or left out",
            ));
        }
        let key = key_of(hex).ok_or_else(|| bad("its key has not 64 hexadecimal digits"))?;
        let sites = (one.parse()?, other.parse()?);
        let line = KeyLine { sites, key };
        // One key has one line.
        match *line.text() == text {
            true => Ok(line),
            false => Err(bad("it is written otherwise")),
        }
    }

    /// True when the key is for these two.
    #[must_use]
    pub fn is_for(&self, one: &SiteName, other: &SiteName) -> bool {
        let sites = (&self.sites.0, &self.sites.1);
        sites == (one, other) || sites == (other, one)
    }
}

fn key_of(hex: &str) -> Option<PairKey> {
    let (pairs, []) = hex.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let mut bytes = Zeroizing::new([0; 32]);
    if pairs.len() != bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? << 4 | low?).ok()?;
    }
    Some(PairKey::from_bytes(*bytes))
}

impl fmt::Debug for KeyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (one, other) = &self.sites;
        write!(f, "KeyLine({one}, {other}, {})", self.key.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> KeyLine {
        KeyLine {
            sites: ("hq".parse().unwrap(), "bern".parse().unwrap()),
            key: PairKey::from_bytes(std::array::from_fn(|at| at as u8 * 8)),
        }
    }

    #[test]
    fn a_line_is_read_as_it_was_written_and_shows_nothing_in_a_log() {
        let text = line().text();
        assert_eq!(
            *text,
            "milepost-key-1 hq bern 0008101820283038404850586068707880889098a0a8b0b8c0c8d0d8e0e8f0f8 6ff917d6"
        );
        let read = KeyLine::parse(&format!("  {}\r\n", *text)).unwrap();
        assert_eq!(
            (read.sites.clone(), read.key.bytes()),
            (line().sites, line().key.bytes())
        );
        assert_eq!(
            format!("{read:?}"),
            format!("KeyLine(hq, bern, {})", read.key.id())
        );
        let site = |name: &str| name.parse::<SiteName>().unwrap();
        assert!(read.is_for(&site("bern"), &site("hq")) && read.is_for(&site("hq"), &site("bern")));
        assert!(!read.is_for(&site("hq"), &site("thun")) && !read.is_for(&site("hq"), &site("hq")));
    }

    #[test]
    fn every_changed_character_and_every_cut_is_told_and_the_key_is_not() {
        let text = line().text();
        for at in 0..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = if changed[at] == b'7' { b'1' } else { b'7' };
            let error = KeyLine::parse(std::str::from_utf8(&changed).unwrap()).unwrap_err();
            assert!(!error.to_string().contains("2028"), "{error}");
            assert!(KeyLine::parse(&text[..at]).is_err());
        }
        for more in ["milepost-key-1", "", " x", &"x".repeat(LONGEST)] {
            assert!(KeyLine::parse(more).is_err());
            assert!(more.is_empty() || KeyLine::parse(&format!("{}{more}", *text)).is_err());
        }
    }
}
