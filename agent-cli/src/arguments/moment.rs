//! Moments as people read them.

/// A time in microseconds since 1970 as RFC 3339 text in UTC; one outside the calendar as its number.
pub fn text(micros: i64) -> String {
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(moment) => format!("{moment:.3}"),
        Err(_) => format!("{micros} µs"),
    }
}
