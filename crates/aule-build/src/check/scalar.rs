//! What a plain scalar is to PyYAML's safe loader (YAML 1.1; yaml/resolver.py, yaml/constructor.py): cloud-init reads
//! its files with it, where `0644` is an octal number, `yes` is true and `1:30` is ninety.

use serde_json::{Number, Value};

/// A scalar as Python sees it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    /// What JSON has, too.
    Json(Value),
    /// A date or a time, which no type of JSON is.
    Date,
}

/// Reads a plain scalar.
pub(super) fn plain(text: &str) -> Scalar {
    let json = match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ if is_date(text) => return Scalar::Date,
        _ => integer(text).or_else(|| float(text)).map_or_else(|| Value::String(text.to_owned()), Value::Number),
    };
    Scalar::Json(json)
}

fn signed(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn all(text: &str, fits: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(fits)
}

fn integer(text: &str) -> Option<Number> {
    let (negative, body) = signed(text);
    let digit_or_underscore = |b: u8| b.is_ascii_digit() || b == b'_';
    let (digits, radix) = if let Some(rest) = body.strip_prefix("0b").filter(|it| all(it, |b| b"01_".contains(&b))) {
        (rest, 2)
    } else if let Some(rest) = body.strip_prefix("0x").filter(|it| all(it, |b| b.is_ascii_hexdigit() || b == b'_')) {
        (rest, 16)
    } else if let Some(rest) = body.strip_prefix('0').filter(|it| all(it, |b| matches!(b, b'0'..=b'7' | b'_'))) {
        (rest, 8)
    } else if body == "0" || (!body.starts_with(['0', '_']) && all(body, digit_or_underscore)) {
        (body, 10)
    } else if body.contains(':') && !body.starts_with('0') {
        return sexagesimal(body, negative, false);
    } else {
        return None;
    };
    let digits: String = digits.chars().filter(|it| *it != '_').collect();
    let magnitude = u64::from_str_radix(if digits.is_empty() { "0" } else { &digits }, radix);
    match (magnitude, negative) {
        (Ok(value), false) => Some(value.into()),
        (Ok(value), true) => match i64::try_from(-i128::from(value)) {
            Ok(value) => Some(value.into()),
            Err(_) => Number::from_f64(-(value as f64)),
        },
        // Python's integers have no bounds; what does not fit here is far outside of every schema.
        (Err(_), _) => Number::from_f64(if negative { f64::MIN } else { f64::MAX }),
    }
}

/// `190:20:30`, and with a fraction `190:20:30.15`.
fn sexagesimal(body: &str, negative: bool, fraction: bool) -> Option<Number> {
    let mut parts = body.split(':');
    let first = parts.next()?;
    if !(all(first, |b| b.is_ascii_digit() || b == b'_') && first.as_bytes().first()?.is_ascii_digit()) {
        return None;
    }
    let mut total: f64 = first.replace('_', "").parse().ok()?;
    let rest: Vec<&str> = parts.collect();
    for (number, part) in rest.iter().enumerate() {
        let whole = match part.split_once('.') {
            Some((whole, tail)) if fraction && number + 1 == rest.len() => {
                if !tail.bytes().all(|b| b.is_ascii_digit() || b == b'_') {
                    return None;
                }
                whole
            }
            _ => part,
        };
        if !(all(whole, |b| b.is_ascii_digit()) && (whole.len() == 1 || (whole.len() == 2 && *whole < *"60"))) {
            return None;
        }
        total = total * 60.0 + part.replace('_', "").parse::<f64>().ok()?;
    }
    if rest.is_empty() || (fraction && !body.contains('.')) {
        return None;
    }
    let total = if negative { -total } else { total };
    if !fraction && total.abs() < 9e15 {
        return Some((total as i64).into());
    }
    Number::from_f64(total)
}

fn float(text: &str) -> Option<Number> {
    let (negative, body) = signed(text);
    if matches!(body, ".inf" | ".Inf" | ".INF") {
        return Number::from_f64(if negative { f64::MIN } else { f64::MAX });
    }
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Number::from_f64(0.0);
    }
    if body.contains(':') {
        return sexagesimal(body, negative, true);
    }
    let (whole, rest) = body.split_once('.')?;
    let (fraction, exponent) = match rest.split_once(['e', 'E']) {
        Some((fraction, exponent)) => (fraction, Some(exponent)),
        None => (rest, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let starts_with_digit = |text: &str| text.as_bytes().first().is_some_and(u8::is_ascii_digit);
    let mantissa =
        digits(whole) && digits(fraction) && starts_with_digit(if whole.is_empty() { fraction } else { whole });
    // An exponent needs its sign.
    let exponent_fits =
        exponent.is_none_or(|it| it.strip_prefix(['+', '-']).is_some_and(|it| all(it, |b| b.is_ascii_digit())));
    if !(mantissa && exponent_fits) {
        return None;
    }
    let spelled = text.replace('_', "").to_ascii_lowercase();
    let value: f64 = spelled.parse().ok()?;
    Number::from_f64(value.clamp(f64::MIN, f64::MAX))
}

/// `2001-12-14`, `2001-12-14 21:59:43.10 -5`, `2001-12-14t21:59:43Z`.
fn is_date(text: &str) -> bool {
    let Some((year, rest)) = text.split_at_checked(4) else { return false };
    if !all(year, |b| b.is_ascii_digit()) {
        return false;
    }
    let Some((month, rest)) = rest.strip_prefix('-').and_then(|it| it.split_once('-')) else { return false };
    let day_length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (day, time) = rest.split_at(day_length);
    if !(matches!(month.len(), 1 | 2) && all(month, |b| b.is_ascii_digit()) && matches!(day_length, 1 | 2)) {
        return false;
    }
    if time.is_empty() {
        return month.len() == 2 && day.len() == 2;
    }
    let clock = time.trim_start_matches([' ', '\t']);
    let clock = if clock.len() == time.len() { time.strip_prefix(['T', 't']).unwrap_or("") } else { clock };
    let parts: Vec<&str> = clock.splitn(3, ':').collect();
    let [hour, minute, tail] = parts.as_slice() else { return false };
    let second_length = tail.bytes().take_while(u8::is_ascii_digit).count();
    let zone = tail.get(second_length..).unwrap_or("");
    let zone = match zone.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => zone,
    };
    let zone = zone.trim_start_matches([' ', '\t']);
    matches!(hour.len(), 1 | 2)
        && all(hour, |b| b.is_ascii_digit())
        && minute.len() == 2
        && all(minute, |b| b.is_ascii_digit())
        && second_length == 2
        && (matches!(zone, "" | "Z")
            || zone.strip_prefix(['+', '-']).is_some_and(|it| it.bytes().all(|b| b.is_ascii_digit() || b == b':')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What `yaml.safe_load` of PyYAML 6 gives.
    #[test]
    fn as_pyyaml_reads_them() {
        for (text, wanted) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("y", json!("y")),
            ("yEs", json!("yEs")),
            ("0644", json!(420)),
            ("-017", json!(-15)),
            ("0", json!(0)),
            ("08", json!("08")),
            ("0o644", json!("0o644")),
            ("1_000", json!(1000)),
            ("_1", json!("_1")),
            ("0x1F", json!(31)),
            ("0b101", json!(5)),
            ("1:30", json!(90)),
            ("01:30", json!("01:30")),
            ("1:60", json!("1:60")),
            ("190:20:30", json!(685_230)),
            ("190:20:30.15", json!(685_230.15)),
            ("+12", json!(12)),
            ("1.5", json!(1.5)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            (".", json!(".")),
            ("1e3", json!("1e3")),
            ("1.0e3", json!("1.0e3")),
            ("1.0e+3", json!(1000.0)),
            ("10.0.0.1", json!("10.0.0.1")),
            ("02:42:ac:11:00:02", json!("02:42:ac:11:00:02")),
            ("-", json!("-")),
            ("alice", json!("alice")),
        ] {
            assert_eq!(plain(text), Scalar::Json(wanted), "{text:?}");
        }
        for text in ["2001-12-14", "2001-12-14 21:59:43.10 -5", "2001-1-4t1:59:43Z", "2001-12-14T21:59:43+01:00"] {
            assert_eq!(plain(text), Scalar::Date, "{text:?}");
        }
        for text in ["2001-12-1", "2001-12", "20011-12-14", "2001-12-14x", "2001-12-14 21:59", "2001-12-14-15"] {
            assert!(matches!(plain(text), Scalar::Json(Value::String(_))), "{text:?}");
        }
    }
}
