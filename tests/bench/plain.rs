//! Records as any program must read them at least: into structs that borrow from the page, and columns of
//! their fields. What floors are made of.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::array::RecordBatch;
use arrow::array::StringBuilder;
use arrow::array::TimestampMicrosecondArray;
use arrow::error::ArrowError;
use chrono::DateTime;
use parquet::basic::Compression;
use parquet::basic::ZstdLevel;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::value::RawValue;

/// Columns of records.
pub(crate) type Batched = Result<RecordBatch, ArrowError>;

/// A record of a listing.
pub(crate) trait Plain<'a>: Deserialize<'a> {
    /// Returns the fields of some records as columns.
    fn batch(records: &[Self]) -> Batched;
}

/// A value that may be text, a number, true or false: providers send all of them.
#[derive(Default)]
pub(crate) struct Loose<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Loose<'a> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> std::result::Result<Self, D::Error> {
        reader.deserialize_any(LooseVisitor).map(Self)
    }
}

impl Loose<'_> {
    /// Returns the value, where there is one.
    pub(crate) fn get(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> std::result::Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> std::result::Result<Self::Value, E> {
        Ok(Some(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E: Error>(self, value: bool) -> std::result::Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(if value { "true" } else { "false" })))
    }

    fn visit_u64<E: Error>(self, value: u64) -> std::result::Result<Self::Value, E> {
        Ok(Some(Cow::Owned(value.to_string())))
    }

    fn visit_i64<E: Error>(self, value: i64) -> std::result::Result<Self::Value, E> {
        Ok(Some(Cow::Owned(value.to_string())))
    }

    fn visit_f64<E: Error>(self, value: f64) -> std::result::Result<Self::Value, E> {
        Ok(Some(Cow::Owned(value.to_string())))
    }

    fn visit_unit<E: Error>(self) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(
        self,
        mut list: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        while list.next_element::<serde::de::IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        while map.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// Describes a record once: its struct, and its columns.
macro_rules! plain {
    ($(#[$about:meta])* $name:ident; texts: $($text:ident)*; raws: $($raw:ident)*; times: $($time:ident)*;) => {
        $(#[$about])*
        #[derive(serde::Deserialize)]
        pub(crate) struct $name<'a> {
            $(#[serde(borrow, default)] $text: $crate::plain::Loose<'a>,)*
            $(#[serde(borrow, default)] $raw: Option<&'a serde_json::value::RawValue>,)*
            $(#[serde(borrow, default)] $time: Option<&'a str>,)*
        }

        impl<'a> $crate::plain::Plain<'a> for $name<'a> {
            fn batch(records: &[Self]) -> $crate::plain::Batched {
                arrow::array::RecordBatch::try_from_iter_with_nullable([
                    $((stringify!($text), $crate::plain::texts(records, |record| record.$text.get()), true),)*
                    $((stringify!($raw), $crate::plain::raws(records, |record| record.$raw), true),)*
                    $((stringify!($time), $crate::plain::times(records, |record| record.$time), true),)*
                ])
            }
        }
    };
}

plain! {
    /// A lead of WhatConverts.
    Lead;
    texts:
        lead_id account account_id profile profile_id user_id
        lead_type lead_status lead_state lead_score quotable spam duplicate
        contact_name caller_name sender_name contact_company_name
        contact_email_address email_address
        contact_phone_number phone_number caller_number
        city state zip country caller_city caller_state caller_zip caller_country
        lead_source lead_medium lead_campaign lead_content lead_keyword
        lead_url landing_url
        gclid msclkid facebook_click_id facebook_visitor_id facebook_browser_id
        google_analytics_client_id
        ip_address device_type device_make operating_system browser
        quote_value sales_value
        message email_subject email_message notes spotted_keywords form_name
        call_status answer_status call_duration_seconds
        recording voicemail call_transcription voicemail_transcription
        tracking_number destination_number
        call_duration phone_name line_type play_recording play_voicemail chat_status
        transaction_id transaction_tax transaction_shipping salesforce_user_id
        unbounce_page_id unbounce_variant_id unbounce_visitor_id;
    raws: custom_fields additional_fields lead_analysis;
    times: date_created last_updated;
}

/// A page of WhatConverts.
#[derive(Deserialize)]
pub(crate) struct Page<'a> {
    #[serde(borrow)]
    pub(crate) leads: Vec<Lead<'a>>,
}

/// Returns the column of a text.
pub(crate) fn texts<'r, R>(records: &'r [R], text: impl Fn(&'r R) -> Option<&'r str>) -> ArrayRef {
    let mut column = StringBuilder::new();
    records.iter().for_each(|record| column.append_option(text(record)));
    Arc::new(column.finish())
}

/// Returns the column of a value that is kept as JSON.
pub(crate) fn raws<'r, R>(
    records: &'r [R],
    raw: impl Fn(&'r R) -> Option<&'r RawValue>,
) -> ArrayRef {
    texts(records, |record| raw(record).map(RawValue::get))
}

/// Returns the column of an instant.
pub(crate) fn times<'r, R>(records: &'r [R], time: impl Fn(&'r R) -> Option<&'r str>) -> ArrayRef {
    let micros =
        |record| Some(DateTime::parse_from_rfc3339(time(record)?).ok()?.timestamp_micros());
    let column: TimestampMicrosecondArray = records.iter().map(micros).collect();
    Arc::new(column.with_timezone("UTC"))
}

/// Returns how floors write Parquet: as parts are compressed, all else as the library has it.
pub(crate) fn properties() -> Result<WriterProperties, ParquetError> {
    let compression = Compression::ZSTD(ZstdLevel::try_new(1)?);
    Ok(WriterProperties::builder().set_compression(compression).build())
}
