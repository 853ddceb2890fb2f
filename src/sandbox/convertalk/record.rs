//! Chats and users in the wire form of Convertalk.
//!
//! Fields and their order are those of the documented chat and of a captured user. What they say
//! follows the life of the record: status, notes and agent move with its changes, name and contact
//! are there once it is a lead.

use chrono::DateTime;
use chrono::SecondsFormat;

use super::AGENCY;
use super::AGENT;
use super::AgentForm;
use super::CUSTOMER;
use super::ConvertalkBehaviour;
use super::NameField;
use super::Parts;
use super::TAG;
use super::TagForm;
use super::id;
use crate::sandbox::behaviour::Behaviour;
use crate::sandbox::behaviour::CustomValues;
use crate::sandbox::behaviour::Missing;
use crate::sandbox::dice::Dice;
use crate::sandbox::json::Json;
use crate::sandbox::json::patch;
use crate::sandbox::people::Person;
use crate::sandbox::records::Stream;
use crate::sandbox::records::Subject;
use crate::sandbox::records::object_id;

/// How long somebody counts as online after a sign of life, in milliseconds.
const ONLINE: i64 = 300_000;
const STATUSES: [&str; 6] = ["OPEN", "INPROGRESS", "REVIEW", "ONHOLD", "DEPENDANCY", "CLOSED"];
const TAGS: [&str; 6] = ["hot", "Quote sent", "call back", "süß", "spam?", "A/B test"];
const MESSAGES: [&str; 6] = [
    "Welcome. I am here to help you.",
    "Do you have \"same day\" appointments?",
    "Thanks, somebody will call you back.\nHave a nice day!",
    "¿Hablan español? Necesito una cita mañana 🙏",
    "C:\\plans.pdf / page 3",
    "price?",
];
const NOTES: [&str; 4] = [
    "Wants a quote for two rooms",
    "Left a voicemail.\nTry again \"soon\".",
    "Kennt uns von der Messe",
    "VIP / handle with care",
];
const PLATFORMS: [(&str, &str); 3] =
    [("WHATSAPP", "whatsapp"), ("FACEBOOK", "facebook"), ("TELEGRAM", "telegram")];

/// The dice of a face; the numbers are rolls.
mod roll {
    pub(super) const STATUS: usize = 0;
    pub(super) const TAGS: usize = 1;
    pub(super) const NOTED: usize = 2;
    pub(super) const NOTE: usize = 3;
    pub(super) const MESSAGE: usize = 4;
    pub(super) const SPOKEN: usize = 5;
    pub(super) const EMAIL: usize = 6;
    pub(super) const PHONE: usize = 7;
    pub(super) const PREFIX: usize = 8;
    pub(super) const ABROAD: usize = 9;
    pub(super) const GENDER: usize = 10;
    pub(super) const ATTRIBUTES: usize = 11;
    pub(super) const AGENT: usize = 12;
    pub(super) const PARTS: usize = 13;
    pub(super) const PLATFORM: usize = 14;
    pub(super) const NAME: usize = 15;
    pub(super) const TOWN: usize = 16;
    /// Four words for identifiers, and four more for another visit.
    pub(super) const IDENTIFIER: usize = 40;
}

/// Appends a record to `out`, as a listing of `stream` shows it.
pub(in crate::sandbox) fn write(
    out: &mut Vec<u8>,
    subject: &Subject<'_>,
    stream: Stream,
    behaviour: &Behaviour,
    now: i64,
) {
    let start = out.len();
    let face = Face::new(subject, &behaviour.convertalk, now);
    let mut json = Json::script(out, &behaviour.without_fields);
    json.open(None, b'{');
    match stream {
        Stream::Users => face.user(&mut json),
        _ => face.chat(&mut json),
    }
    if subject.row.is_gone(now) {
        json.raw("isDeleted", true);
    }
    if let Some(name) = &behaviour.extra_field {
        json.text(name, "new");
    }
    json.close(b'}');
    if let Some(edits) = subject.edits(stream) {
        patch(out, start, edits);
    }
}

/// A record about to be written.
struct Face<'a> {
    subject: &'a Subject<'a>,
    switches: &'a ConvertalkBehaviour,
    dice: Dice,
    person: Person,
    now: i64,
    is_lead: bool,
    /// The part that this record lacks.
    lacks: Option<&'static str>,
}

impl<'a> Face<'a> {
    fn new(subject: &'a Subject<'a>, switches: &'a ConvertalkBehaviour, now: i64) -> Self {
        let dice = subject.dice();
        let lacks = match (switches.parts, dice.below(roll::PARTS, 10)) {
            (Parts::Whole, _) | (_, 5..) => None,
            (_, 0) => Some("profile"),
            (_, 1) => Some("userDetails"),
            (_, 2) => Some("contact"),
            (_, 3) => Some("phone"),
            (_, _) => Some("lastMessage"),
        };
        let (person, is_lead) = (subject.person(), subject.was_lead(now));
        Self { subject, switches, dice, person, now, is_lead, lacks }
    }

