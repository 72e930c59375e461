//! Spans of time as people write them: `30s`, `5m`, `2h`, `1d`, or a bare number in the option's unit.

use std::time::Duration;

/// A span whose bare numbers are minutes, as ever.
///
/// # Errors
/// A sentence when it is no span.
pub fn minutes(text: &str) -> Result<Duration, String> {
    parse(text, 60)
}

/// A span whose bare numbers are seconds.
///
/// # Errors
/// A sentence when it is no span.
pub fn seconds(text: &str) -> Result<Duration, String> {
    parse(text, 1)
}

fn parse(text: &str, bare_seconds: u64) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a span of time such as 30s, 5m, 2h or 1d");
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 's')) => (text.get(..at), 1),
        Some((at, 'm')) => (text.get(..at), 60),
        Some((at, 'h')) => (text.get(..at), 3_600),
        Some((at, 'd')) => (text.get(..at), 86_400),
        _ => (Some(text), bare_seconds),
    };
    let digits = digits
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or_else(bad)?;
    let seconds = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(bad)?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_is_in_the_unit_of_its_option() {
        assert_eq!(minutes("2"), Ok(Duration::from_secs(120)));
        assert_eq!(seconds("2"), Ok(Duration::from_secs(2)));
        for (text, seconds) in [("30s", 30), ("5m", 300), ("2h", 7_200), ("1d", 86_400), ("0", 0)] {
            assert_eq!(minutes(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "s",
            "-1",
            "1w",
            "1.5h",
            "99999999999999999999d",
            "9999999999999999999d",
        ] {
            assert!(minutes(text).is_err(), "{text}");
        }
    }
}
