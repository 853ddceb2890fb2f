//! A sandbox, a lake in a temporary folder, a job and a manual clock.

pub(crate) mod process;
pub(crate) mod records;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::Array;
use arrow::array::AsArray;
use arrow::array::RecordBatch;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use leadpipe::clock::Clock;
use leadpipe::clock::ManualClock;
use leadpipe::clock::SharedClock;
use leadpipe::commit;
use leadpipe::commit::Commit;
use leadpipe::config::Job;
use leadpipe::config::PartitionBy;
use leadpipe::config::ProviderSettings;
use leadpipe::config::SourceSettings;
use leadpipe::config::StandIn;
use leadpipe::ids::ProviderId;
use leadpipe::ids::Seq;
use leadpipe::run;
use leadpipe::run::Event;
use leadpipe::run::Observer;
use leadpipe::run::Options;
use leadpipe::run::SourceSummary;
use leadpipe::run::Summary;
use leadpipe::run::Unobserved;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::LoggedRequest;
use leadpipe::sandbox::Sandbox;
use leadpipe::sandbox::Settings;
use leadpipe::store::Store;
use leadpipe::transform;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::value::RawValue;

/// A whole world for one test.
pub(crate) struct World {
    pub(crate) sandbox: Sandbox,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) job: String,
    /// Whether keys are sent that nobody has.
    pub(crate) wrong_key: bool,
}

/// A job that reads all of the sandbox with its master key.
pub(crate) const MASTER: &str = r#"
name = "test"
lake = "lake"

[[sources]]
name = "acme"
provider = "whatconverts"
token = { env = "UNUSED" }
secret = { env = "UNUSED" }
plan = "master"
start = 2021-01-01
currency = "USD"
default_region = "US"
"#;

/// The columns that tell one version of a lead from another.
const ROW: [&str; 2] = ["lead_id", "_content_hash"];

/// Content hash by lead.
pub(crate) type Rows = BTreeMap<String, String>;

/// Three profiles, three years, 600 leads: about twenty pages of 50.
pub(crate) fn small() -> Settings {
    Settings { leads: 600, years: 3, accounts: 2, profiles: 3, ..Settings::default() }
}

/// A job for [`small`], with more settings for its source.
pub(crate) fn small_job(more: &str) -> String {
    let source = MASTER.replace("2021-01-01", "2023-10-01");
    format!("{source}page_size = 50\n{more}\n")
}

/// What the change files of a lake make, applied in order.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) rows: Rows,
    /// Commits applied so far.
    commits: usize,
}

impl Replayed {
    /// Applies the change files since the last time.
    pub(crate) fn go_on(&mut self, world: &World) {
        let commits = commit::list(&world.store()).unwrap();
        for seq in commits.iter().skip(self.commits) {
            let mut touched = BTreeSet::new();
            for (op, _, lead, hash) in world.changes(*seq) {
                assert!(touched.insert(lead.clone()), "{lead} is in change file {seq} twice");
                match op.as_str() {
                    "upsert" => drop(self.rows.insert(lead, hash)),
                    _ => drop(self.rows.remove(&lead)),
                }
            }
        }
        self.commits = commits.len();
    }
}

impl World {
    /// Starts a sandbox with `settings` and a clock that stands a little after its `now`, so that
    /// all it has lies before the horizon.
    pub(crate) async fn new(settings: Settings) -> Self {
        let clock = Arc::new(ManualClock::new(settings.now + TimeDelta::minutes(10)));
        let shared: SharedClock = clock.clone();
        let sandbox = Sandbox::start(settings, 0, shared).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { sandbox, clock, folder, job: MASTER.to_owned(), wrong_key: false }
    }

    /// A world around what another process has read, whose clock stands where the sandbox's does.
    pub(crate) fn around(sandbox: Sandbox, folder: tempfile::TempDir) -> Self {
        let clock = Arc::new(ManualClock::new(sandbox.now()));
        Self { sandbox, clock, folder, job: MASTER.to_owned(), wrong_key: false }
    }

    /// A small world in which nothing happens by itself.
    pub(crate) async fn still(behaviour: Behaviour) -> Self {
        let mut world = Self::new(Settings { still: true, behaviour, ..small() }).await;
        world.job = small_job("");
        world
    }

    /// The same with more settings for the source.
    pub(crate) fn with(mut self, more: &str) -> Self {
        self.job = small_job(more);
        self
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(self.folder.path().join("lake"))
    }