    fn chat(&self, json: &mut Json<'_>) {
        let row = self.subject.row;
        json.text("_id", &self.subject.id());
        json.text("uuid", &self.uuid());
        self.time(json, "createdAt", row.created);
        json.raw("isOnline", self.now - row.active < ONLINE);
        self.last_message(json, true);
        self.time(json, "lastSeenAt", row.active);
        self.part(json, "profile", |json| {
            self.notes(json);
            self.details(json, self.switches.name);
        });
        json.text("status", self.status());
        self.time(json, "updatedAt", self.subject.updated(self.switches.moves()));
        json.number("websiteVisits", 1 + u64::from(row.visits));
        self.agent(json);
    }

    fn user(&self, json: &mut Json<'_>) {
        let row = self.subject.row;
        let (platform, secondary) = self.platform();
        json.text("_id", &self.subject.id());
        json.text("_agency", &id(self.subject.seed(), AGENCY));
        json.text("_customer", &id(self.subject.seed(), CUSTOMER));
        json.list("platform", |json| json.item(platform));
        json.list("secondaryPlatform", |json| json.item(secondary));
        json.raw("isSubscriber", true);
        json.number("websiteVisits", 1 + u64::from(row.visits));
        json.raw("isOnline", self.now - row.active < ONLINE);
        json.raw("userInteracted", true);
        self.part(json, "profile", |json| {
            self.details(json, NameField::UserProvidedName);
            json.object("marketing", |json| json.list("urlsVisited", |_| {}));
            self.notes(json);
        });
        json.text("status", self.status());
        self.last_message(json, false);
        for (name, value) in [("isContact", true), ("isImported", false), ("isMigrated", false)] {
            json.raw(name, value);
        }
        json.list("segments", |_| {});
        json.raw("isLiveChatActive", false);
        json.raw("isPaid", false);
        json.object("hasOrdered", |json| json.raw("status", false));
        json.number("unreadMessages", 0);
        json.list("unreadMessage", |_| {});
        self.agent(json);
        self.time(json, "lastSeenAt", row.active);
        self.time(json, "createdAt", row.created);
        self.time(json, "updatedAt", self.subject.updated(self.switches.moves()));
        json.number("__v", 0);
    }

    fn platform(&self) -> (&'static str, &'static str) {
        match self.subject.stream() {
            Stream::Chats => ("WEBSITE", "website"),
            _ => self.dice.pick(roll::PLATFORM, &PLATFORMS),
        }
    }

    fn last_message(&self, json: &mut Json<'_>, with_text: bool) {
        let text = self.dice.pick(roll::MESSAGE, &MESSAGES);
        self.part(json, "lastMessage", |json| {
            self.time(json, "at", self.subject.row.active - 1_000);
            json.text("by", self.dice.pick(roll::SPOKEN, &["bot", "user"]));
            if with_text && self.dice.chance(roll::SPOKEN, 900) {
                json.text("text", text);
            }
        });
    }

    fn details(&self, json: &mut Json<'_>, name: NameField) {
        let (dice, town) = (&self.dice, &self.person.town);
        self.part(json, "userDetails", |json| {
            let named = self.is_lead && dice.chance(roll::NAME, 900);
            let name = match name {
                NameField::Name => "name",
                NameField::UserProvidedName => "userProvidedName",
            };
            self.optional(json, name, named.then_some(self.person.name.as_str()));
            self.optional(json, "picture", None);
            self.contact(json);
            let located = dice.chance(roll::TOWN, 700);
            self.optional(json, "city", located.then_some(town.city));
            self.optional(json, "country", located.then_some(town.country));
            let gender = dice.pick(roll::GENDER, &["", "MALE", "FEMALE"]);
            self.optional(json, "gender", Some(gender).filter(|gender| !gender.is_empty()));
            self.tags(json);
            self.attributes(json);
        });
    }

    fn contact(&self, json: &mut Json<'_>) {
        let mailed = self.is_lead && self.dice.chance(roll::EMAIL, 700);
        self.part(json, "contact", |json| {
            self.optional(json, "email", mailed.then_some(self.person.email.as_str()));
            self.part(json, "phone", |json| self.phone(json));
        });
    }

    /// Writes number and prefix: the prefix with or without `+`, the number at times as people
    /// write it, and abroad with the zero that only counts at home.
    fn phone(&self, json: &mut Json<'_>) {
        if !self.is_lead || !self.dice.chance(roll::PHONE, 850) {
            self.optional(json, "number", None);
            self.optional(json, "prefix", None);
            return;
        }
        let prefix = self.dice.pick(roll::PREFIX, &["1", "1", "+1"]);
        match self.dice.below(roll::ABROAD, 20) {
            0 => {
                // Numbers that Ofcom keeps free for films.
                let line = self.dice.below(roll::PHONE, 1_000);
                json.text("number", &format!("07700900{line:03}"));
                json.text("prefix", "+44");
            }
            1..4 => {
                json.text("number", &self.person.national_phone());
                json.text("prefix", prefix);
            }
            _ => {
                json.text("number", &self.person.national_digits());
                json.text("prefix", prefix);
            }
        }
    }

