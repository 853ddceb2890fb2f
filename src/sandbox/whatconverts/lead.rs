//! A lead in the wire form of WhatConverts, with the habits seen there.
//!
//! Maps without entries come as `[]`, values in display or filter casing, times in three forms,
//! money as number or text, unset fields absent, `null` or empty. Which lead has which habit is
//! drawn from the seed; what the fields say follows the life of the lead.

use std::fmt::Write;

use crate::sandbox::behaviour::Behaviour;
use crate::sandbox::behaviour::EmptyMaps;
use crate::sandbox::behaviour::Times;
use crate::sandbox::dice::Dice;
use crate::sandbox::dice::Purpose;
use crate::sandbox::json::Json;
use crate::sandbox::json::patch;
use crate::sandbox::people::Person;
use crate::sandbox::world::Kind;
use crate::sandbox::world::Life;
use crate::sandbox::world::Row;
use crate::sandbox::world::World;
use chrono::DateTime;
use chrono::TimeDelta;

const SOURCES: [(&str, &str); 8] = [
    ("google", "cpc"),
    ("google", "organic"),
    ("(direct)", "(none)"),
    ("facebook", "paid social"),
    ("bing", "cpc"),
    ("Yelp", "referral"),
    ("Google Business Profile", "organic"),
    ("newsletter", "email"),
];
const CAMPAIGNS: [&str; 6] = [
    "call tracking general",
    "Spring Sale 50% off",
    "Größte Auswahl",
    "brand | exact",
    "retargeting/30 days",
    "lead generation",
];
const KEYWORDS: [&str; 6] = [
    "emergency plumber near me",
    "dentist",
    "roof repair cost",
    "\"best\" solar",
    "café catering",
    "movers",
];
const PAGES: [&str; 6] =
    ["", "contact", "pricing?plan=pro&utm_source=google", "services/repair", "book", "blog/how-to"];
const SYSTEMS: [(&str, &str, &str, &str); 5] = [
    ("iOS 18", "Mobile Safari 18", "Smartphone", "Apple iPhone"),
    ("Windows 11", "Chrome 131", "Desktop", "Desktop"),
    ("Android 15", "Chrome Mobile 131", "Smartphone", "Samsung Galaxy S24"),
    ("macOS 15", "Safari 18", "Desktop", "Apple Mac"),
    ("iPadOS 18", "Mobile Safari 18", "Tablet", "Apple iPad"),
];
const SENTENCES: [&str; 16] = [
    "Thank you for calling, how can I help you today?",
    "Hi, I saw your ad online and wanted to ask about the price.",
    "Could you tell me a little more about what you need?",
    "It's for a house with three bedrooms, and the \"old\" unit stopped working last night.",
    "We can have somebody there between 9 and 11 tomorrow morning.",
    "That would be great, thank you so much.",
    "And what is the best number to reach you at?",
    "My email is the one on the form, hello at example dot com.",
    "Okay, let me put you on hold for just one moment.",
    "Do you take insurance and/or payment plans?",
    "Yes, we do; the first visit is free of charge.",
    "I was quoted about $1,200 by somebody else.",
    "Is the naïve approach to replace the whole thing?",
    "Usually we repair first; replacing is the last resort.",
    "Perfect. I'll see you then.",
    "Have a great day, bye-bye.",
];
const MESSAGES: [&str; 6] = [
    "Hello, I like your service!\nPlease call me back after 5pm.",
    "Do you have \"same day\" appointments?",
    "Need a quote for 240 sq ft / two rooms.\r\nThanks,\r\n- a neighbour",
    "¿Hablan español? Necesito una cita mañana 🙏",
    "price?",
    "C:\\Users\\me says the upload failed; can I mail the plans to you?\n\nThey are 3 pages.",
];
const TOPICS: [&str; 5] = [
    "call tracking,purchase,sign up",
    "pricing",
    "emergency,repair",
    "booking,reschedule",
    "insurance,billing",
];
/// Labels as people write them on forms; the value lies beside.
const QUESTIONS: [(&str, &str); 10] = [
    ("How can we help?", "I would like a quote, please"),
    ("*", "Yes"),
    ("e g 240", "240"),
    ("Preferred date: ", "next Tuesday"),
    ("Budget ($)*", "1,000 - 2,500"),
    ("Yes, call me about offers", "Yes, call me about offers"),
    ("Straße & Hausnummer", "Lindenallee 5"),
    ("How did you hear about us:", "Friend/Family"),
    ("g-recaptcha", ""),
    ("Message", "Two windows are broken.\nCan you come \"soon\"?"),
];

