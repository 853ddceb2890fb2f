//! The floor of a sync: the least that any program must do with the same pages.
//!
//! It parses the archived WhatConverts pages of a lake into borrowed structs and writes their fields as
//! columns of one zstd Parquet file that goes nowhere, on one thread. No network, disk, keys, numbers,
//! hashes, sorting or changes. `make bench` reads a sync's figures against it.
//!
//!     cargo bench --bench floor -- LAKE SOURCE

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::ArrayRef;
use arrow::array::RecordBatch;
use arrow::array::StringBuilder;
use arrow::array::TimestampMicrosecondArray;
use arrow::datatypes::DataType;
use arrow::datatypes::Field;
use arrow::datatypes::Schema;
use arrow::datatypes::TimeUnit;
use chrono::DateTime;
use cpu_time::ThreadTime;
use leadpipe::archive;
use leadpipe::archive::Record;
use leadpipe::store::Store;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::basic::ZstdLevel;
use parquet::file::properties::WriterProperties;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::value::RawValue;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A value that may be text, a number, true or false: providers send all of them.
#[derive(Default)]
struct Loose<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Loose<'a> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> std::result::Result<Self, D::Error> {
        reader.deserialize_any(LooseVisitor).map(Self)
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

/// Describes a lead once: its struct, and its columns.
macro_rules! lead {
    (texts: $($text:ident)*; raws: $($raw:ident)*; times: $($time:ident)*) => {
        #[derive(Deserialize)]
        struct Lead<'a> {
            $(#[serde(borrow, default)] $text: Loose<'a>,)*
            $(#[serde(borrow, default)] $raw: Option<&'a RawValue>,)*
            $(#[serde(borrow, default)] $time: Option<&'a str>,)*
        }

        fn schema() -> Schema {
            let instant = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
            Schema::new(vec![
                $(Field::new(stringify!($text), DataType::Utf8, true),)*
                $(Field::new(stringify!($raw), DataType::Utf8, true),)*
                $(Field::new(stringify!($time), instant(), true),)*
            ])
        }

        fn columns(leads: &[Lead<'_>]) -> Vec<ArrayRef> {
            vec![
                $(texts(leads, |lead| lead.$text.0.as_deref()),)*
                $(texts(leads, |lead| lead.$raw.map(RawValue::get)),)*
                $(times(leads, |lead| lead.$time),)*
            ]
        }
    };
}

lead! {
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
    times: date_created last_updated
}

fn texts<'l>(leads: &'l [Lead<'_>], text: impl Fn(&'l Lead<'_>) -> Option<&'l str>) -> ArrayRef {
    let mut column = StringBuilder::new();
    leads.iter().for_each(|lead| column.append_option(text(lead)));
    Arc::new(column.finish())
}

fn times<'l>(leads: &'l [Lead<'_>], time: impl Fn(&'l Lead<'_>) -> Option<&'l str>) -> ArrayRef {
    let micros = |lead| Some(DateTime::parse_from_rfc3339(time(lead)?).ok()?.timestamp_micros());
    let column: TimestampMicrosecondArray = leads.iter().map(micros).collect();
    Arc::new(column.with_timezone("UTC"))
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    leads: Vec<Lead<'a>>,
}

fn main() -> Result<()> {
    // `cargo bench` adds arguments of its own.
    let given: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [lake, source] = given.as_slice() else {
        return Err("give the folder of a lake and the name of a WhatConverts source".into());
    };
    let store = Store::open(PathBuf::from(lake));
    let schema = Arc::new(schema());
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?));
    let mut writer =
        ArrowWriter::try_new(std::io::sink(), Arc::clone(&schema), Some(properties.build()))?;
    let (mut rows, mut bytes, mut spent) = (0, 0, Duration::ZERO);
    for segment in archive::segments(&store, &source.parse()?)? {
        archive::read_segment(&store, &segment.path, |record| -> Result<()> {
            let Record::Page(archived) = record else { return Ok(()) };
            let began = ThreadTime::now();
            let page: Page<'_> = serde_json::from_slice(&archived.body)?;
            writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns(&page.leads))?)?;
            rows += page.leads.len();
            bytes += archived.body.len();
            drop(page);
            spent += began.elapsed();
            Ok(())
        })?;
    }
    let began = ThreadTime::now();
    writer.close()?;
    spent += began.elapsed();
    #[expect(clippy::print_stdout, reason = "what it is for")]
    {
        println!(
            "{}",
            serde_json::json!({"rows": rows, "bytes": bytes, "cpu": spent.as_secs_f64()})
        );
    }
    Ok(())
}
