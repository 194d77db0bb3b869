//! Kubernetes quantities: parsed to thousandths, and written in the canonical form that the server stores.

use serde_json::Value;

/// A parsed quantity: thousandths of the unit, and whether it was written in binary (`Ki`) or plain decimal style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quantity {
    /// Thousandths.
    pub(crate) milli: i128,
    binary: bool,
}

const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i128); 7] = [
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
    ("", 1),
];

impl Quantity {
    /// Parses the text form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        for (suffix, shift) in BINARY {
            if let Some(number) = text.strip_suffix(suffix) {
                return Some(Self { milli: decimal(number)?.checked_mul(1_i128 << shift)?, binary: true });
            }
        }
        if let Some(number) = text.strip_suffix('m') {
            return Some(Self { milli: round_up(decimal(number)?), binary: false });
        }
        if let Some((number, exponent)) = text.split_once(['e', 'E']).filter(|(_, exponent)| !exponent.is_empty()) {
            let factor = 10_i128.checked_pow(exponent.trim_start_matches('+').parse().ok()?)?;
            return Some(Self { milli: decimal(number)?.checked_mul(factor)?, binary: false });
        }
        for (suffix, factor) in DECIMAL {
            if suffix.is_empty() || text.ends_with(suffix) {
                let number = text.strip_suffix(suffix)?;
                return Some(Self { milli: decimal(number)?.checked_mul(factor)?, binary: false });
            }
        }
        None
    }

    /// A plain number of thousandths.
    pub(crate) fn of_milli(milli: i128, binary: bool) -> Self {
        Self { milli, binary }
    }

    /// Adds, keeping the style of the first.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { milli: self.milli + other.milli, binary: if self.milli == 0 { other.binary } else { self.binary } }
    }

    /// The canonical text.
    pub(crate) fn canonical(self) -> String {
        if self.milli == 0 {
            return "0".to_owned();
        }
        if self.milli % 1_000 != 0 {
            return format!("{}m", self.milli);
        }
        let whole = self.milli / 1_000;
        if self.binary && whole.abs() >= 1_024 {
            for (suffix, shift) in BINARY.iter().rev() {
                if whole % (1_i128 << shift) == 0 {
                    return format!("{}{suffix}", whole >> shift);
                }
            }
            return whole.to_string();
        }
        if !self.binary {
            for (suffix, factor) in DECIMAL.iter().rev().skip(1) {
                if whole % factor == 0 {
                    return format!("{}{suffix}", whole / factor);
                }
            }
        }
        whole.to_string()
    }
}

fn round_up(milli_of_milli: i128) -> i128 {
    (milli_of_milli + 999).div_euclid(1_000)
}

/// A decimal number in thousandths.
fn decimal(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty()
        || !whole.chars().chain(fraction.chars()).all(|each| each.is_ascii_digit())
    {
        return None;
    }
    let mut milli = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()?.checked_mul(1_000)? };
    for (at, digit) in fraction.chars().enumerate() {
        let value = i128::from(digit.to_digit(10)?);
        match at {
            0 => milli += value * 100,
            1 => milli += value * 10,
            2 => milli += value,
            _ if value > 0 => {
                milli += 1;
                break;
            }
            _ => {}
        }
    }
    Some(if negative { -milli } else { milli })
}

/// The maps whose values are quantities, wherever they are in a built-in object.
const QUANTITY_MAPS: [&str; 13] = [
    "requests",
    "limits",
    "hard",
    "used",
    "capacity",
    "allocatable",
    "default",
    "defaultRequest",
    "max",
    "min",
    "maxLimitRequestRatio",
    "overhead",
    "allocatedResources",
];

/// Writes every quantity of a built-in object in canonical form. Returns the first one that is none, with its map's name and key.
pub(crate) fn canonicalise(value: &mut Value, inside: &str) -> Result<(), String> {
    // Schemas use the same words (`default`, `max`) for other things; nothing in a definition is a quantity.
    if value.get("kind").is_some_and(|kind| kind == "CustomResourceDefinition") {
        return Ok(());
    }
    match value {
        Value::Object(map) => {
            for (key, below) in map.iter_mut() {
                let scalar = below.is_string() || below.is_number();
                if scalar && (QUANTITY_MAPS.contains(&inside) || key == "sizeLimit") {
                    rewrite(below)?;
                } else if !matches!(
                    key.as_str(),
                    "annotations" | "labels" | "data" | "stringData" | "matchLabels" | "managedFields"
                ) {
                    canonicalise(below, key)?;
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                canonicalise(item, "")?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn rewrite(value: &mut Value) -> Result<(), String> {
    let text = match &*value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match Quantity::parse(&text) {
        Some(quantity) => {
            *value = Value::String(quantity.canonical());
            Ok(())
        }
        None => Err(text),
    }
}
