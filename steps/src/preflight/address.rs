//! Ranges of IPv4 addresses as they are written in runbooks, and how they lie to each other. No names, no other family.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 range, for example `10.0.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// As it was written; it may lie within its own range.
    written: u32,
    bits: u32,
}

/// A text that is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no IPv4 range such as 10.0.0.0/16")]
pub struct NoRange(String);

impl FromStr for Range {
    type Err = NoRange;

    fn from_str(text: &str) -> Result<Self, NoRange> {
        let no = || NoRange(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(no)?;
        let address: Ipv4Addr = address.parse().map_err(|_| no())?;
        let bits: u32 = bits.parse().map_err(|_| no())?;
        if bits > 32 {
            return Err(no());
        }
        Ok(Self { written: address.into(), bits })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", Ipv4Addr::from(self.written), self.bits)
    }
}

impl Range {
    /// How many bits of an address are fixed: 16 for a /16.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.bits
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - self.bits).unwrap_or(0)
    }

    /// The range with its first address, which is how AWS writes it.
    #[must_use]
    pub fn canonical(self) -> Self {
        Self { written: self.written & self.mask(), bits: self.bits }
    }

    /// Whether it is written with its first address.
    #[must_use]
    pub fn is_canonical(self) -> bool {
        self == self.canonical()
    }

    fn first(self) -> u32 {
        self.written & self.mask()
    }

    fn last(self) -> u32 {
        self.written | !self.mask()
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first() <= other.last() && other.first() <= self.last()
    }

    /// Whether all of `other` lies in it.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.first() <= other.first() && other.last() <= self.last()
    }

    /// How many addresses it has.
    #[must_use]
    pub fn size(self) -> u64 {
        1_u64 << (32 - self.bits)
    }

    /// How many of a subnet can be given away: AWS keeps five
    /// (<https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html>).
    #[must_use]
    pub fn usable(self) -> u64 {
        self.size().saturating_sub(5)
    }

    /// Whether it lies in the ranges that are nobody's on the Internet: RFC 1918 and RFC 6598.
    #[must_use]
    pub fn is_private(self) -> bool {
        ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"]
            .iter()
            .filter_map(|range| range.parse::<Self>().ok())
            .any(|range| range.contains(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        text.parse().unwrap()
    }

    /// Proves how ranges lie to each other at their edges, and what is no range.
    #[test]
    fn ranges_lie_as_their_addresses_do() {
        assert!(range("10.0.0.0/16").contains(range("10.0.255.0/24")));
        assert!(!range("10.0.0.0/16").contains(range("10.1.0.0/24")));
        assert!(range("10.0.0.0/17").overlaps(range("10.0.64.0/18")));
        assert!(!range("10.0.0.0/18").overlaps(range("10.0.64.0/18")));
        assert!(range("0.0.0.0/0").contains(range("192.0.2.1/32")));
        assert_eq!(range("10.0.1.7/16").canonical().to_string(), "10.0.0.0/16");
        assert!(range("10.0.0.0/16").is_canonical() && !range("10.0.1.0/16").is_canonical());
        assert_eq!(range("10.0.0.0/28").usable(), 11);
        assert!(range("100.64.0.0/16").is_private() && !range("8.8.8.0/24").is_private());
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "x/8", "::/0"] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }
}
