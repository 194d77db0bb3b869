//! Shamir's secret sharing over GF(256), as Vault splits its root key: a share is the polynomial's bytes, then its x.
//!
//! Combining too few, or wrong, shares yields some other secret, never an error: whoever combines compares a digest.
//! It is for simulated keys; it makes no claim of constant time.

fn multiply(mut left: u8, mut right: u8) -> u8 {
    let mut product = 0;
    while right != 0 {
        if right & 1 == 1 {
            product ^= left;
        }
        let carry = left & 0x80 != 0;
        left <<= 1;
        if carry {
            left ^= 0x1b;
        }
        right >>= 1;
    }
    product
}

fn inverse(value: u8) -> u8 {
    // value^254 = value^-1, since the multiplicative group has 255 elements.
    let square = |x: u8| multiply(x, x);
    let mut power = value;
    let mut result = 1;
    for _ in 0..7 {
        power = square(power);
        result = multiply(result, power);
    }
    result
}

/// Splits `secret` into `shares` parts of which any `threshold` give it back. `random` fills coefficients.
///
/// The x coordinates are 1..=shares; the caller has checked that 1 <= threshold <= shares <= 255.
pub(super) fn split(secret: &[u8], shares: u8, threshold: u8, mut random: impl FnMut() -> u8) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = (0..shares).map(|_| Vec::with_capacity(secret.len() + 1)).collect();
    for byte in secret {
        let coefficients: Vec<u8> = (1..threshold).map(|_| random()).collect();
        for (part, x) in parts.iter_mut().zip(1..=shares) {
            // Horner's rule, highest coefficient first.
            let high = coefficients.iter().rev().fold(0, |sum, coefficient| multiply(sum, x) ^ coefficient);
            part.push(multiply(high, x) ^ byte);
        }
    }
    for (part, x) in parts.iter_mut().zip(1..=shares) {
        part.push(x);
    }
    parts
}

/// Interpolates at zero. `None` when shares differ in length, are empty, or repeat an x.
pub(super) fn combine(shares: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut points = Vec::with_capacity(shares.len());
    for share in shares {
        let (x, bytes) = share.split_last()?;
        points.push((*x, bytes));
    }
    let length = points.first().map(|(_, bytes)| bytes.len())?;
    if points.iter().any(|(_, bytes)| bytes.len() != length) {
        return None;
    }
    let mut weights = Vec::with_capacity(points.len());
    for (position, (x, _)) in points.iter().enumerate() {
        let mut weight = 1;
        for (other_position, (other, _)) in points.iter().enumerate() {
            if position == other_position {
                continue;
            }
            if x == other {
                return None;
            }
            weight = multiply(weight, multiply(*other, inverse(x ^ other)));
        }
        weights.push(weight);
    }
    let secret = (0..length).map(|index| {
        points
            .iter()
            .zip(&weights)
            .fold(0, |sum, ((_, bytes), weight)| sum ^ multiply(bytes.get(index).copied().unwrap_or_default(), *weight))
    });
    Some(secret.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that inversion inverts, for every element.
    #[test]
    fn every_element_has_its_inverse() {
        for value in 1..=255 {
            assert_eq!(multiply(value, inverse(value)), 1, "{value}");
        }
    }

    /// Proves, for every choice of 1 <= threshold <= shares <= 6 and several secrets, that any threshold-sized subset
    /// gives the secret back, and that one share fewer, or one altered share, does not.
    #[test]
    fn any_threshold_of_shares_gives_the_secret_back_and_fewer_do_not() {
        let mut state = 7_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        for round in 0..4_u8 {
            let secret: Vec<u8> = (0..32).map(|_| random()).collect();
            for shares in 1..=6_u8 {
                for threshold in 1..=shares {
                    let parts = split(&secret, shares, threshold, &mut random);
                    for mask in 1_u32..(1 << shares) {
                        let subset: Vec<Vec<u8>> = parts
                            .iter()
                            .enumerate()
                            .filter(|(index, _)| mask & (1 << index) != 0)
                            .map(|(_, part)| part.clone())
                            .collect();
                        let combined = combine(&subset).expect("well-formed");
                        let enough = mask.count_ones() >= u32::from(threshold);
                        assert_eq!(combined == secret, enough, "round {round} {shares}/{threshold} mask {mask:b}");
                        if enough && threshold > 1 {
                            let mut bad = subset.clone();
                            bad[0][3] ^= 0x40;
                            assert_ne!(combine(&bad).expect("well-formed"), secret);
                        }
                    }
                }
            }
        }
    }
}
