//! Looks at all of a lake and notes what is not as it should be; changes nothing.
//!
//! It goes by the commits there are at its start and takes no lock: a file that vanishes meanwhile
//! since its commit has ended is no damage. No finding ends it. What rows and changes tell of keys needs
//! some megabytes at most, see [`super::told`].

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use super::finding::Checked;
use super::finding::Finding;
use super::finding::Kind;
use super::rows::NeededPages;
use crate::archive;
use crate::clock::SharedClock;
use crate::commit;
use crate::commit::Commit;
use crate::commit::Losses;
use crate::config::Job;
use crate::error::Hint;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::load;
use crate::run::Result;
use crate::run::chain;
use crate::run::lake;
use crate::run::stop::Stop;
use crate::schema::StoredFile;
use crate::store;
use crate::store::Store;

/// What a repair makes of a lost part, in words.
const REBUILT: &str =
    "--repair puts a whole copy back or makes it again from the changes and the archive";
const RERENDERED: &str = "--repair renders it again from its part";
const RECUT: &str =
    "--repair notes the loss: loaders that have an older commit take the whole snapshot";
const NOTED: &str =
    "nothing reads it but people; --repair notes the loss, or restore it from a backup";
const STEP_BACK: &str = "restore it from a backup, or --repair goes back to the newest commit that can \
                         be read; what that one lacks is read from the archive, or again";
const DERIVED: &str = "--repair makes it again from the commit, as the next run does";

/// Why a part is not as it should be although its bytes are.
pub(super) const CONTRADICTION: &str = "its rows contradict the commit";

/// How far a clock may be off before it is told.
const AHEAD: TimeDelta = TimeDelta::hours(1);

/// All that was found in a lake.
pub(super) struct Scan<'a> {
    pub(super) store: &'a Store,
    pub(super) job: &'a Job,
    pub(super) clock: SharedClock,
    pub(super) now: DateTime<Utc>,
    /// The run that looks, where it holds the lake.
    pub(super) own_run: Option<&'a RunId>,
    pub(super) findings: Vec<Finding>,
    pub(super) checked: Checked,
    pub(super) losses: Losses,
    /// All commits that can be read.
    pub(super) commits: BTreeMap<Seq, Commit>,
    /// The highest number of a commit that there is or was.
    pub(super) newest: Seq,
    /// Up to here snapshots have ended.
    pub(super) ended: Seq,
    /// Files that commits name and that are not as they were written.
    pub(super) bad: BTreeMap<String, &'static str>,
    /// The last page of each segment that rows of the newest commit come from.
    pub(super) needed: NeededPages,
    /// Asks it to stop between two files.
    pub(super) stop: Stop,
}

/// What is missing for making rows of a source again, and what to do about it.
pub(super) struct Lack {
    pub(super) what: String,
    pub(super) way_out: String,
}

impl<'a> Scan<'a> {
    /// Looks at all there is.
    pub(super) fn make(
        store: &'a Store,
        job: &'a Job,
        clock: &SharedClock,
        own_run: Option<&'a RunId>,
        stop: &Stop,
    ) -> Result<Self> {
        let mut scan = Self::of_commits(store, job, clock, own_run)?;
        scan.stop = stop.clone();
        scan.look_at_chain();
        scan.look_at_parts()?;
        scan.look_at_logs()?;
        scan.look_at_rows()?;
        scan.look_at_archive()?;
        scan.look_at_shown()?;
        scan.look_at_state()?;
        scan.look_at_leftovers()?;
        scan.settle()?;
        Ok(scan)
    }

    /// Looks at the commits and at nothing that they name.
    pub(super) fn of_commits(
        store: &'a Store,
        job: &'a Job,
        clock: &SharedClock,
        own_run: Option<&'a RunId>,
    ) -> Result<Self> {
        let mut scan = Self {
            store,
            job,
            clock: clock.clone(),
            now: clock.now(),
            own_run,
            findings: Vec::new(),
            checked: Checked::default(),
            losses: Losses::default(),
            commits: BTreeMap::new(),
            newest: Seq(0),
            ended: Seq(0),
            bad: BTreeMap::new(),
            needed: NeededPages::new(),
            stop: Stop::default(),
        };
        scan.look_at_losses()?;
        scan.look_at_commits()?;
        scan.look_at_ended()?;
        scan.tell_lost_spans();
        Ok(scan)
    }

