//! What the headers of an answer say about versions and ranges (RFC 9110 sections 8.8, 13.1.5 and 14).

use serde::{Deserialize, Serialize};
use ureq::http::{HeaderMap, HeaderName, header};

/// A validator longer than this is not kept. Real ones have a few dozen bytes.
const LONGEST_VALIDATOR: usize = 512;

/// What tells one version of a file from the other, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Validator {
    /// A strong entity tag, with its quotes.
    Etag(String),
    /// The time of the last change, as the server wrote it.
    LastModified(String),
}

impl Validator {
    /// The value for `If-Range`, or for comparison with the header of a later answer.
    pub(super) fn text(&self) -> &str {
        match self {
            Validator::Etag(text) | Validator::LastModified(text) => text,
        }
    }
}

/// A question for the rest of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resumption {
    /// Bytes at hand; never zero.
    pub(super) from: u64,
    /// The version they belong to.
    pub(super) validator: Validator,
}

/// An answer 206 that does not continue what is at hand.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WrongRange;

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// The validator of an answer 200, where it has one that serves for `If-Range`.
pub(super) fn validator(headers: &HeaderMap) -> Option<Validator> {
    let short = |text: &&str| text.len() <= LONGEST_VALIDATOR;
    let strong = |tag: &&str| tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"');
    if let Some(tag) = text(headers, header::ETAG).filter(strong).filter(short) {
        return Some(Validator::Etag(tag.to_owned()));
    }
    // A time is a strong validator where the answer was made at least one second after it (RFC 9110 section 8.8.2.2):
    // else the file could have changed again within that second. Both have the resolution of a second.
    let modified = text(headers, header::LAST_MODIFIED).filter(short)?;
    let answered = text(headers, header::DATE)?;
    (modified != answered).then(|| Validator::LastModified(modified.to_owned()))
}

/// Checks that an answer 206 with `length` bytes of body continues what was asked for, in the same version and, where
/// the size `known` of the file is known, to that size. Returns the size of the file, where the answer says it.
pub(super) fn check_range(
    headers: &HeaderMap,
    length: Option<u64>,
    asked: &Resumption,
    known: Option<u64>,
) -> Result<Option<u64>, WrongRange> {
    let range = text(headers, header::CONTENT_RANGE).and_then(parse_range).ok_or(WrongRange)?;
    let changed = match &asked.validator {
        Validator::Etag(tag) => text(headers, header::ETAG).is_some_and(|now| now != tag),
        Validator::LastModified(time) => text(headers, header::LAST_MODIFIED).is_some_and(|now| now != time),
    };
    let size_changed = matches!((range.total, known), (Some(now), Some(before)) if now != before);
    let other_length = length.is_some_and(|length| length != range.last - range.first + 1);
    if range.first != asked.from || changed || size_changed || other_length {
        return Err(WrongRange);
    }
    Ok(range.total)
}

/// The size of the file from the `Content-Range: bytes */N` of an answer 416.
pub(super) fn unsatisfied_size(headers: &HeaderMap) -> Option<u64> {
    number(text(headers, header::CONTENT_RANGE)?.strip_prefix("bytes */")?)
}

/// `Content-Range: bytes FIRST-LAST/TOTAL`, with `FIRST <= LAST < TOTAL`.
struct Range {
    first: u64,
    last: u64,
    total: Option<u64>,
}

fn parse_range(text: &str) -> Option<Range> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = match total {
        "*" => None,
        digits => Some(number(digits)?),
    };
    // Against an overflow of `last - first + 1`.
    let sound = first <= last && last < u64::MAX && total.is_none_or(|total| last < total);
    sound.then_some(Range { first, last, total })
}

/// Digits alone: `parse` would accept a plus sign.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// The seconds of a `Retry-After` header. Its other form, a date, is not worth reading the clock for.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<std::time::Duration> {
    number(text(headers, header::RETRY_AFTER)?).map(std::time::Duration::from_secs)
}

