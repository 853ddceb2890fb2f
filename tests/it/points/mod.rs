//! The program dying, or its disk failing, at every point that it passes, and run again until it is
//! done.
//!
//! A job of all three providers goes through its stages undisturbed, and every point that it passes
//! is written down. Then, for a point and a time that it is passed, the lake of before the stage is
//! copied, the program dies there or cannot write, and is run again: what there is then must be what
//! there is undisturbed, with nothing left behind.
//!
//! `LEADPIPE_CRASHES` sets how many deaths there are in a stage, drawn from `LEADPIPE_SEED`: each point
//! each time that it is passed where it is 0. `LEADPIPE_PAIRS` sets how many die a second time while
//! they recover, and `LEADPIPE_FAULTS` how many faults of the disk there are, 0 for all. `LEADPIPE_STAGE`
//! is the number of the one stage in which runs die, from 1; the others are only played.

mod scene;
mod sight;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;

use chrono::TimeDelta;
use scene::Asked;
use scene::Ended;
use scene::STAGES;
use scene::Scene;
use scene::Stage;
use sight::Rows;
use sight::Start;

use crate::buckets;
use crate::support::number_from;
use crate::support::process::Draw;

/// Children that run at a time.
const CHILDREN: usize = 2;

/// How often a run may be begun again before it must be done.
const RERUNS: usize = 4;

/// A stage, undisturbed.
struct Undisturbed {
    stage: &'static Stage,
    /// The folder of the lake before it.
    before: PathBuf,
    start: Start,
    /// The rows after it, and after it is run a second time: some rows are gone once two runs miss them.
    rows: [Rows; 2],
    /// The requests of both.
    requests: [Asked; 2],
    /// How often each point is passed, with its kind.
    points: BTreeMap<String, (String, u64)>,
}

/// What befalls a stage: plans for the points of a run, one after the other.
#[derive(Debug, Clone)]
struct Trouble {
    /// The point of the first plan.
    point: String,
    plans: Vec<String>,
}

impl Undisturbed {
    /// Returns the rows that are right where runs were so often done with a source before the last run.
    fn rows_after(&self, done: &Asked) -> Rows {
        let mut rows = Rows::new();
        for (times, all) in self.rows.iter().enumerate() {
            let is_its = |(key, _): &(&String, &String)| {
                let source = key.split(' ').next().unwrap();
                done.get(source).copied().unwrap_or(0).min(1) == times
            };
            rows.extend(all.iter().filter(is_its).map(|(key, hash)| (key.clone(), hash.clone())));
        }
        rows
    }

    /// Returns the requests that are needed there, of all sources.
    fn requests_after(&self, done: &Asked) -> usize {
        let [first, second] = &self.requests;
        let again = second.iter().map(|(source, asked)| asked * done.get(source).unwrap_or(&0));
        first.values().sum::<usize>() + again.sum::<usize>()
    }
}

impl Trouble {
    /// The point of the first plan, and at which time that it is passed.
    fn place(&self) -> (&str, u64) {
        let number = self.plans[0].rsplit('#').next().unwrap();
        (&self.point, number.trim_end_matches('+').parse().unwrap())
    }
}

/// What came of it.
#[derive(Debug, Default)]
struct Outcome {
    /// How the runs ended that had a plan.
    ended: Vec<Ended>,
    /// Requests beyond those of an undisturbed run.
    wasted: i64,
    /// Whether the first run came to the point of its plan.
    met: bool,
    /// What is wrong once a run without a plan has ended well.
    wrong: Vec<String>,
}

impl Outcome {
    fn deaths(&self) -> u64 {
        self.ended.iter().filter(|ended| ended.code.is_none()).count() as u64
    }
}

/// Plays the stages one after the other, and calls `each` with every one of them once it is over.
async fn play(scene: &Scene, mut each: impl FnMut(&Undisturbed)) {
    let (mut before, mut day) = (scene.folder_with("empty", None), 0);
    for stage in &STAGES {
        scene.begin(stage, stage.day - day);
        day = stage.day;
        let folder = scene.folder_with(stage.name, Some(&before));
        let record = scene.folder.path().join(format!("{}.points", stage.name));
        let start = sight::start(&scene.lake(&before));
        let plan = format!("record {}", record.display());
        let run = |folder: &Path, plan| {
            let ended = tokio::task::block_in_place(|| scene.run(stage, 0, folder, plan));
            assert_eq!(ended.code, Some(0), "{}: {}", stage.name, ended.told);
            let lake = scene.lake(folder);
            let rows = sight::rows(&lake);
            assert_eq!(sight::wrong(&lake, &start, &rows), [""; 0], "{}", stage.name);
            (rows, ended.asked)
        };
        let (once, first) = run(&folder, Some(&plan));
        let again = scene.folder_with(&format!("{}-again", stage.name), Some(&folder));
        let (twice, second) = run(&again, None);
        let points = scene::passed(&record);
        let (rows, requests) = ([once, twice], [first, second]);
        each(&Undisturbed { stage, before, start, rows, requests, points });
        before = folder;
    }
}

