//! Numbers with units, as people write them.

use fault::{Fault, Result};
use record::Quantity;

/// Bytes: `512m`, `1.5g`, `64KiB`, `1024`. Units are powers of 1024 (docker's `units.RAMInBytes`).
pub fn bytes(text: &str) -> Result<u64> {
    let malformed = || {
        Fault::input(format!("\"{text}\" is not a size"))
            .hint("a number with b, k, m, g, t or p after it: 512m, 1.5g")
    };
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(malformed()),
    };
    let (whole, fraction) = decimal(number).ok_or_else(malformed)?;
    let unit = 1u128 << shift;
    let total = u128::from(whole) * unit + u128::from(fraction) * unit / u128::from(BILLION);
    // The kernel's limits are signed.
    u64::try_from(total)
        .ok()
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| Fault::input(format!("the size \"{text}\" is too large")))
}

/// A size from a record: a number of bytes, or text with a unit.
pub fn bytes_of(quantity: &Quantity) -> Result<u64> {
    match quantity {
        Quantity::Integer(number) => u64::try_from(*number)
            .map_err(|_| Fault::input(format!("{number} is not a size: it is negative"))),
        // jq writes large numbers so: 1e9.
        Quantity::Float(number) if *number >= 0.0 && *number < 9.2e18 && number.fract() == 0.0 => {
            Ok(*number as u64)
        }
        Quantity::Float(number) => {
            Err(Fault::input(format!("{number} is not a size: not a whole number of bytes")))
        }
        Quantity::Text(text) => bytes(text),
    }
}

const BILLION: u64 = 1_000_000_000;

/// A number of CPUs in billionths: `1.5` is 1500000000.
pub fn nano_cpus(quantity: &Quantity) -> Result<u64> {
    let text = match quantity {
        Quantity::Integer(number) => number.to_string(),
        Quantity::Float(number) => number.to_string(),
        Quantity::Text(text) => text.trim().to_owned(),
    };
    decimal(&text)
        .and_then(|(whole, fraction)| whole.checked_mul(BILLION)?.checked_add(fraction))
        .filter(|nano| i64::try_from(*nano).is_ok())
        .ok_or_else(|| {
            Fault::input(format!("\"{text}\" is not a number of CPUs")).hint("a decimal number: 0.5, 2")
        })
}

/// A decimal number as its whole part and billionths; further digits are cut.
fn decimal(text: &str) -> Option<(u64, u64)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let nano = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0u64, |sum, b| sum * 10 + u64::from(b - b'0'));
    Some((whole, nano))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", 0),
            ("1024", 1024),
            ("10b", 10),
            ("64k", 65536),
            ("64KB", 65536),
            ("64KiB", 65536),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            (".5k", 512),
            ("2 g", 2 << 30),
            ("1T", 1 << 40),
            ("1p", 1 << 50),
        ] {
            assert_eq!(bytes(text).unwrap(), expected, "{text}");
        }
        for text in
            ["", "m", "-1", "1x", "1.2.3", "0x10", "1e9", "99999999999999999999", "9999999p", "1mm", "٣m"]
        {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(bytes_of(&Quantity::Float(1e9)).unwrap(), 1_000_000_000);
        assert!(bytes_of(&Quantity::Float(f64::NAN)).is_err());
        assert!(bytes_of(&Quantity::Float(0.5)).is_err());
        assert!(bytes_of(&Quantity::Integer(-1)).is_err());
    }

    #[test]
    fn cpus() {
        let text = |t: &str| nano_cpus(&Quantity::Text(t.into()));
        assert_eq!(text("1.5").unwrap(), 1_500_000_000);
        assert_eq!(text(".01").unwrap(), 10_000_000);
        assert_eq!(nano_cpus(&Quantity::Float(0.25)).unwrap(), 250_000_000);
        assert_eq!(nano_cpus(&Quantity::Integer(2)).unwrap(), 2_000_000_000);
        for wrong in ["", ".", "-1", "one", "1,5", "99999999999"] {
            assert!(text(wrong).is_err(), "{wrong}");
        }
        assert!(nano_cpus(&Quantity::Float(f64::INFINITY)).is_err());
    }
}
