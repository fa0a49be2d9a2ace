//! Looks at the documents that commands and API print.

use serde_json::Value;

/// Checks that an object has exactly these keys; their order in the text is nobody's promise.
#[track_caller]
pub(crate) fn check_keys(object: &Value, expected: &[&str]) {
    let fields = object.as_object().expect("an object");
    let mut keys: Vec<&str> = fields.keys().map(String::as_str).collect();
    keys.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(keys, expected, "{object}");
}

/// The `total` of a listing.
#[track_caller]
pub(crate) fn total(listing: &Value) -> u64 {
    listing["total"].as_u64().expect("a listing has a total")
}
