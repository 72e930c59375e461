//! When a line says its transaction was first committed.
//!
//! ```text
//! "2024-05-01T10:00:00.25+02:00"  RFC 3339; digits finer than microseconds are cut
//! "2024-05-01"                    midnight UTC
//! 1714550400000000                a whole number of a unit since 1970, microseconds unless said
//! ```
//!
//! A number that could be of another unit is refused unless the unit is said: seconds taken for
//! microseconds would put a whole history into one hour of 1970, and nobody would be told.

use clap::ValueEnum;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::value::RawValue;

/// Below this many microseconds (March 1973), a number is more likely one of milliseconds or seconds.
const SURELY_MICROS: u64 = 100_000_000_000_000;

/// What numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimeUnit {
    /// Seconds
    S,
    /// Milliseconds
    Ms,
    /// Microseconds
    Us,
    /// Nanoseconds
    Ns,
}

/// The time that a value of somebody's history is, in microseconds since 1970.
///
/// # Errors
/// The reason why it is none.
pub fn read(raw: &RawValue, unit: Option<TimeUnit>) -> Result<i64, String> {
    let Some(number) = whole_number(raw)? else {
        return from_text(raw);
    };
    if unit.is_none() && number != 0 && number.unsigned_abs() < SURELY_MICROS {
        return Err(format!(
            "{number} is early in the 1970s as microseconds; say what it counts with --time-unit s, ms or us"
        ));
    }
    let micros = match unit {
        Some(TimeUnit::S) => number.checked_mul(1_000_000),
        Some(TimeUnit::Ms) => number.checked_mul(1_000),
        Some(TimeUnit::Us) | None => Some(number),
        Some(TimeUnit::Ns) => Some(number.div_euclid(1_000)),
    };
    micros
        .filter(|micros| Timestamp::from_microsecond(*micros).is_ok())
        .ok_or_else(|| format!("{number} is beyond the calendar; say what it counts with --time-unit"))
}

/// The time of a line of `export`: microseconds, whatever the number; text is accepted too.
///
/// # Errors
/// The reason why it is none.
pub fn read_exported(raw: &RawValue) -> Result<i64, String> {
    match whole_number(raw)? {
        Some(number) => Ok(number),
        None => from_text(raw),
    }
}

/// The number; `None` when the value is a text.
fn whole_number(raw: &RawValue) -> Result<Option<i64>, String> {
    if raw.get().starts_with('"') {
        return Ok(None);
    }
    let number = raw.get().parse();
    number.map(Some).map_err(|_| not_a_time(raw))
}

fn from_text(raw: &RawValue) -> Result<i64, String> {
    let text: String = serde_json::from_str(raw.get()).map_err(|_| not_a_time(raw))?;
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment.as_microsecond());
    }
    // A time of day without its distance from UTC would be read as a date, and the time dropped.
    let day = Some(text.as_str()).filter(|text| !text.contains(['T', 't', ' ', ':']));
    let day = day.and_then(|text| text.parse::<Date>().ok());
    let midnight = day.and_then(|day| day.to_zoned(TimeZone::UTC).ok());
    midnight
        .map(|midnight| midnight.timestamp().as_microsecond())
        .ok_or_else(|| not_a_time(raw))
}

fn not_a_time(raw: &RawValue) -> String {
    let shown: String = raw.get().chars().take(80).collect();
    format!("{shown} is neither RFC 3339, such as \"2024-05-01T10:00:00Z\", nor a whole number")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, unit: Option<TimeUnit>) -> Result<i64, String> {
        read(serde_json::from_str(text).unwrap(), unit)
    }

    #[test]
    fn texts_and_numbers_of_every_unit_are_the_same_moment() {
        let moment = Ok(1_714_557_600_000_000);
        for text in [
            r#""2024-05-01T10:00:00Z""#,
            r#""2024-05-01T12:00:00.0000009+02:00""#,
            r#""2024-05-01t10:00:00z""#,
            r#""2024-05-01T10:00:00\u005a""#,
            "1714557600000000",
        ] {
            assert_eq!(told(text, None), moment, "{text}");
        }
        assert_eq!(told("1714557600", Some(TimeUnit::S)), moment);
        assert_eq!(told("1714557600000", Some(TimeUnit::Ms)), moment);
        assert_eq!(told("1714557600000000", Some(TimeUnit::Us)), moment);
        assert_eq!(told("1714557600000000999", Some(TimeUnit::Ns)), moment);
        assert_eq!(told(r#""2024-05-01""#, None), Ok(1_714_521_600_000_000));
        assert_eq!(told("-1", Some(TimeUnit::S)), Ok(-1_000_000));
        assert_eq!(told("0", None), Ok(0));
    }

    #[test]
    fn what_is_no_time_or_no_sure_one_is_refused_and_not_guessed() {
        let long = format!("\"{}\"", "x".repeat(9_000));
        for text in [
            r#""""#,
            r#""yesterday""#,
            r#""2024-05-01T10:00:00""#,
            r#""2024-05-01 10:00""#,
            r#""2024-02-30""#,
            r#""1714557600""#,
            "1714557600.5",
            "1.7e15",
            "true",
            "null",
            "{}",
            "99999999999999999999",
            long.as_str(),
        ] {
            let reason = told(text, None).unwrap_err();
            assert!(
                reason.contains("is neither RFC 3339") && reason.len() < 200,
                "{reason}"
            );
        }
        for number in ["1714557600", "1714557600000", "-5"] {
            assert!(
                told(number, None).unwrap_err().contains("--time-unit s"),
                "{number}"
            );
        }
        for (number, unit) in [
            ("1714557600000000000", None),
            ("9223372036854775807", Some(TimeUnit::S)),
        ] {
            assert!(
                told(number, unit).unwrap_err().contains("beyond the calendar"),
                "{number}"
            );
        }
        let exported: &RawValue = serde_json::from_str("-9223372036854775808").unwrap();
        assert_eq!(
            read_exported(exported),
            Ok(i64::MIN),
            "an export is taken at its word"
        );
    }
}
