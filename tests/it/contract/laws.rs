//! The laws of a reading, run against every case.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use futures::FutureExt;
use leadpipe::run::Options;
use leadpipe::run::SourceSummary;
use leadpipe::run::State;
use leadpipe::run::Summary;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::LoggedRequest;

use super::case::Case;
use super::case::Expected;
use super::subject::Reading;
use super::subject::Stirred;
use super::subject::Subject;
use crate::support::Replayed;
use crate::support::Rows;
use crate::support::World;
use crate::support::difference;
use crate::support::records::of;

/// Runs every case under its law, and prints how many runs that took. One that fails does not keep
/// the others back.
pub(super) async fn hold<S: Subject>(cases: Vec<Case>) {
    let (mut runs, mut failed) = (0, Vec::new());
    for case in &cases {
        match AssertUnwindSafe(hold_one::<S>(case)).catch_unwind().await {
            Ok(of_case) => runs += of_case,
            Err(_) => failed.push(case.name()),
        }
    }
    assert!(failed.is_empty(), "of {} cases these fail: {failed:#?}", cases.len());
    #[expect(clippy::print_stdout, reason = "`make contract` adds the figures up")]
    {
        println!("\ncontract {} {} cases {runs} runs", S::NAME, cases.len());
    }
}

/// Returns how many runs it took.
async fn hold_one<S: Subject>(case: &Case) -> usize {
    match case.expected {
        Expected::Followed { named } => {
            let mut trial = Trial::<S>::begin(case).await;
            trial.first_sync(named).await;
            trial.quiet_night().await;
            trial.eventful_nights(3).await;
            let runs = trial.end();
            let mut trial = Trial::<S>::begin(case).await;
            trial.in_pieces().await;
            runs + trial.end()
        }
        Expected::Mapped => {
            let mut trial = Trial::<S>::begin(case).await;
            trial.in_pieces().await;
            trial.quiet_night().await;
            trial.eventful_nights(1).await;
            trial.end()
        }
        Expected::Survived { named } => {
            let mut trial = Trial::<S>::begin(case).await;
            trial.first_sync(named).await;
            trial.quiet_night().await;
            trial.end()
        }
        Expected::Gathered => {
            let mut trial = Trial::<S>::begin(case).await;
            trial.gathering_nights().await;
            trial.end()
        }
        Expected::Stopped { exit, why, hint } => {
            let mut trial = Trial::<S>::begin(case).await;
            trial.stopped_night(exit, why, hint).await;
            trial.end()
        }
        Expected::SeenTwice => {
            let mut trial = Trial::<S>::begin(case).await;
            trial.doubtful_nights().await;
            trial.end()
        }
        Expected::Spent => {
            let mut trial = Trial::<S>::begin(case).await;
            trial.spent_days().await;
            trial.end()
        }
    }
}

/// A world and the runs on it.
struct Trial<'a, S: Subject> {
    case: &'a Case,
    name: String,
    world: World,
    /// The change files so far, applied in order.
    replayed: Replayed,
    runs: usize,
    subject: std::marker::PhantomData<S>,
}

/// One run.
struct Ran {
    exit: i32,
    summary: Summary,
    source: SourceSummary,
    requests: Vec<LoggedRequest>,
}

impl Ran {
    /// Requests that had a reason of their own.
    fn named(&self) -> u64 {
        let requests = &self.source.requests;
        requests.probes + requests.rereads + requests.checks + requests.retries + requests.lookups
    }
}

impl fmt::Debug for Ran {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "exit {} of {:?}", self.exit, self.source)?;
        for request in &self.requests {
            writeln!(out, "  {} {} {}", request.at, request.status, asked_for(request))?;
        }
        Ok(())
    }
}

/// Returns which listing was asked for: the request without its page.
fn listing_of(request: &LoggedRequest) -> String {
    let asked = asked_for(request);
    let parts = asked.split(['?', '&', ' ']).filter(|part| !part.starts_with("page="));
    parts.collect::<Vec<_>>().join("&")
}

/// What a request asks for: the same twice is the same page twice.
fn asked_for(request: &LoggedRequest) -> String {
    format!("{}?{} {}", request.path, request.query, request.body)
}

impl<'a, S: Subject> Trial<'a, S> {
    async fn begin(case: &'a Case) -> Self {
        let mut world = S::world(case).await;
        world.wrong_key = case.wrong_key;
        let name = format!("{} {}", S::SOURCE, case.name());
        let replayed = Replayed::default();
        Self { case, name, world, replayed, runs: 0, subject: std::marker::PhantomData }
    }

