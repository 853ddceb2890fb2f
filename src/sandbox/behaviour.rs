//! How the sandbox answers where the documents leave it open, and what goes wrong.
//!
//! [`Behaviour::default`] is the documented answer, or the likely one. Each switch gives the other
//! answers as well, so that every *not known* of a fact sheet can be met in a test. Everything is
//! serde, snake case, with defaults: `{"page_number": "ignored_echo_one"}` is a whole behaviour.

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use super::convertalk::ConvertalkBehaviour;
use super::faults::Fault;
use super::faults::FaultRate;
use super::platform::Provider;
use super::records::Stream;
use super::whautomate::WhautomateBehaviour;

/// The switches and faults of a sandbox.
///
/// The switches up to `over_quota` are those of WhatConverts; `without_fields` and `extra_field`
/// hold for every provider, as does what follows them. The other providers have theirs in
/// `whautomate` and `convertalk`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// Which pair of date parameters is understood; the other is ignored like any unknown one.
    pub date_parameters: DateParameters,
    /// What a date without a time means as the end of a range.
    pub date_only_end: DateOnlyEnd,
    /// Without a start: that many days before the end; `None` is all history.
    pub default_days: Option<u32>,
    /// Longest range in days.
    pub max_range_days: u32,
    /// What happens beyond the longest range.
    pub over_range: OverRange,
    /// Whether the page number is obeyed, and what is echoed.
    pub page_number: PageNumber,
    /// Largest page, in rows.
    pub max_page_size: u32,
    /// What happens when more rows are asked for.
    pub over_page_size: OverPageSize,
    /// In which words they are refused; by default the parameter and the maximum are named.
    pub page_size_refusal: Option<String>,
    /// What `leads_per_page` means in an answer.
    pub size_echo: SizeEcho,
    /// What comes after the last page.
    pub past_end: PastEnd,
    /// `total_pages` of an empty result.
    pub empty_pages: EmptyPages,
    /// Whether an empty result has no `leads` at all.
    pub empty_rows_missing: bool,
    /// How totals are written.
    pub totals: Totals,
    /// By how much stated totals differ from the truth.
    pub total_offset: i64,
    /// Whether rows marked spam are listed when `spam` is not sent.
    pub spam_by_default: bool,
    /// Whether duplicates are listed when `duplicate` is not sent.
    pub duplicates_by_default: bool,
    /// Whether `spam=false` and `duplicate=false` mean nothing.
    pub false_filters_ignored: bool,
    /// Whether equal creation times come in an order that differs from request to request.
    pub unstable_ties: bool,
    /// How empty maps are written.
    pub empty_maps: EmptyMaps,
    /// How times are written.
    pub times: Times,
    /// Fields that no record carries any more.
    pub without_fields: Vec<String>,
    /// A field, new to the world, that every record carries.
    pub extra_field: Option<String>,
    /// What is made of `customer_journey=true`.
    pub journey: Journey,
    /// Profiles that were deleted, and their leads with them.
    pub without_profiles: Vec<u64>,
    /// Whether `/accounts` nests the profiles.
    pub nested_profiles: bool,
    /// Whether a single lead comes bare, not in a list.
    pub bare_single_lead: bool,
    /// Status for a lead that does not exist.
    pub unknown_lead_status: u16,
    /// What an answer looks like when the day's allowance is spent.
    pub over_quota: OverQuota,
    /// Whether answers are compressed for clients that accept it.
    pub gzip: bool,
    /// Milliseconds by which every answer is late.
    pub delay_ms: u64,
    /// Leads on which the provider breaks: whatever contains one of them fails.
    pub poison: Vec<u64>,
    /// Records of the other providers on which they break, by id.
    pub poison_records: Vec<String>,
    /// How it breaks on them.
    pub poison_as: Poison,
    /// Whether every listing is empty; the truth of the sandbox stays.
    pub empty: bool,
    /// What the next requests that key and quota let through meet with, one each.
    pub fail_next: Vec<Fault>,
    /// Accidents by chance, drawn from the seed and the number of the request since the start.
    pub faults: Vec<FaultRate>,
    /// The one provider whose requests meet with `fail_next` and `faults`; `None` is all.
    pub faults_for: Option<Provider>,
    /// Edits that happen after a number of requests; one that cannot be done is left out.
    pub script: Vec<ScriptedEdit>,
    /// The same for records of the other providers.
    pub record_script: Vec<ScriptedRecordEdit>,
    /// The switches of Whautomate.
    pub whautomate: WhautomateBehaviour,
    /// The switches of Convertalk.
    pub convertalk: ConvertalkBehaviour,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            date_parameters: DateParameters::StartEnd,
            date_only_end: DateOnlyEnd::WholeDay,
            default_days: None,
            max_range_days: 400,
            over_range: OverRange::Refuse { status: 410 },
            page_number: PageNumber::Obeyed,
            max_page_size: 2_500,
            over_page_size: OverPageSize::Clamp,
            page_size_refusal: None,
            size_echo: SizeEcho::PageSize,
            past_end: PastEnd::Empty,
            empty_pages: EmptyPages::Zero,
            empty_rows_missing: false,
            totals: Totals::Numbers,
            total_offset: 0,
            spam_by_default: true,
            duplicates_by_default: true,
            false_filters_ignored: false,
            unstable_ties: false,
            empty_maps: EmptyMaps::List,
            times: Times::Mixed,
            without_fields: Vec::new(),
            extra_field: None,
            journey: Journey::Ignored,
            without_profiles: Vec::new(),
            nested_profiles: true,
            bare_single_lead: false,
            unknown_lead_status: 400,
            over_quota: OverQuota::Status { status: 429 },
            gzip: false,
            delay_ms: 0,
            poison: Vec::new(),
            poison_records: Vec::new(),
            poison_as: Poison::ServerError,
            empty: false,
            fail_next: Vec::new(),
            faults: Vec::new(),
            faults_for: None,
            script: Vec::new(),
            record_script: Vec::new(),
            whautomate: WhautomateBehaviour::default(),
            convertalk: ConvertalkBehaviour::default(),
        }
    }
}

