//! "Did you mean": the known name that is nearest to the one that was written.

/// Longest name that is compared; a longer one is no slip of the pen.
const MAX_LENGTH: usize = 64;

/// The known name nearest to `written`, if one is near enough to be a slip of the pen: at most a third of its letters
/// wrong, or its beginning. Case, `-` and `_` count for nothing.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.is_empty() || written.len() > MAX_LENGTH {
        return None;
    }
    let folded = fold(written);
    known
        .into_iter()
        .filter_map(|name| {
            let target = fold(name);
            let distance = distance(&folded, &target);
            let allowed = (folded.len().max(target.len()) / 3).max(1);
            let prefix = folded.len() >= 3 && target.starts_with(&folded);
            (distance <= allowed || prefix).then_some((distance, name))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Case, `-` and `_` are what people mix up most; they count for nothing.
fn fold(name: &str) -> Vec<char> {
    name.chars().map(|c| if c == '-' || c == ' ' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Edits between two names: insert, delete, replace, or swap of neighbours (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &ca) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, &cb) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&last, j) + usize::from(ca != cb)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(&cb) && b.get(j - 1) == Some(&ca);
            if swapped {
                best = best.min(at(&before_last, j - 1) + 1);
            }
            row.push(best);
        }
        before_last = last;
        last = row;
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_nothing_else() {
        let known = ["overlays", "outputs", "cloud_init", "nfs-root", "boot"];
        for (written, expected) in [
            ("overlay", Some("overlays")),
            ("ovrelays", Some("overlays")),
            ("cloud-init", Some("cloud_init")),
            ("CloudInit", Some("cloud_init")),
            ("nfs_root", Some("nfs-root")),
            ("nfs", Some("nfs-root")),
            ("bot", Some("boot")),
            ("kernel", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(written, known), expected, "{written}");
        }
    }

    #[test]
    fn distance_counts_edits() {
        let of = |a: &str, b: &str| distance(&fold(a), &fold(b));
        assert_eq!(of("", "abc"), 3);
        assert_eq!(of("abc", "abc"), 0);
        assert_eq!(of("abc", "acb"), 1);
        assert_eq!(of("kitten", "sitting"), 3);
    }
}
