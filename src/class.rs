//! Words for delivery classes.
//!
//! The classes themselves belong to the protocol; here are the words that people and documents use.
//! Used as `#[serde(with = "class")]` on a field.

use packhorse_protocol::message::DeliveryClass;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::Serializer;

/// Every class with its word, hardest tried first.
pub const CLASSES: [(DeliveryClass, &str); 3] = [
    (DeliveryClass::Critical, "critical"),
    (DeliveryClass::Moderate, "moderate"),
    (DeliveryClass::Ephemeral, "ephemeral"),
];

/// A word that names no delivery class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no delivery class `{0}`: critical, moderate or ephemeral")]
pub struct UnknownClass(pub String);

/// The word for a class.
#[must_use]
pub const fn class_word(class: DeliveryClass) -> &'static str {
    match class {
        DeliveryClass::Critical => "critical",
        DeliveryClass::Moderate => "moderate",
        DeliveryClass::Ephemeral => "ephemeral",
    }
}

/// The class that a word names.
pub fn class_from_word(word: &str) -> Result<DeliveryClass, UnknownClass> {
    CLASSES
        .into_iter()
        .find(|(_, known)| *known == word)
        .map(|(class, _)| class)
        .ok_or_else(|| UnknownClass(word.to_owned()))
}

pub(crate) fn serialize<S: Serializer>(
    class: &DeliveryClass,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(class_word(*class))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<DeliveryClass, D::Error> {
    class_from_word(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// The same for a class that may be left out.
pub(crate) mod option {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        class: &Option<DeliveryClass>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match class {
            Some(class) => serializer.serialize_some(class_word(*class)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<DeliveryClass>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|word| class_from_word(&word).map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_leads_back_to_its_class() {
        for (class, word) in CLASSES {
            assert_eq!(class_word(class), word);
            assert_eq!(class_from_word(word), Ok(class));
        }
    }

    #[test]
    fn an_unknown_word_is_named_with_the_known_ones() {
        let error = class_from_word("urgent").expect_err("there is no such class");
        assert_eq!(
            error.to_string(),
            "no delivery class `urgent`: critical, moderate or ephemeral"
        );
    }
}
