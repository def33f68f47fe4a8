//! A plan as text for people.

use super::{Files, Plan, Plans, Total};
use crate::output::size;
use aule_build::{Against, Change, Download, DownloadKind, Knowledge, PackageChange, StepState};
use aule_store::download::shown;
use std::fmt::Write;

/// More paths than this are only counted.
const PATHS_SHOWN: usize = 100;
/// More entries of the lock than this are only counted: most are packages, which are told above.
const LOCK_SHOWN: usize = 20;

/// All of it.
pub(super) fn of(plans: &Plans) -> String {
    let mut text = String::new();
    for plan in &plans.plans {
        // Writing to a string cannot fail.
        let _ = plan_of_variant(&mut text, plan);
    }
    let _ = summary(&mut text, plans);
    text
}

fn plan_of_variant(text: &mut String, plan: &Plan) -> std::fmt::Result {
    let Plan { preview, files } = plan;
    let against = match &preview.against {
        Against::Build { reference, digest } => match reference.contains('@') {
            true => format!("the build {reference}"),
            false => format!("the build {reference}@{digest}"),
        },
        Against::Lock => "the lock".into(),
        Against::Base => "the base alone".into(),
    };
    writeln!(text, "{}, compared with {against}", preview.reference)?;
    for step in &preview.steps {
        let state = match step.state {
            StepState::Cached => "cached",
            StepState::Runs => "runs",
            StepState::Unknown => "unknown",
        };
        let why = step.why.as_ref().map(|why| format!("  {why}")).unwrap_or_default();
        writeln!(text, "  {state:<9} {}{why}", step.name)?;
    }
    let (packages, others): (Vec<_>, Vec<_>) =
        preview.downloads.iter().partition(|it| it.kind == DownloadKind::Package);
    for download in others {
        writeln!(text, "  {:<9} {}", "fetch", fetched(download))?;
    }
    // Each is told below where it changes something.
    let bytes = packages.iter().filter_map(|it| it.rest()).sum();
    match packages.len() {
        0 => {}
        1 => writeln!(text, "  {:<9} 1 package ({})", "fetch", size(bytes))?,
        many => writeln!(text, "  {:<9} {many} packages ({})", "fetch", size(bytes))?,
    }
    for change in &preview.packages.changes {
        writeln!(text, "  {}", package(change))?;
    }
    let counted = |wanted: Change| preview.packages.changes.iter().filter(|it| it.change == wanted).count();
    let counts = format!(
        "{} added, {} removed, {} upgraded, {} downgraded, {} as they were{}",
        counted(Change::Added),
        counted(Change::Removed),
        counted(Change::Upgraded),
        counted(Change::Downgraded),
        preview.packages.unchanged,
        room(&preview.packages.changes)
    );
    let why = preview.packages.why.as_deref().unwrap_or_default();
    match preview.packages.state {
        Knowledge::Resolved if preview.packages.changes.is_empty() && preview.packages.unchanged == 0 => {
            writeln!(text, "packages: there are none")?;
        }
        Knowledge::Resolved => writeln!(text, "packages: {counts}")?,
        Knowledge::Pinned => {
            writeln!(text, "packages: {counts}; only as the lock pins them, and what would go is not known: {why}")?;
        }
        Knowledge::Unknown if preview.packages.changes.is_empty() => writeln!(text, "packages: not known: {why}")?,
        Knowledge::Unknown => writeln!(text, "packages: {counts}; others are not known: {why}")?,
    }
    match files {
        Files::NoBuild => writeln!(text, "files: there is no build to compare with"),
        Files::Unknown { why } => writeln!(text, "files: not known: {why}"),
        Files::Known { counts, changes } => {
            for change in changes.iter().take(PATHS_SHOWN) {
                write!(text, "  {}", change.line)?;
            }
            if changes.len() > PATHS_SHOWN {
                writeln!(text, "  … and {} more; `--format json` has them all", changes.len() - PATHS_SHOWN)?;
            }
            writeln!(text, "files: {counts}")
        }
    }
}

