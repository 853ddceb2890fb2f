//! What a run did, would do and left behind, as text for people.
//!
//! Everything here is a pure function of values: it reads no clock, no disk and no terminal. What
//! providers or users wrote is made harmless first, see [`harmless`].

mod check;
mod pages;
mod plan;
mod quota;
mod rehearse;
mod status;
mod summary;
mod table;
mod text;
mod tiers;
mod verify;

pub use crate::harmless::harmless;
pub use check::check_text;
pub use plan::plan_text;
pub use quota::DayKind;
pub use quota::FreedHour;
pub use quota::QuotaReport;
pub use quota::QuotaState;
pub use quota::quota_text;
pub use rehearse::Basis;
pub use rehearse::Nights;
pub use rehearse::Outcome;
pub use rehearse::QuotaSeen;
pub use rehearse::Rehearsal;
pub use rehearse::RehearsedDay;
pub use rehearse::SourceDay;
pub use rehearse::SourceShape;
pub use rehearse::Taken;
pub use rehearse::rehearsal_text;
pub use status::Month;
pub use status::QuotaLeft;
pub use status::RunLine;
pub use status::ScopeStatus;
pub use status::SourceStatus;
pub use status::Status;
pub use status::status_text;
pub use summary::summary_text;
pub use table::Table;
pub use text::instant;
pub use text::list;
pub use text::number;
pub use tiers::CaughtStatus;
pub use tiers::Listings;
pub use tiers::Reaches;
pub use tiers::TierStatus;
pub use tiers::Without;
pub use tiers::caught_status;
pub use verify::verified_text;