/// Runs a stage under the plans, then until it is done, and compares.
fn suffer(scene: &Scene, child: usize, undisturbed: &Undisturbed, trouble: &Trouble) -> Outcome {
    let stage = undisturbed.stage;
    let folder = scene.folder_with(&format!("child-{child}"), Some(&undisturbed.before));
    let lake = scene.lake(&folder);
    let mut outcome = Outcome::default();
    let (mut done, mut asked) = (Asked::new(), 0);
    for plan in &trouble.plans {
        let before = sight::seq(&lake);
        let record = folder.join("record");
        let plan = format!("{plan}; record {}", record.display());
        let ended = scene.run(stage, child, &folder, Some(&plan));
        asked += ended.asked.values().sum::<usize>();
        for source in sight::done(&lake, before) {
            *done.entry(source).or_default() += 1;
        }
        // Which of two threads is first differs from run to run, and how often it syncs with it.
        let (point, at) = trouble.place();
        outcome.met |= scene::passed(&record).get(point).is_some_and(|(_, times)| *times >= at);
        outcome.ended.push(ended);
    }
    for rerun in 1.. {
        let ended = scene.run(stage, child, &folder, None);
        asked += ended.asked.values().sum::<usize>();
        match ended.code {
            Some(0) => break,
            _ if rerun < RERUNS => {}
            code => {
                outcome.wrong.push(format!("exit {code:?} after all: {}", ended.told));
                break;
            }
        }
    }
    outcome.wasted = asked as i64 - undisturbed.requests_after(&done) as i64;
    let rows = undisturbed.rows_after(&done);
    let mut wrong = sight::wrong(&lake, &undisturbed.start, &rows);
    if !wrong.is_empty() && outcome.ended.iter().any(|ended| ended.code == Some(1)) {
        // A run that failed commits what it has: where that was one of two lists of a bot, both are read
        // whole again, and judged, by the run after the next.
        let ended = scene.run(stage, child, &folder, None);
        assert_eq!(ended.code, Some(0), "{}", ended.told);
        wrong = sight::wrong(&lake, &undisturbed.start, &undisturbed.rows[1]);
    }
    outcome.wrong.extend(wrong);
    scene.remove(&folder);
    outcome
}

/// Goes through all troubles of a stage, some at a time.
fn suffer_all(
    scene: &Scene,
    undisturbed: &Undisturbed,
    troubles: Vec<Trouble>,
) -> Vec<(Trouble, Outcome)> {
    let (waiting, done) = (Mutex::new(troubles), Mutex::new(Vec::new()));
    let work = |child| {
        loop {
            let Some(trouble) = waiting.lock().unwrap().pop() else { break };
            let outcome = suffer(scene, child, undisturbed, &trouble);
            done.lock().unwrap().push((trouble, outcome));
        }
    };
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            for child in 0..CHILDREN {
                scope.spawn(move || work(child));
            }
        });
    });
    done.into_inner().unwrap()
}

/// Every point of a stage, each time that it is passed.
fn all_deaths(undisturbed: &Undisturbed) -> Vec<Trouble> {
    let mut deaths = Vec::new();
    for (point, (_, times)) in &undisturbed.points {
        let death = |at| Trouble { point: point.clone(), plans: vec![format!("die {point}#{at}")] };
        deaths.extend((1..=*times).map(death));
    }
    deaths
}

/// Deaths after which the run that recovers dies too.
fn pairs(undisturbed: &Undisturbed, wanted: u64, draw: &mut Draw) -> Vec<Trouble> {
    let all = all_deaths(undisturbed);
    let mut any = || all[draw.below(all.len() as u64) as usize].clone();
    let mut pair = || {
        let (first, second) = (any(), any());
        Trouble { point: first.point, plans: [first.plans, second.plans].concat() }
    };
    (0..wanted).map(|_| pair()).collect()
}