/// A pair of names for the bounds of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DateParameters {
    /// `start_date` and `end_date`.
    StartEnd,
    /// `date_start` and `date_end`, as one page of the vendor has it.
    DateStartEnd,
    /// Neither.
    None,
}

/// The meaning of an end such as `2026-03-01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DateOnlyEnd {
    /// The last second of that day.
    WholeDay,
    /// Its first.
    FirstInstant,
}

/// The answer to a range that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverRange {
    /// An `error_message` with this status.
    Refuse {
        /// HTTP status.
        status: u16,
    },
    /// The newest part of the range, without a word.
    Cut,
}

/// What is made of `page_number`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageNumber {
    /// The page asked for, with its number.
    Obeyed,
    /// The page asked for, with the number 1.
    ObeyedEchoOne,
    /// Always the first page, with the number asked for.
    IgnoredEchoAsked,
    /// Always the first page, with the number 1.
    IgnoredEchoOne,
}

/// The answer to a page size that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverPageSize {
    /// Pages of the maximum; the echo is the maximum.
    Clamp,
    /// Pages of the maximum; the echo is what was asked.
    ClampEchoAsked,
    /// Pages of the default size, 25.
    Default,
    /// 410 with an `error_message`.
    Refuse,
    /// 504 where as many rows would come: the server takes too long over them. A page of few rows is
    /// served, whatever was asked.
    TimeOut,
}

/// The meaning of `leads_per_page` in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SizeEcho {
    /// Rows a full page has.
    PageSize,
    /// Rows this page has.
    Returned,
}

/// The answer to a page past the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PastEnd {
    /// 200 and no rows.
    Empty,
    /// 404 with an error.
    NotFound,
    /// The last page again.
    LastPage,
}

/// The order of a listing that nobody can choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The oldest first.
    CreatedAscending,
    /// The newest first.
    CreatedDescending,
    /// What changed longest ago first.
    UpdatedAscending,
    /// What changed last first.
    UpdatedDescending,
    /// By id.
    Id,
    /// Another one at every request.
    Random,
}

/// What becomes of a record that was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deleted {
    /// It is listed no more.
    Vanishes,
    /// It stays, with `isDeleted`.
    Marked,
}

/// How a text that is not set is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// `""`.
    EmptyText,
    /// `null`.
    Null,
    /// The field is left out.
    Absent,
    /// `[]`.
    EmptyList,
}

/// What the values of custom fields are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CustomValues {
    /// Texts.
    Strings,
    /// Texts, numbers, booleans and nulls.
    Mixed,
}

/// The answer to a page number below 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageZero {
    /// The first page.
    First,
    /// 400.
    Refused,
}

/// `total_pages` where there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmptyPages {
    /// 0.
    Zero,
    /// 1.
    One,
    /// `null`.
    Null,
}

/// How `total_pages` and `total_leads` are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Totals {
    /// As numbers.
    Numbers,
    /// As text.
    Strings,
    /// Not at all.
    Omitted,
}