/// The dice of a face; the numbers are rolls.
mod roll {
    pub(super) const STYLE: usize = 0;
    pub(super) const CASING: usize = 1;
    pub(super) const TIME: usize = 2;
    pub(super) const UPDATED: usize = 3;
    pub(super) const SOURCE: usize = 4;
    pub(super) const CAMPAIGN: usize = 5;
    pub(super) const CONTENT: usize = 6;
    pub(super) const KEYWORD: usize = 7;
    pub(super) const PAGE: usize = 8;
    pub(super) const LANDING: usize = 9;
    pub(super) const SYSTEM: usize = 10;
    pub(super) const ADDRESS: usize = 11;
    pub(super) const SCORE: usize = 12;
    pub(super) const QUOTABLE: usize = 13;
    pub(super) const MONEY: usize = 14;
    pub(super) const AMOUNT: usize = 15;
    pub(super) const SALE_MONEY: usize = 16;
    pub(super) const SALE: usize = 17;
    pub(super) const CONTACT: usize = 18;
    pub(super) const PHONE_FORM: usize = 19;
    pub(super) const CLICK: usize = 20;
    pub(super) const FACEBOOK: usize = 21;
    pub(super) const TRACKERS: usize = 22;
    pub(super) const SALESFORCE: usize = 23;
    pub(super) const ANALYTICS: usize = 24;
    pub(super) const FIELDS: usize = 25;
    pub(super) const QUESTION: usize = 26;
    pub(super) const CUSTOM: usize = 27;
    pub(super) const ANSWERED: usize = 28;
    pub(super) const DURATION: usize = 29;
    pub(super) const TRACKING: usize = 30;
    pub(super) const TRANSCRIPT: usize = 31;
    pub(super) const LENGTH: usize = 32;
    pub(super) const MESSAGE: usize = 33;
    pub(super) const TOPIC: usize = 34;
    pub(super) const MISSPELT: usize = 35;
    pub(super) const NOTE: usize = 36;
    pub(super) const PERSON: usize = 37;
    pub(super) const ESCAPES: usize = 38;
    /// From here on: four words for identifiers.
    pub(super) const IDENTIFIER: usize = 40;
    /// From here on: sentences of a transcript.
    pub(super) const SENTENCE: usize = 44;
}

/// How a request sees a lead.
#[derive(Debug)]
pub(super) struct View<'a> {
    /// Seconds since the epoch.
    pub(super) now: i64,
    /// Whether the fields come that need a request for one profile.
    pub(super) custom: bool,
    /// Whether the way of the customer comes.
    pub(super) journey: bool,
    pub(super) behaviour: &'a Behaviour,
}

/// Appends a lead to `out`.
pub(super) fn write(out: &mut Vec<u8>, world: &World, row: &Row, view: &View<'_>) {
    let &View { now, custom, journey, behaviour } = view;
    let start = out.len();
    let face = Face::new(world, row, now, behaviour);
    let mut json = Json::new(out, face.dice.chance(roll::ESCAPES, 500), &behaviour.without_fields);
    json.open(None, b'{');
    face.identity(&mut json);
    face.attribution(&mut json);
    face.visit(&mut json);
    face.contact(&mut json);
    face.of_kind(&mut json);
    face.trackers(&mut json);
    face.maps(&mut json, custom);
    if journey {
        face.journey(&mut json);
    }
    if let Some(name) = &behaviour.extra_field {
        json.text(name, "new");
    }
    json.close(b'}');
    if let Some(edits) = world.edits(row.id) {
        let shown = |name: &str| custom || !matches!(name, "custom_fields" | "field_mappings");
        let fields =
            edits.iter().map(|(name, value)| (name.clone(), value.clone().filter(|_| shown(name))));
        patch(out, start, &fields.collect());
    }
}

/// A lead about to be written.
struct Face<'a> {
    world: &'a World,
    row: &'a Row,
    behaviour: &'a Behaviour,
    dice: Dice,
    person: Person,
    life: Life,
    spam: bool,
    times: Times,
}

