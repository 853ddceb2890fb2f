//! Checks the keys of a job file, and the types of their values, against its schema.
//!
//! Everything that is wrong is found in one pass, with its line. What a value means (whether a time
//! is a time, whether two names clash) is left to `resolve`. No message repeats a text that could be
//! a secret: of what was typed, only keys and words out of a closed list are named.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::DeInteger;
use toml::de::DeTable;
use toml::de::DeValue;

use super::error::Problem;
use super::error::ProblemKind;
use super::schema::PROVIDERS;
use super::schema::SCHEMA;

/// The line of every key in a job file, by its place.
#[derive(Debug, Default)]
pub(super) struct Lines(BTreeMap<String, usize>);

impl Lines {
    /// Returns the line of `place`, or of the nearest thing around it that was typed.
    pub(super) fn of(&self, place: &str) -> Option<usize> {
        let mut place = place;
        loop {
            if let Some(line) = self.0.get(place) {
                return Some(*line);
            }
            place = &place[..place.rfind(['.', '['])?];
        }
    }
}

/// Returns where everything stands, and what is wrong with it.
///
/// # Errors
///
/// Where `text` is not TOML.
pub(super) fn check(text: &str) -> Result<(Lines, Vec<Problem>), Problem> {
    let mut checker = Checker { text, lines: Lines::default(), problems: Vec::new() };
    // The error's own text would show the line as typed, and with it perhaps a secret.
    let table = DeTable::parse(text).map_err(|error| Problem {
        place: String::new(),
        line: error.span().map(|span| checker.line(&span)),
        kind: ProblemKind::Syntax,
        message: error.message().replace('\n', ", "),
    })?;
    checker.table("", 1, table.get_ref(), &SCHEMA);
    Ok((checker.lines, checker.problems))
}