/// Every fault that the disk can have at the points of a stage that change it: at the first time that
/// each is passed, and at the last.
fn all_faults(undisturbed: &Undisturbed) -> Vec<Trouble> {
    let mut faults = Vec::new();
    for (point, (kind, times)) in &undisturbed.points {
        let kinds: &[&str] = match kind.as_str() {
            "write" => &["full", "denied", "failing", "torn"],
            "change" => &["full", "denied", "failing"],
            "read" => &["failing"],
            _ => &[],
        };
        for fault in kinds {
            // A full disk stays full, and a lake without permission goes on without.
            let lasts = if matches!(*fault, "full" | "denied") { "+" } else { "" };
            for at in BTreeSet::from([1, *times]) {
                let plans = vec![format!("{fault} {point}#{at}{lasts}")];
                faults.push(Trouble { point: point.clone(), plans });
            }
        }
    }
    faults
}

/// Draws some of them; where none is asked for, all.
fn drawn(mut troubles: Vec<Trouble>, wanted: u64, draw: &mut Draw) -> Vec<Trouble> {
    if wanted == 0 {
        return troubles;
    }
    let mut drawn = Vec::new();
    for _ in 0..wanted.min(troubles.len() as u64) {
        drawn.push(troubles.swap_remove(draw.below(troubles.len() as u64) as usize));
    }
    drawn
}

/// What all troubles of a kind came to.
#[derive(Debug, Default)]
struct Figures {
    points: BTreeSet<String>,
    cases: u64,
    died: u64,
    equal: u64,
    wasted: i64,
    worst: i64,
    wrong: Vec<String>,
}

impl Figures {
    fn add(&mut self, stage: &str, troubles: Vec<(Trouble, Outcome)>) {
        for (trouble, outcome) in troubles {
            self.cases += 1;
            self.died += outcome.deaths();
            self.wasted += outcome.wasted;
            self.worst = self.worst.max(outcome.wasted);
            self.equal += u64::from(outcome.wrong.is_empty());
            if !outcome.wrong.is_empty() {
                let Outcome { ended, wrong, .. } = outcome;
                let told: Vec<String> = ended.into_iter().map(|ended| ended.told).collect();
                self.wrong.push(format!("{stage} {:?}: {wrong:#?} {told:?}", trouble.plans));
            }
            self.points.insert(trouble.point);
        }
    }

    fn join(&mut self, other: Self) {
        self.points.extend(other.points);
        self.cases += other.cases;
        self.died += other.died;
        self.equal += other.equal;
        self.wasted += other.wasted;
        self.worst = self.worst.max(other.worst);
        self.wrong.extend(other.wrong);
    }

    #[expect(clippy::print_stdout, reason = "the figures of a long run")]
    fn print(&self, name: &str) {
        let Self { points, cases, died, equal, wasted, worst, .. } = self;
        let mean = *wasted as f64 / (*cases).max(1) as f64;
        let points = points.len();
        println!("{name:<18}{points:>8}{cases:>8}{died:>8}{equal:>8}{mean:>8.2}{worst:>8}");
    }
}

#[expect(clippy::print_stdout, reason = "the figures of a long run")]
fn print_heading() {
    println!("stage               points   cases    died   equal  wasted   worst");
}

