//! The JSON schema of scenario files, for editors: made from the same table as the parser's messages.
//!
//! TOML editors read it from a first line `#:schema FILE`.
//! It says which keys there are, what they hold and what they are for; names of nodes and conditions
//! are checked by `packhorse lab check` alone.

use serde_json::{Map, Value, json};

use super::error::NODES_MAX;
use super::scenario::FILE_FIELDS;
use super::scenario::kind::{FAULTS, FieldDoc, Kind, SIGNALS, STATES};
use super::step::WEIGHT_MAX;
use super::step::docs::{NODE_FIELDS, STEPS, StepDoc};

/// The schema as one document.
#[must_use]
pub fn schema() -> Value {
    let mut definitions = Map::new();
    for doc in STEPS {
        definitions.insert(format!("step_{}", doc.name), step(doc));
    }
    let names = STEPS
        .iter()
        .map(|doc| json!({ "$ref": format!("#/definitions/step_{}", doc.name) }));
    definitions.insert(
        "step".to_owned(),
        json!({ "oneOf": names.collect::<Vec<_>>() }),
    );
    definitions.insert(
        "node".to_owned(),
        object(NODE_FIELDS.iter(), "one machine, or `count` alike"),
    );
    let mut file = object(FILE_FIELDS.iter(), "a scenario of packhorse lab");
    if let Some(fields) = file.as_object_mut() {
        fields.insert(
            "$schema".into(),
            json!("http://json-schema.org/draft-07/schema#"),
        );
        fields.insert("title".into(), json!("packhorse lab scenario"));
        fields.insert("definitions".into(), Value::Object(definitions));
    }
    if let Some(nodes) = file.pointer_mut("/properties/nodes") {
        *nodes = json!({
            "description": "the machines: names, or tables with a name",
            "type": "array",
            "minItems": 1,
            "maxItems": NODES_MAX,
            "items": { "oneOf": [{ "type": "string" }, { "$ref": "#/definitions/node" }] },
        });
    }
    file
}

fn step(doc: &StepDoc) -> Value {
    let own = FieldDoc {
        name: doc.name,
        kind: doc.value,
        is_required: true,
        about: doc.about,
    };
    let fields: Vec<FieldDoc> = std::iter::once(own)
        .chain(doc.all_fields().copied())
        .collect();
    let mut step = object(fields.iter(), doc.about);
    if let Some(step) = step.as_object_mut() {
        step.insert("examples".into(), Value::from_iter(example(doc)));
    }
    step
}