impl<'a> Face<'a> {
    fn new(world: &'a World, row: &'a Row, now: i64, behaviour: &'a Behaviour) -> Self {
        let dice = Dice::new(world.seed, Purpose::Face, row.index);
        // Who comes again was here among the last five hundred.
        let back = if row.repeat { 1 + u64::from(dice.below(roll::PERSON, 500)) } else { 0 };
        let person = Dice::new(world.seed, Purpose::Person, row.index.saturating_sub(back));
        let times = match (behaviour.times, dice.below(roll::TIME, 1_000)) {
            (Times::Mixed, 0..20) => Times::Offset,
            (Times::Mixed, 20..30) => Times::Bare,
            (Times::Mixed, _) => Times::Zulu,
            (times, _) => times,
        };
        Self {
            world,
            row,
            behaviour,
            dice,
            person: Person::new(&person),
            life: world.life(row, now),
            spam: row.spam <= now,
            times,
        }
    }

    fn identity(&self, json: &mut Json<'_>) {
        let profile = &self.world.profiles[usize::from(self.row.profile)];
        let account = &self.world.accounts[profile.account];
        json.number("account_id", account.id);
        json.text("account", &account.name);
        json.number("profile_id", profile.id);
        json.text("profile", &profile.name);
        json.number("lead_id", self.row.id);
        json.text("user_id", &format!("{}-{}", profile.id, self.uuid()));
        json.text("lead_type", self.cased(display(self.row.kind)));
        json.text("lead_status", self.cased(if self.row.repeat { "Repeat" } else { "Unique" }));
        json.text("lead_state", self.state());
        if !self.row.undated {
            json.text("date_created", &self.time(self.row.created));
        }
        self.last_updated(json);
        json.text("quotable", self.cased(self.quotable()));
        self.money(json);
        json.number("lead_score", u64::from(self.dice.below(roll::SCORE, 5)) * 25);
        json.raw("spam", self.spam);
        json.raw("duplicate", self.row.duplicate);
    }

    fn last_updated(&self, json: &mut Json<'_>) {
        let style = self.dice.below(roll::UPDATED, 1_000);
        let untouched = self.life.touched == self.row.arrives;
        match style {
            0..30 => {}
            // The vendor's own example was updated a week before it was created.
            30..60 if untouched => {
                json.text("last_updated", &self.time(self.row.created - 596_581));
            }
            _ => json.text("last_updated", &self.time(self.life.touched.max(self.row.created))),
        }
    }

