//! Every switch of the sandbox, and every value of it, is in a case of the suite.
//!
//! Nothing lists the switches: they are read from a behaviour as JSON, and the values of each from
//! what serde says of a value that it does not know. So a switch that is added fails here until it
//! has its cases.

use std::collections::BTreeSet;

use leadpipe::sandbox::Behaviour;
use serde_json::Value;
use serde_json::json;

use super::case::Case;
use super::convertalk;
use super::whatconverts;
use super::whautomate;

/// What is no answer to an open question, or has its tests elsewhere, and where.
const ELSEWHERE: [(&str, &str); 11] = [
    ("whautomate", "a section of its own, below"),
    ("convertalk", "a section of its own, below"),
    ("total_offset", "whatconverts::paging: a difference once, then a habit"),
    ("without_profiles", "nightly: a profile that is no longer listed keeps its rows"),
    ("poison", "whatconverts::faults: a lead on which the provider breaks is a hole"),
    ("poison_records", "extract: pages that never come right are halved, or left out"),
    ("poison_as", "whatconverts::faults"),
    ("faults", "whatconverts::faults: every kind at random"),
    ("faults_for", "not an answer: whose requests meet with accidents"),
    ("script", "shifts: leads that come and go while a walk is read"),
    ("record_script", "the same, for the records of the others"),
];

/// Returns what a value that cannot be is answered with, by serde.
fn refusal(section: &str, switch: &str) -> String {
    let impossible = json!("no such value");
    let behaviour = match section {
        "" => json!({ switch: impossible }),
        section => json!({ section: { switch: impossible } }),
    };
    serde_json::from_value::<Behaviour>(behaviour).err().map_or(String::new(), |e| e.to_string())
}

/// Returns the values that a switch must have in one case or another; of a number, a text or a list,
/// what it is by default and anything else.
fn values(section: &str, switch: &str) -> BTreeSet<String> {
    let refusal = refusal(section, switch);
    let Some((_, variants)) = refusal.split_once("unknown variant `no such value`, expected")
    else {
        let values =
            if refusal.contains("boolean") { ["true", "false"] } else { ["as ever", "other"] };
        return values.map(str::to_owned).into();
    };
    variants.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns the value of a switch as [`values`] calls it.
fn value(section: &str, switch: &str, value: &Value, default: &Value) -> String {
    let is_enum = values(section, switch).is_disjoint(&["as ever".to_owned()].into());
    match value {
        Value::String(variant) if is_enum => variant.clone(),
        Value::Object(variant) if is_enum => variant.keys().next().unwrap().clone(),
        Value::Bool(value) => value.to_string(),
        value if value == default => "as ever".to_owned(),
        _ => "other".to_owned(),
    }
}

/// Returns the values of switches, `switch: value`, that no case of a provider has.
fn missing(section: &str, cases: &[Case]) -> BTreeSet<String> {
    let of = |behaviour: &Behaviour| {
        let mut whole = serde_json::to_value(behaviour).unwrap();
        if section.is_empty() { whole } else { whole[section].take() }
    };
    let default = of(&Behaviour::default());
    let mut missing = BTreeSet::new();
    for switch in default.as_object().unwrap().keys() {
        let is_elsewhere = ELSEWHERE.iter().any(|(name, _)| name == switch);
        if is_elsewhere && section.is_empty() {
            continue;
        }
        let mut wanted = values(section, switch);
        for case in cases {
            let set = of(&case.behaviour)[switch].take();
            wanted.remove(&value(section, switch, &set, &default[switch]));
        }
        missing.extend(wanted.into_iter().map(|value| format!("{switch}: {value}")));
    }
    missing
}

/// Returns how many values the switches of a section have.
fn count(section: &str) -> usize {
    let none: Vec<Case> = Vec::new();
    missing(section, &none).len()
}

#[test]
fn every_value_of_every_switch_is_in_a_case() {
    for (section, cases) in [
        ("", whatconverts::cases()),
        ("whautomate", whautomate::cases()),
        ("convertalk", convertalk::cases()),
    ] {
        assert_eq!(missing(section, &cases), BTreeSet::new(), "{section}");
        // Without cases all are missing, or the values are not found any more.
        assert!(count(section) > 40, "{section}");
        let name = if section.is_empty() { "whatconverts" } else { section };
        #[expect(clippy::print_stdout, reason = "`make contract` shows the figures")]
        {
            println!("\nswitches {name} {}", count(section));
        }
    }
}