fn object<'d>(fields: impl Iterator<Item = &'d FieldDoc>, about: &str) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in fields {
        let mut property = kind(field.kind);
        if let Some(property) = property.as_object_mut() {
            property.insert("description".into(), json!(field.about));
        }
        properties.insert(field.name.to_owned(), property);
        if field.is_required {
            required.push(field.name);
        }
    }
    json!({
        "type": "object",
        "description": about,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn kind(kind: Kind) -> Value {
    let text = || json!({ "type": "string", "minLength": 1 });
    let pattern = |pattern: &str| json!({ "type": "string", "pattern": format!("^{pattern}$") });
    let list = |items: Value| json!({ "type": "array", "minItems": 1, "items": items });
    match kind {
        Kind::Text | Kind::Condition | Kind::Settings => text(),
        Kind::Payload => json!({ "type": "string" }),
        Kind::Name => pattern("[A-Za-z0-9_-]{1,64}"),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Words => json!({ "anyOf": [text(), list(json!({ "type": "string" }))] }),
        // A list with two names may fit one node only, and a pattern one or many: `lab check` knows.
        Kind::Node | Kind::Nodes => json!({ "anyOf": [text(), list(text())] }),
        Kind::Sides => {
            json!({ "anyOf": [text(), list(json!({ "anyOf": [text(), list(text())] }))] })
        }
        Kind::Count => json!({ "type": "integer", "minimum": 1 }),
        Kind::CountTo(most) => json!({ "type": "integer", "minimum": 1, "maximum": most }),
        Kind::Exit => json!({ "type": "integer", "minimum": 0, "maximum": 255 }),
        Kind::Duration => pattern(&format!("(?:{})", duration())),
        Kind::Pause => {
            let one = duration();
            pattern(&format!("(?:{one})(?:\\.\\.(?:{one}))?"))
        }
        Kind::Times => {
            let duration = pattern(&format!("(?:{})", duration()));
            json!({ "anyOf": [{ "type": "integer", "minimum": 1 }, duration] })
        }
        Kind::Percent => pattern(&format!("(?:{PERCENT}|{FRACTION})")),
        Kind::Size => pattern("[0-9]+ ?(?:B|KiB|MiB|GiB|TiB)?"),
        Kind::Rate => pattern("0*[1-9][0-9]* ?(?:B|KiB|MiB|GiB|bit|kbit|Mbit|Gbit)?/s"),
        Kind::Class => json!({ "enum": ["critical", "moderate", "ephemeral"] }),
        Kind::State => json!({ "enum": STATES }),
        Kind::Fault => json!({ "enum": FAULTS }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Signal => json!({ "enum": SIGNALS }),
        Kind::Steps => list(json!({ "$ref": "#/definitions/step" })),
        Kind::Weights => list(json!({ "type": "integer", "minimum": 0, "maximum": WEIGHT_MAX })),
        Kind::Variables => {
            json!({ "type": "object", "additionalProperties": { "type": "string" } })
        }
    }
}

/// From nothing to a hundred.
const PERCENT: &str = "(?:100(?:\\.0*)?|[0-9]{1,2}(?:\\.[0-9]*)?|\\.[0-9]+) ?%";
/// From nothing to one.
const FRACTION: &str = "(?:0(?:\\.[0-9]*)?|1(?:\\.0*)?|\\.[0-9]+)";
/// Units of durations, the largest first.
const UNITS: [&str; 5] = [
    "(?:d|days?)",
    "(?:h|hrs?|hours?)",
    "(?:m|mins?|minutes?)",
    "(?:s|secs?|seconds?)",
    "(?:ms|millis|milliseconds?)",
];

/// The pattern of a duration that is longer than nothing: whole numbers with falling units, or one
/// number with a fraction. The parser takes a little more.
fn duration() -> String {
    let fraction = "(?:[0-9]*[1-9][0-9]*\\.[0-9]+|0+\\.0*[1-9][0-9]*)";
    let mut forms = vec![format!("{fraction} ?(?:{})", UNITS[1..].join("|"))];
    for (index, unit) in UNITS.iter().enumerate() {
        let smaller = UNITS.iter().skip(index + 1);
        let smaller: String = smaller
            .map(|unit| format!("(?: ?[0-9]+ ?{unit})?"))
            .collect();
        forms.push(format!("0*[1-9][0-9]* ?{unit}{smaller}"));
    }
    forms.join("|")
}

/// An example as an editor offers it.
fn example(doc: &StepDoc) -> Option<Value> {
    let table: Map<String, Value> = toml::from_str(&format!("step = {}", doc.example)).ok()?;
    table.get("step").cloned()
}

#[cfg(test)]
mod tests {
    use regex_automata::Input;
    use regex_automata::dfa::Automaton;
    use regex_automata::dfa::dense::DFA;

    use super::*;
    use crate::lab::Scenario;

    /// Whether a value is what a schema says; knows the words that are used here.
    fn fits(value: &Value, schema: &Value, root: &Value) -> bool {
        let words = schema.as_object().expect("a schema is an object");
        words.iter().all(|(word, rule)| match word.as_str() {
            "$ref" => {
                let pointer = rule.as_str().expect("a reference");
                let target = root.pointer(pointer.trim_start_matches('#'));
                fits(value, target.expect("it leads somewhere"), root)
            }
            "type" => match rule.as_str().expect("a type") {
                "string" => value.is_string(),
                "integer" => value.is_i64() || value.is_u64(),
                "boolean" => value.is_boolean(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                other => panic!("no type {other}"),
            },
            "enum" => rule.as_array().expect("a list").contains(value),
            "pattern" => value.as_str().is_none_or(|text| {
                let dfa = DFA::new(rule.as_str().expect("a pattern")).expect("a pattern");
                let found = dfa.try_search_fwd(&Input::new(text)).expect("a search");
                found.is_some()
            }),
            "minimum" => value
                .as_i64()
                .is_none_or(|number| number >= rule.as_i64().expect("n")),
            "maximum" => value
                .as_i64()
                .is_none_or(|number| number <= rule.as_i64().expect("n")),
            "minLength" => value.as_str().is_none_or(|text| !text.is_empty()),
            "minItems" => value.as_array().is_none_or(|items| !items.is_empty()),
            "maxItems" => true,
            "items" => value
                .as_array()
                .is_none_or(|items| items.iter().all(|item| fits(item, rule, root))),
            "anyOf" => {
                let rules = rule.as_array().expect("a list");
                rules.iter().any(|rule| fits(value, rule, root))
            }
            "oneOf" => {
                let rules = rule.as_array().expect("a list").iter();
                rules.filter(|rule| fits(value, rule, root)).count() == 1
            }
            "required" => value.as_object().is_none_or(|fields| {
                let names = rule.as_array().expect("a list").iter();
                names
                    .clone()
                    .all(|name| fields.contains_key(name.as_str().expect("a name")))
            }),
            "properties" => value.as_object().is_none_or(|fields| {
                fields
                    .iter()
                    .all(|(name, field)| rule.get(name).is_none_or(|rule| fits(field, rule, root)))
            }),
            "additionalProperties" => value.as_object().is_none_or(|fields| {
                let known = &words.get("properties");
                let mut others = fields.iter().filter(|(name, _)| {
                    known.is_none_or(|known| known.get(name.as_str()).is_none())
                });
                others.all(|(_, field)| rule.is_object() && fits(field, rule, root))
            }),
            "description" | "examples" | "definitions" | "$schema" | "title" => true,
            other => panic!("no word {other}"),
        })
    }

    /// What the parser and the schema say to a step.
    fn judged(step: &str) -> (bool, bool) {
        let text = format!(
            "name = \"t\"\nnodes = [\"left\", \"right\", {{ name = \"spoke\", count = 3, disk = \"320MiB\" }}]\nsteps = [{step}, {{ settle = \"1s\" }}, {{ copy_store = \"left\", as = \"monday\" }}]\n"
        );
        let is_parsed = Scenario::parse("t.toml".as_ref(), text.as_bytes()).is_ok();
        let file: Value = toml::from_str(&text).expect("TOML");
        let schema = schema();
        (is_parsed, fits(&file, &schema, &schema))
    }

    #[test]
    fn the_schema_and_the_parser_take_and_refuse_the_same() {
        for doc in STEPS {
            assert_eq!(judged(doc.example), (true, true), "{}", doc.example);
        }
        for step in [
            "{ impair = \"left\", loss = \"0.05\" }",
            "{ impair = \"left\", loss = \"100%\", rate = \"64 KiB/s\" }",
            "{ impair = \"left\", loss = \".5 %\", latency = \"1.5s\" }",
            "{ send = \"t\", from = \"left\", to = [\"right\"], payload = \"\" }",
            "{ run = \"id\", on = [\"left\"], stdin = \"\" }",
            "{ run = [\"id\", \"\"], on = \"left\" }",
            "{ sleep = \"10s 500ms\", why = \"w\" }",
            "{ sleep = \"100ms..1.5s\", why = \"w\" }",
            "{ sleep = \"2 seconds\", why = \"w\" }",
            "{ kill = \"left\", within = \"1h30m\" }",
            "{ receive = \"t\", on = [\"left\"], payloads = [] }",
            "{ repeat = \"10s\", steps = [{ kill = \"left\" }] }",
            "{ work = \"t\", on = \"left\", exec = \"cat\", jobs = 64 }",
            "{ crash = \"inbox\", on = \"left\", fault = \"hang\" }",
            "{ partition = [[\"left\"], \"right\"] }",
        ] {
            assert_eq!(judged(step), (true, true), "{step}");
        }
        for step in [
            "{ impair = \"left\", loss = \"..%\" }",
            "{ impair = \"left\", loss = \"200%\" }",
            "{ impair = \"left\", loss = \"1.5\" }",
            "{ impair = \"left\", rate = \"0/s\" }",
            "{ impair = \"left\", rate = \"64KiB\" }",
            "{ kill = \"left\", within = \"0s\" }",
            "{ kill = \"left\", within = \"0.0s\" }",
            "{ kill = \"left\", within = \"1s 2h\" }",
            "{ kill = \"left\", within = \"10\" }",
            "{ kill = \"left\", within = 10 }",
            "{ kill = \"left\", whithin = \"1s\" }",
            "{ kill = \"\" }",
            "{ kill = [] }",
            "{ sleep = \"soon\", why = \"w\" }",
            "{ sleep = \"1s..\", why = \"w\" }",
            "{ sleep = \"1s\" }",
            "{ crash = \"inbox\", on = \"left\", fault = \"flood\" }",
            "{ load = \"t\", from = \"left\", to = \"right\", rate = 99999 }",
            "{ load = \"t\", from = \"left\", to = \"right\", class = \"soon\" }",
            "{ work = \"t\", on = \"left\", exec = \"cat\", jobs = 999 }",
            "{ corrupt = \"left\", bytes = 64000 }",
            "{ copy_store = \"left\", as = \"../x\" }",
            "{ signal = \"left\", with = \"KILL\" }",
            "{ choose = [{ kill = \"left\" }], weights = [1000001] }",
            "{ stop = \"left\", exit = 256 }",
            "{ repeat = 0, steps = [{ kill = \"left\" }] }",
        ] {
            assert_eq!(judged(step), (false, false), "{step}");
        }
    }

    #[test]
    fn examples_are_what_an_editor_can_put_in() {
        let schema = schema();
        for doc in STEPS {
            let examples = &schema["definitions"][format!("step_{}", doc.name)]["examples"];
            assert!(examples[0].get(doc.name).is_some(), "{examples}");
        }
    }

    #[test]
    fn every_step_and_every_key_is_in_it() {
        let schema = schema();
        for doc in STEPS {
            let step = &schema["definitions"][format!("step_{}", doc.name)];
            assert_eq!(step["properties"][doc.name]["description"], doc.about);
            assert_eq!(step["required"][0], doc.name);
            assert_eq!(step["additionalProperties"], false);
            for field in doc.all_fields() {
                assert!(
                    step["properties"][field.name].is_object(),
                    "{} {}",
                    doc.name,
                    field.name
                );
            }
        }
        let steps = schema["definitions"]["step"]["oneOf"].as_array();
        assert_eq!(steps.map(Vec::len), Some(STEPS.len()));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, root: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                        let pointer = target.trim_start_matches('#');
                        assert!(root.pointer(pointer).is_some(), "{target}");
                    }
                    fields.values().for_each(|value| walk(value, root));
                }
                Value::Array(items) => items.iter().for_each(|value| walk(value, root)),
                _ => {}
            }
        }
        let schema = schema();
        walk(&schema, &schema);
    }
}