    fn state(&self) -> &'static str {
        match (self.life.completed, self.dice.chance(roll::MISSPELT, 250)) {
            (true, _) => "Completed",
            (false, false) => "In Progress",
            (false, true) => "In Progess",
        }
    }

    fn quotable(&self) -> &'static str {
        match (self.life.judged, self.dice.below(roll::QUOTABLE, 100)) {
            (true, _) if self.life.quoted => "Yes",
            (true, 0..55) => "Yes",
            (true, 55..90) => "No",
            (true, _) => "Pending",
            (false, 0..25) => "Pending",
            (false, _) => "Not Set",
        }
    }

    fn money(&self, json: &mut Json<'_>) {
        let amount = 50 + self.dice.below(roll::AMOUNT, 4_000);
        self.amount(json, "quote_value", self.life.quoted, roll::MONEY, amount);
        let sale = amount / 2 + self.dice.below(roll::SALE, amount) + 10 * self.life.revision;
        self.amount(json, "sales_value", self.life.sold, roll::SALE_MONEY, sale);
    }

    fn amount(&self, json: &mut Json<'_>, name: &str, set: bool, form: usize, units: u32) {
        match (set, self.dice.below(form, 100)) {
            (true, 0..55) => json.raw(name, units),
            (true, 55..80) => json.raw(name, format_args!("{units}.{:02}", units % 100)),
            (true, 80..92) => json.text(name, &format!("{units}.50")),
            (true, _) | (false, 0..6) => json.raw(name, 0),
            (false, 6..10) => json.text(name, ""),
            (false, 10..14) => {}
            (false, _) => json.raw(name, "null"),
        }
    }

    fn attribution(&self, json: &mut Json<'_>) {
        let dice = &self.dice;
        let (source, medium) = dice.pick(roll::SOURCE, &SOURCES);
        json.text("lead_source", source);
        json.text("lead_medium", medium);
        let paid = medium == "cpc" || medium == "paid social";
        let campaign = dice.pick(roll::CAMPAIGN, &CAMPAIGNS);
        self.optional(json, "lead_campaign", paid.then_some(campaign));
        let content = paid && dice.chance(roll::CONTENT, 300);
        self.optional(json, "lead_content", content.then_some("new ad/variant b"));
        let keyword = dice.pick(roll::KEYWORD, &KEYWORDS);
        self.optional(json, "lead_keyword", paid.then_some(keyword));
        let spotted = self.life.analysed && dice.chance(roll::TOPIC, 400);
        json.text("spotted_keywords", if spotted { "buy,quote" } else { "" });
        if self.life.noted || self.life.revision > 0 {
            let notes =
                ["This is a new lead!", "Called back, left a voicemail.\nTry again \"soon\"."];
            let note = dice.pick(roll::NOTE, &notes);
            let revision = match self.life.revision {
                0 => String::new(),
                times => format!(" (edited {times}x)"),
            };
            json.texts("notes", &[note, &revision]);
        }
    }

    fn visit(&self, json: &mut Json<'_>) {
        let dice = &self.dice;
        let url = "https://www.example.com/";
        json.texts("lead_url", &[url, dice.pick(roll::PAGE, &PAGES)]);
        json.texts("landing_url", &[url, dice.pick(roll::LANDING, &PAGES)]);
        let (system, browser, device, make) = dice.pick(roll::SYSTEM, &SYSTEMS);
        json.text("operating_system", system);
        json.text("browser", browser);
        json.text("device_type", device);
        json.text("device_make", make);
        let address = 1 + dice.below(roll::ADDRESS, 254);
        json.raw("ip_address", format_args!("\"203.0.113.{address}\""));
    }

    fn contact(&self, json: &mut Json<'_>) {
        let person = &self.person;
        let town = &person.town;
        let phone = match self.dice.chance(roll::PHONE_FORM, 80) {
            true => person.national_phone(),
            false => person.phone(),
        };
        // The form's labels are often not mapped to the contact.
        let mapped = self.dice.chance(roll::CONTACT, 600);
        self.optional(json, "contact_name", mapped.then_some(person.name.as_str()));
        self.optional(json, "contact_company_name", mapped.then_some(person.company));
        self.optional(json, "contact_email_address", mapped.then_some(person.email.as_str()));
        self.optional(json, "contact_phone_number", mapped.then_some(phone.as_str()));
        let written = !matches!(self.row.kind, Kind::Call | Kind::Text | Kind::Event);
        self.optional(json, "email_address", written.then_some(person.email.as_str()));
        json.text("phone_number", &phone);
        json.text("city", town.city);
        json.text("state", town.state);
        json.text("zip", town.zip);
        json.text("country", town.country);
    }

    fn of_kind(&self, json: &mut Json<'_>) {
        let message = self.dice.pick(roll::MESSAGE, &MESSAGES);
        let number = self.dice.word(roll::IDENTIFIER);
        match self.row.kind {
            Kind::Call => self.call(json),
            Kind::Form => json.text("form_name", "Contact form / footer: v2"),
            Kind::Chat => json.text("chat_status", self.state()),
            Kind::Text => {
                json.text("message", message);
                self.line(json);
            }
            Kind::Email => {
                json.text("sender_name", &self.person.name);
                json.text("email_subject", "Re: your \"offer\"");
                json.text("email_message", message);
            }
            Kind::Event => {
                json.text("event_category", "Download");
                json.text("event_action", "click");
                json.text("event_label", "brochure/2026.pdf");
            }
            Kind::Transaction => {
                json.raw("transaction_id", format_args!("\"{number:010}\""));
                json.raw("transaction_tax", format_args!("{}.{:02}", number % 90, number % 100));
                json.raw("transaction_shipping", number % 20);
            }
            Kind::Appointment | Kind::Other => {}
        }
    }

    fn line(&self, json: &mut Json<'_>) {
        let tracking = 100 + self.dice.below(roll::TRACKING, 20);
        json.text("phone_name", "Google Ads: main line");
        json.raw("tracking_number", format_args!("\"+17045550{tracking}\""));
        json.text("caller_number", &self.person.phone());
        json.text("line_type", if tracking < 107 { "Landline" } else { "Mobile" });
    }

    fn call(&self, json: &mut Json<'_>) {
        let dice = &self.dice;
        self.line(json);
        json.text("destination_number", "+17045550199");
        json.text("caller_name", &self.person.name.to_uppercase());
        for (name, value) in [
            ("caller_city", self.person.town.city),
            ("caller_state", self.person.town.state),
            ("caller_zip", self.person.town.zip),
            ("caller_country", self.person.town.country),
        ] {
            json.text(name, value);
        }
        json.text("call_status", self.state());
        if !self.life.completed {
            return;
        }
        let answer = match dice.below(roll::ANSWERED, 100) {
            0..78 => "Answered",
            78..95 => "No Answer",
            _ => "Busy",
        };
        let seconds = if answer == "Answered" { 5 + dice.below(roll::DURATION, 900) } else { 0 };
        json.text("answer_status", answer);
        json.raw("call_duration", format_args!("\"{seconds} seconds\""));
        json.number("call_duration_seconds", u64::from(seconds));
        let sound = format!("https://app.whatconverts.com/recording/{:016x}", self.hash());
        let names = match answer {
            "Answered" => Some(("recording", "play_recording")),
            "No Answer" => Some(("voicemail", "play_voicemail")),
            _ => None,
        };
        if let Some((download, play)) = names {
            json.texts(download, &[&sound, "/download"]);
            json.texts(play, &[&sound, "/play"]);
        }
        if answer == "Answered" && self.life.analysed && dice.chance(roll::TRANSCRIPT, 650) {
            self.transcript(json, "call_transcription");
        } else if answer == "No Answer" && self.life.analysed {
            json.text("voicemail_transcription", dice.pick(roll::MESSAGE, &MESSAGES));
        }
    }

    fn transcript(&self, json: &mut Json<'_>, name: &str) {
        let turns = 6 + self.dice.below(roll::LENGTH, 20) as usize;
        let mut pieces = Vec::with_capacity(3 * turns);
        for turn in 0..turns {
            // A roll is used again, so that a long call needs no more dice.
            let roll = roll::SENTENCE + turn % 20;
            let said = (self.dice.below(roll, 16) as usize + turn / 20) % SENTENCES.len();
            pieces.extend([["Recipient\n", "Caller\n"][turn % 2], SENTENCES[said], "\n\n"]);
        }
        json.texts(name, &pieces);
    }

    fn trackers(&self, json: &mut Json<'_>) {
        let dice = &self.dice;
        let hash = self.hash();
        match dice.below(roll::CLICK, 10) {
            0..4 => json.raw("gclid", format_args!("\"CL{hash:016x}CFcSfGwodQbUAvg\"")),
            4 => json.raw("msclkid", format_args!("\"{hash:032x}\"")),
            _ => {}
        }
        let visit = 1_621_529_626_600 + hash % 100_000_000_000;
        match dice.below(roll::FACEBOOK, 20) {
            0 | 1 => {
                json.raw("facebook_browser_id", format_args!("\"fb.1.{visit}.{}\"", hash >> 34));
                json.raw("facebook_click_id", format_args!("\"fb.1.{visit}.IwAR{hash:016x}\""));
            }
            2 => json.raw("facebook_visitor_id", format_args!("\"fb.1.{visit}.IwAR{hash:016x}\"")),
            _ => {}
        }
        if dice.chance(roll::ANALYTICS, 700) {
            let client = hash % 2_147_483_648;
            let first = visit / 1_000;
            json.raw("google_analytics_client_id", format_args!("\"{client}.{first}\""));
        }
        match dice.below(roll::SALESFORCE, 50) {
            0 => json.raw(
                "salesforce_user_id",
                format_args!("\"{}\"", 15_228_000_000 + visit % 999_999),
            ),
            1 => json.raw("salesforce_user_id", 15_228_000_000 + visit % 999_999),
            _ => {}
        }
        match dice.below(roll::TRACKERS, 40) {
            0 => {
                json.raw("unbounce_page_id", format_args!("\"{}\"", self.uuid()));
                json.text("unbounce_variant_id", "b");
                json.raw("unbounce_visitor_id", format_args!("\"203.0.113.8{visit}\""));
            }
            1 => {
                json.text("vwo_account_id", "512835");
                json.text("vwo_experiment_id", "2");
                json.text("vwo_variant_id", "02");
                json.raw("vwo_user_id", format_args!("\"D{hash:032X}\""));
            }
            2 => json.raw("roistat_visit_id", format_args!("\"wqeOu{hash:x}\"")),
            3 => json.raw("hubspot_visitor_id", format_args!("\"{hash:032x}\"")),
            _ => {}
        }
    }

    fn maps(&self, json: &mut Json<'_>, custom: bool) {
        self.additional_fields(json);
        self.analysis(json);
        if custom {
            self.field_mappings(json);
            self.custom_fields(json);
        }
    }

    fn additional_fields(&self, json: &mut Json<'_>) {
        let dice = &self.dice;
        let asked = match self.row.kind {
            Kind::Form | Kind::Chat => 2 + dice.below(roll::FIELDS, 5) as usize,
            Kind::Appointment => 1,
            Kind::Call if dice.chance(roll::FIELDS, 100) => 1,
            _ => 0,
        };
        self.map(json, "additional_fields", asked > 0, |json| {
            if asked > 1 {
                json.text("Name:", &self.person.name);
                json.text("Email*", &self.person.email);
                json.text("Phone", &self.person.national_phone());
            }
            if self.row.kind == Kind::Appointment {
                json.text("appointment_time", "2026-06-05 16:15");
            }
            let first = dice.below(roll::QUESTION, 10) as usize;
            for (label, value) in QUESTIONS.iter().cycle().skip(first).take(asked) {
                json.text(label, value);
            }
        });
    }

    fn analysis(&self, json: &mut Json<'_>) {
        let spoken = matches!(self.row.kind, Kind::Call | Kind::Chat | Kind::Text);
        if !spoken {
            return;
        }
        self.map(json, "lead_analysis", self.life.analysed, |json| {
            let mood = self.dice.pick(roll::TOPIC, &["Positive", "Neutral", "Negative"]);
            let topics = self.dice.pick(roll::TOPIC, &TOPICS);
            json.text("Keyword Detection", "buy,quote,test");
            json.texts(
                "Lead Summary",
                &[
                    "The customer asked about ",
                    topics,
                    ". The representative answered the questions and set up the next steps.",
                ],
            );
            json.text("Intent Detection", "The customer wanted to purchase services.");
            json.text("Sentiment Detection", mood);
            json.text("Topic Detection", topics);
        });
    }

    fn field_mappings(&self, json: &mut Json<'_>) {
        let mapped = matches!(self.row.kind, Kind::Form | Kind::Chat | Kind::Email);
        self.map(json, "field_mappings", mapped, |json| {
            json.text("Company Name", self.person.company);
            json.text("Contact Person", &self.person.name);
            json.text("Email", &self.person.email);
            json.text("Phone Number", &self.person.national_phone());
        });
    }

    fn custom_fields(&self, json: &mut Json<'_>) {
        let filled = self.dice.chance(roll::CUSTOM, 350);
        self.map(json, "custom_fields", filled, |json| {
            json.raw("Job Number", format_args!("\"J-{:05}\"", self.row.id % 100_000));
            json.text("Region / Büro", self.person.town.state);
        });
    }

    fn journey(&self, json: &mut Json<'_>) {
        json.open(Some("customer_journey"), b'[');
        for kind in ["attribution", "lead"] {
            json.open(None, b'{');
            json.text("type", kind);
            json.text("date_created", &self.time(self.row.created));
            json.open(Some("page_views"), b'[');
            json.open(None, b'{');
            json.texts(
                "page_url",
                &["https://www.example.com/", self.dice.pick(roll::PAGE, &PAGES)],
            );
            json.close(b'}');
            json.close(b']');
            json.close(b'}');
        }
        json.close(b']');
    }

    fn map(&self, json: &mut Json<'_>, name: &str, filled: bool, fill: impl FnOnce(&mut Json<'_>)) {
        if json.skips(name) {
            return;
        }
        if filled {
            json.open(Some(name), b'{');
            fill(json);
            json.close(b'}');
            return;
        }
        match self.behaviour.empty_maps {
            EmptyMaps::List => json.raw(name, "[]"),
            EmptyMaps::Object => json.raw(name, "{}"),
            EmptyMaps::Null => json.raw(name, "null"),
            EmptyMaps::Absent => {}
        }
    }

    /// Writes a field that may be unset: absent, `null` or empty, by the habits of the lead.
    fn optional(&self, json: &mut Json<'_>, name: &str, value: Option<&str>) {
        match (value, self.dice.below(roll::STYLE, 10)) {
            (Some(value), _) => json.text(name, value),
            (None, 0..5) => {}
            (None, 5..8) => json.raw(name, "null"),
            (None, _) => json.text(name, ""),
        }
    }

    /// Returns a value in filter casing for a few leads.
    fn cased(&self, display: &'static str) -> &'static str {
        if !self.dice.chance(roll::CASING, 40) {
            return display;
        }
        match display {
            "Phone Call" => "phone_call",
            "Web Form" => "web_form",
            "Chat" => "chat",
            "Text Message" => "text_message",
            "Unique" => "unique",
            "Repeat" => "repeat",
            "Yes" => "yes",
            "No" => "no",
            "Pending" => "pending",
            "Not Set" => "not_set",
            other => other,
        }
    }

    fn time(&self, seconds: i64) -> String {
        let utc = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
        match self.times {
            Times::Offset => {
                let local = utc - TimeDelta::hours(5);
                local.format("%Y-%m-%dT%H:%M:%S-05:00").to_string()
            }
            Times::Bare => utc.format("%Y-%m-%d %H:%M:%S").to_string(),
            Times::Fractional => utc.format("%Y-%m-%dT%H:%M:%S.000Z").to_string(),
            Times::Mixed | Times::Zulu => utc.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        }
    }

    fn hash(&self) -> u64 {
        let high = u64::from(self.dice.word(roll::IDENTIFIER));
        high << 32 | u64::from(self.dice.word(roll::IDENTIFIER + 1))
    }

    fn uuid(&self) -> String {
        let [a, b, c, d] = [0, 1, 2, 3].map(|word| self.dice.word(roll::IDENTIFIER + word));
        let mut text = String::with_capacity(36);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{a:08x}-{:04x}-{:04x}-{:04x}-{:04x}{d:08x}",
            b >> 16,
            b & 0xffff,
            c >> 16,
            c & 0xffff
        );
        text
    }
}

