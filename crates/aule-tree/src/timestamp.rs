//! Points in time, and how they are written.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A point in time: seconds since 1970-01-01T00:00:00Z (may be negative) and nanoseconds (below 10⁹).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp {
    /// Whole seconds since the epoch, rounded down.
    pub seconds: i64,
    /// Nanoseconds after that second, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// A whole second.
    pub const fn from_seconds(seconds: i64) -> Self {
        Timestamp { seconds, nanoseconds: 0 }
    }

    /// This time without its fraction.
    pub const fn whole_seconds(self) -> Self {
        Timestamp { seconds: self.seconds, nanoseconds: 0 }
    }
}

/// In UTC as RFC 3339 has it, with a fraction where there is one: `2025-11-01T00:00:00Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.seconds.div_euclid(86_400), self.seconds.rem_euclid(86_400));
        let (year, month, day) = date(days);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if self.nanoseconds != 0 {
            f.write_str(format!(".{:09}", self.nanoseconds).trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

/// Days since 1970-01-01 as a date of the proleptic Gregorian calendar: years begin in March, eras have 400 of them.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        for (seconds, nanoseconds, wanted) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 5_000_000, "2000-02-29T00:00:00.005Z"),
            (1_763_856_000, 0, "2025-11-23T00:00:00Z"),
            (-1, 0, "1969-12-31T23:59:59Z"),
            (4_102_444_800, 1, "2100-01-01T00:00:00.000000001Z"),
        ] {
            let time = Timestamp { seconds, nanoseconds };
            assert_eq!(time.to_string(), wanted);
            assert_eq!(time.whole_seconds().nanoseconds, 0);
        }
        // Times that no calendar has must not end the program.
        let (past, future) = (Timestamp::from_seconds(i64::MIN), Timestamp::from_seconds(i64::MAX));
        assert!(past.to_string().starts_with('-') && future.to_string().ends_with('Z'));
    }
}
