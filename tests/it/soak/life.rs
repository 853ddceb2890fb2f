//! A life lived: runs when they are due, trouble when it comes, and what must hold after each run.
//!
//! A crash is a run that is dropped in the middle, together with the threads that drove it: nothing of
//! it goes on, and no permit is given back. (What a kill leaves of files is for `crash.rs` to try.)

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use chrono::DateTime;
use chrono::NaiveTime;
use chrono::TimeDelta;
use chrono::Utc;
use leadpipe::archive;
use leadpipe::archive::Record;
use leadpipe::clock::Clock;
use leadpipe::clock::SharedClock;
use leadpipe::config::Job;
use leadpipe::ids::ProviderId;
use leadpipe::plan::Requests;
use leadpipe::run;
use leadpipe::run::Event;
use leadpipe::run::Observer;
use leadpipe::run::Options;
use leadpipe::run::Range;
use leadpipe::run::Summary;
use leadpipe::sandbox::LoggedRequest;
use tokio::sync::Notify;

use super::clock::MachineClock;
use super::laws;
use super::laws::Day;
use super::sketch::Sketch;
use super::sketch::Use;
use crate::support::World;
use crate::support::assert_same;
use crate::support::process::Draw;

/// The farthest a clock is put off. A ledger remembers two days: one of them, and one for this.
const FARTHEST: TimeDelta = TimeDelta::hours(24);

/// The fewest requests of a run that must have led to something: a check page or a list of accounts may
/// be the first ones.
const FEWEST_THAT_COUNT: usize = 3;

/// How much longer than its days a life may take, until its last backfill has ended.
const PATIENCE: i64 = 4;

/// How far from what was foretold an end may be: it is the same day.
const HALF_A_DAY: TimeDelta = TimeDelta::hours(12);

/// How long a run goes on when one of its requests had to stop.
const A_WHILE: TimeDelta = TimeDelta::minutes(5);

/// What a life was.
#[derive(Debug, Default)]
pub(super) struct Lived {
    pub(super) days: i64,
    pub(super) runs: u64,
    pub(super) crashes: u64,
    pub(super) steps: usize,
    pub(super) requests: usize,
    /// Requests that the provider refused.
    pub(super) refused: usize,
    pub(super) backfills: Vec<Backfilled>,
    /// Ends of backfills that nothing disturbed and whose price was known, and those of them that came
    /// when the plan had said.
    pub(super) foretold: u64,
    pub(super) foretold_right: u64,
    /// The diary of a life in which one did not.
    pub(super) wrong: String,
}

/// A backfill, from before its first run to the end of its last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backfilled {
    pub(super) began: DateTime<Utc>,
    pub(super) ended: DateTime<Utc>,
    pub(super) requests: usize,
    /// When its plan, made before the first run, has said that it would end.
    pub(super) foretold: Option<DateTime<Utc>>,
}

/// What happens in the middle of a run.
#[derive(Debug)]
struct Fate {
    machine: Arc<MachineClock>,
    /// How long a page takes.
    a_page: TimeDelta,
    events: AtomicU64,
    crash_at: Option<u64>,
    crash: Notify,
    /// To where the clock is put at an event.
    step: Option<(u64, TimeDelta)>,
    stepped: Mutex<Option<Step>>,
}

/// The clock was put from so much ahead of the time to so much.
#[derive(Debug, Clone, Copy)]
struct Step {
    at: DateTime<Utc>,
    from: TimeDelta,
    to: TimeDelta,
}

impl Observer for Fate {
    fn observe(&self, event: &Event) {
        if matches!(event, Event::PageHeld { .. }) {
            self.machine.pass(self.a_page);
        }
        let number = self.events.fetch_add(1, Ordering::Relaxed);
        if let Some((_, ahead)) = self.step.filter(|(at, _)| *at == number) {
            *self.stepped.lock().unwrap() = Some(put(&self.machine, ahead));
        }
        if self.crash_at == Some(number) {
            self.crash.notify_one();
        }
    }
}

