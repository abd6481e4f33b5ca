//! Durations as Go and protobuf write them: `1h2m3.5s`, `10ms`, `1.5s`.

use std::time::Duration;

/// The longest duration that is taken: 100 years of 365 days.
const MAX: Duration = Duration::from_hours(100 * 365 * 24);

/// Units and their length in nanoseconds; `ms` before `m`, so that the longer one is tried first.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses a duration; `Err` says what is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const SHAPE: &str = "write it as `10s`, `500ms` or `1m30s`";
    if text.starts_with('-') {
        return Err(format!("{text:?} is negative"));
    }
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(format!("the duration is empty: {SHAPE}"));
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let len = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(len);
        if after.is_empty() {
            return Err(format!("{text:?} has no unit: {SHAPE}"));
        }
        let unit = UNITS.iter().find(|(unit, _)| after.starts_with(unit));
        let Some((unit, length)) = unit else {
            return Err(format!("{text:?} is no duration: {SHAPE}"));
        };
        nanos +=
            scaled(number, *length).ok_or_else(|| format!("{text:?} is no duration: {SHAPE}"))?;
        if nanos > MAX.as_nanos() {
            return Err(format!("{text:?} is longer than 100 years"));
        }
        rest = &after[unit.len()..];
    }
    // Below MAX, so both parts fit.
    Ok(Duration::new(
        (nanos / 1_000_000_000) as u64,
        (nanos % 1_000_000_000) as u32,
    ))
}

/// A decimal number times a unit, rounded down to nanoseconds.
fn scaled(number: &str, unit: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut nanos = match whole {
        "" => 0,
        digits => u128::from(digits.parse::<u64>().ok()?) * u128::from(unit),
    };
    // Digits below the tenth say less than a nanosecond of an hour.
    let mut scale = u128::from(unit);
    let mut divisor: u128 = 1;
    let mut numerator: u128 = 0;
    for digit in fraction.bytes().take(18) {
        numerator = numerator * 10 + u128::from(digit.checked_sub(b'0').filter(|d| *d < 10)?);
        divisor *= 10;
    }
    if fraction.contains('.') {
        return None;
    }
    scale = scale * numerator / divisor;
    nanos += scale;
    Some(nanos)
}