    fn tags(&self, json: &mut Json<'_>) {
        let count = self.dice.below(roll::TAGS, 3) + self.subject.row.changes % 2;
        let first = self.dice.below(roll::TAGS, TAGS.len() as u32) as usize;
        let tags = TAGS.iter().cycle().skip(first).take(count as usize);
        json.list("tags", |json| {
            for (number, tag) in tags.enumerate() {
                match self.switches.tags {
                    TagForm::Texts => json.item(tag),
                    TagForm::Objects => {
                        json.open(None, b'{');
                        json.text("_id", &id(self.subject.seed(), TAG + number as u64));
                        json.text("name", tag);
                        json.close(b'}');
                    }
                }
            }
        });
    }

    fn attributes(&self, json: &mut Json<'_>) {
        let count = self.dice.below(roll::ATTRIBUTES, 5) as usize;
        let code = format!("\"BP{:03}\"", self.subject.running_number());
        let values = match self.switches.attribute_values {
            // A key may come twice.
            CustomValues::Strings => [
                ("ID", code.as_str()),
                ("budget", "\"1200\""),
                ("rooms", "\"2\""),
                ("rooms", "\"3\""),
            ],
            CustomValues::Mixed => [
                ("ID", code.as_str()),
                ("budget", "1200.5"),
                ("newsletter", "true"),
                ("rooms", "null"),
            ],
        };
        json.list("attributes", |json| {
            for (key, value) in values.into_iter().take(count) {
                json.open(None, b'{');
                json.text("key", key);
                json.raw("value", value);
                json.close(b'}');
            }
        });
    }

    fn notes(&self, json: &mut Json<'_>) {
        let row = self.subject.row;
        let noted = row.changes > 0 || self.dice.chance(roll::NOTED, 100);
        json.list("notes", |json| {
            if !noted {
                return;
            }
            json.open(None, b'{');
            json.text("title", &format!("Note {}", row.changes + 1));
            json.text("description", self.dice.pick(roll::NOTE, &NOTES));
            let number = u64::from(self.dice.word(roll::IDENTIFIER)) << 8 | u64::from(row.changes);
            // It tells when the note was written.
            json.text("_id", &object_id(row.edited, number));
            json.close(b'}');
        });
    }

    fn status(&self) -> &'static str {
        let first = self.dice.below(roll::STATUS, 2) + self.subject.row.changes;
        STATUSES[first as usize % STATUSES.len()]
    }

    /// Writes who looks after the record; nobody does before somebody has changed it.
    fn agent(&self, json: &mut Json<'_>) {
        if self.subject.row.changes == 0 {
            return;
        }
        let id = id(self.subject.seed(), AGENT + u64::from(self.dice.below(roll::AGENT, 5)));
        match self.switches.agent {
            AgentForm::Id => json.text("_agentAssigned", &id),
            AgentForm::Object => json.object("_agentAssigned", |json| {
                json.text("_id", &id);
                json.text("name", "Agent Name");
            }),
            AgentForm::Missing => {}
        }
    }

    /// Writes an object, unless it is what this record lacks.
    fn part(&self, json: &mut Json<'_>, name: &str, fill: impl FnOnce(&mut Json<'_>)) {
        match (self.lacks == Some(name), self.switches.parts) {
            (false, _) => json.object(name, fill),
            (true, Parts::SomeNull) => json.raw(name, "null"),
            (true, _) => {}
        }
    }

    fn optional(&self, json: &mut Json<'_>, name: &str, value: Option<&str>) {
        match (value, self.switches.missing) {
            (Some(value), _) => json.text(name, value),
            (None, Missing::EmptyText) => json.text(name, ""),
            (None, Missing::Null) => json.raw(name, "null"),
            (None, Missing::EmptyList) => json.raw(name, "[]"),
            (None, Missing::Absent) => {}
        }
    }

    fn time(&self, json: &mut Json<'_>, name: &str, at: i64) {
        let utc = DateTime::from_timestamp_millis(at).unwrap_or_default();
        json.text(name, &utc.to_rfc3339_opts(SecondsFormat::Millis, true));
    }

    fn uuid(&self) -> String {
        let visit = match self.switches.uuid_changes && self.subject.row.visits > 1 {
            true => 4,
            false => 0,
        };
        let word = |at: usize| self.dice.word(roll::IDENTIFIER + visit + at);
        let (b, c) = (word(1), word(2));
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:04x}{:08x}",
            word(0),
            b >> 16,
            b & 0xfff,
            0x8000 | c >> 18,
            c & 0xffff,
            word(3)
        )
    }
}