fn put(machine: &MachineClock, to: TimeDelta) -> Step {
    let from = machine.ahead();
    machine.put(to);
    Step { at: machine.truth(), from, to }
}

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Nightly,
    Backfill,
}

/// A backfill that is not done.
#[derive(Debug)]
struct UnderWay {
    /// By the machine's clock.
    due: DateTime<Utc>,
    began: Option<DateTime<Utc>>,
    requests: usize,
    again: bool,
    foretold: Option<DateTime<Utc>>,
}

/// A life being lived.
struct Life<'a> {
    sketch: &'a Sketch,
    world: World,
    machine: Arc<MachineClock>,
    draw: Draw,
    began: DateTime<Utc>,
    /// When the next nightly is due, by the machine's clock.
    night: Option<DateTime<Utc>>,
    backfill: Option<UnderWay>,
    /// When the clock is put next, by the time that passes.
    next_step: Option<DateTime<Utc>>,
    steps: Vec<Step>,
    /// What happened, a line each, for whoever looks for why a law was broken.
    diary: Vec<String>,
    /// Whether the last nightly left nothing.
    is_up_to_date: bool,
    /// Pages that are held, and the segments in which they are.
    held: usize,
    segments: BTreeSet<String>,
    lived: Lived,
}

/// Lives a life to its end, and holds it against the laws.
pub(super) async fn live(sketch: &Sketch) -> Lived {
    let mut life = Life::begin(sketch).await;
    while !life.is_over() {
        match life.next() {
            None => life.put_the_clock(),
            Some(command) => life.run(command).await,
        }
        let days = (life.machine.truth() - life.began).num_days();
        let diary = || life.diary.join("\n");
        assert!(days < PATIENCE * sketch.days, "it never ends: {:#?}\n{}", life.backfill, diary());
    }
    life.end().await
}

impl<'a> Life<'a> {
    async fn begin(sketch: &'a Sketch) -> Self {
        let world = sketch.world().await;
        let machine = Arc::new(MachineClock::new(Arc::clone(&world.clock)));
        let mut draw = Draw(sketch.seed ^ 0x5eed);
        let now = machine.now();
        let minute = NaiveTime::from_hms_opt(draw.below(24) as u32, draw.below(60) as u32, 0);
        let night = now.date_naive().and_time(minute.unwrap()).and_utc();
        let has = |used| sketch.used == used || sketch.used == Use::Both;
        let under_way =
            UnderWay { due: now, began: None, requests: 0, again: false, foretold: None };
        Self {
            sketch,
            world,
            machine,
            began: now,
            night: has(Use::Nightly).then_some(night + TimeDelta::days(1)),
            backfill: has(Use::Backfills).then_some(under_way),
            next_step: sketch.steps.then_some(now + TimeDelta::hours(draw.below(48) as i64)),
            draw,
            steps: Vec::new(),
            diary: Vec::new(),
            is_up_to_date: false,
            held: 0,
            segments: BTreeSet::new(),
            lived: Lived::default(),
        }
    }

    fn is_over(&self) -> bool {
        let is_old = self.machine.truth() - self.began >= TimeDelta::days(self.sketch.days);
        let is_enough = self.is_up_to_date || !self.sketch.is_enough_for_nights();
        is_old && self.backfill.is_none() && (self.night.is_none() || is_enough)
    }

    /// Lets time pass until something is due, and says what; nothing where it is the clock's turn.
    fn next(&mut self) -> Option<Command> {
        let backfill = self.backfill.as_ref().map(|backfill| (backfill.due, Command::Backfill));
        let night = self.night.map(|night| (night, Command::Nightly));
        let (due, command) = night.into_iter().chain(backfill).min_by_key(|(due, _)| *due)?;
        let wait = due - self.machine.now();
        let until_step = self.next_step.map(|step| step - self.machine.truth());
        if let Some(first) = until_step.filter(|until_step| *until_step < wait) {
            self.machine.pass(first.max(TimeDelta::zero()));
            return None;
        }
        // A timer is late by a moment.
        let late = TimeDelta::milliseconds(self.draw.below(2_000) as i64);
        self.machine.pass(wait.max(TimeDelta::zero()) + late);
        Some(command)
    }

