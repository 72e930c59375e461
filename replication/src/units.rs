//! Durations and sizes as people type them.
//!
//! ```text
//! duration  30s 5m 2h 1d; a bare number is minutes
//! size      50000 64K 64M; K is 1,024 bytes, M 1,048,576
//! ```
//!
//! Refuses fractions, signs, other units and what does not fit 64 bits.

use std::time::Duration;

use milepost_engine::{Error, Result};

/// Reads a duration; a bare number is minutes.
///
/// # Errors
/// `Invalid` for anything else.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let wrong = || {
        Error::invalid(format!(
            "{text:?} is no duration: write 30s, 5m, 2h, 1d, or minutes as a number"
        ))
    };
    let (number, seconds) = match text.trim().to_ascii_lowercase() {
        text if text.ends_with('s') => (text, 1),
        text if text.ends_with('m') => (text, 60),
        text if text.ends_with('h') => (text, 60 * 60),
        text if text.ends_with('d') => (text, 24 * 60 * 60),
        text => (text, 60),
    };
    let digits = number.trim_end_matches(['s', 'm', 'h', 'd']);
    let one_unit = number.len() - digits.len() <= 1;
    let count = whole_number(digits).filter(|_| one_unit);
    let total: Option<u64> = count.and_then(|count| count.checked_mul(seconds));
    total.map(Duration::from_secs).ok_or_else(wrong)
}

/// Reads a size in bytes, with K or M behind it.
///
/// # Errors
/// `Invalid` for anything else.
pub fn parse_size(text: &str) -> Result<u64> {
    let wrong = || {
        Error::invalid(format!(
            "{text:?} is no size: write a number of bytes, or 64K, or 64M"
        ))
    };
    let trimmed = text.trim();
    let (digits, factor) = match trimmed.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1 << 10),
        None => trimmed
            .strip_suffix(['m', 'M'])
            .map_or((trimmed, 1), |digits| (digits, 1 << 20)),
    };
    whole_number(digits)
        .and_then(|count| count.checked_mul(factor))
        .ok_or_else(wrong)
}

/// Digits only: `u64::from_str` would take a plus sign.
fn whole_number(digits: &str) -> Option<u64> {
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_is_minutes_and_units_are_what_they_say() {
        for (text, seconds) in [
            ("1", 60),
            ("30s", 30),
            ("5m", 300),
            ("2h", 7200),
            ("1d", 86400),
            ("0", 0),
            (" 7 ", 420),
            ("2H", 7200),
        ] {
            assert_eq!(
                parse_duration(text).unwrap(),
                Duration::from_secs(seconds),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "1.5m",
            "-1",
            "+1",
            "5ms",
            "1mm",
            "1w",
            "99999999999999999999",
            "18446744073709551615d",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_take_k_and_m() {
        for (text, bytes) in [("50000", 50000), ("64K", 65536), ("2m", 2 << 20), ("0", 0)] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "K", "1G", "-1", "+1", "1.5M", "1KK", "18446744073709551615K"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
