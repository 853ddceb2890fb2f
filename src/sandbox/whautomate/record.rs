//! Contacts and clients in the wire form of Whautomate.
//!
//! Fields and their order are those of the vendor's examples and of a captured client. What they
//! say follows the life of the record: its stage and notes move with its changes.

use chrono::DateTime;
use chrono::FixedOffset;
use chrono::SecondsFormat;

use super::Collections;
use super::PhoneForm;
use super::PlaceName;
use super::RecordTimes;
use super::WhautomateBehaviour;
use super::shown_id;
use crate::sandbox::behaviour::Behaviour;
use crate::sandbox::behaviour::CustomValues;
use crate::sandbox::behaviour::Missing;
use crate::sandbox::dice::Dice;
use crate::sandbox::json::Json;
use crate::sandbox::json::patch;
use crate::sandbox::people::Person;
use crate::sandbox::records::Stream;
use crate::sandbox::records::Subject;

const STAGES: [&str; 8] = [
    "Subscriber",
    "Lead",
    "Marketing qualified lead (MQL)",
    "Sales qualified lead (SQL)",
    "Opportunity",
    "Customer",
    "Evangelist",
    "Follow-up Required",
];
/// Channels, as often as they come in ten contacts, and the field that says who it is there.
const CHANNELS: [(&str, &str, u32); 5] = [
    ("Whatsapp", "", 6),
    ("Instagram", "instagramId", 1),
    ("Messenger", "messengerId", 1),
    ("Telegram", "telegramChatId", 1),
    ("Website", "username", 1),
];
const TAGS: [&str; 8] =
    ["Prospect", "Interested", "VIP", "Newsletter", "café", "no-show", "Ref: \"Anna\"", "2026/Q4"];
const NOTES: [&str; 4] = [
    "Interested in upcoming promotions",
    "Called twice, no answer.\nTry again \"soon\".",
    "Prefiere citas por la mañana 🙏",
    "Brother of C12; bills go to him",
];
const PLACES: [&str; 3] = ["Main Office", "Downtown", "Größe & Söhne"];
const REFERRALS: [&str; 4] = ["Google", "Friend/Family", "Instagram", "Walk-in"];
const STREETS: [&str; 3] = ["12 Harbour Street", "Lindenallee 5", "400 W 5th Ave, Apt 9"];

/// The dice of a face; the numbers are rolls.
mod roll {
    pub(super) const CHANNEL: usize = 0;
    pub(super) const CASING: usize = 1;
    pub(super) const STAGE: usize = 2;
    pub(super) const TAGS: usize = 3;
    pub(super) const TAG: usize = 4;
    pub(super) const NOTED: usize = 5;
    pub(super) const NOTE: usize = 6;
    pub(super) const CUSTOM: usize = 7;
    pub(super) const PLACE: usize = 8;
    pub(super) const HANDLE: usize = 9;
    pub(super) const CONTACTED: usize = 10;
    pub(super) const EMAIL: usize = 11;
    pub(super) const PHONE: usize = 12;
    pub(super) const BORN: usize = 13;
    pub(super) const ADDRESS: usize = 14;
    pub(super) const GENDER: usize = 15;
    pub(super) const REFERRAL: usize = 16;
    pub(super) const STAFF: usize = 17;
    pub(super) const EMERGENCY: usize = 18;
    pub(super) const REGISTERED: usize = 19;
    pub(super) const PREFERRED: usize = 20;
}

/// Returns when a client was registered: seconds before the record was made.
pub(super) fn registered(subject: &Subject<'_>) -> i64 {
    let before = subject.dice().below(roll::REGISTERED, 40_000);
    subject.row.created - i64::from(before)
}

/// Appends a contact or client to `out`.
pub(in crate::sandbox) fn write(
    out: &mut Vec<u8>,
    subject: &Subject<'_>,
    behaviour: &Behaviour,
    now: i64,
) {
    let start = out.len();
    let face = Face {
        subject,
        behaviour,
        switches: &behaviour.whautomate,
        dice: subject.dice(),
        person: subject.person(),
    };
    let mut json = Json::script(out, &behaviour.without_fields);
    json.open(None, b'{');
    match subject.stream() {
        Stream::Clients => face.client(&mut json),
        _ => face.contact(&mut json),
    }
    face.time(&mut json, "createdAt", subject.row.created);
    face.time(&mut json, "updatedAt", subject.updated(face.switches.moves()));
    if subject.row.is_gone(now) {
        json.raw("isDeleted", true);
    }
    if let Some(name) = &behaviour.extra_field {
        json.text(name, "new");
    }
    json.close(b'}');
    if let Some(edits) = subject.edits(subject.stream()) {
        patch(out, start, edits);
    }
}

