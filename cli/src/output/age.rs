//! Ages as kubectl prints them: two units at most, and the smaller one only while it matters.

use jiff::Timestamp;

use super::UNKNOWN;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// How long ago `since` (RFC 3339) is at `now`; [`UNKNOWN`] where it is absent or no time.
pub(crate) fn age(since: Option<&str>, now: Timestamp) -> String {
    match since.and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(since) => seconds(now.as_second() - since.as_second()),
        None => UNKNOWN.to_owned(),
    }
}

/// A length of time in seconds. Clocks differ: a little below zero counts as zero.
pub(crate) fn seconds(total: i64) -> String {
    let two = |large: i64, large_name: &str, small: i64, small_name: &str| {
        let (first, second) = (total / large, total % large / small);
        if second == 0 { format!("{first}{large_name}") } else { format!("{first}{large_name}{second}{small_name}") }
    };
    match total {
        0..120 => format!("{total}s"),
        120..600 => two(MINUTE, "m", 1, "s"),
        600..10_800 => format!("{}m", total / MINUTE),
        10_800..28_800 => two(HOUR, "h", MINUTE, "m"),
        28_800..172_800 => format!("{}h", total / HOUR),
        172_800..691_200 => two(DAY, "d", HOUR, "h"),
        691_200..63_072_000 => format!("{}d", total / DAY),
        63_072_000..252_288_000 => two(YEAR, "y", DAY, "d"),
        252_288_000.. => format!("{}y", total / YEAR),
        _ => "0s".to_owned(),
    }
}

/// How long ago a heartbeat was: tenths of a second while it is fresh.
pub(crate) fn heartbeat(age_ms: Option<u64>) -> String {
    match age_ms {
        None => "never".to_owned(),
        Some(ms) if ms < 10_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        Some(ms) => seconds(i64::try_from(ms / 1000).unwrap_or(i64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_of_kubectl() {
        for (total, text) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (185, "3m5s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (691_200, "8d"),
            (63_071_999, "729d"),
            (63_072_000, "2y"),
            (64_000_000, "2y10d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(seconds(total), text, "{total}");
        }
    }

    #[test]
    fn a_time_that_is_none_is_unknown() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        assert_eq!(age(Some("2026-11-23T11:55:00Z"), now), "5m");
        assert_eq!(age(Some("2026-11-23T12:55:00+01:00"), now), "5m");
        assert_eq!((age(None, now), age(Some("yesterday"), now)), ("<unknown>".to_owned(), "<unknown>".to_owned()));
    }

    #[test]
    fn heartbeats_show_tenths() {
        assert_eq!(heartbeat(Some(0)), "0.0s");
        assert_eq!(heartbeat(Some(1_987)), "1.9s");
        assert_eq!(heartbeat(Some(75_000)), "75s");
        assert_eq!(heartbeat(None), "never");
        assert_eq!(heartbeat(Some(u64::MAX)), "584942417y");
    }
}
