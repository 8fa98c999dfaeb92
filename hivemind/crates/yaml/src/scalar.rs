//! What a scalar without quotes is, by the core schema of YAML 1.2 (section 10.3).

/// The types of plain scalars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// Nothing.
    Null,
    /// True or false.
    Boolean,
    /// A whole number, of any size.
    Integer,
    /// A number with a fraction or an exponent, or none.
    Number,
    /// All else.
    Text,
}

/// The type of `text` that stands without quotes.
pub fn plain(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => return Plain::Boolean,
        ".nan" | ".NaN" | ".NAN" => return Plain::Number,
        _ => {}
    }
    if integer(text).is_some() || is_digits(text.strip_prefix(['+', '-']).unwrap_or(text)) {
        return Plain::Integer;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || is_number(unsigned) {
        Plain::Number
    } else {
        Plain::Text
    }
}

/// The whole number that `text` is.
pub fn integer(text: &str) -> Option<i64> {
    if let Some(hex) = text.strip_prefix("0x") {
        return hex.bytes().all(|b| b.is_ascii_hexdigit()).then(|| i64::from_str_radix(hex, 16).ok())?;
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return octal
            .bytes()
            .all(|b| (b'0'..=b'7').contains(&b))
            .then(|| i64::from_str_radix(octal, 8).ok())?;
    }
    is_digits(text.strip_prefix(['+', '-']).unwrap_or(text)).then(|| text.parse().ok())?
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// `[0-9]+ ("." [0-9]*)? | "." [0-9]+`, with an exponent or not.
fn is_number(text: &str) -> bool {
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_good = match (whole.is_empty(), fraction.is_empty()) {
        (true, _) => is_digits(fraction),
        (false, true) => is_digits(whole),
        (false, false) => is_digits(whole) && is_digits(fraction),
    };
    mantissa_good && exponent.is_none_or(|e| is_digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_what_yaml_says() {
        let cases: &[(Plain, &[&str])] = &[
            (Plain::Null, &["", "~", "null"]),
            (Plain::Boolean, &["true", "FALSE"]),
            (Plain::Integer, &["0", "-1", "+80", "080", "0x1F", "0o17", "99999999999999999999"]),
            (Plain::Number, &["1.10", "1.", ".5", "1e3", "-2E-4", ".inf", "-.Inf", ".nan"]),
            (
                Plain::Text,
                &["yes", "no", "1.2.3", "10.0.0.0/8", "v1", "0x", "0xg", ".", "e3", "-", "1e", "2026-01-01"],
            ),
        ];
        for (kind, texts) in cases {
            for text in *texts {
                assert_eq!(plain(text), *kind, "{text}");
            }
        }
        assert_eq!((integer("0x1F"), integer("0o17"), integer("080")), (Some(31), Some(15), Some(80)));
    }
}