fn assert_none_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Points by name, each with its kind and the stages that pass it.
type Passed = BTreeMap<String, (String, Vec<&'static str>)>;

/// Lets runs of every stage die, `crashes` once and `twice` twice, and returns the points there are.
async fn die_everywhere(scene: &Scene, crashes: u64, twice: u64) -> Passed {
    let mut draw = Draw(number_from("LEADPIPE_SEED", 5));
    let (mut once_all, mut twice_all) = (Figures::default(), Figures::default());
    let mut names = Passed::new();
    print_heading();
    play(scene, |undisturbed| {
        let name = undisturbed.stage.name;
        let only = number_from("LEADPIPE_STAGE", 0) as usize;
        if only > 0 && STAGES.iter().position(|stage| stage.name == name) != Some(only - 1) {
            return;
        }
        let once = drawn(all_deaths(undisturbed), crashes, &mut draw);
        let twice = pairs(undisturbed, twice, &mut draw);
        for (deaths, all, name) in [
            (once, &mut once_all, name.to_owned()),
            (twice, &mut twice_all, format!("{name}, twice")),
        ] {
            let mut figures = Figures::default();
            figures.add(&name, suffer_all(scene, undisturbed, deaths));
            figures.print(&name);
            all.join(figures);
        }
        for (point, (kind, _)) in &undisturbed.points {
            names.entry(point.clone()).or_insert((kind.clone(), Vec::new())).1.push(name);
        }
    })
    .await;
    once_all.print("all");
    twice_all.print("all, twice");
    assert_none_wrong(&[once_all.wrong, twice_all.wrong].concat());
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn wherever_a_run_dies_the_next_one_makes_of_it_what_it_would_have_been() {
    let (crashes, twice) = (number_from("LEADPIPE_CRASHES", 2), number_from("LEADPIPE_PAIRS", 1));
    let names = die_everywhere(&Scene::start(CHILDREN).await, crashes, twice).await;
    // A step that passes no point is missed here, and one that is new is to be looked at.
    let line = |(point, (kind, stages)): (&String, &(String, Vec<&'static str>))| {
        format!("{kind:<7}{point}: {}", stages.join(", "))
    };
    insta::assert_snapshot!("points", names.iter().map(line).collect::<Vec<_>>().join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs servers that speak as buckets do: `make buckets`"]
async fn wherever_a_run_dies_in_a_bucket_the_next_one_makes_of_it_what_it_would_have_been() {
    let (crashes, twice) = (number_from("LEADPIPE_CRASHES", 6), number_from("LEADPIPE_PAIRS", 2));
    for address in buckets::addresses() {
        let scene = Scene::in_bucket(CHILDREN, &format!("{address}/deaths")).await;
        let names = die_everywhere(&scene, crashes, twice).await;
        // The lease, what is put and what is counted.
        for point in ["state/lock/write", "commits/write-if-absent", "state/ledger/write"] {
            assert!(names.keys().any(|name| name.starts_with(point)), "{point} in {names:?}");
        }
    }
}

/// Returns what is wrong with how a run ended whose disk failed: it says so, and what to do, or goes
/// on where the file is not essential.
fn wrong_end(trouble: &Trouble, ended: &Ended) -> Option<String> {
    let is_torn = trouble.plans[0].starts_with("torn");
    let said = match ended.code {
        None => is_torn,
        Some(0) => true,
        Some(1) => {
            let names_place = ended.told.contains("/lake") || ended.told.contains("/leadpipe-");
            names_place && ended.told.contains("hint: ")
        }
        Some(_) => false,
    };
    (!said).then(|| format!("exit {:?}", ended.code))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn wherever_the_disk_fails_the_run_says_so_and_the_next_one_makes_good_for_it() {
    fail_everywhere(&Scene::start(CHILDREN).await, number_from("LEADPIPE_FAULTS", 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs servers that speak as buckets do: `make buckets`"]
async fn wherever_a_bucket_fails_the_run_says_so_and_the_next_one_makes_good_for_it() {
    for address in buckets::addresses() {
        let scene = Scene::in_bucket(CHILDREN, &format!("{address}/faults")).await;
        fail_everywhere(&scene, number_from("LEADPIPE_FAULTS", 4)).await;
    }
}

/// Lets storage fail `faults` times in every stage.
async fn fail_everywhere(scene: &Scene, faults: u64) {
    let mut draw = Draw(number_from("LEADPIPE_SEED", 6));
    let mut all = BTreeMap::<String, Figures>::new();
    let (mut went_on, mut never_met) = (BTreeMap::<String, u64>::new(), 0);
    print_heading();
    play(scene, |undisturbed| {
        let stage = undisturbed.stage.name;
        let drawn = drawn(all_faults(undisturbed), faults, &mut draw);
        for (trouble, mut outcome) in suffer_all(scene, undisturbed, drawn) {
            let wrong = outcome.ended.iter().filter_map(|ended| wrong_end(&trouble, ended));
            outcome.wrong.extend(wrong.collect::<Vec<_>>());
            if outcome.met && outcome.ended[0].code == Some(0) {
                *went_on.entry(trouble.point.clone()).or_default() += 1;
            }
            never_met += u64::from(!outcome.met);
            let fault = trouble.plans[0].split(' ').next().unwrap().to_owned();
            all.entry(fault).or_default().add(stage, vec![(trouble, outcome)]);
        }
    })
    .await;
    let mut wrong = Vec::new();
    for (fault, figures) in all {
        figures.print(&fault);
        wrong.extend(figures.wrong);
    }
    #[expect(clippy::print_stdout, reason = "the figures of a long run")]
    {
        println!("never met: {never_met}; runs that went on all the same: {went_on:?}");
    }
    assert_none_wrong(&wrong);
}

/// Runs the first stage with some settings of its job changed; the plans are for its points, run by run.
fn run_first(
    scene: &Scene,
    folder: &Path,
    changes: &'static [(&'static str, &'static str)],
    plans: &[Option<&str>],
) -> Vec<Ended> {
    let stage = Stage { changes, ..STAGES[0] };
    let run = |plan: &Option<&str>| scene.run(&stage, 0, folder, *plan);
    tokio::task::block_in_place(|| plans.iter().map(run).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn runs_that_die_one_after_the_other_leave_no_segment_that_holds_nothing() {
    let scene = Scene::start(1).await;
    let folder = scene.folder_with("again-and-again", None);
    let (first, next) = (Some("die page/held#6"), Some("die network/whatconverts/before#1"));
    let segments = || scene.lake(&folder).list_all("archive").unwrap().len();
    let ended = run_first(&scene, &folder, &[], &[first]);
    assert_eq!(ended[0].code, None);
    let begun = segments();
    assert!(begun > 1);
    for ended in run_first(&scene, &folder, &[], &[next; 3]) {
        assert_eq!(ended.code, None);
    }
    // Other sources go on until the process dies.
    assert!(segments() <= begun + 3, "{begun} and then {}", segments());
    assert_eq!(run_first(&scene, &folder, &[], &[None])[0].code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_run_that_dies_while_it_makes_the_key_of_a_lake_is_followed_by_one_with_a_whole_key() {
    const OWN_KEY: &[(&str, &str)] = &[("key = { env = \"POINTS_KEY\" }", "")];
    let scene = Scene::start(1).await;
    let recorded = scene.folder_with("key", None);
    let record = scene.folder.path().join("key.points");
    let plan = format!("record {}", record.display());
    assert_eq!(run_first(&scene, &recorded, OWN_KEY, &[Some(&plan)])[0].code, Some(0));
    let leads: Vec<String> = sight::rows(&scene.lake(&recorded)).into_keys().collect();
    let points = scene::passed(&record).into_keys();
    let mut plans: Vec<String> = points
        .filter(|point| point.starts_with("state/key/"))
        .map(|point| format!("die {point}#1"))
        .collect();
    assert!(plans.len() > 5, "{plans:?}");
    if number_from("LEADPIPE_CRASHES", 1) > 0 {
        plans.retain(|plan| plan.contains("staged"));
    }
    for plan in plans {
        let folder = scene.folder_with(&plan, None);
        let ended = run_first(&scene, &folder, OWN_KEY, &[Some(&plan), None]);
        let codes: Vec<Option<i32>> = ended.iter().map(|ended| ended.code).collect();
        assert_eq!(codes, [None, Some(0)], "{plan}: {ended:?}");
        let lake = scene.lake(&folder);
        let rows = sight::rows(&lake);
        assert_eq!(sight::wrong(&lake, &Start::default(), &rows), [""; 0], "{plan}");
        assert!(rows.keys().eq(&leads), "{plan}");
    }
}

/// Requests that each provider may be sent in 24 hours by the job below.
const PER_DAY: usize = 40;

/// By how many hours the clock is off, run by run; a day ahead at most, which is what a provider's date
/// puts right.
const OFFSETS: [i64; 10] = [0, -49, 0, 23, -1, -25, 0, 23, -49, 0];

/// Each time that the clock is put forward may cost one request before the provider tells.
const LEAPS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clocks_put_back_and_forward_between_runs_spoil_no_snapshot_and_no_quota() {
    let scene = Scene::start(1).await;
    let folder = scene.folder_with("clocks", None);
    let rationed = Stage {
        name: "rationed",
        changes: &[("600000/min\"", "600000/min\"\nper_day = 40\nreserve = 0")],
        ..STAGES[0]
    };
    let (mut sent, mut rows, mut codes) = (Asked::new(), None, Vec::new());
    for off in OFFSETS {
        let run = || scene.run_at(&rationed, 0, &folder, None, TimeDelta::hours(off));
        let ended = tokio::task::block_in_place(run);
        codes.push(ended.code);
        for (source, asked) in &ended.asked {
            *sent.entry(source.clone()).or_default() += asked;
        }
        let lake = scene.lake(&folder);
        let rows = rows.get_or_insert_with(|| sight::rows(&lake));
        let wrong = sight::wrong(&lake, &Start::default(), rows);
        assert_eq!(wrong, [""; 0], "{off} hours off: {}", ended.told);
        assert!(matches!(ended.code, Some(0 | 8)), "{off} hours off: {codes:?} {}", ended.told);
    }
    assert!(sent.values().all(|sent| *sent <= PER_DAY + LEAPS), "{sent:?}");
    // The allowance is spent, and was not simply never reached.
    assert!(codes.contains(&Some(0)) && codes.contains(&Some(8)), "{codes:?} {sent:?}");
}