/// Returns the name of a kind as answers show it.
fn display(kind: Kind) -> &'static str {
    match kind {
        Kind::Call => "Phone Call",
        Kind::Form => "Web Form",
        Kind::Chat => "Chat",
        Kind::Text => "Text Message",
        Kind::Email => "Email",
        Kind::Event => "Event",
        Kind::Transaction => "Transaction",
        Kind::Appointment => "Appointment",
        Kind::Other => "Other",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;
    use crate::sandbox::Settings;

    fn leads(count: u64) -> (Vec<Value>, usize) {
        let settings = Settings { leads: count, ..Settings::default() };
        let mut world = World::new(&settings).unwrap();
        let now = settings.now.timestamp();
        world.refresh(now);
        let rows = world.created_in(i64::MIN, i64::MAX);
        let mut bytes = 0;
        let render = |row: &Row| {
            let mut out = Vec::new();
            let behaviour = &settings.behaviour;
            let view = View { now, custom: true, journey: false, behaviour };
            write(&mut out, &world, row, &view);
            bytes += out.len();
            serde_json::from_slice(&out).unwrap()
        };
        (rows.iter().map(render).collect(), bytes)
    }

    #[test]
    fn a_lead_is_about_two_kilobytes_of_sound_json() {
        let (leads, bytes) = leads(2_000);
        let mean = bytes / leads.len();
        assert!((1_700..2_100).contains(&mean), "{mean}");
    }

    #[test]
    fn every_type_and_habit_occurs() {
        let (leads, _) = leads(5_000);
        let kinds: HashSet<&str> =
            leads.iter().map(|lead| lead["lead_type"].as_str().unwrap()).collect();
        assert_eq!(kinds.len(), 9 + 4, "{kinds:?}");
        let any = |test: fn(&Value) -> bool| leads.iter().any(test);
        assert!(any(|lead| lead["additional_fields"] == serde_json::json!([])));
        assert!(any(|lead| lead["additional_fields"].is_object()));
        assert!(any(|lead| lead["quote_value"].is_string()));
        assert!(any(|lead| lead["quote_value"].is_f64()));
        assert!(any(|lead| lead["quote_value"] == 0));
        assert!(any(|lead| lead.get("lead_campaign").is_some_and(Value::is_null)));
        assert!(any(|lead| lead.get("lead_campaign").is_none()));
        assert!(any(|lead| lead["lead_campaign"] == ""));
        assert!(any(|lead| lead["salesforce_user_id"].is_number()));
        assert!(any(|lead| lead["salesforce_user_id"].is_string()));
        assert!(any(|lead| lead["date_created"].as_str().unwrap().ends_with("-05:00")));
        assert!(any(|lead| !lead["date_created"].as_str().unwrap().contains('T')));
        assert!(any(|lead| lead["call_transcription"].is_string()));
    }
}