    /// Draws to where the clock is put: right again, or off by minutes or by hours.
    fn draw_step(&mut self) -> TimeDelta {
        let by = match self.draw.below(5) {
            0 => return TimeDelta::zero(),
            1 => TimeDelta::minutes(3 + self.draw.below(57) as i64),
            _ => TimeDelta::minutes(60 + self.draw.below(23 * 60) as i64),
        };
        let by = if self.draw.below(2) == 0 { by } else { -by };
        (self.machine.ahead() + by).clamp(-FARTHEST, FARTHEST)
    }

    /// Puts the clock while nothing runs.
    fn put_the_clock(&mut self) {
        let ahead = self.draw_step();
        let step = put(&self.machine, ahead);
        self.note_step(step);
        let until_next = TimeDelta::minutes(60 * 12 + self.draw.below(7 * 24 * 60) as i64);
        self.next_step = Some(self.machine.truth() + until_next);
    }

    fn note_step(&mut self, step: Step) {
        self.diary.push(format!("{}: the clock is put from {} to {}", step.at, step.from, step.to));
        self.steps.push(step);
    }

    fn draw_fate(&mut self) -> Fate {
        let crash_at = (self.sketch.crashes && self.draw.below(4) == 0)
            .then(|| self.draw.below(u64::from(self.sketch.allowance)));
        let step = (self.sketch.steps && self.draw.below(8) == 0)
            .then(|| (self.draw.below(12), self.draw_step()));
        Fate {
            machine: Arc::clone(&self.machine),
            // Requests that are on their way meanwhile must not be later than a ledger allows for.
            a_page: TimeDelta::seconds(self.draw.below(6) as i64),
            events: AtomicU64::new(0),
            crash_at,
            crash: Notify::new(),
            step,
            stepped: Mutex::default(),
        }
    }

    /// Has the end of a backfill told before its first run, where nothing will come in between. What is
    /// not known is asked for.
    async fn foretell(&mut self, command: Command) {
        let is_first = self.backfill.as_ref().is_some_and(|backfill| backfill.began.is_none());
        let is_calm = self.sketch.is_undisturbed() && self.sketch.used == Use::Backfills;
        if command != Command::Backfill || !is_first || !is_calm {
            return;
        }
        let clock: SharedClock = Arc::clone(&self.machine) as SharedClock;
        let options = Options { probe: true, ..Options::default() };
        let planned = run::preview(self.world.job(), self.range(command), options, clock);
        let source = planned.await.unwrap().sources.remove(0);
        let is_known = !matches!(source.requests, Requests::AtLeast(_));
        let foretold = source.forecast.and_then(|forecast| forecast.done_at);
        let Some(backfill) = &mut self.backfill else { return };
        backfill.foretold = foretold.filter(|_| is_known);
        self.diary.push(format!("foretold for {:?}: {:?}", source.requests, backfill.foretold));
    }

    async fn run(&mut self, command: Command) {
        self.foretell(command).await;
        let fate = Arc::new(self.draw_fate());
        let (job, range, clocked) = (self.world.job(), self.range(command), Arc::clone(&fate));
        let (began, before) = (self.machine.truth(), self.world.sandbox.requests().len());
        let ended = match fate.crash_at {
            None => Some(perform(job, range, clocked).await),
            Some(_) => {
                let until_crash = move || until_crash(job, range, clocked);
                tokio::task::spawn_blocking(until_crash).await.unwrap()
            }
        };
        let summary = ended.map(Result::unwrap);
        self.lived.runs += 1;
        self.lived.crashes += u64::from(summary.is_none());
        let stepped = *fate.stepped.lock().unwrap();
        stepped.into_iter().for_each(|step| self.note_step(step));
        let requests = self.world.sandbox.requests().split_off(before);
        self.diary.push(format!(
            "{began}: {command:?} sends {} and ends with {:?}",
            requests.len(),
            summary.as_ref().map(|summary| (summary.exit_code(), summary.resume_at))
        ));
        self.hold_progress(summary.as_ref(), &requests);
        match command {
            Command::Nightly => self.after_nightly(summary.as_ref(), requests.len()),
            Command::Backfill => {
                self.after_backfill(summary.as_ref(), began, requests.len());
                // Others may have gone on for a while since one had to stop, or the clock was put.
                let ended_at = summary.as_ref().map(|summary| summary.ended_at - A_WHILE);
                let due = self.backfill.as_ref().map(|under_way| under_way.due);
                let is_ahead = due.zip(ended_at).is_none_or(|(due, ended_at)| due > ended_at);
                assert!(is_ahead || stepped.is_some(), "{}", self.diary.join("\n"));
            }
        }
    }

