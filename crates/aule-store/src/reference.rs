//! References: how people and machines name a build.

use crate::{Result, StoreError};
use aule_tree::Digest;
use std::{fmt, str::FromStr};

/// `name:variant`, `name:variant@sha256:…` or `sha256:…`. A name without a variant stands for the only one it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The name with its variant, as it stands in the index; `None` when only the digest is given.
    pub name: Option<String>,
    /// The digest that it must have.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Whether `name` can be given to a build: the grammar of `org.opencontainers.image.ref.name` (image-spec,
    /// annotations.md) with at most one `:` and no `@`.
    pub fn is_valid_name(name: &str) -> bool {
        let part = |part: &str| {
            !part.is_empty()
                && part.split('/').all(|component| {
                    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
                    component.starts_with(alphanumeric)
                        && component.ends_with(alphanumeric)
                        && component.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
                })
        };
        let mut parts = name.split(':');
        name.len() <= 200 && parts.next().is_some_and(part) && parts.next().is_none_or(part) && parts.next().is_none()
    }
}

impl FromStr for Reference {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || StoreError::BadRef(text.into());
        if let Ok(digest) = text.parse() {
            return Ok(Reference { name: None, digest: Some(digest) });
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        if !Reference::is_valid_name(name) {
            return Err(wrong());
        }
        Ok(Reference { name: Some(name.into()), digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, &self.digest) {
            (Some(name), Some(digest)) => write!(f, "{name}@{digest}"),
            (Some(name), None) => f.write_str(name),
            (None, Some(digest)) => digest.fmt(f),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_the_manual_promises() {
        let digest = Digest::of(b"x");
        for text in ["quickstart:netboot", "a", "lab/pi.5:v1_2", &format!("a:b@{digest}"), &digest.to_string()] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        for text in ["", ":", "a:", "a:b:c", "../x", "a//b", "a@sha256:12", "-a", "sha256:xyz:1", "a b"] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
