//! What came of all nodes: how many are up, how long they took, and why others are not.

use crate::{
    failure::Failure,
    node::{Boot, Phase},
    root::Done,
};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, time::Duration};

/// How many different reasons are told.
const REASONS_MAX: usize = 8;

/// Median, 95th percentile and maximum, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Times {
    /// The middle one.
    pub(crate) median: f64,
    /// Nearest rank.
    pub(crate) p95: f64,
    /// The slowest.
    pub(crate) max: f64,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Times {
        times.sort_unstable();
        let at = |share: f64| {
            let rank = (times.len() as f64 * share).ceil() as usize;
            times.get(rank.saturating_sub(1)).map_or(0.0, Duration::as_secs_f64)
        };
        Times { median: at(0.5), p95: at(0.95), max: at(1.0) }
    }
}

/// The report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Nodes that came up.
    pub(crate) ok: usize,
    /// Nodes that did not.
    pub(crate) failed: usize,
    /// Why, with how many nodes each.
    pub(crate) reasons: BTreeMap<String, usize>,
    /// From the first node's start to the last one's end, in seconds.
    pub(crate) seconds: f64,
    /// A node's boot.
    pub(crate) node: Times,
    /// How many times as long as the median the slowest node took.
    pub(crate) slowest_to_median: f64,
    /// Its phases.
    pub(crate) phases: BTreeMap<&'static str, Times>,
    /// UDP packets that nodes had to send again.
    pub(crate) repeated: u64,
    /// Blocks of TFTP that came again or out of order.
    pub(crate) unexpected: u64,
    /// Bytes over TFTP, all nodes together.
    pub(crate) boot_bytes: u64,
    /// What was done with roots, all nodes together.
    pub(crate) root: Done,
}

impl Report {
    /// The report of these nodes.
    pub(crate) fn of(boots: &[Result<Boot, Failure>], elapsed: Duration) -> Report {
        let good: Vec<_> = boots.iter().filter_map(|it| it.as_ref().ok()).collect();
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for failure in boots.iter().filter_map(|it| it.as_ref().err()) {
            let known = reasons.contains_key(&failure.0) || reasons.len() < REASONS_MAX;
            let reason = if known { failure.0.clone() } else { "other reasons".into() };
            *reasons.entry(reason).or_default() += 1;
        }
        let node = Times::of(good.iter().map(|it| it.total).collect());
        let of_phase = |phase: Phase| good.iter().filter_map(|it| it.phases.get(phase as usize).copied()).collect();
        let mut root = Done::default();
        for it in &good {
            root.calls += it.root.calls;
            root.files += it.root.files;
            root.directories += it.root.directories;
            root.skipped += it.root.skipped;
            root.bytes += it.root.bytes;
        }
        Report {
            ok: good.len(),
            failed: boots.len() - good.len(),
            reasons,
            seconds: elapsed.as_secs_f64(),
            node,
            slowest_to_median: if node.median > 0.0 { node.max / node.median } else { 0.0 },
            phases: Phase::ALL.into_iter().map(|it| (it.name(), Times::of(of_phase(it)))).collect(),
            repeated: good.iter().map(|it| it.repeated).sum(),
            unexpected: good.iter().map(|it| it.unexpected).sum(),
            boot_bytes: good.iter().map(|it| it.boot_bytes).sum(),
            root,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} nodes ok, {} failed, in {:.2} s", self.ok, self.failed, self.seconds)?;
        for (reason, nodes) in &self.reasons {
            writeln!(f, "  {nodes}: {reason}")?;
        }
        writeln!(f, "{:<12} {:>9} {:>9} {:>9}", "seconds", "median", "p95", "max")?;
        let mut row =
            |name: &str, it: &Times| writeln!(f, "{name:<12} {:>9.3} {:>9.3} {:>9.3}", it.median, it.p95, it.max);
        for phase in Phase::ALL {
            row(phase.name(), self.phases.get(phase.name()).unwrap_or(&Times::default()))?;
        }
        row("node", &self.node)?;
        writeln!(f, "the slowest took {:.2} times the median", self.slowest_to_median)?;
        let mib = |bytes: u64| bytes >> 20;
        writeln!(
            f,
            "TFTP: {} MiB, {} packets sent again, {} blocks unexpected",
            mib(self.boot_bytes),
            self.repeated,
            self.unexpected
        )?;
        let Done { calls, files, directories, skipped, bytes } = self.root;
        write!(
            f,
            "NFS: {calls} calls, {files} files with {} MiB, {directories} directories, {skipped} not there",
            mib(bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_by_nearest_rank() {
        let times = (1..=100).rev().map(Duration::from_secs).collect();
        assert_eq!(Times::of(times), Times { median: 50.0, p95: 95.0, max: 100.0 });
        assert_eq!(Times::of(Vec::new()), Times::default());
    }

    #[test]
    fn reasons_are_counted() {
        let boot = Boot { total: Duration::from_secs(2), ..Boot::default() };
        let mut boots = vec![Ok(boot), Err(Failure("mount: connect".into())), Err(Failure("mount: connect".into()))];
        boots.extend((0..20).map(|it| Err(Failure(format!("reason {it}")))));
        let report = Report::of(&boots, Duration::from_secs(3));
        assert_eq!((report.ok, report.failed, report.reasons["mount: connect"]), (1, 22, 2));
        assert_eq!(report.reasons.len(), REASONS_MAX + 1);
        assert_eq!(report.reasons.values().sum::<usize>(), 22);
        assert!((report.slowest_to_median - 1.0).abs() < 1e-9);
    }
}