    fn range(&self, command: Command) -> Option<Range> {
        let backfill = self.backfill.as_ref().filter(|_| command == Command::Backfill)?;
        let (from, to) = (self.sketch.history(), self.sketch.recent());
        Some(Range { from, to, again: backfill.again })
    }

    /// A run that was given permits has brought something that lasts.
    fn hold_progress(&mut self, summary: Option<&Summary>, requests: &[LoggedRequest]) {
        let before = self.held;
        self.count_held();
        let Some(summary) = summary else { return };
        let lookups: u64 = summary.sources.values().map(|source| source.requests.lookups).sum();
        let answered = requests.iter().filter(|request| request.status == 200).count();
        let is_enough = answered >= FEWEST_THAT_COUNT + lookups as usize;
        let is_done = is_done(summary);
        assert!(
            !is_enough || is_done || self.held > before,
            "{answered} requests were answered and nothing is held by them: {summary:#?}"
        );
        assert!(is_done || summary.exit_code() == 8, "{summary:#?}");
    }

    /// Counts the pages that have come to be held. A segment is written by one run.
    fn count_held(&mut self) {
        let store = self.world.store();
        for source in &self.world.job().sources {
            let segments = archive::segments(&store, &source.name).unwrap_or_default();
            for segment in
                segments.into_iter().filter(|segment| self.segments.insert(segment.path.clone()))
            {
                let take = |record| {
                    self.held += usize::from(matches!(record, Record::Page(_)));
                    Ok::<(), archive::Error>(())
                };
                archive::read_segment(&store, &segment.path, take).unwrap();
            }
        }
    }

    fn after_nightly(&mut self, summary: Option<&Summary>, requests: usize) {
        // The night before has spent all of it, a day ago to the minute.
        let is_alone = self.sketch.used == Use::Nightly && self.sketch.day == Day::Rolling;
        let waits = self.sketch.at_once == 1;
        if is_alone && waits && self.sketch.is_undisturbed() && !summary.is_some_and(is_done) {
            assert!(requests >= FEWEST_THAT_COUNT, "{requests}: {}", self.diary.join("\n"));
        }
        self.is_up_to_date = summary.is_some_and(is_done);
        let now = self.machine.now();
        let nights = std::iter::successors(self.night, |night| Some(*night + TimeDelta::days(1)));
        self.night = nights.skip(1).find(|night| *night > now);
    }

    fn after_backfill(&mut self, summary: Option<&Summary>, began: DateTime<Utc>, requests: usize) {
        let later = self.machine.now() + TimeDelta::minutes(1 + self.draw.below(600) as i64);
        let Some(mut under_way) = self.backfill.take() else { return };
        let began = *under_way.began.get_or_insert(began);
        under_way.requests += requests;
        match summary {
            Some(summary) if is_done(summary) => {
                let ended = self.machine.truth();
                let requests = under_way.requests;
                let foretold = under_way.foretold;
                self.lived.backfills.push(Backfilled { began, ended, requests, foretold });
                let is_young = ended - self.began < TimeDelta::days(self.sketch.days);
                let next =
                    UnderWay { due: later, began: None, requests: 0, again: true, foretold: None };
                self.backfill = is_young.then_some(next);
            }
            Some(summary) => {
                let due = summary.resume_at.unwrap();
                self.backfill = Some(UnderWay { due, ..under_way });
            }
            None => self.backfill = Some(UnderWay { due: later, ..under_way }),
        }
    }

