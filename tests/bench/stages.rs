//! The stages of a sync, each against a floor of the same sitting; `make stages` runs it.
//!
//! All figures are processor time of this process, on whatever threads; criterion's own lines too, although
//! it calls them time. The pages are the sandbox's. What the floors do:
//!
//! * decode and map: parse the page into borrowed structs, and make columns of their fields
//! * parquet, csv: write the ready rows with the bare libraries, once as a part and once as changes, as a
//!   first load does; for CSV the ready cells too
//! * merge: copy the held rows and the changed ones to Parquet, comparing nothing

#[macro_use]
mod plain;

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use chrono::DateTime;
use chrono::Utc;
use cpu_time::ProcessTime;
use criterion::Criterion;
use csv::ByteRecord;
use leadpipe::clock::SystemClock;
use leadpipe::config::Format;
use leadpipe::config::ParquetCompression;
use leadpipe::config::Partitioning;
use leadpipe::ids::ProviderId;
use leadpipe::ids::RunId;
use leadpipe::ids::Seq;
use leadpipe::ids::SourceName;
use leadpipe::load;
use leadpipe::load::ChangeWriter;
use leadpipe::load::Output;
use leadpipe::load::Published;
use leadpipe::load::Staging;
use leadpipe::record::Recency;
use leadpipe::sandbox::Listing;
use leadpipe::sandbox::Sandbox;
use leadpipe::schema::PartFile;
use leadpipe::schema::lead;
use leadpipe::store::Store;
use leadpipe::transform;
use leadpipe::transform::IdentityKey;
use leadpipe::transform::Mapping;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;
use tempfile::TempDir;

use plain::Plain;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Leads of the pages that are written and merged.
const LEADS: u64 = 20_000;
/// Leads on a page.
const PAGE_LEADS: usize = 2_500;
/// Of so many pages of leads one is changed in a merge.
const CHANGED_ONE_IN: usize = 8;
/// Records of every other listing.
const RECORDS: u64 = 2_500;
/// What a run of the loader may hold of staged leads, as `run` has it.
const STAGING_BYTES: usize = 24 << 20;

plain! {
    /// A contact of Whautomate.
    #[expect(non_snake_case, reason = "the fields have the provider's names")]
    Contact;
    texts: id name channel phoneNumber username messengerId instagramId telegramChatId notes stage;
    raws: tags customFields location;
    times: lastActivity createdAt updatedAt;
}

plain! {
    /// A client of Whautomate.
    #[expect(non_snake_case, reason = "the fields have the provider's names")]
    Client;
    texts: id clientId fullName preferredName contactType countryCode phone email registrationDate dob
        addressType address identificationNumber gender preferredLanguage maritalStatus notes referralSource
        emergencyRelationType emergencyName emergencyCountryCode emergencyPhone;
    raws: tags customFields primaryLocation primaryStaff;
    times: createdAt updatedAt;
}

plain! {
    /// A chat of Convertalk, or a user.
    #[expect(non_snake_case, reason = "the fields have the provider's names")]
    Chat;
    texts: _id uuid isOnline status websiteVisits _agentAssigned;
    raws: lastMessage profile;
    times: createdAt lastSeenAt updatedAt;
}

/// A page of Convertalk.
#[derive(Deserialize)]
struct Chats<'a> {
    #[serde(borrow)]
    data: Vec<Chat<'a>>,
}

/// The figures of a stage and its floor.
struct Figures {
    stage: String,
    rows: usize,
    spent: Duration,
    floor: Duration,
}

/// Measures stages one after the other.
struct Bench {
    criterion: Criterion,
    table: Vec<Figures>,
}

impl Bench {
    /// Measures a stage over so many rows, and its floor, each of which returns what it has spent.
    fn compare(
        &mut self,
        stage: &str,
        rows: usize,
        run: impl FnMut() -> Result<Duration>,
        floor: impl FnMut() -> Result<Duration>,
    ) -> Result<()> {
        let spent = self.median(&format!("{stage}/leadpipe"), run)?;
        let floor = self.median(&format!("{stage}/floor"), floor)?;
        if let (Some(spent), Some(floor)) = (spent, floor) {
            self.table.push(Figures { stage: stage.to_owned(), rows, spent, floor });
        }
        Ok(())
    }