    /// Takes back what is only missing since another run lets go of it, or has meanwhile.
    pub(super) fn settle(&mut self) -> Result<()> {
        if self.own_run.is_some() {
            return Ok(());
        }
        let is_held = commit::holder(self.store, self.now)?.is_some();
        let newest = commit::latest(self.store).ok().flatten();
        let mut findings = std::mem::take(&mut self.findings);
        let mut kept = Vec::with_capacity(findings.len());
        for finding in findings.drain(..) {
            if self.is_let_go_of(&finding, is_held, newest.as_ref())? {
                tracing::debug!(path = finding.path, "let go of meanwhile");
            } else {
                kept.push(finding);
            }
        }
        self.findings = kept;
        Ok(())
    }

    fn is_let_go_of(
        &self,
        finding: &Finding,
        is_held: bool,
        newest: Option<&Commit>,
    ) -> Result<bool> {
        let path = finding.path.as_str();
        match finding.kind {
            Kind::PartMissing | Kind::CsvMissing | Kind::ChangesMissing | Kind::RejectsMissing => {
                let names = |commit: &Commit| {
                    commit.part_paths().chain(commit.log_paths()).any(|named| named == path)
                };
                let is_needed = !is_held || newest.is_some_and(names);
                Ok(!is_needed || !self.is_still_named(path)?)
            }
            Kind::SnapshotDiffers => {
                let ended = commit::ended(self.store).unwrap_or(self.ended);
                let shows =
                    |commit: &Commit| path.starts_with(&format!("snapshots/{}/", commit.snapshot));
                let is_newest = newest.is_some_and(shows);
                let lives = self.commits.values().any(|commit| commit.seq > ended && shows(commit));
                Ok(!is_newest && (is_held || !lives))
            }
            // Rows of a later commit may come from other segments.
            Kind::SegmentMissing => {
                let seq = |commit: Option<&Commit>| commit.map(|commit| commit.seq);
                Ok(seq(newest) > seq(self.head()))
            }
            _ => Ok(false),
        }
    }

    /// Returns the newest commit that can be read.
    pub(super) fn head(&self) -> Option<&Commit> {
        self.commits.values().next_back()
    }

    /// Returns the commits whose snapshots have not ended, oldest first.
    pub(super) fn living(&self) -> impl DoubleEndedIterator<Item = &Commit> {
        let head = self.head().map(|head| head.seq);
        self.commits
            .values()
            .filter(move |commit| commit.seq > self.ended || Some(commit.seq) == head)
    }

    /// Returns the number from which on the changes can be followed: what was cut before is no news.
    pub(super) fn changes_from(&self) -> Seq {
        self.commits.values().filter_map(|commit| commit.changes_from).max().unwrap_or_default()
    }

    pub(super) fn note(&mut self, kind: Kind, path: &str, what: impl Into<String>, way_out: &str) {
        let kind = if self.losses.has(path) { Kind::KnownLoss } else { kind };
        self.findings.push(Finding {
            kind,
            path: path.to_owned(),
            what: what.into(),
            way_out: way_out.to_owned(),
            matters: kind.matters(),
        });
    }

    fn look_at_losses(&mut self) -> Result<()> {
        match Losses::read(self.store) {
            Ok(losses) => self.losses = losses,
            // Whoever may not read a file must not judge it.
            Err(error @ commit::Error::Store(_)) if self.own_run.is_some() => {
                return Err(error.into());
            }
            Err(error) => self.note(
                Kind::LossesDamaged,
                Losses::PATH,
                chain(&error),
                "--repair begins it anew, with what is lost now",
            ),
        }
        Ok(())
    }

