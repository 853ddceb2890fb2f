//! Memory must not grow with the leads staged or held.
#![expect(clippy::print_stderr, reason = "what is measured is worth reading")]

use std::collections::BTreeSet;

use chrono::DateTime;
use chrono::TimeDelta;

use super::ChangeWriter;
use super::Limits;
use super::Mode;
use super::Output;
use super::Publish;
use super::Published;
use super::Readings;
use super::Room;
use super::Staging;
use super::publish;
use crate::config::ParquetCompression;
use crate::config::Partitioning;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::record::Recency;
use crate::schema::PartFile;
use crate::schema::batch::LeadBatchBuilder;
use crate::schema::lead::JsonObject;
use crate::schema::lead::Lead;
use crate::schema::lead::Lineage;
use crate::schema::lead::Micros;
use crate::schema::lead::arrow_schema;
use crate::store::Store;

/// Returns text that does not compress to nothing.
fn noise(seed: u64, length: usize) -> String {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + (state % 26) as u8)
    };
    std::iter::repeat_with(letter).take(length).collect()
}

fn push(builder: &mut LeadBatchBuilder, number: u64, version: u64, pages: usize) {
    let received = DateTime::UNIX_EPOCH + TimeDelta::seconds(version as i64);
    // Scattered, so that every batch has keys of the whole range and of all years.
    let native = (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20).to_string();
    let year = if version > 1 && number.is_multiple_of(50) { 2012 } else { 2012 + number % 12 };
    let created = DateTime::UNIX_EPOCH + TimeDelta::days((year as i64 - 1970) * 366);
    let lead = Lead {
        source: "acme".into(),
        provider: "whatconverts".into(),
        stream: "leads".into(),
        lead_id: format!("whatconverts:leads:{native}").into(),
        native_id: native.into(),
        created_at: Some(Micros::from(created)),
        channel: "web_form".into(),
        full_name: Some(noise(number, 14).into()),
        email: Some(format!("{}@example.com", noise(number + 1, 10)).into()),
        landing_url: Some(format!("https://example.com/{}", noise(number + 2, 80)).into()),
        message: Some(noise(number + version, 300).into()),
        transcript: Some(noise(number, 500).repeat(pages).into()).filter(|_| pages > 0),
        extra: Some(JsonObject(format!(r#"{{"a":"{}"}}"#, noise(number + 3, 400)).into())),
        ..Lead::default()
    };
    let lineage = Lineage {
        scope: "profile:1",
        first_seen_at: received,
        extracted_at: received,
        run_id: "run",
        seq: 0,
        archive: Some("archive/acme/leads/2026-11-20/x.jsonl.zst#1:1"),
        deleted_at: None,
    };
    builder.push(&lead, &lineage);
}

fn load(
    store: &Store,
    parts: &[PartFile],
    version: u64,
    pages: usize,
    numbers: impl Iterator<Item = u64>,
) -> Published {
    let scratch = store.path("state/scratch");
    let room = Room { staged: 24 << 20, merged: 24 << 20 };
    let mut staging = Staging::new(scratch, arrow_schema(), Partitioning::Year, room).unwrap();
    let mut builder = LeadBatchBuilder::with_capacity(1000);
    let flush = |builder: &mut LeadBatchBuilder, staging: &mut Staging| {
        let recency = Recency { received_us: version as i64, walk_us: 0, place: 0 };
        let recency = vec![recency; builder.len()];
        staging.add(builder.finish().unwrap(), &recency).unwrap();
    };
    for number in numbers {
        push(&mut builder, number, version, pages);
        if builder.len() == (1000 / (pages + 1)).max(1) {
            flush(&mut builder, &mut staging);
        }
    }
    flush(&mut builder, &mut staging);
    drop(builder);
    eprintln!("staged {} rows, {} MB at most", staging.rows(), peak_megabytes());
    let run = RunId::new(DateTime::UNIX_EPOCH);
    let (seq, schema, limits) = (Seq(version), arrow_schema(), Limits::default());
    let mut changes =
        ChangeWriter::create(store, &run, seq, &schema, ParquetCompression::Zstd, limits).unwrap();
    let published = publish(
        staging,
        &Publish {
            store,
            run: &run,
            seq,
            source: &"acme".parse().unwrap(),
            parts,
            gone: &BTreeSet::new(),
            gone_at: DateTime::UNIX_EPOCH,
            output: &Output::default(),
            mode: Mode::Merge,
            rewrite: false,
            limits,
            readings: &Readings::default(),
        },
        &mut changes,
    )
    .unwrap();
    eprintln!("published, {} MB at most", peak_megabytes());
    changes.finish().unwrap();
    eprintln!("{:?}, {} MB at most", published.counts, peak_megabytes());
    published
}

/// Returns the most memory this process ever had resident.
fn peak_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes / 1024
}

/// Loads leads with transcripts of so many pages of 500 letters, then a tenth of them again.
fn peak_after_loading(rows: u64, pages: usize) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let first = load(&store, &[], 1, pages, 0..rows);
    assert_eq!((first.rows, first.counts.new), (rows, rows));
    let second = load(&store, &first.parts, 2, pages, (0..rows).step_by(10));
    assert_eq!(second.rows, rows);
    assert_eq!(second.counts.changed + second.counts.moved, rows / 10);
    peak_megabytes()
}

#[test]
#[ignore = "takes minutes; run it alone, since it measures its process"]
fn two_hundred_thousand_leads_fit_into_little_memory() {
    assert!(peak_after_loading(200_000, 0) < 150);
}

#[test]
#[ignore = "takes minutes; run it alone, since it measures its process"]
fn ten_times_the_leads_fit_into_the_same_memory() {
    assert!(peak_after_loading(2_000_000, 0) < 150);
}

#[test]
#[ignore = "takes minutes; run it alone, since it measures its process"]
fn long_transcripts_fit_into_the_same_memory() {
    assert!(peak_after_loading(20_000, 120) < 150);
}
