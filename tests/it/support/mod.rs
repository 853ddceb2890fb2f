//! A sandbox, a lake in a temporary folder, a job and a manual clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::Array;
use arrow::array::AsArray;
use chrono::TimeDelta;
use leadpipe::clock::Clock;
use leadpipe::clock::ManualClock;
use leadpipe::clock::SharedClock;
use leadpipe::commit;
use leadpipe::commit::Commit;
use leadpipe::config::Job;
use leadpipe::config::StandIn;
use leadpipe::run;
use leadpipe::run::Options;
use leadpipe::run::Summary;
use leadpipe::run::Unobserved;
use leadpipe::sandbox::Sandbox;
use leadpipe::sandbox::Settings;
use leadpipe::store::Store;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// A whole world for one test.
pub(crate) struct World {
    pub(crate) sandbox: Sandbox,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) job: String,
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

impl World {
    /// Starts a sandbox with `settings` and a clock that stands at its `now`.
    pub(crate) async fn new(settings: Settings) -> Self {
        let clock = Arc::new(ManualClock::new(settings.now));
        let shared: SharedClock = clock.clone();
        let sandbox = Sandbox::start(settings, 0, shared).await.unwrap();
        Self { sandbox, clock, folder: tempfile::tempdir().unwrap(), job: MASTER.to_owned() }
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(self.folder.path().join("lake"))
    }

    pub(crate) fn job(&self) -> Job {
        let (token, secret) = self.sandbox.master_key();
        let stand_in = StandIn {
            lake: self.folder.path().join("lake"),
            base_url: self.sandbox.url().parse().unwrap(),
            token: token.into(),
            secret: secret.into(),
        };
        let path = self.folder.path().join("job.toml");
        Job::parse(&self.job, &path).unwrap().with_stand_in(&stand_in)
    }

    pub(crate) async fn sync(&self) -> Summary {
        self.sync_with(Options::default()).await
    }

    pub(crate) async fn sync_with(&self, options: Options) -> Summary {
        let clock: SharedClock = self.clock.clone();
        run::sync(self.job(), options, clock, Arc::new(Unobserved)).await.unwrap()
    }

    pub(crate) fn pass(&self, by: TimeDelta) {
        self.clock.advance(by);
        assert!(self.clock.now() > chrono::DateTime::UNIX_EPOCH);
    }

    pub(crate) fn head(&self) -> Commit {
        commit::latest(&self.store()).unwrap().unwrap()
    }

    /// The rows of the snapshot: content hash by lead.
    pub(crate) fn rows(&self) -> BTreeMap<String, String> {
        let (store, head) = (self.store(), self.head());
        let mut rows = BTreeMap::new();
        for part in head.sources.values().flat_map(|source| &source.parts) {
            let file = store.open_file(&part.file.path).unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
            for batch in reader {
                let batch = batch.unwrap();
                let ids = batch.column_by_name("lead_id").unwrap().as_string::<i32>();
                let hashes = batch.column_by_name("_content_hash").unwrap().as_string::<i32>();
                for row in 0..ids.len() {
                    let twice =
                        rows.insert(ids.value(row).to_owned(), hashes.value(row).to_owned());
                    assert!(twice.is_none(), "{} is there twice", ids.value(row));
                }
            }
        }
        rows
    }
}