    async fn sync(&mut self) -> Ran {
        self.sync_with(None).await
    }

    /// Syncs, and looks at what holds after every run.
    async fn sync_with(&mut self, max_requests: Option<u64>) -> Ran {
        let before = self.world.sandbox.requests().len();
        let options = Options { max_requests, ..Options::default() };
        let summary = self.world.sync_with(options).await;
        self.runs += 1;
        let requests = self.world.sandbox.requests().split_off(before);
        let source = of(&summary, S::SOURCE).clone();
        let ran = Ran { exit: summary.exit_code(), summary, source, requests };
        let name = &self.name;
        assert_eq!(ran.source.requests.sent, ran.requests.len() as u64, "{name}: {ran:?}");
        let distinct: BTreeSet<String> = ran.requests.iter().map(asked_for).collect();
        let twice = (ran.requests.len() - distinct.len()) as u64;
        assert!(twice <= ran.named(), "{name}: {twice} asked for twice: {ran:?}");
        // What was committed is one row a lead (`rows` sees to that), and its changes add up to it.
        if self.world.has_head() {
            self.replayed.go_on(&self.world);
            let differs = difference(&self.replayed.rows, &self.world.rows());
            assert_eq!(differs, None, "{name}: the changes: {ran:?}");
        }
        ran
    }

    async fn truth(&self) -> Rows {
        S::truth(&self.world, self.case).await
    }

    async fn assert_whole(&self, ran: &Ran) {
        let differs = difference(&self.world.rows(), &self.truth().await);
        assert_eq!(differs, None, "{}: {ran:?}", self.name);
    }

    /// The first sync brings everything, for the least there is and what the summary names.
    async fn first_sync(&mut self, named: u64) {
        let ran = self.sync().await;
        assert_eq!(ran.exit, 0, "{}: {ran:?}", self.name);
        assert_eq!(ran.source.state, State::Complete, "{}: {ran:?}", self.name);
        self.assert_whole(&ran).await;
        assert!(self.world.rows().len() > 40, "{}: a world without rows", self.name);
        let least = S::least(&self.world, self.case, &ran.requests) + S::beside(self.case);
        let sent = ran.source.requests.sent;
        assert_eq!((sent, ran.named()), (least + named, named), "{}: {ran:?}", self.name);
    }

    /// A night on which nothing has happened changes nothing, for as much as the first sync.
    async fn quiet_night(&mut self) {
        let (head, first) = (self.world.head(), self.world.sandbox.requests().len() as u64);
        self.world.pass(TimeDelta::days(1));
        let ran = self.sync().await;
        assert_eq!(ran.exit, 0, "{}: {ran:?}", self.name);
        assert_eq!(ran.source.leads.changes(), 0, "{}: {ran:?}", self.name);
        assert_eq!(self.world.head().snapshot, head.snapshot, "{}: {ran:?}", self.name);
        assert_eq!(ran.source.requests.lookups, 0, "{}: {ran:?}", self.name);
        assert!(ran.source.requests.sent <= first, "{}: {ran:?}", self.name);
        self.assert_whole(&ran).await;
    }

    /// What happens to records is followed the next night; to old ones, where only the top is read
    /// every night, within the week. What is listed no more goes once two whole readings have
    /// missed it, or the provider says by id that it is gone.
    async fn eventful_nights(&mut self, most: usize) {
        let held = self.world.rows();
        let stirred = S::stir(&self.world, self.case);
        self.assert_stirred(&held, &stirred).await;
        let (late_on, gone_on) = match S::reading(self.case) {
            Reading::Reconciled => (0, 0),
            Reading::Whole => (0, 1),
            Reading::Top => (1, 2),
        };
        // Once all is followed, further nights show nothing.
        for (night, days) in [1, 7, 7].into_iter().enumerate().take(most.min(gone_on + 1)) {
            self.world.pass(TimeDelta::days(days));
            let ran = self.sync().await;
            assert_eq!(ran.exit, 0, "{}, night {night}: {ran:?}", self.name);
            let mut expected = self.truth().await;
            let late = stirred.late.iter().filter(|_| night < late_on);
            let gone = stirred.gone.iter().filter(|_| night < gone_on);
            expected.extend(late.chain(gone).map(|key| (key.clone(), held[key].clone())));
            let differs = difference(&self.world.rows(), &expected);
            assert_eq!(differs, None, "{}, night {night}: {ran:?}", self.name);
            assert_eq!(ran.source.deletes_held_back, 0, "{}: {ran:?}", self.name);
        }
    }

