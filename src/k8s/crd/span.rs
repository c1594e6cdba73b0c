//! How long something lasts, as a policy writes it: `90s`, `10m`, `1h30m`.
//!
//! Enters: text. Leaves: a duration, or what is right. The rule is the schema's, and stands here a second time for manifests
//! that no API server has seen: what `kube` reads as a duration is wider, and panics on what is negative or too large.

use std::time::Duration as Span;

use kube::core::Duration;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

pub(super) const RULE: &str =
    "a duration is a whole number with a unit, such as 90s, 10m or 1h30m, above zero and at most 8760h";

const LONGEST: Span = Span::from_secs(8760 * 3600);

pub(super) fn read<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(input)?;
    parse(&text).map(Duration::from).ok_or_else(|| D::Error::custom(format_args!("`{text}`: {RULE}")))
}

pub(super) fn read_option<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    #[derive(Deserialize)]
    struct Given(#[serde(deserialize_with = "read")] Duration);

    Ok(Option::<Given>::deserialize(input)?.map(|Given(duration)| duration))
}

fn parse(text: &str) -> Option<Span> {
    let (mut rest, mut millis) = (text, 0_u64);
    for (unit, each) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let (found, next) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        if found == unit && !number.is_empty() {
            millis = millis.checked_add(number.parse::<u64>().ok()?.checked_mul(each)?)?;
            rest = next;
        }
    }
    let span = Span::from_millis(millis);
    (rest.is_empty() && !span.is_zero() && span <= LONGEST).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_with_units_from_the_largest_down() {
        for (text, millis) in
            [("90s", 90_000), ("10m", 600_000), ("1h30m", 5_400_000), ("1m1ms", 60_001), ("8760h", 31_536_000_000)]
        {
            assert_eq!(parse(text), Some(Span::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_and_nothing_panics() {
        for text in [
            "",
            "5",
            "s",
            "0s",
            "-1s",
            "5s-3s",
            "1.5h",
            "1m1h",
            "1s1s",
            "soon",
            "8761h",
            "99999999999999999999h",
            "18446744073709551615h",
            "1 h",
            "1µs",
            "1mss",
            "é",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