/// What holds for all variants together.
fn summary(text: &mut String, plans: &Plans) -> std::fmt::Result {
    let Total { count, size: bytes, unknown, complete } = plans.download;
    let more = if complete { "" } else { "; which packages come is not known" };
    let files = if count == 1 { "1 file" } else { &format!("{count} files") };
    match (count, unknown) {
        (0, _) => writeln!(text, "download: nothing{more}")?,
        (_, 0) => writeln!(text, "download: {files}, {}{more}", size(bytes))?,
        (_, _) => writeln!(text, "download: {files}, {} and {unknown} of a size that is not known{more}", size(bytes))?,
    }
    for it in plans.lock.changes.iter().take(LOCK_SHOWN) {
        let letter = match it.change {
            "added" => '+',
            "removed" => '-',
            _ => '~',
        };
        let versions: Vec<&str> = [&it.old, &it.new].into_iter().flatten().map(String::as_str).collect();
        let line = format!("  {letter} {} {} {}", it.kind, it.name, versions.join(" -> "));
        writeln!(text, "{}", line.trim_end())?;
    }
    if plans.lock.changes.len() > LOCK_SHOWN {
        writeln!(text, "  … and {} more; `--format json` has them all", plans.lock.changes.len() - LOCK_SHOWN)?;
    }
    for it in &plans.lock.unknown {
        writeln!(text, "  ? {it}")?;
    }
    match (plans.lock.changes.len(), plans.lock.unknown.len()) {
        (0, 0) => writeln!(text, "lock: stays as it is"),
        (1, 0) => writeln!(text, "lock: 1 entry changes"),
        (changes, 0) => writeln!(text, "lock: {changes} entries change"),
        (changes, unknown) => writeln!(text, "lock: {changes} known to change, {unknown} not known before the build"),
    }
}

fn fetched(download: &Download) -> String {
    let kind = match download.kind {
        DownloadKind::Image => "image",
        DownloadKind::Package => "package",
        DownloadKind::File => "file",
    };
    let bytes = match (download.size, download.received) {
        (None, _) => "size not known".into(),
        (Some(bytes), 0) => size(bytes),
        (Some(bytes), received) => format!("{}, {} of it are there", size(bytes), size(received.min(bytes))),
    };
    let name = download.name.as_ref().map(|name| format!("{name} ")).unwrap_or_default();
    format!("{kind} {name}({bytes}) {}", shown(&download.url))
}

/// How much more or less room all of them take together, where each says it.
fn room(changes: &[PackageChange]) -> String {
    let sizes = changes.iter().map(|it| {
        let new = if it.new.is_some() { it.installed_size? } else { 0 };
        let old = if it.old.is_some() { it.old_installed_size? } else { 0 };
        Some(i128::from(new) - i128::from(old))
    });
    let together: Option<i128> = sizes.sum();
    let sign = if together < Some(0) { '-' } else { '+' };
    match together.and_then(|it| u64::try_from(it.unsigned_abs()).ok()) {
        None | Some(0) => String::new(),
        Some(bytes) => format!("; {sign}{} installed", size(bytes)),
    }
}

fn package(it: &PackageChange) -> String {
    let word = match it.change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Upgraded => "upgraded",
        Change::Downgraded => "downgraded",
    };
    let versions: Vec<&str> = [&it.old, &it.new].into_iter().flatten().map(String::as_str).collect();
    let mut details = Vec::new();
    match it.download {
        Some(0) => details.push("in the store".to_owned()),
        Some(bytes) => details.push(format!("{} to fetch", size(bytes))),
        None => {}
    }
    match (it.installed_size, it.old_installed_size) {
        (Some(new), Some(old)) if new != old => {
            let (sign, by) = if new > old { ('+', new - old) } else { ('-', old - new) };
            details.push(format!("{} installed ({sign}{})", size(new), size(by)));
        }
        (Some(new), _) => details.push(format!("{} installed", size(new))),
        (None, Some(old)) if it.change == Change::Removed => details.push(format!("frees {}", size(old))),
        _ => {}
    }
    details.extend(it.files.map(|files| format!("{files} files")));
    let details = if details.is_empty() { String::new() } else { format!("  {}", details.join(", ")) };
    format!("{word:<9} {} {}{details}", it.name, versions.join(" -> "))
}