/// How a map without entries is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmptyMaps {
    /// `[]`, as PHP does.
    List,
    /// `{}`.
    Object,
    /// `null`.
    Null,
    /// The field is left out.
    Absent,
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Times {
    /// `Z` mostly, the other forms rarely.
    Mixed,
    /// `2026-06-05T16:15:12Z`.
    Zulu,
    /// `2026-06-05T11:15:12-05:00`.
    Offset,
    /// `2026-06-05 16:15:12`, in UTC.
    Bare,
    /// `2026-06-05T16:15:12.000Z`.
    Fractional,
}

/// The answer to a question for the way a customer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Journey {
    /// Leads without it, as on a plan that does not have it.
    Ignored,
    /// 410 with an `error_message`.
    Refused,
    /// Leads with it.
    Served,
}

/// The answer once the day's allowance is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverQuota {
    /// An `error_message` with this status: 429, 403, 401, or 200.
    Status {
        /// HTTP status.
        status: u16,
    },
    /// 429 with `Retry-After` in seconds, until a request is free again.
    RetryAfter,
}

/// How the provider breaks on a lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Poison {
    /// 500 with a page of HTML.
    ServerError,
    /// 200 with JSON that is none.
    BrokenJson,
}

/// An edit that waits for requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedEdit {
    /// Happens before the next request, once this many have come since the behaviour was set;
    /// those that key or quota turned away do not count.
    pub after_requests: u64,
    /// The lead.
    pub lead_id: u64,
    /// What happens to it.
    pub edit: Edit,
}

/// What can be done to a lead by hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// Sets fields as they stand on the wire, and `last_updated` with them.
    Set(Map<String, Value>),
    /// Leaves fields out from now on.
    Remove(Vec<String>),
    /// Moves the creation time, also across a year.
    Created(DateTime<Utc>),
    /// Takes the creation time off the wire; the lead stays where it was in the listing.
    Undated,
    /// Moves the lead to another profile.
    Profile(u64),
    /// Marks it as spam, or not as spam.
    Spam(bool),
    /// Marks it as a duplicate, or not.
    Duplicate(bool),
    /// Takes it off every list.
    Vanish,
    /// Adds a lead of this id, which must be free.
    Insert {
        /// The profile it appears in.
        profile_id: u64,
        /// Its creation time.
        created_at: DateTime<Utc>,
    },
}

/// An edit of a record that waits for requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedRecordEdit {
    /// As in [`ScriptedEdit`].
    pub after_requests: u64,
    /// Which kind of record.
    pub stream: Stream,
    /// Its id, as the platform writes it.
    pub id: String,
    /// What happens to it.
    pub edit: RecordEdit,
}

/// What can be done by hand to a contact, client, chat or user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordEdit {
    /// Sets fields as they stand on the wire, and `updatedAt` with them unless it is among them. A
    /// name with dots leads into objects: `profile.userDetails.city`.
    Set(Map<String, Value>),
    /// Sets fields, and leaves `updatedAt` as it is.
    SetQuietly(Map<String, Value>),
    /// Leaves fields out from now on; `updatedAt` stays.
    Remove(Vec<String>),
    /// Moves `updatedAt`, and with it the record in a listing that is sorted by it.
    Touch,
    /// Moves `lastActivity` of a contact, `lastSeenAt` of a chat or user.
    Activity,
    /// Makes a chat a lead; moves `updatedAt`.
    Lead,
    /// Makes a chat a lead no more; moves `updatedAt`.
    NonLead,
    /// Takes it off every list.
    Vanish,
    /// Brings it back.
    Reappear,
    /// Adds a record of this id, which must be free.
    Insert {
        /// Number of the account or bot, from 0; nothing for a user.
        #[serde(default)]
        part: u32,
        /// Its creation time.
        created_at: DateTime<Utc>,
        /// Whether it is a lead, if it is a chat.
        #[serde(default)]
        lead: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_behaviour_names_only_what_differs() {
        let text =
            r#"{"page_number":"ignored_echo_one","fail_next":["reset",{"status":{"status":503}}]}"#;
        let read: Behaviour = serde_json::from_str(text).unwrap();
        assert_eq!(read.fail_next, [Fault::Reset, Fault::Status { status: 503 }]);
        assert_eq!(read.max_range_days, 400);
        assert!(serde_json::from_str::<Behaviour>(r#"{"pagenumber":1}"#).is_err());

        let text = r#"{"faults_for":"convertalk","whautomate":{"order":"id"},
            "convertalk":{"data":"object"}}"#;
        let read: Behaviour = serde_json::from_str(text).unwrap();
        assert_eq!(
            (read.faults_for, read.whautomate.order),
            (Some(Provider::Convertalk), Order::Id)
        );
        assert!(serde_json::from_str::<Behaviour>(r#"{"whautomate":{"data":"list"}}"#).is_err());
    }
}
