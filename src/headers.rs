//! Serde for the headers of a message: one object, a name to its value, in their order.
//!
//! Used as `#[serde(with = "headers")]`. This node sends no name twice, but another may:
//! then its values stand in one text with `, ` between them, as in HTTP.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};

pub(crate) type Headers = Vec<(String, String)>;

pub(crate) fn serialize<S: Serializer>(
    headers: &[(String, String)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_map(None)?;
    for (index, (name, value)) in headers.iter().enumerate() {
        let (before, behind) = headers.split_at(index);
        if before.iter().any(|(other, _)| other == name) {
            continue;
        }
        let further = behind.iter().skip(1).filter(|(other, _)| other == name);
        let values: Vec<&str> = std::iter::once(value)
            .chain(further.map(|(_, value)| value))
            .map(String::as_str)
            .collect();
        object.serialize_entry(name, &values.join(", "))?;
    }
    object.end()
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Headers, D::Error> {
    struct Object;
    impl<'de> Visitor<'de> for Object {
        type Value = Headers;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of names and values")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
            let mut headers = Vec::new();
            while let Some(header) = map.next_entry()? {
                headers.push(header);
            }
            Ok(headers)
        }
    }
    deserializer.deserialize_map(Object)
}

/// The same inside a text, for the query of a URL, which holds no objects.
pub(crate) mod query {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Object(#[serde(with = "super")] Headers);

    pub(crate) fn serialize<S: Serializer>(
        headers: &[(String, String)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_string(&Object(headers.to_vec())).map_err(S::Error::custom)?;
        serializer.serialize_str(&text)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Headers, D::Error> {
        let text = String::deserialize(deserializer)?;
        let Object(headers) = serde_json::from_str(&text).map_err(D::Error::custom)?;
        Ok(headers)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Holder {
        #[serde(with = "super")]
        headers: super::Headers,
    }

    fn header(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn headers_are_one_object_in_their_order() {
        let holder = Holder {
            headers: vec![header("z", "1"), header("a", "\"2\"")],
        };
        let text = serde_json::to_string(&holder).expect("plain values");
        assert_eq!(text, r#"{"headers":{"z":"1","a":"\"2\""}}"#);
        let back: Holder = serde_json::from_str(&text).expect("its own text");
        assert_eq!(back.headers, holder.headers);
    }

    #[test]
    fn values_of_a_repeated_name_stand_together() {
        let holder = Holder {
            headers: vec![header("a", "1"), header("b", "2"), header("a", "3")],
        };
        let text = serde_json::to_string(&holder).expect("plain values");
        assert_eq!(text, r#"{"headers":{"a":"1, 3","b":"2"}}"#);
    }
}
