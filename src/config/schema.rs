//! The JSON Schema of a job file, by which its keys and the types of their values are checked.
//!
//! It is made from the types that a job file is read into, by a test: those of a job file laid over the
//! defaults, where nothing that has a default is missing. The schema is of the job file alone: what has a
//! default is optional, and says it.

use std::sync::LazyLock;

use serde_json::Value;

use crate::contracts;

/// The definitions of sources, and the names of their providers.
pub(super) const PROVIDERS: [(&str, &str); 3] = [
    ("whatconverts", "WhatConvertsFile"),
    ("whautomate", "WhautomateFile"),
    ("convertalk", "ConvertalkFile"),
];

/// The schema, read once.
pub(super) static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(contracts::JOB).unwrap_or_default());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DEFAULTS;
    use crate::config::file::JobFile;
    use schemars::generate::SchemaSettings;
    use serde_json::Map;
    use serde_json::json;
    use std::collections::BTreeSet;

    /// The schema's own name. Nothing is fetched from it.
    const ID: &str = "https://leadpipe.example.com/schemas/job.v1.json";

    fn make() -> Value {
        let generator = SchemaSettings::draft07().into_generator();
        let mut schema = generator.into_root_schema_for::<JobFile>().to_value();
        tidy(&mut schema);
        schema["$id"] = json!(ID);
        name_providers(&mut schema);
        let mut defaults = defaults();
        for (provider, definition) in PROVIDERS {
            let own = defaults.remove(provider).unwrap_or_default();
            fill_in(&mut schema, &format!("/definitions/{definition}"), &own);
        }
        fill_in(&mut schema, "", &Value::Object(defaults));
        schema
    }

    /// Takes out what a TOML file cannot hold (`null`), and what says nothing to an editor.
    fn tidy(schema: &mut Value) {
        match schema {
            Value::Array(items) => items.iter_mut().for_each(tidy),
            Value::Object(object) => tidy_object(object),
            _ => {}
        }
    }

    fn tidy_object(object: &mut Map<String, Value>) {
        object.values_mut().for_each(tidy);
        if object.get("default").is_some_and(Value::is_null) {
            object.remove("default");
        }
        match object.get("format").and_then(Value::as_str) {
            Some("uint32") => {
                object.remove("format");
                object.entry("maximum").or_insert(json!(u32::MAX));
            }
            Some("uint64") => {
                object.remove("format");
            }
            _ => {}
        }
        if let Some(Value::String(text)) = object.get_mut("description") {
            *text = text.replace('\n', " ");
        }
        if let Some(Value::Array(types)) = object.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                object.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(any)) = object.get_mut("anyOf") {
            any.retain(|one| one["type"] != "null");
            if any.len() == 1 {
                let only = object.remove("anyOf").unwrap_or_default();
                object.insert("allOf".to_owned(), only);
            }
        }
    }

    /// Moves each provider's name into the definition of its sources, so that the definition is closed:
    /// a key that belongs to no source of that provider is an error.
    fn name_providers(schema: &mut Value) {
        let definitions = &mut schema["definitions"];
        for (index, (provider, name)) in PROVIDERS.into_iter().enumerate() {
            let described = definitions["SourceFile"]["oneOf"][index]["description"].take();
            definitions["SourceFile"]["oneOf"][index] =
                json!({ "$ref": format!("#/definitions/{name}") });
            let definition = &mut definitions[name];
            definition["properties"]["provider"] =
                json!({ "type": "string", "const": provider, "description": described });
            definition["additionalProperties"] = json!(false);
            if let Some(required) = definition["required"].as_array_mut() {
                required.push(json!("provider"));
            }
        }
    }

    /// Returns `default.toml` as JSON.
    fn defaults() -> Map<String, Value> {
        let table: toml::Table = DEFAULTS.parse().unwrap_or_default();
        match serde_json::to_value(table) {
            Ok(Value::Object(object)) => object,
            _ => Map::new(),
        }
    }

    /// Makes what has a default optional, and names the default, in the object at `pointer` and below.
    fn fill_in(schema: &mut Value, pointer: &str, defaults: &Value) {
        for (key, default) in defaults.as_object().into_iter().flatten() {
            if let Some(required) =
                schema.pointer_mut(&format!("{pointer}/required")).and_then(Value::as_array_mut)
            {
                required.retain(|name| name != key);
            }
            let property = format!("{pointer}/properties/{key}");
            let target =
                schema.pointer(&format!("{property}/allOf/0/$ref")).and_then(Value::as_str);
            let target = target.map(|target| target.trim_start_matches('#').to_owned());
            match target {
                Some(target) if default.is_object() => fill_in(schema, &target, default),
                _ => {
                    if let Some(property) = schema.pointer_mut(&property) {
                        property["default"] = default.clone();
                    }
                }
            }
        }
    }

    #[test]
    fn only_what_has_no_default_is_required() {
        let schema = make();
        assert_eq!(schema["required"], json!(["name", "lake", "sources"]));
        assert_eq!(
            schema["definitions"]["WhatConvertsFile"]["required"],
            json!(["name", "token", "secret", "plan", "start", "provider"]),
        );
        assert_eq!(schema["definitions"]["RunFile"]["required"], json!([]));
    }

    #[test]
    fn every_default_is_named_in_the_schema() {
        let schema = make();
        assert_eq!(
            schema.pointer("/definitions/RunFile/properties/publish_every/default"),
            Some(&json!("30m"))
        );
        let page_size = "/definitions/WhatConvertsFile/properties/page_size/default";
        assert_eq!(schema.pointer(page_size), Some(&json!(2500)));
    }

    #[test]
    fn every_object_is_closed_or_a_map() {
        let schema = make();
        let mut open = BTreeSet::new();
        for (name, definition) in schema["definitions"].as_object().unwrap() {
            if definition["type"] == "object" && definition["additionalProperties"] != false {
                open.insert(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn the_schema_is_the_one_of_the_types() {
        contracts::assert_is_made("job", contracts::JOB, &make());
    }
}