    async fn end(mut self) -> Lived {
        let Sketch { allowance, day, .. } = *self.sketch;
        let requests = self.world.sandbox.requests();
        let sent: Vec<DateTime<Utc>> = requests.iter().map(|request| request.at).collect();
        let leaps = self.steps.iter().filter(|step| step.to > step.from).map(|step| step.at);
        let leaps: Vec<DateTime<Utc>> = leaps.collect();
        let broken = laws::broken(&sent, allowance as usize, day, &leaps);
        assert_eq!(broken, None, "{}", self.diary.join("\n"));
        let refused = requests.iter().filter(|request| request.status == 429).count();
        assert!(refused == 0 || self.sketch.shared_key || !leaps.is_empty(), "{refused}");
        if self.sketch.is_undisturbed() && self.sketch.used == Use::Backfills {
            self.lived.backfills.iter().for_each(|backfilled| self.hold_pace(backfilled));
            let foretold = self.lived.backfills.iter().filter_map(|backfilled| {
                Some((backfilled.ended - backfilled.foretold?).abs() <= HALF_A_DAY)
            });
            let right: Vec<bool> = foretold.collect();
            self.lived.foretold = right.len() as u64;
            self.lived.foretold_right = right.iter().filter(|right| **right).count() as u64;
            if self.lived.foretold_right < self.lived.foretold {
                self.lived.wrong = self.diary.join("\n");
            }
        }
        if self.sketch.still && (self.night.is_none() || self.is_up_to_date) {
            self.assert_whole().await;
        }
        self.lived.days = (self.machine.truth() - self.began).num_days();
        self.lived.steps = self.steps.len();
        self.lived.requests = requests.len();
        self.lived.refused = refused;
        self.lived
    }

    /// A backfill that nothing disturbs takes the days its requests fill, and the rest of one that was
    /// begun by another.
    fn hold_pace(&self, backfilled: &Backfilled) {
        let allowance = self.sketch.allowance as usize;
        let days = backfilled.requests.div_ceil(allowance) as i32;
        let longest_day = TimeDelta::hours(25) + TimeDelta::minutes(5);
        let took = backfilled.ended - backfilled.began;
        assert!(took <= longest_day * days, "{took} for {backfilled:?} of {allowance} a day");
    }

    /// What is held is what the provider has, as far back as was asked for.
    async fn assert_whole(&self) {
        let until = match (self.sketch.used, self.sketch.provider) {
            (Use::Backfills, ProviderId::WhatConverts) => self.sketch.recent(),
            _ => return self.world.assert_all_whole().await,
        };
        let is_old = |lead: &serde_json::Value| {
            let created = lead["date_created"].as_str().unwrap();
            created.parse::<DateTime<Utc>>().unwrap() < until
        };
        assert_same(&self.world.rows(), &self.world.truth_where(is_old).await);
    }
}

fn is_done(summary: &Summary) -> bool {
    matches!(summary.exit_code(), 0 | 13)
}

async fn perform(job: Job, range: Option<Range>, fate: Arc<Fate>) -> run::Result<Summary> {
    let clock: SharedClock = Arc::clone(&fate.machine) as SharedClock;
    match range {
        None => run::sync(job, Options::default(), clock, fate).await,
        Some(range) => run::backfill(job, range, Options::default(), clock, fate).await,
    }
}

/// Returns how the run ended; nothing where it was cut off. When this returns, all its tasks have.
fn until_crash(job: Job, range: Option<Range>, fate: Arc<Fate>) -> Option<run::Result<Summary>> {
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    threads.unwrap().block_on(async {
        tokio::select! {
            biased;
            () = fate.crash.notified() => None,
            ended = perform(job, range, Arc::clone(&fate)) => Some(ended),
        }
    })
}
