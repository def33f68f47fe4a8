//! What a scalar means: by the core schema of YAML 1.2.2 (section 10.3.2) for recipes, and by the implicit types of
//! YAML 1.1 as PyYAML reads them (`yaml/resolver.py`) for cloud-init's files.

use super::{Style, Tag};

/// The type of a scalar by YAML 1.2's core schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Core {
    Null,
    Bool(bool),
    Integer,
    Float,
    String,
}

/// Reads a scalar by YAML 1.2's core schema.
pub(crate) fn core(text: &str, style: Style, tag: Option<&Tag>) -> Core {
    let is_string_tag = match tag {
        Some(Tag::NonSpecific) => true,
        Some(Tag::Core(name)) => name == "str",
        _ => false,
    };
    if style != Style::Plain || is_string_tag {
        return Core::String;
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Core::Null,
        "true" | "True" | "TRUE" => Core::Bool(true),
        "false" | "False" | "FALSE" => Core::Bool(false),
        _ if is_core_integer(text) => Core::Integer,
        _ if is_core_float(text) => Core::Float,
        _ => Core::String,
    }
}

fn is_core_integer(text: &str) -> bool {
    let all = |digits: &str, accept: fn(char) -> bool| !digits.is_empty() && digits.chars().all(accept);
    if let Some(octal) = text.strip_prefix("0o") {
        return all(octal, |c| matches!(c, '0'..='7'));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return all(hex, |c| c.is_ascii_hexdigit());
    }
    all(unsigned(text), |c| c.is_ascii_digit())
}

fn is_core_float(text: &str) -> bool {
    let body = unsigned(text);
    if matches!(body, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match body.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (body, None),
    };
    let exponent_fits = exponent.is_none_or(|digits| is_digits(unsigned(digits)));
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => is_digits(fraction),
        Some((whole, fraction)) => is_digits(whole) && (fraction.is_empty() || is_digits(fraction)),
        None => is_digits(mantissa),
    };
    exponent_fits && mantissa_fits
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}

/// Whether PyYAML's safe loader reads this plain scalar as a string. Errs towards "no": a string that merely looks
/// like a number of YAML 1.1 is answered with `false`, which costs a pair of quotes and nothing else.
pub(crate) fn yaml11_is_string(text: &str) -> bool {
    const WORDS: [&str; 18] = [
        "", "~", "=", "<<", "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".inf", "+.inf", "-.inf",
        ".nan", "none",
    ];
    let lower = text.to_ascii_lowercase();
    if WORDS.contains(&lower.as_str()) {
        return false;
    }
    // Integers (also 0b…, 0x…, 0…, with `_`, and base 60 as 1:30), floats (1e3, .5) and timestamps all begin like this.
    let body = unsigned(text);
    let mut start = body.chars();
    let first_is_digit = match start.next() {
        Some('.') => matches!(start.next(), Some('0'..='9' | '_')),
        Some(c) => c.is_ascii_digit(),
        None => false,
    };
    let hex = body.strip_prefix("0x").is_some_and(|digits| digits.chars().all(|c| c.is_ascii_hexdigit() || c == '_'));
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '_' | '.' | ':' | '+' | '-' | 'e' | 'E' | 'b');
    let timestamp = |c: char| c.is_ascii_digit() || matches!(c, '-' | ':' | '.' | 'T' | 't' | 'Z' | '+' | ' ' | '\t');
    !(first_is_digit && (hex || body.chars().all(numeric) || body.chars().all(timestamp)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_schema() {
        for (text, expected) in [
            ("", Core::Null),
            ("~", Core::Null),
            ("True", Core::Bool(true)),
            ("yes", Core::String),
            ("0755", Core::Integer),
            ("0o7", Core::Integer),
            ("0o8", Core::String),
            ("-12", Core::Integer),
            ("0xfF", Core::Integer),
            ("1.5", Core::Float),
            ("1.", Core::Float),
            (".5", Core::Float),
            (".", Core::String),
            ("1e3", Core::Float),
            ("1e", Core::String),
            ("-.INF", Core::Float),
            ("-.nan", Core::String),
            ("2025-11-01T00:00:00Z", Core::String),
            ("1:30", Core::String),
        ] {
            assert_eq!(core(text, Style::Plain, None), expected, "{text:?}");
            assert_eq!(core(text, Style::DoubleQuoted, None), Core::String, "{text:?}");
            assert_eq!(core(text, Style::Plain, Some(&Tag::Core("str".into()))), Core::String, "{text:?}");
        }
    }

    #[test]
    fn yaml11_strings() {
        let others = [
            "0644",
            "1_000",
            "1:30",
            "0x1F",
            "0b101",
            "1e3",
            "6.8523015e+5",
            ".5",
            "-.inf",
            "YES",
            "off",
            "~",
            "",
            "2001-12-14",
            "2001-12-14 21:59:43.10 -5",
            "<<",
            "=",
            "+12",
            "190:20:30.15",
            "Null",
        ];
        for text in others {
            assert!(!yaml11_is_string(text), "{text:?}");
        }
        for text in [
            "alice",
            "0644x",
            "0o7",
            "1.2.3-rc1",
            "12abc",
            "v1",
            "-",
            "a: b",
            "5m",
            "maybe",
            "10.0.0.1/24",
            "12 monkeys",
        ] {
            assert!(yaml11_is_string(text), "{text:?}");
        }
    }
}