/// The value of `Content-Length`.
pub(super) fn announced_length(headers: &HeaderMap) -> Option<u64> {
    number(text(headers, header::CONTENT_LENGTH)?)
}

/// Whether the body is in chunks, which have an end of their own.
pub(super) fn is_chunked(headers: &HeaderMap) -> bool {
    text(headers, header::TRANSFER_ENCODING).is_some_and(|coding| coding.to_ascii_lowercase().contains("chunked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_strong_validators_are_kept() {
        let (monday, tuesday) = ("Mon, 01 Jan 2024 00:00:00 GMT", "Tue, 02 Jan 2024 00:00:00 GMT");
        let etag = |text: &str| Some(Validator::Etag(text.into()));
        let modified = |text: &str| Some(Validator::LastModified(text.into()));
        let long = format!("\"{}\"", "x".repeat(LONGEST_VALIDATOR));
        for (lines, expected) in [
            (vec![("etag", "\"a\"")], etag("\"a\"")),
            (vec![("etag", "\"a\""), ("last-modified", monday), ("date", tuesday)], etag("\"a\"")),
            (vec![("etag", "W/\"a\"")], None),
            (vec![("etag", "a")], None),
            (vec![("etag", "\"")], None),
            (vec![("etag", &long)], None),
            (vec![("etag", "W/\"a\""), ("last-modified", monday), ("date", tuesday)], modified(monday)),
            (vec![("last-modified", monday), ("date", monday)], None),
            (vec![("last-modified", monday)], None),
            (vec![], None),
        ] {
            assert_eq!(validator(&headers(&lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn ranges_that_do_not_continue_are_wrong() {
        let asked = Resumption { from: 100, validator: Validator::Etag("\"a\"".into()) };
        for (range, length, known, expected) in [
            ("bytes 100-199/200", Some(100), Some(200), Ok(Some(200))),
            ("bytes 100-199/200", None, None, Ok(Some(200))),
            ("bytes 100-149/200", Some(50), None, Ok(Some(200))),
            ("bytes 100-199/*", Some(100), Some(200), Ok(None)),
            ("bytes 100-199/200", Some(99), None, Err(WrongRange)),
            ("bytes 100-199/200", None, Some(201), Err(WrongRange)),
            ("bytes 0-199/200", Some(200), None, Err(WrongRange)),
            ("bytes 101-199/200", Some(99), None, Err(WrongRange)),
            ("bytes 100-200/200", Some(101), None, Err(WrongRange)),
            ("bytes 100-99/200", Some(0), None, Err(WrongRange)),
            ("bytes +100-199/200", None, None, Err(WrongRange)),
            ("bytes 100-18446744073709551615/*", None, None, Err(WrongRange)),
            ("bytes 100-99999999999999999999999/*", None, None, Err(WrongRange)),
            ("bytes */200", None, None, Err(WrongRange)),
            ("lines 100-199/200", None, None, Err(WrongRange)),
            ("", None, None, Err(WrongRange)),
        ] {
            let found = check_range(&headers(&[("content-range", range)]), length, &asked, known);
            assert_eq!(found, expected, "{range} {length:?} {known:?}");
        }
        assert_eq!(check_range(&headers(&[]), None, &asked, None), Err(WrongRange));
        for (tag, expected) in [("\"a\"", Ok(Some(200))), ("\"b\"", Err(WrongRange)), ("W/\"a\"", Err(WrongRange))] {
            let found = headers(&[("content-range", "bytes 100-199/200"), ("etag", tag)]);
            assert_eq!(check_range(&found, None, &asked, None), expected, "{tag}");
        }
    }

    #[test]
    fn sizes_of_unsatisfied_ranges() {
        for (range, expected) in [("bytes */7", Some(7)), ("bytes 0-6/7", None), ("bytes */*", None), ("*/7", None)] {
            assert_eq!(unsatisfied_size(&headers(&[("content-range", range)])), expected, "{range}");
        }
    }
}