    pub(crate) fn job(&self) -> Job {
        let (token, secret) = self.sandbox.master_key();
        if !self.wrong_key {
            return self.job_with_key(token, secret);
        }
        // The token is what the ledger goes by, and stays.
        self.job_standing_in(&StandIn {
            whatconverts: (token.into(), "wrong".into()),
            whautomate: vec!["wrong".into()],
            convertalk: "wrong".into(),
            ..self.stand_in()
        })
    }

    pub(crate) fn job_with_key(&self, token: String, secret: String) -> Job {
        let whatconverts = (token.into(), secret.into());
        self.job_standing_in(&StandIn { whatconverts, ..self.stand_in() })
    }

    fn stand_in(&self) -> StandIn {
        let (token, secret) = self.sandbox.master_key();
        StandIn {
            lake: self.folder.path().join("lake"),
            base_url: self.sandbox.url().parse().unwrap(),
            whatconverts: (token.into(), secret.into()),
            whautomate: self.sandbox.whautomate_keys().into_iter().map(Into::into).collect(),
            convertalk: self.sandbox.convertalk_token().into(),
        }
    }

    fn job_standing_in(&self, stand_in: &StandIn) -> Job {
        let path = self.folder.path().join("job.toml");
        Job::parse(&self.job, &path).unwrap().with_stand_in(stand_in)
    }

    pub(crate) async fn sync(&self) -> Summary {
        self.sync_with(Options::default()).await
    }

    pub(crate) async fn sync_with(&self, options: Options) -> Summary {
        self.try_sync(options).await.unwrap()
    }

    pub(crate) async fn try_sync(&self, options: Options) -> run::Result<Summary> {
        let clock: SharedClock = self.clock.clone();
        run::sync(self.job(), options, clock, Arc::new(Unobserved)).await
    }

    /// Syncs while every page held takes `by` of the clock.
    pub(crate) async fn sync_slowly(&self, by: TimeDelta) -> Summary {
        let clock: SharedClock = self.clock.clone();
        let observer = Arc::new(SlowPages { clock: Arc::clone(&self.clock), by });
        run::sync(self.job(), Options::default(), clock, observer).await.unwrap()
    }

    pub(crate) fn pass(&self, by: TimeDelta) {
        self.clock.advance(by);
    }

    pub(crate) fn clock_now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    pub(crate) fn has_head(&self) -> bool {
        commit::latest(&self.store()).unwrap().is_some()
    }

    pub(crate) fn head(&self) -> Commit {
        commit::latest(&self.store()).unwrap().unwrap()
    }

    /// As if the runs after a commit had died, after all their pages were held and before a commit.
    pub(crate) fn lose_commits_after(&self, seq: Seq) {
        let store = self.store();
        for lost in commit::list(&store).unwrap().into_iter().filter(|lost| *lost > seq) {
            store.remove(&format!("commits/{lost}.json")).unwrap();
            store.remove_all(&format!("snapshots/{lost}")).unwrap();
        }
        // What readers see is made after the commit.
        for made in ["latest", "checkpoint.json"] {
            store.remove(made).unwrap();
        }
    }

    /// The rows of the snapshot: content hash by lead.
    pub(crate) fn rows(&self) -> Rows {
        let mut rows = Rows::new();
        self.each_row(&ROW, |batch, row| {
            let (id, hash) = (text(batch, "lead_id", row), text(batch, "_content_hash", row));
            assert!(rows.insert(id.clone(), hash).is_none(), "{id} is there twice");
        });
        rows
    }

    /// One text column of the snapshot, by lead.
    pub(crate) fn column(&self, name: &str) -> BTreeMap<String, Option<String>> {
        let mut column = BTreeMap::new();
        self.each_row(&["lead_id", name], |batch, row| {
            column.insert(text(batch, "lead_id", row), maybe_text(batch, name, row));
        });
        column
    }

    /// The partition that a lead lies in.
    pub(crate) fn partition_of(&self, lead: u64) -> String {
        let head = self.head();
        let parts = head.sources.values().flat_map(|source| &source.parts);
        let holds = |batch: &RecordBatch| {
            (0..batch.num_rows()).any(|row| text(batch, "lead_id", row) == key(lead))
        };
        let mut found =
            parts.filter(|part| self.batches(&part.file.path, &["lead_id"]).iter().any(holds));
        found.next().unwrap().partition.clone()
    }

