//! Answers that are compressed on their way: large ones, for whoever says that they take it.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Smaller ones are sent as they are, as a real server does.
const LEAST: usize = 128 * 1024;

/// What the headers of a compressed answer say.
pub const HEADERS: [(&str, &str); 2] = [("content-encoding", "gzip"), ("vary", "Accept-Encoding")];

/// The body, compressed; nothing if it is small, or if the request does not take it so.
#[must_use]
pub fn packed(accepts: Option<&str>, body: &[u8]) -> Option<Vec<u8>> {
    let taken = accepts.is_some_and(|list| list.split(',').any(|one| one.trim() == "gzip"));
    if !taken || body.len() < LEAST {
        return None;
    }
    // The level of a real server: the one that costs least.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Large answers come compressed to those who ask for it, and are the same when they are read.
    #[test]
    fn large_answers_for_those_who_ask() {
        let body = "a line of an answer\n".repeat(10_000);
        assert_eq!(packed(None, body.as_bytes()), None);
        assert_eq!(packed(Some("deflate, br"), body.as_bytes()), None);
        assert_eq!(packed(Some("gzip"), &body.as_bytes()[..1_000]), None);
        let packed = packed(Some("deflate, gzip"), body.as_bytes()).unwrap();
        assert!(packed.len() < body.len() / 10);
        let mut read = String::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut read).unwrap();
        assert_eq!(read, body);
    }
}
