//! What packages need, provide and do not stand beside (Debian Policy 7.1; deb-control(5)).

use crate::version::{Version, VersionError};
use std::fmt;

/// How a version is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `<<`
    Earlier,
    /// `<=`, and the `<` of old files
    AtMost,
    /// `=`
    Exactly,
    /// `>=`, and the `>` of old files
    AtLeast,
    /// `>>`
    Later,
}

impl Comparison {
    fn parse(text: &str) -> Option<Comparison> {
        Some(match text {
            "<<" => Comparison::Earlier,
            "<=" | "<" => Comparison::AtMost,
            "=" => Comparison::Exactly,
            ">=" | ">" => Comparison::AtLeast,
            ">>" => Comparison::Later,
            _ => return None,
        })
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Comparison::Earlier => "<<",
            Comparison::AtMost => "<=",
            Comparison::Exactly => "=",
            Comparison::AtLeast => ">=",
            Comparison::Later => ">>",
        }
    }
}

/// One package of a relation, such as `libc6:any (>= 2.36)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation<'a> {
    /// The name.
    pub name: &'a str,
    /// What follows it after a colon: an architecture, `any` or `native`.
    pub architecture: Option<&'a str>,
    /// Which versions.
    pub version: Option<(Comparison, Version)>,
}

/// Why a relation cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelationError {
    /// It has another form.
    #[error("`{0}` is no relation to a package, such as `name` or `name (>= 1.0)`")]
    Form(String),
    /// There are more than anybody has.
    #[error("it has more than {RELATIONS_MAX} relations")]
    TooMany,
    /// Its version is none.
    #[error(transparent)]
    Version(#[from] VersionError),
}

impl Relation<'_> {
    /// Whether a version is one that is meant.
    pub fn allows(&self, version: &Version) -> bool {
        self.version.as_ref().is_none_or(|(comparison, wanted)| match comparison {
            Comparison::Earlier => version < wanted,
            Comparison::AtMost => version <= wanted,
            Comparison::Exactly => version == wanted,
            Comparison::AtLeast => version >= wanted,
            Comparison::Later => version > wanted,
        })
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(architecture) = self.architecture {
            write!(f, ":{architecture}")?;
        }
        match &self.version {
            Some((comparison, version)) => write!(f, " ({} {version})", comparison.as_str()),
            None => Ok(()),
        }
    }
}

/// The most relations that a field may have: Debian's longest has 1,603. In memory a short one takes far more than in the
/// text.
const RELATIONS_MAX: usize = 1 << 14;

/// The relations of a field: all of the outer list must hold, and of each inner one any.
///
/// # Errors
/// The first that cannot be understood; that there are too many.
pub fn relations(field: &str) -> Result<Vec<Vec<Relation<'_>>>, RelationError> {
    if field.bytes().filter(|byte| b",|".contains(byte)).count() >= RELATIONS_MAX {
        return Err(RelationError::TooMany);
    }
    let groups = field.split(',').map(str::trim).filter(|group| !group.is_empty());
    groups.map(|group| group.split('|').map(|it| relation(it.trim())).collect()).collect()
}

fn relation(text: &str) -> Result<Relation<'_>, RelationError> {
    let wrong = || RelationError::Form(text.chars().take(80).collect());
    let (name, version) = match text.split_once('(') {
        Some((name, version)) => (name.trim_end(), Some(version.strip_suffix(')').ok_or_else(wrong)?.trim())),
        None => (text, None),
    };
    let (name, architecture) = match name.split_once(':') {
        Some((name, architecture)) => (name, Some(architecture)),
        None => (name, None),
    };
    let plain =
        |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !plain(name) || !architecture.is_none_or(plain) {
        return Err(wrong());
    }
    let version = match version {
        Some(version) => {
            let end = version.find(|it: char| !"<>=".contains(it)).ok_or_else(wrong)?;
            let (comparison, version) = version.split_at(end);
            Some((Comparison::parse(comparison).ok_or_else(wrong)?, version.trim_start().parse()?))
        }
        None => None,
    };
    Ok(Relation { name, architecture, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_read() {
        let text = "libc6 (>= 2.36), default-mta | mail-transport-agent,perl:any(<<5), a (=1:2-3) | b:arm64 (> 1), ";
        let shown: Vec<Vec<String>> =
            relations(text).unwrap().iter().map(|it| it.iter().map(ToString::to_string).collect()).collect();
        let wanted: [&[&str]; 4] = [
            &["libc6 (>= 2.36)"],
            &["default-mta", "mail-transport-agent"],
            &["perl:any (<< 5)"],
            &["a (= 1:2-3)", "b:arm64 (>= 1)"],
        ];
        assert_eq!(shown, wanted);
        assert_eq!(relations("").unwrap(), Vec::<Vec<Relation<'_>>>::new());
    }

    #[test]
    fn versions_are_allowed() {
        for (relation, allowed) in [
            ("a", [true, true, true]),
            ("a (<< 2)", [true, false, false]),
            ("a (<= 2)", [true, true, false]),
            ("a (= 2)", [false, true, false]),
            ("a (>= 2)", [false, true, true]),
            ("a (>> 2)", [false, false, true]),
        ] {
            let all = relations(relation).unwrap();
            assert_eq!(["1", "2", "3"].map(|it| all[0][0].allows(&it.parse().unwrap())), allowed, "{relation}");
        }
    }

    #[test]
    fn what_is_no_relation() {
        for text in
            ["a b", "a (", "a ()", "a (>= )", "a (1)", "a (=> 1)", "(>= 1)", "a | | b", "a:(= 1)", "a (= 1) x", "ä"]
        {
            assert!(relations(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_field_has_an_end() {
        let of = |count: usize, between: &str| vec!["a"; count].join(between);
        for between in [",", "|"] {
            assert!(relations(&of(RELATIONS_MAX, between)).is_ok());
            assert_eq!(relations(&of(RELATIONS_MAX + 1, between)), Err(RelationError::TooMany));
        }
    }
}