    /// Tells of rows that a repair did not find and that no sync reads again, until they are.
    fn tell_lost_spans(&mut self) {
        let noted: Vec<(String, String)> =
            self.losses.0.iter().map(|(path, loss)| (path.clone(), loss.what.clone())).collect();
        for (path, what) in noted {
            let Some((source, partition)) = lost_span_of(&path) else { continue };
            let span = load::span(partition);
            let progress = self.head().and_then(|head| {
                head.checkpoint.sources.iter().find(|(name, _)| name.as_str() == source)
            });
            let is_read = progress.zip(span).is_some_and(|((_, progress), span)| {
                let mut scopes = progress.scopes.values();
                scopes.all(|scope| scope.coverage.gaps(&span).is_empty())
            });
            if is_read {
                continue;
            }
            let way_out = match span {
                Some(span) => format!(
                    "`leadpipe backfill JOB --from {} --to {} --source {source}` reads what the platform \
                     still has of it",
                    span.start().format("%F"),
                    span.end().format("%F")
                ),
                None => "restore the lake from a backup, if one holds more".to_owned(),
            };
            self.note(Kind::KnownLoss, &path, what, &way_out);
        }
    }

    /// Returns what is missing for making rows of a source again: settings or key.
    pub(super) fn lack_of(&self, name: &SourceName) -> Option<Lack> {
        if !self.job.sources.iter().any(|settings| settings.name == *name) {
            let what = format!("job `{}` has no source `{name}`", self.job.name);
            let way_out = format!(
                "`leadpipe verify --repair` with the job that has source `{name}` makes it again"
            );
            return Some(Lack { what, way_out });
        }
        let head = self.head()?;
        let lack = |what: String, hint: Option<String>| {
            let hint = hint.map(|hint| format!(": {hint}")).unwrap_or_default();
            let way_out = format!("--repair makes it again once it has the lake's key{hint}");
            Some(Lack { what, way_out })
        };
        let given = match lake::given_key(self.job) {
            Ok(given) => given,
            Err(error) => return lack(chain(&error), error.hint()),
        };
        let known = Some(head.key_fingerprint.as_str());
        match commit::identity_key(self.store, given.as_deref(), known) {
            Ok(_) => None,
            Err(error) => lack(chain(&error), error.hint()),
        }
    }

    /// Returns what a repair makes of a lost file of a source, in words.
    pub(super) fn way_out_of(&self, name: &SourceName, usual: &str) -> String {
        self.lack_of(name).map_or_else(|| usual.to_owned(), |lack| lack.way_out)
    }

    fn look_at_commits(&mut self) -> Result<()> {
        let numbers = commit::list(self.store)?;
        for seq in &numbers {
            match commit::read(self.store, *seq) {
                Ok(commit) => drop(self.commits.insert(*seq, commit)),
                // It was let go of meanwhile.
                Err(commit::Error::NoCommit { .. }) => {}
                // Whoever may not read a file must not judge it.
                Err(error @ commit::Error::Store(_)) if self.own_run.is_some() => {
                    return Err(error.into());
                }
                Err(error) => self.note_commit(*seq, Some(*seq) == numbers.last().copied(), &error),
            }
            self.checked.commits += 1;
        }
        self.newest = numbers.last().copied().unwrap_or_default();
        if numbers.is_empty() {
            self.note(
                Kind::NotChecked,
                "commits",
                "there is no commit yet",
                "`leadpipe sync` makes one",
            );
        }
        let shown = commit::newer_shown(self.store, self.head())?;
        // One that another run has written meanwhile is not missing.
        if let Some((seq, evidence)) = shown.filter(|(seq, _)| *seq > self.newest)
            && !self.store.exists(&commit::path_of(seq))?
        {
            self.newest = seq;
            let what = format!("it is missing: `{evidence}` tells of it");
            self.note(Kind::NewestCommitMissing, &commit::path_of(seq), what, STEP_BACK);
        }
        let first = numbers.first().copied().unwrap_or_default();
        let missing = (first.0..self.newest.0).map(Seq).filter(|seq| !numbers.contains(seq));
        let (missing, cut): (Vec<Seq>, _) = (missing.collect(), self.changes_from());
        for seq in missing.into_iter().filter(|seq| *seq > cut) {
            self.note(Kind::CommitMissing, &commit::path_of(seq), load::MISSING, RECUT);
        }
        Ok(())
    }