    /// Returns the median of criterion's samples; `None` where its filter leaves this out.
    fn median(
        &mut self,
        name: &str,
        mut run: impl FnMut() -> Result<Duration>,
    ) -> Result<Option<Duration>> {
        let (mut samples, mut failed) = (Vec::new(), None);
        self.criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let mut spent = Duration::ZERO;
                for _ in 0..times {
                    match run() {
                        Ok(took) => spent += took,
                        Err(error) => failed = failed.take().or(Some(error)),
                    }
                }
                samples.push(spent.as_secs_f64() / times as f64);
                // Criterion divides by it.
                spent.max(Duration::from_nanos(1))
            });
        });
        if let Some(error) = failed {
            return Err(error);
        }
        samples.sort_by(f64::total_cmp);
        Ok(samples.get(samples.len() / 2).copied().map(Duration::from_secs_f64))
    }

    #[expect(clippy::print_stdout, reason = "what it is for")]
    fn print(&self) {
        println!("stage                          rows      CPU ms    rows/CPU s   x floor");
        for Figures { stage, rows, spent, floor } in &self.table {
            let (spent, floor) = (spent.as_secs_f64(), floor.as_secs_f64());
            let speed = *rows as f64 / spent;
            println!(
                "{stage:<28} {rows:>6} {:>11.2} {speed:>13.0} {:>9.2}",
                spent * 1e3,
                spent / floor
            );
        }
    }
}

/// Returns the processor time that a piece of work takes.
fn spent<T>(work: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let began = ProcessTime::now();
    std::hint::black_box(work()?);
    Ok(began.elapsed())
}

/// Pages of the sandbox, as their providers write them.
struct Pages {
    leads: Vec<Vec<u8>>,
    contacts: Vec<u8>,
    clients: Vec<u8>,
    chats: Vec<u8>,
    users: Vec<u8>,
}

impl Pages {
    async fn invent() -> Result<Self> {
        let settings = leadpipe::sandbox::Settings {
            leads: LEADS,
            still: true,
            whautomate_accounts: 1,
            contacts: RECORDS,
            clients: RECORDS,
            convertalk_bots: 1,
            chats: RECORDS,
            users: RECORDS,
            ..leadpipe::sandbox::Settings::default()
        };
        let sandbox = Sandbox::start(settings, 0, Arc::new(SystemClock::default())).await?;
        let page = |listing| sandbox.record_page(listing);
        Ok(Self {
            leads: sandbox.leads().chunks(PAGE_LEADS).map(lead_page).collect(),
            contacts: page(Listing::Contacts { account: 0 })?,
            clients: page(Listing::Clients { account: 0 })?,
            chats: page(Listing::Chats { bot: 0, lead: true })?,
            users: page(Listing::Users)?,
        })
    }
}

/// Returns a page of leads, with slashes escaped as the provider does.
fn lead_page(leads: &[serde_json::Value]) -> Vec<u8> {
    serde_json::json!({ "leads": leads }).to_string().replace('/', "\\/").into_bytes()
}

/// What maps the pages of a stream.
struct Mapper {
    provider: ProviderId,
    stream: &'static str,
    mapping: Box<dyn Mapping>,
    settings: transform::Settings,
}

impl Mapper {
    fn new(provider: ProviderId, stream: &'static str) -> Result<Self> {
        let settings = transform::Settings {
            account_id: None,
            currency: Some("USD".to_owned()),
            default_region: Some("US".to_owned()),
            profiles: [].into(),
            identity_key: IdentityKey::new(b"a key of 32 bytes, for benchmarks"),
        };
        let mapping = transform::mapping(provider, stream).ok_or("a stream without a mapping")?;
        Ok(Self { provider, stream, mapping, settings })
    }

    fn map(&self, body: &[u8], received_at: DateTime<Utc>) -> Result<RecordBatch> {
        let page = transform::Page {
            source: "acme",
            stream: self.stream,
            scope_label: "all",
            partition: "all",
            list: "",
            run: "run",
            received_at,
            location: "archive/acme/page#1",
            body,
            records: None,
        };
        Ok(self.mapping.map(&page, &self.settings)?.leads)
    }
}