    fn each_row(&self, columns: &[&str], mut take: impl FnMut(&RecordBatch, usize)) {
        for part in self.head().sources.values().flat_map(|source| &source.parts) {
            for batch in self.batches(&part.file.path, columns) {
                (0..batch.num_rows()).for_each(|row| take(&batch, row));
            }
        }
    }

    pub(crate) fn batches(&self, path: &str, columns: &[&str]) -> Vec<RecordBatch> {
        batches(&self.store(), path, columns)
    }

    /// What a commit's change file says: operation, reason, lead, content hash.
    pub(crate) fn changes(&self, seq: Seq) -> Vec<(String, String, String, String)> {
        let commit = commit::read(&self.store(), seq).unwrap();
        let mut changes = Vec::new();
        let columns = ["_op", "_reason", "lead_id", "_content_hash"];
        for batch in self.batches(&commit.changes.file.path, &columns) {
            for row in 0..batch.num_rows() {
                changes.push((
                    text(&batch, "_op", row),
                    text(&batch, "_reason", row),
                    text(&batch, "lead_id", row),
                    text(&batch, "_content_hash", row),
                ));
            }
        }
        changes
    }

    /// All change files, applied in order.
    pub(crate) fn replayed_changes(&self) -> Rows {
        let mut replayed = Replayed::default();
        replayed.go_on(self);
        replayed.rows
    }

    /// What the snapshot should hold: the sandbox's own leads through the mapping.
    pub(crate) async fn truth(&self) -> Rows {
        self.truth_where(|_| true).await
    }

    /// The same of only some leads.
    pub(crate) async fn truth_where(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> Rows {
        let source = &self.job().sources[0];
        let settings = self.mapping_settings(source);
        let shows_custom_fields = match &source.provider {
            ProviderSettings::WhatConverts(source) => source.partition_by == PartitionBy::Profile,
            _ => true,
        };
        let mut by_profile: BTreeMap<u64, Vec<Box<RawValue>>> = BTreeMap::new();
        for raw in self.leads_as_sent().await {
            let lead: serde_json::Value = serde_json::from_str(raw.get()).unwrap();
            if wanted(&lead) {
                let raw = if shows_custom_fields { raw } else { without_custom_fields(&raw) };
                by_profile.entry(lead["profile_id"].as_u64().unwrap()).or_default().push(raw);
            }
        }
        let mapping = transform::mapping(ProviderId::WhatConverts, "leads").unwrap();
        let mut rows = Rows::new();
        for (profile, leads) in by_profile {
            let body = format!("{{\"leads\":{}}}", serde_json::to_string(&leads).unwrap());
            let page = transform::Page {
                source: "acme",
                stream: "leads",
                scope_label: &format!("profile:{profile}"),
                partition: &format!("profile:{profile}"),
                list: "",
                run: "0",
                received_at: self.clock.now(),
                location: "nowhere#1",
                body: body.as_bytes(),
                records: None,
            };
            let batch = mapping.map(&page, &settings).unwrap().leads;
            for row in 0..batch.num_rows() {
                rows.insert(text(&batch, "lead_id", row), text(&batch, "_content_hash", row));
            }
        }
        rows
    }

    /// What the mapping of a source is told.
    fn mapping_settings(&self, source: &SourceSettings) -> transform::Settings {
        let head = self.head();
        let key = commit::identity_key(&self.store(), None, Some(&head.key_fingerprint)).unwrap();
        let region = |country: &Option<celes::Country>| country.map(|c| c.alpha2.to_owned());
        let profiles = source.profiles.iter().map(|(id, profile)| {
            let settings = transform::ProfileSettings {
                currency: profile.currency.clone(),
                default_region: region(&profile.default_region),
            };
            (format!("profile:{id}"), settings)
        });
        let account_id = match &source.provider {
            ProviderSettings::Convertalk(settings) => Some(settings.customer_id.clone()),
            _ => None,
        };
        transform::Settings {
            account_id,
            currency: source.currency.clone(),
            default_region: region(&source.default_region),
            profiles: profiles.collect(),
            identity_key: transform::IdentityKey::new(key.expose()),
        }
    }

    /// Asserts that the snapshot is what the sandbox has, by key and by content.
    pub(crate) async fn assert_whole(&self) {
        assert_same(&self.rows(), &self.truth().await);
    }

    /// All leads to the byte; a parsed value would lose how numbers are written.
    async fn leads_as_sent(&self) -> Vec<Box<RawValue>> {
        // A client wants a provider of cryptography even for plain http; it may be set already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = format!("{}/sandbox/leads", self.sandbox.url());
        let body = reqwest::get(url).await.unwrap().text().await.unwrap();
        serde_json::from_str(&body).unwrap()
    }

    /// Requests for listings of leads.
    pub(crate) fn listings(&self) -> Vec<LoggedRequest> {
        self.requests_to(|path| path == "/api/v1/leads")
    }

    /// Requests for single leads.
    pub(crate) fn lookups(&self) -> Vec<LoggedRequest> {
        self.requests_to(|path| path.starts_with("/api/v1/leads/"))
    }

    fn requests_to(&self, wanted: impl Fn(&str) -> bool) -> Vec<LoggedRequest> {
        let mut requests = self.sandbox.requests();
        requests.retain(|request| wanted(&request.path));
        requests
    }
}

/// A lead as a listing shows it that names no profile; its other values to the byte.
fn without_custom_fields(lead: &RawValue) -> Box<RawValue> {
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(lead.get()).unwrap();
    fields.retain(|name, _| name != "custom_fields" && name != "field_mappings");
    RawValue::from_string(serde_json::to_string(&fields).unwrap()).unwrap()
}

/// A parameter of a request's query.
pub(crate) fn parameter(request: &LoggedRequest, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(request.query.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// Reads how large a test is to be, where the environment says so.
pub(crate) fn number_from(variable: &str, otherwise: u64) -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "the size of a long run is asked for in this way"
    )]
    let asked = std::env::var(variable);
    asked.map_or(otherwise, |number| number.parse().unwrap())
}

