//! How long the API server waits for an answer.
//!
//! Enters: the query of its call, `?timeout=5s`. Leaves: a time span. It is its own configuration of the webhook, rounded
//! up to whole seconds, so something is kept back for the way.

use std::time::Duration;

/// What the API server takes where nothing is configured; also where a caller says nothing that can be read.
const DEFAULT: Duration = Duration::from_secs(10);
/// The API server takes no longer time-out.
const LONGEST: Duration = Duration::from_secs(30);

/// The `timeout` of a query, in the notation of Go.
pub fn timeout(query: Option<&str>) -> Duration {
    let pairs = query.unwrap_or_default().split('&');
    let text = pairs.filter_map(|pair| pair.strip_prefix("timeout=")).next();
    text.and_then(go_duration).filter(|timeout| !timeout.is_zero()).unwrap_or(DEFAULT).min(LONGEST)
}

/// `1m30s`, `1.5s`, `500ms`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().ok()?;
        let unit_end = after.find(|character: char| character.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        seconds += number
            * match unit {
                "h" => 3_600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = after;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notation_of_go_is_read() {
        for (query, millis) in [
            ("timeout=5s", 5_000),
            ("a=b&timeout=1.5s", 1_500),
            ("timeout=500ms&x", 500),
            ("timeout=0m2s", 2_000),
            ("timeout=1h", 30_000),
        ] {
            assert_eq!(timeout(Some(query)), Duration::from_millis(millis), "{query}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_the_default_of_the_api_server() {
        for query in [None, Some(""), Some("timeout="), Some("timeout=soon"), Some("timeout=5"), Some("timeout=-1s")] {
            assert_eq!(timeout(query), DEFAULT, "{query:?}");
        }
        assert_eq!(timeout(Some("timeout=0s")), DEFAULT);
        assert_eq!(timeout(Some(&format!("timeout={}s", "9".repeat(400)))), DEFAULT);
    }
}