struct Checker<'a> {
    text: &'a str,
    lines: Lines,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().iter().take(span.start);
        before.filter(|byte| **byte == b'\n').count() + 1
    }

    fn report(&mut self, place: &str, line: usize, kind: ProblemKind, message: String) {
        self.problems.push(Problem { place: place.to_owned(), line: Some(line), kind, message });
    }

    fn value(&mut self, place: &str, line: usize, value: &DeValue<'_>, schema: &Value) {
        let forms = forms(schema);
        if is_secret(schema) {
            return self.secret(place, line, value, &forms);
        }
        let fitting: Vec<&Value> =
            forms.iter().copied().filter(|form| kind_of(form) == kind_of_value(value)).collect();
        let Some(first) = fitting.first() else {
            let message = format!("expected {}, found {}", expected(&forms), found(value));
            return self.report(place, line, ProblemKind::WrongType, message);
        };
        match value {
            DeValue::String(text) => self.word(place, line, text, &fitting),
            DeValue::Integer(number) => self.integer(place, line, number, first),
            DeValue::Array(items) => self.array(place, line, items.iter(), first),
            DeValue::Table(table) if fitting.len() == 1 => self.table(place, line, table, first),
            DeValue::Table(table) => self.tagged(place, line, table, &fitting),
            DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
        }
    }

    /// A text: any, or one of a list of words.
    fn word(&mut self, place: &str, line: usize, text: &str, forms: &[&Value]) {
        let words: Vec<&str> = forms.iter().filter_map(|form| form["const"].as_str()).collect();
        if words.len() < forms.len() || words.contains(&text) {
            return;
        }
        let message = match nearest(text, &words) {
            Some(word) => format!("`{text}` is not known here; did you mean `{word}`?"),
            None => format!("`{text}` is not known here; it takes {}", listed(&words)),
        };
        self.report(place, line, ProblemKind::Value, message);
    }

    fn integer(&mut self, place: &str, line: usize, number: &DeInteger<'_>, form: &Value) {
        let value = i64::from_str_radix(number.as_str(), number.radix());
        let least = form["minimum"].as_i64().unwrap_or(i64::MIN);
        let most = form["maximum"].as_i64().unwrap_or(i64::MAX);
        if value.is_ok_and(|value| (least..=most).contains(&value)) {
            return;
        }
        let message = match form["maximum"].as_i64() {
            Some(most) => format!("expected a number from {least} to {most}, found {number}"),
            None => format!("expected a number of at least {least}, found {number}"),
        };
        self.report(place, line, ProblemKind::Value, message);
    }

    fn array<'i>(
        &mut self,
        place: &str,
        line: usize,
        items: impl ExactSizeIterator<Item = &'i Spanned<DeValue<'i>>>,
        form: &Value,
    ) {
        let (least, most) = (form["minItems"].as_u64(), form["maxItems"].as_u64());
        let count = items.len() as u64;
        if let Some(exactly) = least.filter(|least| most == Some(*least) && count != *least) {
            let message = format!("expected a list of {exactly}, found {count}");
            self.report(place, line, ProblemKind::Value, message);
        } else if least.is_some_and(|least| count < least) {
            let message = "expected at least one, found an empty list".to_owned();
            self.report(place, line, ProblemKind::Value, message);
        }
        for (index, item) in items.enumerate() {
            let place = format!("{place}[{index}]");
            let line = self.line(&item.span());
            self.lines.0.insert(place.clone(), line);
            self.value(&place, line, item.get_ref(), &form["items"]);
        }
    }

    fn table(&mut self, place: &str, line: usize, table: &DeTable<'_>, form: &Value) {
        let known = &form["properties"];
        let mut meant: Vec<&str> = Vec::new();
        for (key, value) in table {
            let line = self.line(&key.span());
            let key = key.get_ref().as_ref();
            let place = join(place, key);
            self.lines.0.insert(place.clone(), line);
            match (known.get(key), &form["additionalProperties"]) {
                (Some(schema), _) => self.value(&place, line, value.get_ref(), schema),
                (None, any @ Value::Object(_)) => self.value(&place, line, value.get_ref(), any),
                (None, _) => meant.extend(self.unknown(&place, line, key, known)),
            }
        }
        let required = form["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        // One that was misspelt is told once.
        for key in required.filter(|key| !table.contains_key(*key) && !meant.contains(key)) {
            let message = format!("missing; {}", advice(key, &known[key]));
            self.report(&join(place, key), line, ProblemKind::MissingKey, message);
        }
    }

    /// A table whose form depends on its key `provider`.
    fn tagged(&mut self, place: &str, line: usize, table: &DeTable<'_>, forms: &[&Value]) {
        let tags: Vec<&Value> = forms.iter().map(|form| &form["properties"]["provider"]).collect();
        let words: Vec<&str> = tags.iter().filter_map(|tag| tag["const"].as_str()).collect();
        let Some((key, value)) = table.get_key_value("provider") else {
            let message = format!("missing; it takes {}", listed(&words));
            return self.report(&join(place, "provider"), line, ProblemKind::MissingKey, message);
        };
        let chosen = value.get_ref().as_str();
        match chosen.and_then(|name| words.iter().position(|word| *word == name)) {
            Some(index) => self.table(place, line, table, forms[index]),
            None => {
                let line = self.line(&key.span());
                let any = serde_json::json!({ "anyOf": tags });
                self.value(&join(place, "provider"), line, value.get_ref(), &any);
            }
        }
    }

    /// A key that does not exist at its place; returns the key that was probably meant.
    fn unknown<'s>(
        &mut self,
        place: &str,
        line: usize,
        key: &str,
        known: &'s Value,
    ) -> Option<&'s str> {
        let names: Vec<&str> =
            known.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        let meant = nearest(key, &names);
        let message = match (owner(key, known), meant) {
            (Some(provider), _) => format!("unknown key; only `{provider}` sources have it"),
            (None, Some(name)) => format!("unknown key; did you mean `{name}`?"),
            (None, None) => format!("unknown key; it takes {}", listed(&names)),
        };
        self.report(place, line, ProblemKind::UnknownKey, message);
        meant
    }

    fn secret(&mut self, place: &str, line: usize, value: &DeValue<'_>, forms: &[&Value]) {
        let key = place.rsplit('.').next().unwrap_or(place);
        let instead = advice_for_secret(key);
        let DeValue::Table(table) = value else {
            let message = format!(
                "a secret must not stand in a job file, which is copied, committed and shared; \
                 {instead}",
            );
            return self.report(place, line, ProblemKind::LiteralSecret, message);
        };
        let form = forms.iter().find(|form| {
            let names = form["properties"].as_object().into_iter().flatten();
            names.into_iter().any(|(name, _)| table.contains_key(name.as_str()))
        });
        match form {
            Some(form) if table.len() == 1 => self.table(place, line, table, form),
            _ => {
                let message = format!("a secret comes from exactly one place; {instead}");
                self.report(place, line, ProblemKind::Value, message);
            }
        }
    }
}