/// Asserts equality and says what differs without printing everything.
pub(crate) fn assert_same(rows: &Rows, truth: &Rows) {
    assert_eq!(difference(rows, truth), None);
}

/// Returns what differs, without all of it.
pub(crate) fn difference(rows: &Rows, truth: &Rows) -> Option<String> {
    let missing: Vec<_> = truth.keys().filter(|id| !rows.contains_key(*id)).take(5).collect();
    let surplus: Vec<_> = rows.keys().filter(|id| !truth.contains_key(*id)).take(5).collect();
    let other: Vec<_> =
        rows.iter().filter(|(id, hash)| truth.get(*id).is_some_and(|t| t != *hash)).collect();
    let is_same = missing.is_empty() && surplus.is_empty() && other.is_empty();
    (!is_same).then(|| {
        let ids: Vec<_> = other.iter().take(5).map(|(id, _)| id).collect();
        format!(
            "{} rows for {} leads; missing {missing:?}, surplus {surplus:?}, {} with other content: \
             {ids:?}",
            rows.len(),
            truth.len(),
            other.len(),
        )
    })
}

/// The summary of the one source of a run.
pub(crate) fn acme(summary: &Summary) -> &SourceSummary {
    &summary.sources[&"acme".parse().unwrap()]
}

/// The key of a lead in the snapshot.
pub(crate) fn key(lead_id: u64) -> String {
    format!("whatconverts:leads:{lead_id}")
}

/// Some columns of a Parquet file.
pub(crate) fn batches(store: &Store, path: &str, columns: &[&str]) -> Vec<RecordBatch> {
    let file = store.open_file(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let mask = ProjectionMask::columns(reader.parquet_schema(), columns.iter().copied());
    reader.with_projection(mask).build().unwrap().map(Result::unwrap).collect()
}

pub(crate) fn text(batch: &RecordBatch, column: &str, row: usize) -> String {
    maybe_text(batch, column, row).unwrap()
}

fn maybe_text(batch: &RecordBatch, column: &str, row: usize) -> Option<String> {
    let column = batch.column_by_name(column).unwrap();
    (!column.is_null(row)).then(|| column.as_string::<i32>().value(row).to_owned())
}

/// The most requests in any 24 hours.
pub(crate) fn most_a_day(requests: &[LoggedRequest]) -> usize {
    let mut times: Vec<DateTime<Utc>> = requests.iter().map(|request| request.at).collect();
    times.sort_unstable();
    let within = |(at, from): (usize, &DateTime<Utc>)| {
        times[at..].partition_point(|time| *time < *from + TimeDelta::hours(24))
    };
    times.iter().enumerate().map(within).max().unwrap_or(0)
}

/// Moves the clock with every page, as real requests do.
struct SlowPages {
    clock: Arc<ManualClock>,
    by: TimeDelta,
}

impl Observer for SlowPages {
    fn observe(&self, event: &Event) {
        if matches!(event, Event::PageHeld { .. }) {
            self.clock.advance(self.by);
        }
    }
}