    fn note_commit(&mut self, seq: Seq, is_newest: bool, error: &commit::Error) {
        let path = commit::path_of(seq);
        let what = chain(error);
        match error {
            commit::Error::NewerVersion { .. } => {
                let hint = error.hint().unwrap_or_default();
                self.note(Kind::CommitNewer, &path, what, &hint);
            }
            _ if is_newest => self.note(Kind::CommitDamaged, &path, what, STEP_BACK),
            _ => self.note(Kind::CommitDamaged, &path, what, RECUT),
        }
    }

    fn look_at_ended(&mut self) -> Result<()> {
        const PATH: &str = "state/ended.json";
        const WAY_OUT: &str = "--repair tells it from the parts that are there";
        match commit::ended(self.store) {
            // Where it names a commit that is newer than all, that one is lost, which is told; or made
            // meanwhile.
            Ok(ended) => self.ended = ended,
            Err(error @ commit::Error::Store(_)) if self.own_run.is_some() => {
                return Err(error.into());
            }
            Err(error) => {
                // What cannot be told lives only where its parts are there.
                let mut gone = None;
                for commit in self.commits.values().rev() {
                    if !commit::parts_are_there(self.store, commit)? {
                        gone = Some(commit.seq);
                        break;
                    }
                }
                let head = self.head().map(|head| head.seq);
                let gone = gone.filter(|seq| Some(*seq) != head);
                self.ended = gone.unwrap_or_default();
                self.note(Kind::EndedDamaged, PATH, chain(&error), WAY_OUT);
            }
        }
        Ok(())
    }

    /// Looks whether commits agree with themselves and with the one before.
    fn look_at_chain(&mut self) {
        let mut wrong = Vec::new();
        let mut before: Option<&Commit> = None;
        for commit in self.commits.values() {
            if let Some(what) = contradiction(commit, before) {
                wrong.push((commit.seq, what));
            }
            before = Some(commit);
        }
        if let Some(head) = self.head().filter(|head| head.created_at - self.now > AHEAD) {
            let what = format!("it was made at {}, which is yet to come", head.created_at);
            let way_out =
                "a clock was put back, or ran ahead: the next run reads again what was read then";
            self.note(Kind::CommitAhead, &commit::path_of(head.seq), what, way_out);
        }
        for (seq, what) in wrong {
            let way_out = "restore it from a backup; this is no damage of a disk, please report it";
            self.note(Kind::CommitContradiction, &commit::path_of(seq), what, way_out);
        }
    }

    /// Looks at the bytes of all living parts, each once.
    fn look_at_parts(&mut self) -> Result<()> {
        let mut files: BTreeMap<String, (StoredFile, SourceName, bool)> = BTreeMap::new();
        for (name, source) in self.living().flat_map(|commit| &commit.sources) {
            for part in &source.parts {
                files.insert(part.file.path.clone(), (part.file.clone(), name.clone(), false));
                if let Some(csv) = &part.csv {
                    files.insert(csv.path.clone(), (csv.clone(), name.clone(), true));
                }
            }
        }
        for (path, (file, name, is_csv)) in files {
            let Some(what) = self.look_at_file(&file)? else { continue };
            let (kind, way_out) = match (is_csv, what == load::MISSING) {
                (false, true) => (Kind::PartMissing, REBUILT),
                (false, false) => (Kind::PartDamaged, REBUILT),
                (true, true) => (Kind::CsvMissing, RERENDERED),
                (true, false) => (Kind::CsvDamaged, RERENDERED),
            };
            let way_out = self.way_out_of(&name, way_out);
            self.note(kind, &path, what, &way_out);
        }
        Ok(())
    }

    /// Notes that a part is not there.
    pub(super) fn note_missing(&mut self, source: &SourceName, path: &str) {
        self.bad.insert(path.to_owned(), load::MISSING);
        let way_out = self.way_out_of(source, REBUILT);
        self.note(Kind::PartMissing, path, load::MISSING, &way_out);
    }

