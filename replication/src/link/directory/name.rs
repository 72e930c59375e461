//! Names of files in a directory link, parsed and printed here and nowhere else.
//!
//! ```text
//! <from>-<16 hex>.mp        a whole message from site <from>
//! .<from>-<16 hex>.tmp      being written by site <from>; the leading dot is in no site's name
//! ```
//!
//! The hex digits are random and lower case; the order of names means nothing. Every other name is
//! somebody else's file: never read, never removed. A name that parses holds no path, because a site
//! name does not.

use milepost_engine::SiteName;

const WHOLE: &str = ".mp";
const TEMPORARY: &str = ".tmp";
const HEX_LEN: usize = 16;

/// A parsed name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileName {
    /// The site that wrote the file.
    pub(super) from: SiteName,
    /// The random number that makes the name its own.
    pub(super) random: u64,
}

impl FileName {
    /// The name of the whole message.
    pub(super) fn whole(&self) -> String {
        format!("{}-{:016x}{WHOLE}", self.from, self.random)
    }

    /// The name while it is being written.
    pub(super) fn temporary(&self) -> String {
        format!(".{}-{:016x}{TEMPORARY}", self.from, self.random)
    }

    /// Reads the name of a whole message.
    pub(super) fn parse_whole(name: &str) -> Option<FileName> {
        FileName::parse(name.strip_suffix(WHOLE)?)
    }

    /// Reads the name of a file that is being written.
    pub(super) fn parse_temporary(name: &str) -> Option<FileName> {
        FileName::parse(name.strip_prefix('.')?.strip_suffix(TEMPORARY)?)
    }

    fn parse(stem: &str) -> Option<FileName> {
        // From the end: a site's own name may hold hyphens and hex digits too.
        let (from, hex) = stem.rsplit_once('-')?;
        let digits = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if hex.len() != HEX_LEN || !hex.bytes().all(digits) {
            return None;
        }
        Some(FileName {
            from: SiteName::new(from).ok()?,
            random: u64::from_str_radix(hex, 16).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_it_was_printed_and_whole_is_never_taken_for_temporary() {
        for from in ["a", "shop-1", "a-0123456789abcdef", "x.mp", "x.tmp"] {
            let name = FileName {
                from: SiteName::new(from).unwrap(),
                random: 0xabc,
            };
            assert_eq!(FileName::parse_whole(&name.whole()), Some(name.clone()));
            assert_eq!(FileName::parse_temporary(&name.temporary()), Some(name.clone()));
            assert_eq!(FileName::parse_whole(&name.temporary()), None);
            assert_eq!(FileName::parse_temporary(&name.whole()), None);
        }
    }

    #[test]
    fn a_name_with_a_path_or_foreign_letters_in_it_is_not_a_message() {
        let hex = "0123456789abcdef";
        for name in [
            format!("../a-{hex}.mp"),
            format!("a/b-{hex}.mp"),
            format!("/a-{hex}.mp"),
            format!("-{hex}.mp"),
            format!(".a-{hex}.mp"),
            format!("a-{hex}.MP"),
            format!("A-{hex}.mp"),
            format!("a-{hex}"),
            "a-0123456789abcde.mp".to_owned(),
            "a-0123456789ABCDEF.mp".to_owned(),
            "a-+123456789abcdef.mp".to_owned(),
            format!("a\0-{hex}.mp"),
            String::new(),
        ] {
            assert_eq!(FileName::parse_whole(&name), None, "{name:?}");
        }
    }
}