    /// What is said to have happened has happened: else nothing would be followed.
    async fn assert_stirred(&self, held: &Rows, stirred: &Stirred) {
        let truth = self.truth().await;
        for key in stirred.at_once.iter().chain(&stirred.late) {
            assert!(truth.contains_key(key), "{}: {key} is not listed", self.name);
            assert_ne!(truth.get(key), held.get(key), "{}: {key} has not changed", self.name);
        }
        assert!(!stirred.at_once.is_empty(), "{}: nothing happened", self.name);
        for key in &stirred.gone {
            assert!(!truth.contains_key(key) && held.contains_key(key), "{}: {key}", self.name);
        }
    }

    /// A first sync that is cut off twice is whole in the end: nothing that is held is asked for
    /// again but what the summary names.
    async fn in_pieces(&mut self) {
        let (mut all, mut runs) = (Vec::new(), Vec::new());
        let mut named = 0;
        for max_requests in [Some(3), Some(4), None] {
            let ran = self.sync_with(max_requests).await;
            if let Some(most) = max_requests {
                assert!(ran.source.requests.sent <= most, "{}: {ran:?}", self.name);
                assert_eq!(ran.exit, 8, "{}: {ran:?}", self.name);
                let truth = self.truth().await;
                let is_right = |(key, hash): (&String, &String)| truth.get(key) == Some(hash);
                assert!(self.world.rows().iter().all(is_right), "{}: {ran:?}", self.name);
            } else {
                assert_eq!(ran.exit, 0, "{}: {ran:?}", self.name);
                self.assert_whole(&ran).await;
                assert_eq!(ran.source.leads.gone, 0, "{}: {ran:?}", self.name);
            }
            named += ran.named();
            runs.push(ran.requests.iter().map(listing_of).collect::<Vec<_>>());
            all.extend(ran.requests);
            self.world.pass(TimeDelta::minutes(5));
        }
        let least = S::least(&self.world, self.case, &all) + 3 * S::beside(self.case);
        // A listing without dates that the first run came to the end of, the last one reads again.
        let is_again = |listing: &&String| runs[0].contains(listing) && !runs[1].contains(listing);
        let again = runs[2].iter().filter(is_again).count() as u64;
        // Each of at most two runs that were cut off may have left two walks at such an end.
        let more = again + if self.case.has_an_end_to_hold() { 0 } else { 4 };
        let asked: Vec<String> = all.iter().map(asked_for).collect();
        let is_fair = (least + named..=least + named + more).contains(&(asked.len() as u64));
        assert!(is_fair, "{}: {least} at least, {named} named: {asked:#?}", self.name);
    }

    /// Where no two readings show the same, rows are found bit by bit and none is lost.
    async fn gathering_nights(&mut self) {
        for night in 0..12 {
            let held = if night > 0 { self.world.rows() } else { Rows::new() };
            let ran = self.sync().await;
            let truth = self.truth().await;
            assert!([0, 13].contains(&ran.exit), "{}: {ran:?}", self.name);
            let rows = self.world.rows();
            let is_right = |(key, hash): (&String, &String)| truth.get(key) == Some(hash);
            assert!(rows.iter().all(is_right), "{}: {ran:?}", self.name);
            assert!(held.keys().all(|key| rows.contains_key(key)), "{}: {ran:?}", self.name);
            assert!(rows.len() * 2 > truth.len(), "{}: {ran:?}", self.name);
            if rows.len() == truth.len() && night > 2 {
                return;
            }
            self.world.pass(TimeDelta::days(1));
        }
        panic!("{}: never whole", self.name);
    }

