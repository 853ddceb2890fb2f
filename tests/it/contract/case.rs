//! A case: how a provider answers, what the job says, and what is to come of it.

use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::ChatsEnd;
use leadpipe::sandbox::Fault;
use leadpipe::sandbox::PastEnd;
use leadpipe::sandbox::Settings;
use serde_json::Value;

/// One way in which a provider may answer.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// How the sandbox answers.
    pub(super) behaviour: Behaviour,
    /// More keys of the source.
    pub(super) keys: &'static str,
    /// What else the world has.
    pub(super) settings: fn(&mut Settings),
    /// Whether a key is sent that nobody has.
    pub(super) wrong_key: bool,
    /// What is to come of it.
    pub(super) expected: Expected,
}

/// What is to come of a case: the law it runs under.
#[derive(Debug, Clone)]
pub(super) enum Expected {
    /// Every run ends with 0, and the snapshot follows what happens. A first sync costs the least
    /// there is, and so many requests beside it, which the summary names.
    Followed {
        /// Probes, rereads, retries.
        named: u64,
    },
    /// As [`Expected::Followed`] where only the form of records is in question: a first sync in
    /// pieces, a night without and one with events.
    Mapped,
    /// As [`Expected::Followed`] where something happens once, in the first sync.
    Survived {
        /// Probes, rereads, retries.
        named: u64,
    },
    /// No two readings show the same, and no total tells: rows are found bit by bit, none is lost,
    /// and none is taken for gone that is there.
    Gathered,
    /// A run ends with this exit code, and the snapshot from before stays as it is; once the
    /// provider answers as it did, all is whole again.
    Stopped {
        /// The exit code.
        exit: i32,
        /// What the reason of the source says.
        why: &'static str,
        /// What its hint says.
        hint: &'static str,
    },
    /// A first sync brings all, but ends with 13 until the same was seen twice.
    SeenTwice,
    /// The day's allowance is spent sooner than our own count says: every run commits what it has
    /// and ends with 8, until all is there.
    Spent,
}

/// Returns a case of a provider that answers as it likely does but for what `change` says, and is
/// read all the same.
pub(super) fn case(change: impl FnOnce(&mut Behaviour)) -> Case {
    let mut behaviour = Behaviour::default();
    change(&mut behaviour);
    let expected = Expected::Followed { named: 0 };
    Case { behaviour, keys: "", settings: |_| {}, wrong_key: false, expected }
}

/// Returns a case in which the third request meets with an accident: the first two are first pages,
/// or lists of what there is.
pub(super) fn accident(fault: Fault) -> Case {
    let on_time = Fault::Stall { ms: 0 };
    case(|behaviour| behaviour.fail_next = vec![on_time.clone(), on_time, fault])
}

/// Returns the accidents that are the same whoever the provider is; `everything` are keys with which
/// all is read every night.
pub(super) fn accidents(everything: &'static str) -> Vec<Case> {
    let passing = [
        Fault::Status { status: 500 },
        Fault::Status { status: 503 },
        Fault::Status { status: 504 },
        Fault::SlowDown { retry_after: 30 },
        Fault::Reset,
        Fault::Close,
        Fault::CutBody,
        Fault::CutJson,
        Fault::Html,
    ];
    let mut cases: Vec<Case> =
        passing.into_iter().map(|fault| accident(fault).survived(1)).collect();
    let elsewhere = Fault::Redirect { to: "http://127.0.0.1:9/elsewhere".to_owned() };
    cases.extend([
        accident(Fault::Stall { ms: 2 }).survived(0),
        accident(elsewhere).stopped(3, "another origin", "`base_url`"),
        case(|behaviour| behaviour.delay_ms = 1).survived(0),
        case(|behaviour| behaviour.gzip = true).mapped(),
        case(|behaviour| behaviour.extra_field = Some("somethingNew".to_owned())).mapped(),
        // A night on which there is nothing at all: what is held is held back.
        case(|behaviour| behaviour.empty = true).keys(everything).stopped(13, "", ""),
    ]);
    cases
}

impl Case {
    /// Adds keys to the source.
    pub(super) fn keys(self, keys: &'static str) -> Self {
        Self { keys, ..self }
    }

    /// Changes the world.
    pub(super) fn settings(self, settings: fn(&mut Settings)) -> Self {
        Self { settings, ..self }
    }

    /// Sends a key that nobody has.
    pub(super) fn wrong_key(self) -> Self {
        Self { wrong_key: true, ..self }
    }

    /// Expects so many requests beside the least, which the summary names.
    pub(super) fn named(self, named: u64) -> Self {
        Self { expected: Expected::Followed { named }, ..self }
    }

    /// Expects that nothing but the form of records is in question.
    pub(super) fn mapped(self) -> Self {
        Self { expected: Expected::Mapped, ..self }
    }

    /// Expects an accident of the first sync to cost so many requests, which the summary names.
    pub(super) fn survived(self, named: u64) -> Self {
        Self { expected: Expected::Survived { named }, ..self }
    }

    /// Expects rows to be found bit by bit.
    pub(super) fn gathered(self) -> Self {
        Self { expected: Expected::Gathered, ..self }
    }

    /// Expects the source to stop.
    pub(super) fn stopped(self, exit: i32, why: &'static str, hint: &'static str) -> Self {
        Self { expected: Expected::Stopped { exit, why, hint }, ..self }
    }

    /// Expects 13 until the same was seen twice.
    pub(super) fn seen_twice(self) -> Self {
        Self { expected: Expected::SeenTwice, ..self }
    }

    /// Expects a spent allowance.
    pub(super) fn spent(self) -> Self {
        Self { expected: Expected::Spent, ..self }
    }

    /// Tells whether what comes past the end is a page that can be held, and says so by itself: a
    /// refusal is no page, and the last page once more says no more than the first time.
    pub(super) fn has_an_end_to_hold(&self) -> bool {
        let Behaviour { past_end, whautomate, convertalk, .. } = &self.behaviour;
        [*past_end, whautomate.past_end] == [PastEnd::Empty; 2]
            && [ChatsEnd::Empty, ChatsEnd::Missing, ChatsEnd::Null].contains(&convertalk.past_end)
    }

    /// Returns what differs from the likely answer, for messages.
    pub(super) fn name(&self) -> String {
        let value = |behaviour: &Behaviour| serde_json::to_value(behaviour).unwrap();
        let mut name = difference(&value(&Behaviour::default()), &value(&self.behaviour));
        if !self.keys.is_empty() {
            name = format!("{name} with {}", self.keys.replace('\n', ", "));
        }
        name
    }
}

/// Returns the fields of `other` that differ, as JSON.
fn difference(default: &Value, other: &Value) -> String {
    match (default, other) {
        (Value::Object(default), Value::Object(other)) => {
            let differs = |(name, _): &(&String, &Value)| default.get(*name) != other.get(*name);
            let fields = other.iter().filter(differs);
            let said = fields.map(|(name, value)| match default.get(name) {
                Some(default) => format!("{name}: {}", difference(default, value)),
                None => format!("{name}: {value}"),
            });
            format!("{{{}}}", said.collect::<Vec<_>>().join(", "))
        }
        (_, other) => other.to_string(),
    }
}
