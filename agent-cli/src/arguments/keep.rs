//! How long a log is kept, as people write it: `forever`, `until-scanned`, an age (`30d`, `12h`) or a size (`20G`).

use std::time::Duration;

use milepost_engine::Retention;

use super::{pause, size};

/// Reads what [`text`] writes.
///
/// # Errors
/// A sentence when it is neither.
pub fn parse(text: &str) -> Result<Retention, String> {
    match text {
        "forever" => return Ok(Retention::Forever),
        "until-scanned" => return Ok(Retention::UntilScanned),
        _ => {}
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "{text:?} has no unit: write 30d for days, 500M for bytes, or {text}B for so few bytes"
        ));
    }
    let parsed = if text.ends_with(['s', 'm', 'h', 'd']) {
        pause::seconds(text).map(Retention::Age).ok()
    } else {
        let bytes = text
            .strip_suffix('B')
            .filter(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
        size::parse(bytes.unwrap_or(text)).map(Retention::Bytes).ok()
    };
    parsed
        .filter(|kept| !matches!(kept, Retention::Age(Duration::ZERO)))
        .ok_or_else(|| {
            format!(
                "{text:?} is neither forever nor until-scanned, no age such as 90m, 12h or 30d (lower case), and no \
                 size such as 500M or 20G (upper case)"
            )
        })
}

/// The words that [`parse`] reads.
pub fn text(kept: Retention) -> String {
    match kept {
        Retention::Forever => "forever".to_owned(),
        Retention::UntilScanned => "until-scanned".to_owned(),
        Retention::Age(age) => {
            let seconds = age.as_secs();
            let unit = [(86_400, 'd'), (3_600, 'h'), (60, 'm')]
                .into_iter()
                .find(|(unit, _)| seconds.is_multiple_of(*unit));
            unit.map_or_else(
                || format!("{seconds}s"),
                |(unit, letter)| format!("{}{letter}", seconds / unit),
            )
        }
        Retention::Bytes(bytes) => match bytes_text(bytes) {
            plain if plain.ends_with(|last: char| last.is_ascii_digit()) => format!("{plain}B"),
            text => text,
        },
    }
}

/// A number of bytes in the largest unit that holds it without a rest.
pub fn bytes_text(bytes: u64) -> String {
    let unit = [(1 << 30, 'G'), (1 << 20, 'M'), (1 << 10, 'K')]
        .into_iter()
        .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    unit.map_or_else(
        || bytes.to_string(),
        |(unit, letter)| format!("{}{letter}", bytes / unit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for words in [
            "forever",
            "until-scanned",
            "30d",
            "36h",
            "90s",
            "20G",
            "1537K",
            "77B",
        ] {
            assert_eq!(text(parse(words).unwrap()), words);
        }
        assert_eq!(text(parse("24h").unwrap()), "1d");
        for words in ["", "for ever", "0d", "-1d", "5w", "1.5G", "d", "20g b", "30", "B"] {
            assert!(parse(words).is_err(), "{words}");
        }
    }
}
