//! Presigned `GetCallerIdentity` tokens, read once: a client sends the same one with every request. Whether one is still
//! fresh, and whose key signed it, is for others to say.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

/// How many tokens are remembered: more than there are clients at a time.
const REMEMBERED: usize = 16;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Presigned {
    /// Signed as a question who the caller is, for a named cluster.
    pub(crate) asks_who: bool,
    /// Seconds for which it is good; far too many where it does not say.
    pub(crate) expires: i64,
    /// When it was signed.
    pub(crate) signed_at: Option<Timestamp>,
    /// The access key; empty where it names none.
    pub(crate) key: String,
}

/// The latest first.
static KNOWN: Mutex<Vec<(String, Arc<Presigned>)>> = Mutex::new(Vec::new());

/// Reads a token; nothing when it is none.
pub(crate) fn read(token: &str) -> Option<Arc<Presigned>> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, found)) = known.iter().find(|(other, _)| other == token) {
        return Some(Arc::clone(found));
    }
    let read = Arc::new(parse(token)?);
    known.insert(0, (token.to_owned(), Arc::clone(&read)));
    known.truncate(REMEMBERED);
    Some(read)
}

fn parse(token: &str) -> Option<Presigned> {
    let encoded = token.strip_prefix("k8s-aws-v1.")?;
    let url = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?).ok()?;
    let url = url::Url::parse(&url).ok()?;
    let parameter = |name: &str| {
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let date = parameter("X-Amz-Date").replace('Z', "+0000");
    let signed_at = jiff::fmt::strtime::parse("%Y%m%dT%H%M%S%z", date).and_then(|parsed| parsed.to_timestamp()).ok();
    let named = parameter("X-Amz-SignedHeaders").split(';').any(|header| header == "x-k8s-aws-id");
    Some(Presigned {
        asks_who: named && parameter("Action") == "GetCallerIdentity",
        expires: parameter("X-Amz-Expires").parse().unwrap_or(i64::MAX),
        signed_at,
        key: parameter("X-Amz-Credential").split('/').next().unwrap_or_default().to_owned(),
    })
}