/// Measures decoding and mapping a page; the floor is given.
fn decode<'p>(
    bench: &mut Bench,
    mapper: &Mapper,
    body: &'p [u8],
    floor: impl Fn(&'p [u8]) -> Result<RecordBatch>,
) -> Result<()> {
    let rows = mapper.map(body, DateTime::UNIX_EPOCH)?.num_rows();
    bench.compare(
        &format!("map/{} {}", mapper.provider, mapper.stream),
        rows,
        || spent(|| mapper.map(body, DateTime::UNIX_EPOCH)),
        || spent(|| floor(body)),
    )
}

fn decode_all(bench: &mut Bench, pages: &Pages) -> Result<()> {
    use ProviderId::Convertalk;
    use ProviderId::WhatConverts;
    use ProviderId::Whautomate;
    let leads = |body| {
        let page: plain::Page<'_> = serde_json::from_slice(body)?;
        Ok(plain::Lead::batch(&page.leads)?)
    };
    decode(bench, &Mapper::new(WhatConverts, "leads")?, &pages.leads[0], leads)?;
    let contacts = |body| Ok(Contact::batch(&serde_json::from_slice::<Vec<Contact<'_>>>(body)?)?);
    decode(bench, &Mapper::new(Whautomate, "contacts")?, &pages.contacts, contacts)?;
    let clients = |body| Ok(Client::batch(&serde_json::from_slice::<Vec<Client<'_>>>(body)?)?);
    decode(bench, &Mapper::new(Whautomate, "clients")?, &pages.clients, clients)?;
    let chats = |body| Ok(Chat::batch(&serde_json::from_slice::<Chats<'_>>(body)?.data)?);
    decode(bench, &Mapper::new(Convertalk, "chats")?, &pages.chats, chats)?;
    decode(bench, &Mapper::new(Convertalk, "users")?, &pages.users, chats)
}

/// A lake with one source.
struct Lake {
    folder: TempDir,
    store: Store,
    source: SourceName,
    run: RunId,
    parts: Vec<PartFile>,
    output: Output,
}

impl Lake {
    fn new(format: Format) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        Ok(Self {
            store: Store::create(folder.path().join("lake"))?,
            folder,
            source: "acme".parse()?,
            run: RunId::new(DateTime::UNIX_EPOCH),
            parts: Vec::new(),
            output: Output { format, ..Output::default() },
        })
    }

    /// Stages and publishes rows beside those that are held.
    fn publish(&self, batches: &[RecordBatch], received_us: i64) -> Result<Published> {
        let (schema, scratch) = (lead::arrow_schema(), self.folder.path().join("scratch"));
        let room = load::Room { staged: STAGING_BYTES, merged: STAGING_BYTES };
        let mut staging = Staging::new(scratch, schema.clone(), Partitioning::None, room)?;
        for batch in batches {
            let recency = |place| Recency { received_us, walk_us: 0, place };
            let recencies: Vec<Recency> = (0..batch.num_rows() as i64).map(recency).collect();
            staging.add(batch.clone(), &recencies)?;
        }
        let seq = Seq(if self.parts.is_empty() { 1 } else { 2 });
        let zstd = ParquetCompression::Zstd;
        let limits = load::Limits::default();
        let mut changes = ChangeWriter::create(&self.store, &self.run, seq, &schema, zstd, limits)?;
        let publish = load::Publish {
            store: &self.store,
            run: &self.run,
            seq,
            source: &self.source,
            parts: &self.parts,
            gone: &BTreeSet::new(),
            gone_at: DateTime::UNIX_EPOCH,
            output: &self.output,
            mode: load::Mode::Merge,
            rewrite: false,
            limits,
            readings: &load::Readings::default(),
        };
        let published = load::publish(staging, &publish, &mut changes)?;
        changes.finish()?;
        Ok(published)
    }
}

/// Writes rows to Parquet that goes nowhere, as they come.
fn copy(batches: impl IntoIterator<Item = Result<RecordBatch>>) -> Result<()> {
    let properties = Some(plain::properties()?);
    let mut writer = ArrowWriter::try_new(std::io::sink(), lead::arrow_schema(), properties)?;
    for batch in batches {
        writer.write(&batch?)?;
    }
    writer.close()?;
    Ok(())
}

/// Returns the cells of a first load as CSV, one record a row.
fn cells(batches: &[RecordBatch]) -> Result<Vec<ByteRecord>> {
    let lake = Lake::new(Format::Csv)?;
    let mut text = String::new();
    for part in lake.publish(batches, 0)?.parts {
        let csv = part.csv.ok_or("a part without its CSV")?;
        lake.store.open_file(&csv.path)?.read_to_string(&mut text)?;
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    Ok(reader.byte_records().collect::<csv::Result<_>>()?)
}

fn write_all(bench: &mut Bench, batches: &[RecordBatch], rows: usize) -> Result<()> {
    let first_load = |format| -> Result<Duration> {
        let lake = Lake::new(format)?;
        spent(|| lake.publish(batches, 0))
    };
    let twice = || -> Result<()> {
        copy(batches.iter().cloned().map(Ok))?;
        copy(batches.iter().cloned().map(Ok))
    };
    bench.compare("write/parquet", rows, || first_load(Format::Parquet), || spent(twice))?;
    let cells = cells(batches)?;
    let with_csv = || -> Result<()> {
        twice()?;
        let mut writer = csv::Writer::from_writer(std::io::sink());
        cells.iter().try_for_each(|record| writer.write_byte_record(record))?;
        Ok(writer.flush()?)
    };
    bench.compare("write/csv", rows, || first_load(Format::Csv), || spent(with_csv))
}

fn merge(bench: &mut Bench, held: &[RecordBatch], changed: &[RecordBatch]) -> Result<()> {
    let rows_of = |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).sum();
    let (held_rows, changed_rows): (usize, u64) = (rows_of(held), rows_of(changed).try_into()?);
    let lake_with_held = || -> Result<Lake> {
        let mut lake = Lake::new(Format::Parquet)?;
        lake.parts = lake.publish(held, 0)?.parts;
        Ok(lake)
    };
    let merged = || -> Result<Duration> {
        let lake = lake_with_held()?;
        let began = ProcessTime::now();
        let counts = lake.publish(changed, 1)?.counts;
        let took = began.elapsed();
        match (counts.changed == changed_rows, counts.new) {
            (true, 0) => Ok(took),
            _ => Err(format!("a merge of {changed_rows} changes made {counts:?}").into()),
        }
    };
    let lake = lake_with_held()?;
    let copied = || -> Result<()> {
        for part in &lake.parts {
            let file = lake.store.open_file(&part.file.path)?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
            copy(reader.map(|batch| Ok(batch?.with_schema(lead::arrow_schema())?)))?;
        }
        copy(changed.iter().cloned().map(Ok))
    };
    bench.compare("merge", held_rows, merged, || spent(copied))
}

fn main() -> Result<()> {
    let pages = tokio::runtime::Runtime::new()?.block_on(Pages::invent())?;
    let criterion = Criterion::default().sample_size(10).configure_from_args();
    let mut bench = Bench { criterion, table: Vec::new() };
    decode_all(&mut bench, &pages)?;
    let mapper = Mapper::new(ProviderId::WhatConverts, "leads")?;
    let map = |body: &Vec<u8>| mapper.map(body, DateTime::UNIX_EPOCH);
    let held: Vec<RecordBatch> = pages.leads.iter().map(map).collect::<Result<_>>()?;
    let edited = |body: &Vec<u8>| {
        let text = String::from_utf8_lossy(body).replace("\"city\":\"", "\"city\":\"New ");
        mapper.map(text.as_bytes(), DateTime::UNIX_EPOCH)
    };
    let some = pages.leads.iter().step_by(CHANGED_ONE_IN);
    let changed: Vec<RecordBatch> = some.map(edited).collect::<Result<_>>()?;
    let rows = held.iter().map(RecordBatch::num_rows).sum();
    write_all(&mut bench, &held, rows)?;
    merge(&mut bench, &held, &changed)?;
    bench.criterion.final_summary();
    bench.print();
    Ok(())
}
