//! Sizes as people write them: a number of bytes with an optional suffix K, M or G (powers of 1024).

/// Bytes of `text`.
///
/// # Errors
/// A sentence when it is no size.
pub fn parse(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a number of bytes such as 50000, 64K, 16M or 1G");
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (text.get(..at), 1 << 10),
        Some((at, 'm' | 'M')) => (text.get(..at), 1 << 20),
        Some((at, 'g' | 'G')) => (text.get(..at), 1 << 30),
        _ => (Some(text), 1u64),
    };
    let digits = digits
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or_else(bad)?;
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_take_k_m_and_g_and_refuse_everything_else() {
        let cases = [
            ("0", 0),
            ("50000", 50_000),
            ("64K", 65_536),
            ("2m", 2 << 20),
            ("1G", 1 << 30),
        ];
        cases
            .iter()
            .for_each(|(text, bytes)| assert_eq!(parse(text), Ok(*bytes), "{text}"));
        for text in [
            "",
            "K",
            "-1",
            "+1",
            "1.5M",
            "1KB",
            "99999999999999999999",
            "20000000000G",
            "1é",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