    /// Returns what is wrong with a file that a commit names.
    fn look_at_file(&mut self, file: &StoredFile) -> Result<Option<&'static str>> {
        self.stop.check()?;
        self.checked.files += 1;
        let what = match load::difference(self.store, file) {
            Ok(None) => {
                self.checked.bytes += file.bytes;
                return Ok(None);
            }
            Ok(Some(load::MISSING)) if !self.is_still_named(&file.path)? => return Ok(None),
            Ok(Some(what)) => what,
            Err(error @ load::Error::Store(_)) if self.own_run.is_some() => {
                return Err(error.into());
            }
            Err(_) => "it cannot be read",
        };
        self.bad.insert(file.path.clone(), what);
        Ok(Some(what))
    }

    /// Tells whether a commit that has not ended meanwhile names a file.
    fn is_still_named(&self, path: &str) -> Result<bool> {
        if self.own_run.is_some() {
            return Ok(true);
        }
        let ended = commit::ended(self.store).unwrap_or(self.ended);
        let there: BTreeSet<Seq> = commit::list(self.store)?.into_iter().collect();
        let names = |commit: &Commit| {
            let lives = commit.seq > ended && commit.part_paths().any(|named| named == path);
            lives || commit.log_paths().any(|named| named == path)
        };
        let head = self.head().map(|head| head.seq);
        let is_there = |seq: Seq| there.contains(&seq) || Some(seq) == head;
        Ok(self.commits.values().any(|commit| is_there(commit.seq) && names(commit)))
    }

    /// Looks at changes and rejects, as long as their commits are kept.
    fn look_at_logs(&mut self) -> Result<()> {
        let cut = self.changes_from();
        let mut changes = Vec::new();
        let mut rejects = Vec::new();
        for commit in self.commits.values() {
            // A loader that has this commit or a later one needs no change file up to it.
            if commit.seq > cut {
                changes.push(commit.changes.file.clone());
            }
            rejects.extend(commit.rejects.iter().map(|rejects| rejects.file.clone()));
        }
        for file in changes {
            let Some(what) = self.look_at_file(&file)? else { continue };
            let is_missing = what == load::MISSING;
            let kind = if is_missing { Kind::ChangesMissing } else { Kind::ChangesDamaged };
            self.note(kind, &file.path, what, RECUT);
        }
        for file in rejects {
            let Some(what) = self.look_at_file(&file)? else { continue };
            let is_missing = what == load::MISSING;
            let kind = if is_missing { Kind::RejectsMissing } else { Kind::RejectsDamaged };
            self.note(kind, &file.path, what, NOTED);
        }
        Ok(())
    }

    /// Looks at what readers see.
    fn look_at_shown(&mut self) -> Result<()> {
        let mut looked_at = BTreeSet::new();
        let mut differ = Vec::new();
        for commit in self.living() {
            if !looked_at.insert(commit.snapshot) {
                continue;
            }
            for shown in commit::shown_files(self.store, commit) {
                if let Some(what) = self.shown_difference(&shown) {
                    differ.push((shown.path, what));
                }
            }
        }
        let newest = commit::list(self.store)?.last().copied();
        let Some(head) = self.head().filter(|head| newest == Some(head.seq)) else { return Ok(()) };
        // Another run may be about to make it.
        if self.own_run.is_none() && commit::holder(self.store, self.now)?.is_some() {
            return Ok(());
        }
        let derived = commit::derived_that_differ(self.store, head)?;
        for (path, what) in differ {
            self.note(Kind::SnapshotDiffers, &path, what, DERIVED);
        }
        for path in derived {
            let what = "it is not as made from the newest commit";
            self.note(Kind::DerivedDiffers, path, what, DERIVED);
        }
        Ok(())
    }

    /// Returns in what a second name of a part differs from it. One that is the same file costs nothing.
    pub(super) fn shown_difference(&self, shown: &commit::ShownFile) -> Option<&'static str> {
        if self.store.is_one_file(&shown.path, &shown.part.path) {
            return None;
        }
        let file = StoredFile { path: shown.path.clone(), ..shown.part.clone() };
        load::difference(self.store, &file).unwrap_or(Some("it cannot be read"))
    }

    /// Tells of files that nothing names; where another run holds the lake they may be its own.
    fn look_at_leftovers(&mut self) -> Result<()> {
        for path in self.store.list_all("damaged")? {
            let what = "a repair has set it aside";
            self.note(Kind::SetAside, &path, what, "remove it once nobody wants to look into it");
        }
        if self.own_run.is_none() && commit::holder(self.store, self.now)?.is_some() {
            return Ok(());
        }
        let mut named = BTreeSet::new();
        for commit in self.commits.values() {
            named.extend(commit.part_paths().chain(commit.log_paths()).map(str::to_owned));
        }
        for folder in ["parts", "csv", "changes", "rejects", "commits", "snapshots"] {
            for path in self.store.list_unfinished(folder) {
                let what = "it was never finished";
                self.note(
                    Kind::Leftover,
                    &path,
                    what,
                    "the next run removes what a run that died has left",
                );
            }
        }
        for folder in ["parts", "csv", "changes", "rejects"] {
            for path in self.store.list_all(folder)? {
                if !named.contains(&path) {
                    let way_out = "the next run removes what a run that died has left; what is left \
                                   then is of commits that are lost";
                    self.note(Kind::Leftover, &path, "no commit names it", way_out);
                }
            }
        }
        Ok(())
    }
}

