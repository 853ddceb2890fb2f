//! How Whautomate answers where its documents leave it open.

use serde::Deserialize;
use serde::Serialize;

use crate::sandbox::behaviour::CustomValues;
use crate::sandbox::behaviour::Deleted;
use crate::sandbox::behaviour::Missing;
use crate::sandbox::behaviour::Order;
use crate::sandbox::behaviour::PageZero;
use crate::sandbox::behaviour::PastEnd;

/// The switches of Whautomate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WhautomateBehaviour {
    /// What is around the rows of a listing.
    pub envelope: Envelope,
    /// Rows of a page where `limit` is not sent.
    pub default_limit: u32,
    /// Largest page, in rows.
    pub max_page_size: u32,
    /// What happens when more rows are asked for.
    pub over_limit: OverLimit,
    /// Rows of a page, whatever `limit` says; `None` obeys it.
    pub own_page_size: Option<u32>,
    /// Whether what was deleted still takes its place, so that pages come short in the middle.
    pub gone_take_their_place: bool,
    /// The order of the listings.
    pub order: Order,
    /// Whether `page` is ignored: the first page for ever.
    pub page_ignored: bool,
    /// What is made of `page=0`, and of `limit=0`.
    pub page_zero: PageZero,
    /// What comes after the last page.
    pub past_end: PastEnd,
    /// Whether that comes already for the first page of an empty listing.
    pub empty_is_past_end: bool,
    /// What a wrong key hears.
    pub wrong_key: WrongKey,
    /// How an error is written.
    pub error_body: ErrorBody,
    /// Whether a 429 says when to come again.
    pub retry_after: bool,
    /// Whether a spent day is worded otherwise than a spent minute.
    pub day_told_apart: bool,
    /// How `tags` and `customFields` are written.
    pub collections: Collections,
    /// What the values of `customFields` are.
    pub custom_values: CustomValues,
    /// How a text that is not set is written.
    pub missing: Missing,
    /// What the place of a record is called.
    pub place: PlaceName,
    /// Whether contacts carry `stage`.
    pub stage: bool,
    /// How telephone numbers of contacts are written.
    pub phone: PhoneForm,
    /// How times are written.
    pub times: RecordTimes,
    /// Whether messages, which move `lastActivity`, move `updatedAt` too.
    pub activity_moves_updated: bool,
    /// Whether edits of tags, notes and custom fields move `updatedAt`.
    pub edits_move_updated: bool,
    /// What becomes of a record that was deleted.
    pub deleted: Deleted,
    /// Whether some ids hold characters that an address must escape: `a/b c%def`.
    pub odd_ids: bool,
    /// The answer to an id that nobody has.
    pub unknown_record: UnknownRecord,
    /// What `startDate` and `endDate` of clients act on.
    pub client_dates: ClientDates,
}

impl Default for WhautomateBehaviour {
    fn default() -> Self {
        Self {
            envelope: Envelope::Bare,
            default_limit: 100,
            max_page_size: 100,
            over_limit: OverLimit::Clamp,
            own_page_size: None,
            gone_take_their_place: false,
            order: Order::CreatedDescending,
            page_ignored: false,
            page_zero: PageZero::First,
            past_end: PastEnd::Empty,
            empty_is_past_end: false,
            wrong_key: WrongKey::Forbidden,
            error_body: ErrorBody::Message,
            retry_after: false,
            day_told_apart: true,
            collections: Collections::Native,
            custom_values: CustomValues::Strings,
            missing: Missing::EmptyText,
            place: PlaceName::Location,
            stage: true,
            phone: PhoneForm::Plus,
            times: RecordTimes::Milliseconds,
            activity_moves_updated: false,
            edits_move_updated: true,
            deleted: Deleted::Vanishes,
            odd_ids: false,
            unknown_record: UnknownRecord::Status { status: 404 },
            client_dates: ClientDates::Registration,
        }
    }
}

/// What is around the rows of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Envelope {
    /// Nothing: a bare array.
    Bare,
    /// `{"data": [...]}`.
    Data,
    /// `{"contacts": [...]}`, `{"clients": [...]}`.
    Resource,
}

/// The answer to a `limit` that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverLimit {
    /// Pages of the maximum, without a word.
    Clamp,
    /// 400.
    Refuse,
}

/// The answer to a key that is wrong or missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongKey {
    /// 403 `Forbidden`, as the gateway has it.
    Forbidden,
    /// 401 `Unauthorized`.
    Unauthorized,
}

/// How an error is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorBody {
    /// `{"message": "..."}`.
    Message,
    /// `{"error": "..."}`.
    Error,
    /// Plain text.
    Text,
    /// Nothing at all.
    Empty,
}

/// How lists and maps inside a record are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Collections {
    /// As arrays and objects.
    Native,
    /// As texts that hold JSON.
    JsonText,
}

/// What the place of a record is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceName {
    /// `location`, `primaryLocation`.
    Location,
    /// `workspace`, `primaryWorkspace`, as the sibling products say.
    Workspace,
}

/// How a telephone number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhoneForm {
    /// `+17045550123`.
    Plus,
    /// `17045550123`.
    Digits,
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordTimes {
    /// `2026-06-05T16:15:12.046Z`.
    Milliseconds,
    /// `2026-06-05T16:15:12Z`.
    Seconds,
    /// `2026-06-05T11:15:12.046-05:00`.
    Offset,
}

/// The answer to an id that nobody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownRecord {
    /// An error with this status: 404, 400 or 403.
    Status {
        /// HTTP status.
        status: u16,
    },
    /// 200 and `{}`.
    EmptyObject,
    /// 200 and `null`.
    Null,
}

/// What a range of dates acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientDates {
    /// The day of registration, both ends included.
    Registration,
    /// The day of the last change.
    Update,
    /// Nothing.
    Ignored,
}