    /// A provider that answers otherwise than before ends the run with its reason, and changes
    /// nothing of what is held; once it answers as before, all is whole.
    async fn stopped_night(&mut self, exit: i32, why: &str, hint: &str) {
        self.answer_well();
        let ran = self.sync().await;
        assert_eq!(ran.exit, 0, "{}: {ran:?}", self.name);
        let held = self.world.rows();
        self.world.sandbox.behave(self.case.behaviour.clone());
        self.world.wrong_key = self.case.wrong_key;
        self.world.pass(TimeDelta::days(1));
        let ran = self.sync().await;
        assert_eq!(ran.exit, exit, "{}: {ran:?}", self.name);
        let said = |text: &Option<String>| text.clone().unwrap_or_default();
        assert!(said(&ran.source.why).contains(why), "{}: {ran:?}", self.name);
        assert!(said(&ran.source.hint).contains(hint), "{}: {ran:?}", self.name);
        assert_eq!(difference(&self.world.rows(), &held), None, "{}: {ran:?}", self.name);
        if self.case.wrong_key {
            assert!(ran.requests.len() <= 2, "{}: a wrong key is sent again: {ran:?}", self.name);
        }
        self.answer_well();
        self.world.pass(TimeDelta::days(1));
        let ran = self.sync().await;
        assert_eq!(ran.exit, 0, "{}: {ran:?}", self.name);
        self.assert_whole(&ran).await;
    }

    /// Lets the provider answer as it likely does.
    fn answer_well(&mut self) {
        self.world.sandbox.behave(Behaviour::default());
        self.world.wrong_key = false;
    }

    /// A doubt is told until it was seen twice the same, and costs no row.
    async fn doubtful_nights(&mut self) {
        for exit in [13, 0, 0] {
            let ran = self.sync().await;
            assert_eq!(ran.exit, exit, "{}: {ran:?}", self.name);
            self.assert_whole(&ran).await;
            self.world.pass(TimeDelta::days(1));
        }
    }

    /// A small allowance brings all in some days, and a day that is spent is left alone.
    async fn spent_days(&mut self) {
        for day in 0..6 {
            let ran = self.sync().await;
            if ran.exit == 0 && day > 0 {
                return self.assert_whole(&ran).await;
            }
            assert_eq!(ran.exit, 8, "{}: {ran:?}", self.name);
            assert_eq!(ran.source.state, State::Partial, "{}: {ran:?}", self.name);
            assert!(ran.source.pages > 0, "{}: {ran:?}", self.name);
            let resume_at = ran.summary.resume_at.unwrap();
            assert!(resume_at > ran.summary.ended_at, "{}: {ran:?}", self.name);
            if resume_at - ran.summary.ended_at > TimeDelta::hours(2) {
                let again = self.sync().await;
                assert_eq!((again.exit, again.requests.len()), (8, 0), "{}: {again:?}", self.name);
            }
            if difference(&self.world.rows(), &self.truth().await).is_none() {
                return;
            }
            self.world.pass(TimeDelta::hours(25));
        }
        panic!("{}: never whole", self.name);
    }

    /// What holds of every trial, whatever came of it.
    fn end(self) -> usize {
        let rate = Some(S::RATE);
        let day = S::PER_DAY.map(|requests| (TimeDelta::hours(24), requests));
        let requests = self.world.sandbox.requests();
        for (span, allowed) in rate.into_iter().chain(day) {
            let most = most_within(&requests, span);
            assert!(most <= allowed, "{}: {most} requests within {span}", self.name);
        }
        self.assert_discreet();
        self.runs
    }

    /// No secret is anywhere in the lake, the archive's compressed pages included.
    fn assert_discreet(&self) {
        let secrets = S::secrets(&self.world);
        let store = self.world.store();
        for folder in ["archive", "commits", "rejects", "state"] {
            for path in store.list_all(folder).unwrap() {
                let bytes = store.read(&path).unwrap();
                let bytes = match path.ends_with(".zst") {
                    true => zstd::decode_all(bytes.as_ref()).unwrap(),
                    false => bytes.to_vec(),
                };
                let text = String::from_utf8_lossy(&bytes);
                let is_told = secrets.iter().any(|secret| text.contains(secret.as_str()));
                assert!(!is_told, "{}: a secret in {path}", self.name);
            }
        }
    }
}

/// Returns the most requests of one key in any span of that length.
fn most_within(requests: &[LoggedRequest], span: TimeDelta) -> usize {
    let mut by_key: HashMap<_, Vec<DateTime<Utc>>> = HashMap::new();
    for request in requests {
        by_key.entry(request.key).or_default().push(request.at);
    }
    let most = |times: &Vec<DateTime<Utc>>| {
        let from = |at: &DateTime<Utc>| {
            let end = *at + span;
            times.iter().filter(|other| (*at..end).contains(*other)).count()
        };
        times.iter().map(from).max().unwrap_or(0)
    };
    by_key.values().map(most).max().unwrap_or(0)
}