/// Returns the provider whose sources have `key`, where `known` are the keys of another's.
fn owner(key: &str, known: &Value) -> Option<&'static str> {
    known.get("provider")?;
    let has = |definition: &str| {
        SCHEMA.pointer(&format!("/definitions/{definition}/properties/{key}")).is_some()
    };
    PROVIDERS.into_iter().find(|(_, definition)| has(definition)).map(|(provider, _)| provider)
}

fn join(place: &str, key: &str) -> String {
    if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }
}

/// Returns what `schema` points at, through references and wrappers of one.
fn follow(schema: &Value) -> &Value {
    let wrapped = schema["allOf"].as_array().and_then(|all| all.first());
    if let Some(inner) = wrapped {
        return follow(inner);
    }
    let target = schema["$ref"].as_str().and_then(|target| target.strip_prefix('#'));
    target.and_then(|pointer| SCHEMA.pointer(pointer)).map_or(schema, follow)
}

/// Returns the forms a value may take: one, unless the schema has alternatives.
fn forms(schema: &Value) -> Vec<&Value> {
    let schema = follow(schema);
    let alternatives = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array());
    match alternatives {
        Some(alternatives) => alternatives.iter().flat_map(forms).collect(),
        None => vec![schema],
    }
}

fn is_secret(schema: &Value) -> bool {
    SCHEMA
        .pointer("/definitions/SecretFile")
        .is_some_and(|secret| std::ptr::eq(secret, follow(schema)))
}

/// Returns the kind of values a form takes, in words.
fn kind_of(form: &Value) -> &'static str {
    match (form["type"].as_str(), form["format"].as_str()) {
        (Some("string"), Some("date")) => "a date without quotes, such as 2019-01-01",
        (Some("string"), _) => "text in quotes",
        (Some("integer"), _) => "a whole number",
        (Some("boolean"), _) => "true or false",
        (Some("array"), _) => "a list",
        (Some("object"), _) => "a table",
        _ => "a value of another kind",
    }
}

/// Returns the kind of a value as [`kind_of`] names it.
fn kind_of_value(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text in quotes",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(at) if at.time.is_none() => "a date without quotes, such as 2019-01-01",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::Datetime(at) if at.time.is_none() => "a date",
        other => kind_of_value(other),
    }
}

/// Returns what `forms` take, in words, e.g. `` `rolling` or a table ``.
fn expected(forms: &[&Value]) -> String {
    let mut kinds: Vec<String> = Vec::new();
    for form in forms {
        let kind = match (form["const"].as_str(), form["pattern"].as_str()) {
            (Some(word), _) => format!("`{word}`"),
            (None, Some(_)) => described(form),
            (None, None) => kind_of(form).to_owned(),
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    any_of(&kinds)
}

/// Returns a text's own description, which gives examples, as part of a sentence.
fn described(form: &Value) -> String {
    let text = form["description"].as_str().unwrap_or_default().trim_end_matches('.');
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_lowercase());
    format!("{} in quotes", first.into_iter().chain(characters).collect::<String>())
}

/// Returns what to write for a key that is missing.
fn advice(key: &str, schema: &Value) -> String {
    if is_secret(schema) {
        return advice_for_secret(key);
    }
    format!("it takes {}", expected(&forms(schema)))
}

fn advice_for_secret(key: &str) -> String {
    format!("write `{key} = {{ env = \"NAME\" }}` or `{key} = {{ file = \"path\" }}`")
}

/// Returns the word nearest to `typed`, if one is near enough to be meant.
fn nearest<'a>(typed: &str, words: &[&'a str]) -> Option<&'a str> {
    let lowered = typed.to_lowercase();
    let far = (typed.chars().count() / 2).clamp(1, 4);
    let distance = |word: &str| strsim::damerau_levenshtein(&lowered, word);
    words.iter().copied().filter(|word| distance(word) <= far).min_by_key(|word| distance(word))
}

/// Returns the words in backticks, joined by commas and an `or`.
fn listed(words: &[&str]) -> String {
    any_of(&words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>())
}

fn any_of(parts: &[String]) -> String {
    match parts {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
