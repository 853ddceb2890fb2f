//! How Convertalk answers where its documents leave it open.

use serde::Deserialize;
use serde::Serialize;

use crate::sandbox::behaviour::CustomValues;
use crate::sandbox::behaviour::Deleted;
use crate::sandbox::behaviour::Missing;
use crate::sandbox::behaviour::Order;
use crate::sandbox::behaviour::PageZero;

/// The switches of Convertalk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConvertalkBehaviour {
    /// The header of chats in which a token is looked for.
    pub chats_header: TokenHeader,
    /// The same for users.
    pub users_header: TokenHeader,
    /// Whether a token in `Authorization` wants `authtype: Key` beside it.
    pub authtype_needed: bool,
    /// Rows of a page.
    pub page_size: u32,
    /// The order of the listings.
    pub order: Order,
    /// Whether `page` is ignored: the first page for ever.
    pub page_ignored: bool,
    /// What is made of `page=0`.
    pub page_zero: PageZero,
    /// What is made of a request without `page`.
    pub page_missing: PageZero,
    /// What is made of a request for chats with another `type`, or without one.
    pub other_type: OtherType,
    /// What comes after the last page.
    pub past_end: ChatsEnd,
    /// Whether that comes already for the first page of an empty listing.
    pub empty_is_past_end: bool,
    /// What `data` is.
    pub data: DataForm,
    /// What a wrong token hears.
    pub wrong_token: WrongToken,
    /// How an error is written.
    pub error_body: ChatsError,
    /// Seconds that `Retry-After` says with a 429 or a 5xx; `None` leaves it out.
    pub retry_after: Option<u64>,
    /// What the name of a chat's visitor is called; that of a user is `userProvidedName`.
    pub name: NameField,
    /// What the values of attributes are.
    pub attribute_values: CustomValues,
    /// What a tag is.
    pub tags: TagForm,
    /// What `_agentAssigned` is.
    pub agent: AgentForm,
    /// Whether a record lacks parts: `profile`, `userDetails`, `contact`, `phone`, `lastMessage`.
    pub parts: Parts,
    /// How a text that is not set is written.
    pub missing: Missing,
    /// Whether a visit, which moves `lastSeenAt`, moves `updatedAt` too.
    pub activity_moves_updated: bool,
    /// What becomes of a record that was deleted.
    pub deleted: Deleted,
    /// Whether a lead may go back to being none.
    pub leads_return: bool,
    /// Whether a visitor who comes back has another `uuid`, under the same `_id`.
    pub uuid_changes: bool,
}

impl Default for ConvertalkBehaviour {
    fn default() -> Self {
        Self {
            chats_header: TokenHeader::BotToken,
            users_header: TokenHeader::Bearer,
            authtype_needed: true,
            page_size: 20,
            order: Order::CreatedDescending,
            page_ignored: false,
            page_zero: PageZero::First,
            page_missing: PageZero::First,
            other_type: OtherType::Refused,
            past_end: ChatsEnd::Empty,
            empty_is_past_end: false,
            data: DataForm::List,
            wrong_token: WrongToken::Status { status: 401 },
            error_body: ChatsError::Message,
            retry_after: None,
            name: NameField::Name,
            attribute_values: CustomValues::Strings,
            tags: TagForm::Texts,
            agent: AgentForm::Id,
            parts: Parts::Whole,
            missing: Missing::EmptyText,
            activity_moves_updated: false,
            deleted: Deleted::Vanishes,
            leads_return: false,
            uuid_changes: false,
        }
    }
}

/// The header that carries a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenHeader {
    /// `x-bot-token`.
    BotToken,
    /// `x-bp-token`.
    BpToken,
    /// `Authorization: Bearer`, and `authtype: Key`.
    Bearer,
    /// Any of them.
    Any,
}

/// The answer to a page past the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatsEnd {
    /// `"data": []`.
    Empty,
    /// No `data`.
    Missing,
    /// `"data": null`.
    Null,
    /// 404.
    NotFound,
    /// 200 with `"success": false`, code 404.
    Failure,
    /// The last page again.
    LastPage,
}

/// What `data` of a listing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataForm {
    /// The array.
    List,
    /// An object that holds it: `{"docs": [...]}`.
    Object,
}

/// The answer to a token that is wrong or missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongToken {
    /// An error with this status: 401 or 403.
    Status {
        /// HTTP status.
        status: u16,
    },
    /// 200 with `"success": false`, code 401.
    Inside,
}

/// How an error is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatsError {
    /// `message` is a text.
    Message,
    /// `message` is a list of texts.
    Messages,
    /// Plain text.
    Text,
    /// Nothing at all.
    Empty,
}

/// The answer to a `type` that is neither `lead` nor `non-lead`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OtherType {
    /// 400.
    Refused,
    /// Leads.
    Leads,
    /// Leads, and then the others.
    Everything,
    /// No chats.
    Nothing,
}

/// What the name of a visitor is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameField {
    /// `name`.
    Name,
    /// `userProvidedName`.
    UserProvidedName,
}

/// What a tag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TagForm {
    /// A text.
    Texts,
    /// An object with `_id` and `name`.
    Objects,
}

/// What an assigned agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentForm {
    /// An id.
    Id,
    /// An object with `_id` and `name`.
    Object,
    /// Never there.
    Missing,
}

/// Whether records lack parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parts {
    /// All are there.
    Whole,
    /// One in two records lacks one of them.
    SomeMissing,
    /// In one of two records one of them is `null`.
    SomeNull,
}
