//! The pipeline: a recipe and an upstream image become layers, and layers become artifacts.
//!
//! A build is a chain of three steps, `base` (the upstream image), `files` (overlays, files, services) and `config`
//! (boot files, root, cloud-init). Each has a key made of everything that decides its result, and gives one OCI layer.
//! Outputs are made of the finished tree, each with a key of its own, so that an output whose part of the tree did not
//! change is not made again.
//!
//! Nothing here prints, reads the environment or asks the clock: such things come in with a [`BuildRequest`].

mod base;
mod error;
mod import;
mod inputs;
mod key;
mod outputs;
mod pipeline;
mod stage;
mod steps;

pub mod check;

pub use error::{BuildError, Result};
pub use import::BaseInfo;
pub use inputs::{Bytes, InputEntry, InputKind, Inputs, LocalInputs};
pub use key::FORMAT_VERSION;
pub use outputs::{
    artifact::types,
    boot::TEMPLATES,
    provenance::{Origin, Provenance, ProvenanceStep, read as read_provenance},
};
pub use pipeline::{
    Artifact, BuildOutcome, BuildRequest, LockMode, Network, Observer, StepOutcome, build, lock, rebuild,
};
pub use stage::LayerRecord;

/// A timestamp as OCI documents have it (RFC 3339, UTC, whole seconds).
pub(crate) fn rfc3339(time: aule_tree::Timestamp) -> String {
    // Days to a date: "civil_from_days" in the proleptic Gregorian calendar.
    let (days, seconds) = (time.seconds.div_euclid(86_400), time.seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates() {
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_763_856_000, "2025-11-23T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(super::rfc3339(aule_tree::Timestamp::from_seconds(seconds)), wanted);
        }
    }
}