/// Tells whether a segment could not be read since the disk has failed, or may not be read: that is no
/// damage to mend.
pub(super) fn is_of_disk(error: &archive::Error) -> bool {
    match error {
        archive::Error::Store(error) => !error.is_not_found(),
        archive::Error::Read { source, .. } => store::is_of_storage(source),
        _ => false,
    }
}

/// Returns under which name it is noted that rows of a partition are lost; no file has it.
pub(super) fn lost_span(source: &SourceName, partition: &str) -> String {
    format!("parts/part_source={source}/part_created={partition}")
}

/// Returns of which source and partition a name is that [`lost_span`] has given.
fn lost_span_of(path: &str) -> Option<(&str, &str)> {
    let (source, below) = path.strip_prefix("parts/part_source=")?.split_once('/')?;
    let partition = below.strip_prefix("part_created=")?;
    (!partition.contains('/')).then_some((source, partition))
}

/// Returns in what a commit contradicts itself or the one before it.
fn contradiction(commit: &Commit, before: Option<&Commit>) -> Option<String> {
    for (name, source) in &commit.sources {
        let rows: u64 = source.parts.iter().map(|part| part.rows).sum();
        if rows != source.rows {
            return Some(format!(
                "its parts of source `{name}` hold {rows} rows, not {}",
                source.rows
            ));
        }
        let mut ranges: Vec<_> = source
            .parts
            .iter()
            .map(|part| (&part.partition, &part.first_lead_id, &part.last_lead_id))
            .collect();
        ranges.sort_unstable();
        if ranges.windows(2).any(|pair| pair[0].0 == pair[1].0 && pair[0].2 >= pair[1].1) {
            return Some(format!("parts of source `{name}` overlap"));
        }
    }
    let before = before.filter(|before| before.seq.next() == commit.seq)?;
    if commit.parent != Some(before.seq) {
        return Some(format!("it does not name commit {} as its parent", before.seq));
    }
    for (name, source) in &commit.sources {
        let Some(held) = before.sources.get(name) else { continue };
        if held.partition != source.partition || held.provider != source.provider {
            return Some(format!("source `{name}` is another than in the commit before"));
        }
        let differs = source.parts.iter().find(|part| {
            let mut same = held.parts.iter().filter(|held| held.file.path == part.file.path);
            same.any(|held| held.file != part.file || held.rows != part.rows)
        });
        if let Some(part) = differs {
            return Some(format!("it says of `{}` what its parent does not", part.file.path));
        }
    }
    None
}