/// A record about to be written.
struct Face<'a> {
    subject: &'a Subject<'a>,
    behaviour: &'a Behaviour,
    switches: &'a WhautomateBehaviour,
    dice: Dice,
    person: Person,
}

impl Face<'_> {
    fn contact(&self, json: &mut Json<'_>) {
        let (channel, handle) = self.channel();
        json.text("id", &shown_id(self.subject, self.behaviour));
        json.text("name", &self.person.name);
        json.text("channel", &channel);
        match handle {
            "" => json.text("phoneNumber", &self.phone()),
            handle => {
                let number = self.dice.word(roll::HANDLE);
                json.text(handle, &format!("{number:010}"));
            }
        }
        self.time(json, "lastActivity", self.subject.row.active);
        self.optional(json, "notes", self.notes().as_deref());
        if self.switches.stage {
            let first = self.dice.below(roll::STAGE, 3) + self.subject.row.changes;
            json.text("stage", STAGES[first as usize % STAGES.len()]);
        }
        self.tags(json);
        self.custom_fields(json);
        self.place(json, ["location", "workspace"]);
    }

    fn client(&self, json: &mut Json<'_>) {
        let dice = &self.dice;
        json.text("id", &shown_id(self.subject, self.behaviour));
        json.text("clientId", &format!("C{}", self.subject.running_number()));
        json.text("fullName", &self.person.name);
        let given = self.person.name.split(' ').next();
        self.optional(json, "preferredName", given.filter(|_| dice.chance(roll::PREFERRED, 200)));
        json.text("contactType", "MOBILE");
        self.client_phone(json);
        let email = dice.chance(roll::EMAIL, 700).then_some(self.person.email.as_str());
        self.optional(json, "email", email);
        self.time(json, "registrationDate", registered(self.subject));
        self.born(json);
        self.details(json);
        self.tags(json);
        self.optional(json, "notes", self.notes().as_deref());
        let referral = dice.pick(roll::REFERRAL, &REFERRALS);
        self.optional(
            json,
            "referralSource",
            dice.chance(roll::CONTACTED, 300).then_some(referral),
        );
        self.place(json, ["primaryLocation", "primaryWorkspace"]);
        // The documented template has them, the captured client has not.
        if dice.chance(roll::STAFF, 200) {
            json.object("primaryStaff", |json| {
                json.text("id", "Tq81LmZx04Kp");
                json.text("name", "Staff Name");
            });
            self.custom_fields(json);
        }
        self.emergency(json);
    }

    /// Returns the channel, in one of the casings of the vendor's pages, and the field that says
    /// who it is there, `""` for the telephone.
    fn channel(&self) -> (String, &'static str) {
        let mut left = self.dice.below(roll::CHANNEL, 10);
        let mut chosen = CHANNELS[0];
        for channel in CHANNELS {
            if left < channel.2 {
                chosen = channel;
                break;
            }
            left -= channel.2;
        }
        let name = match self.dice.below(roll::CASING, 20) {
            0 => chosen.0.to_uppercase(),
            1 => chosen.0.to_lowercase(),
            _ => chosen.0.to_owned(),
        };
        (name, chosen.1)
    }

    fn phone(&self) -> String {
        match self.switches.phone {
            PhoneForm::Plus => self.person.phone(),
            PhoneForm::Digits => format!("1{}", self.person.national_digits()),
        }
    }

    /// Writes country code and number; one in four repeats the code in the number, as the captured
    /// client does.
    fn client_phone(&self, json: &mut Json<'_>) {
        let digits = self.person.national_digits();
        json.text("countryCode", "+1");
        match self.dice.chance(roll::PHONE, 250) {
            true => json.texts("phone", &["1", &digits]),
            false => json.text("phone", &digits),
        }
    }

    fn born(&self, json: &mut Json<'_>) {
        let day = self.dice.below(roll::BORN, 16_000);
        match day {
            0..4_000 => {
                let born = DateTime::from_timestamp(i64::from(day) * 86_400, 0);
                let born = born.unwrap_or_default().format("%Y-%m-%d").to_string();
                json.text("dob", &born);
            }
            _ => json.raw("dob", "null"),
        }
    }

    fn details(&self, json: &mut Json<'_>) {
        let dice = &self.dice;
        let lives = dice.chance(roll::ADDRESS, 300);
        self.optional(json, "addressType", lives.then_some("HOME"));
        let street = dice.pick(roll::ADDRESS, &STREETS);
        self.optional(json, "address", lives.then_some(street));
        self.optional(json, "identificationNumber", None);
        let gender = dice.pick(roll::GENDER, &["", "", "FEMALE", "MALE"]);
        self.optional(json, "gender", Some(gender).filter(|gender| !gender.is_empty()));
        self.optional(json, "preferredLanguage", lives.then_some("English"));
        self.optional(json, "maritalStatus", None);
    }

    fn emergency(&self, json: &mut Json<'_>) {
        let named = self.dice.chance(roll::EMERGENCY, 100);
        self.optional(json, "emergencyRelationType", named.then_some("SPOUSE"));
        self.optional(json, "emergencyName", named.then_some("Robin Example"));
        // It has a default although the rest is empty.
        json.text("emergencyCountryCode", "+52");
        self.optional(json, "emergencyPhone", named.then_some("7045550199"));
    }

    fn notes(&self) -> Option<String> {
        let note = self.dice.pick(roll::NOTE, &NOTES);
        match (self.subject.row.changes, self.dice.chance(roll::NOTED, 200)) {
            (0, false) => None,
            (0, true) => Some(note.to_owned()),
            (times, _) => Some(format!("{note} (edited {times}x)")),
        }
    }

    fn tags(&self, json: &mut Json<'_>) {
        let count = match self.dice.below(roll::TAGS, 10) {
            0..4 => 0,
            many => (many as usize - 3) / 2 + self.subject.row.changes as usize % 2,
        };
        let first = self.dice.below(roll::TAG, TAGS.len() as u32) as usize;
        let tags: Vec<&str> = TAGS.iter().cycle().skip(first).take(count).copied().collect();
        if tags.is_empty() {
            match self.switches.missing {
                Missing::Null => json.raw("tags", "null"),
                Missing::Absent => {}
                Missing::EmptyText | Missing::EmptyList => {
                    self.collection(json, "tags", [b'[', b']'], |_| {});
                }
            }
            return;
        }
        self.collection(json, "tags", [b'[', b']'], |json| {
            tags.iter().for_each(|tag| json.item(tag));
        });
    }

    fn custom_fields(&self, json: &mut Json<'_>) {
        let dice = &self.dice;
        if !dice.chance(roll::CUSTOM, 400) {
            match self.switches.missing {
                Missing::Null => json.raw("customFields", "null"),
                Missing::EmptyList => json.raw("customFields", "[]"),
                // Absent when unset, as in the examples.
                Missing::EmptyText | Missing::Absent => {}
            }
            return;
        }
        self.collection(json, "customFields", [b'{', b'}'], |json| {
            json.text("membership", dice.pick(roll::STAGE, &["Silver", "Gold", "Café/Plus"]));
            match self.switches.custom_values {
                CustomValues::Strings => {
                    json.text("visits", &self.subject.row.visits.to_string());
                    json.text("newsletter", "true");
                    json.text("height", "1.75");
                    json.text("insurer", "");
                }
                CustomValues::Mixed => {
                    json.number("visits", u64::from(self.subject.row.visits));
                    json.raw("newsletter", true);
                    json.raw("height", "1.75");
                    json.raw("insurer", "null");
                }
            }
        });
    }

    /// Writes an array or object, or a text that holds one.
    fn collection(
        &self,
        json: &mut Json<'_>,
        name: &str,
        [open, close]: [u8; 2],
        fill: impl FnOnce(&mut Json<'_>),
    ) {
        let mut inner = Vec::new();
        let mut value = Json::script(&mut inner, &[]);
        value.open(None, open);
        fill(&mut value);
        value.close(close);
        let inner = String::from_utf8_lossy(&inner);
        match self.switches.collections {
            Collections::Native => json.raw(name, inner),
            Collections::JsonText => json.text(name, &inner),
        }
    }

    fn place(&self, json: &mut Json<'_>, names: [&str; 2]) {
        let name = match self.switches.place {
            PlaceName::Location => names[0],
            PlaceName::Workspace => names[1],
        };
        let number = self.dice.below(roll::PLACE, PLACES.len() as u32) as usize;
        json.object(name, |json| {
            json.text("id", &format!("LXhX3x8Q{}{number}", self.subject.part()));
            json.text("title", PLACES[number]);
        });
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
        let text = match self.switches.times {
            RecordTimes::Milliseconds => utc.to_rfc3339_opts(SecondsFormat::Millis, true),
            RecordTimes::Seconds => utc.to_rfc3339_opts(SecondsFormat::Secs, true),
            RecordTimes::Offset => {
                let zone = FixedOffset::west_opt(5 * 3_600);
                let local = zone.map(|zone| utc.with_timezone(&zone));
                local
                    .unwrap_or_else(|| utc.fixed_offset())
                    .to_rfc3339_opts(SecondsFormat::Millis, false)
            }
        };
        json.text(name, &text);
    }
}
