//! Mends what a scan has found, holding the lake.
//!
//! Nothing that a commit names is written over, unless the bytes that come out are those it names.
//! What is mended otherwise is a commit of its own. Where it cannot be proven that a part made again
//! holds what the lost one did, what was read of its time is withdrawn, so that the next run reads it
//! again, and loaders take the whole snapshot. Damaged files are set aside in `damaged/`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashSet;
use std::sync::Arc;

use chrono::TimeDelta;

use super::finding::Finding;
use super::finding::Kind;
use super::finding::Repaired;
use super::scan::CONTRADICTION;
use super::scan::Scan;
use super::scan::is_of_disk;
use super::scan::lost_span;
use super::state;
use crate::archive;
use crate::archive::Record;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::OpenWalk;
use crate::clock::SharedClock;
use crate::commit;
use crate::commit::Commit;
use crate::commit::Holder;
use crate::commit::Key;
use crate::commit::Lock;
use crate::commit::Loss;
use crate::commit::Losses;
use crate::commit::SourceCommit;
use crate::commit::SourceState;
use crate::config::CsvCompression;
use crate::config::Job;
use crate::config::ParquetCompression;
use crate::config::SourceSettings;
use crate::extract::providers;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::ids::WalkId;
use crate::load;
use crate::load::ChangeWriter;
use crate::load::Rebuild;
use crate::load::Rebuilt;
use crate::load::Target;
use crate::record::Scope;
use crate::record::ScopeKey;
use crate::record::Walk;
use crate::record::id_hash;
use crate::run::Error;
use crate::run::Result;
use crate::run::chain;
use crate::run::lake;
use crate::run::loader::HeldPage;
use crate::run::settings;
use crate::run::stop::Stop;
use crate::schema::PartFile;
use crate::schema::StoredFile;
use crate::schema::lead;
use crate::store::Store;
use crate::window::Window;

/// What was done, and the commit that was written.
pub(super) type Mended = (Vec<Repaired>, Option<Seq>);

/// A repair that holds its lake.
pub(super) struct Repairer {
    job: Arc<Job>,
    store: Store,
    clock: SharedClock,
    holder: Holder,
    stop: Stop,
    done: Vec<Repaired>,
    _lock: Lock,
}

/// A lost part, and where it stands.
struct Place<'a> {
    scan: &'a Scan<'a>,
    base: &'a Commit,
    name: &'a SourceName,
    lost: &'a PartFile,
    /// Whether its bytes are those of the commit and its rows are not.
    contradicts: bool,
    /// The commit to be.
    next: Seq,
}

/// What the commit of a repair changes.
#[derive(Default)]
struct Draft {
    /// Sources whose parts are others now.
    sources: BTreeMap<SourceName, SourceCommit>,
    /// Loaders that have an older commit take the whole snapshot.
    cut: Option<Seq>,
    /// Partitions of which rows may be missing, or too many.
    withdrawn: Vec<(SourceName, String)>,
    /// Snapshots up to here cannot be shown any more.
    ends: Option<Seq>,
    /// Files that stay as they are, since something is missing that they could be made again with.
    left: BTreeSet<String>,
}

/// What the lost parts of a source were made of.
struct Remade {
    /// In their order.
    rebuilt: Vec<Rebuilt>,
    /// Whether changes, from a whole older commit on or from the very first, tell of every row.
    is_followed: bool,
    /// Why the archive was not taken in, or not all of it.
    lack: Option<String>,
}

/// What became of a lost part.
enum Placed {
    /// It is there again, under its name.
    Back,
    /// Another one stands for it.
    Anew(Box<PartFile>),
    /// Nothing does.
    Gone,
    /// It stays as it is.
    Left,
}

impl Draft {
    fn cut_at(&mut self, seq: Seq) {
        self.cut = self.cut.max(Some(seq));
    }
}

impl Repairer {
    /// Takes the lake of `job`.
    pub(super) async fn open(
        job: Arc<Job>,
        lock_wait: Option<TimeDelta>,
        stop: Stop,
        clock: SharedClock,
    ) -> Result<Self> {
        let store = settings::lake(&job)?;
        store.create_folder("")?;
        let holder = lake::holder(&job, "verify", clock.now());
        let lock = Lock::acquire(&store, &holder, lock_wait, clock.clone()).await?;
        commit::begin_run(&store, &holder)?;
        Ok(Self { job, store, clock, holder, stop, done: Vec::new(), _lock: lock })
    }

    /// Mends what can be mended, and records the run. Stops where it is asked to before it has begun to
    /// mend; what it has begun it ends.
    pub(super) fn mend(mut self) -> Result<Mended> {
        let mended = self.mend_all();
        let now = self.clock.now();
        self.store.remove_scratch(&self.holder.run)?;
        if matches!(&mended, Err(Error::Commit(error)) if error.is_uncertain()) {
            return mended.map(|_| Mended::default());
        }
        let (code, summary) = match &mended {
            Ok(committed) => (0, serde_json::json!({ "repairs": self.done, "commit": committed })),
            Err(error) => {
                // Where that cannot be done, the next run does it; the first error says more.
                let _ = commit::discard(&self.store, &self.holder.run);
                let code = match error {
                    Error::Stopped(ending) => ending.exit_code(),
                    _ => 1,
                };
                (code, serde_json::json!({ "error": chain(error) }))
            }
        };
        commit::end_run(&self.store, &self.holder, code, summary, now)?;
        Ok((self.done, mended?))
    }

    fn mend_all(&mut self) -> Result<Option<Seq>> {
        let (store, job, clock) = (self.store.clone(), Arc::clone(&self.job), self.clock.clone());
        let run = self.holder.run.clone();
        let stop = self.stop.clone();
        let scan = Scan::make(&store, &job, &clock, Some(&run), &stop)?;
        if let Some(newer) = scan.findings.iter().find(|found| found.kind == Kind::CommitNewer) {
            // Says which version it takes; nothing of such a lake is ours to judge.
            return Err(self.refusal_of(&newer.path));
        }
        self.refuse_newer_state()?;
        stop.check()?;
        self.mend_state(&scan)?;
        let mut draft = Draft::default();
        self.note_losses(&scan, &mut draft)?;
        let base = scan.head().cloned();
        let next = scan.newest.next();
        if let Some(base) = &base {
            self.mend_parts(&scan, base, next, &mut draft)?;
        }
        let is_stepped_back = base.as_ref().map_or(Seq(0), |base| base.seq) < scan.newest;
        if is_stepped_back {
            draft.cut_at(next);
            self.set_aside_beyond(&scan)?;
        }
        let changes = !draft.sources.is_empty() || draft.cut.is_some();
        let committed = changes.then(|| self.commit(base.clone(), next, &mut draft)).transpose()?;
        let Some(head) = commit::latest(&store)? else { return Ok(None) };
        if let Some(last) = draft.ends {
            commit::end_up_to(&store, last, &head, &format!("damaged/{run}"))?;
        }
        self.show_again(&head, &draft.left)?;
        Ok(committed)
    }

    /// What a later leadpipe keeps beside its commits is not begun anew.
    fn refuse_newer_state(&self) -> Result<()> {
        let read = [commit::ended(&self.store).err(), Losses::read(&self.store).err()];
        let is_newer = |error: &commit::Error| matches!(error, commit::Error::NewerVersion { .. });
        match read.into_iter().flatten().find(is_newer) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    fn refusal_of(&self, path: &str) -> Error {
        let seq = path.rsplit('/').next().and_then(|name| name.strip_suffix(".json")?.parse().ok());
        match commit::read(&self.store, Seq(seq.unwrap_or_default())) {
            Err(error) => error.into(),
            Ok(_) => Error::Bug("a commit of a later version was read"),
        }
    }

    fn did(&mut self, path: &str, how: impl Into<String>) {
        self.done.push(Repaired { path: path.to_owned(), how: how.into() });
    }

    /// Moves a file out of the way, where it is there.
    fn set_aside(&self, path: &str) -> Result<()> {
        if self.store.exists(path)? {
            let aside = format!("damaged/{}/{path}", self.holder.run);
            self.store.rename(path, &aside)?;
        }
        Ok(())
    }

    /// Mends what stands beside the truth.
    fn mend_state(&mut self, scan: &Scan<'_>) -> Result<()> {
        for finding in &scan.findings {
            match finding.kind {
                Kind::RunDamaged => {
                    self.set_aside(&finding.path)?;
                    self.did(&finding.path, "set aside");
                }
                Kind::ProbesDamaged => {
                    self.store.remove(&finding.path)?;
                    self.did(&finding.path, "removed: `plan --probe` asks again");
                }
                Kind::LossesDamaged => {
                    self.set_aside(&finding.path)?;
                    self.did(&finding.path, "begun anew");
                }
                Kind::EndedDamaged => {
                    let ended = commit::mend_ended(&self.store)?;
                    self.did(&finding.path, format!("snapshots have ended up to commit {ended}"));
                }
                Kind::LedgerDamaged | Kind::LedgerMissing => self.mend_ledger(scan, finding)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn mend_ledger(&mut self, scan: &Scan<'_>, finding: &Finding) -> Result<()> {
        for source in &scan.job.sources {
            let Ok(ledger) = state::ledger_of(scan, source) else { continue };
            if scan.relative(&ledger) != finding.path {
                continue;
            }
            ledger.keep_damaged()?;
            let how = match ledger.begin_anew(scan.now)? {
                Some(until) => {
                    format!("a new count lets nothing be sent before {}", until.format("%F %R UTC"))
                }
                None => "begun anew: no day is counted".to_owned(),
            };
            self.did(&finding.path, how);
            return Ok(());
        }
        Ok(())
    }

    /// Notes what cannot be made again, and from where on loaders cannot follow the changes.
    fn note_losses(&mut self, scan: &Scan<'_>, draft: &mut Draft) -> Result<()> {
        let mut losses = scan.losses.clone();
        let known = losses.clone();
        for finding in &scan.findings {
            let how = match finding.kind {
                // The newest one is stepped back from.
                Kind::CommitDamaged if seq_in(&finding.path) == scan.newest => continue,
                Kind::CommitDamaged | Kind::CommitMissing => {
                    let seq = seq_in(&finding.path);
                    draft.cut_at(seq);
                    format!(
                        "noted as lost: loaders that have a commit before {seq} take the whole snapshot"
                    )
                }
                Kind::ChangesDamaged | Kind::ChangesMissing => {
                    let seq = seq_in(&finding.path);
                    draft.cut_at(seq);
                    format!(
                        "noted as lost: loaders that have a commit before {seq} take the whole snapshot"
                    )
                }
                Kind::ChangesContradiction => {
                    draft.cut_at(scan.newest.next());
                    self.did(&finding.path, "all loaders take the whole snapshot");
                    continue;
                }
                Kind::RejectsDamaged | Kind::RejectsMissing => "noted as lost".to_owned(),
                Kind::SegmentDamaged | Kind::SegmentMissing => {
                    "noted as lost: a replay leaves its rows as they are".to_owned()
                }
                _ => continue,
            };
            // A damaged segment stays: what stands before the damage can be read.
            if finding.kind != Kind::SegmentDamaged {
                self.set_aside(&finding.path)?;
            }
            let (since, run) = (scan.now, self.holder.run.clone());
            let loss = Loss { what: finding.what.clone(), since, run };
            losses.0.insert(finding.path.clone(), loss);
            self.did(&finding.path, how);
        }
        let was_damaged = scan.findings.iter().any(|found| found.kind == Kind::LossesDamaged);
        if losses != known || was_damaged {
            losses.write(&self.store)?;
        }
        Ok(())
    }

    /// Puts parts and CSV files back, or makes them again.
    fn mend_parts(
        &mut self,
        scan: &Scan<'_>,
        base: &Commit,
        next: Seq,
        draft: &mut Draft,
    ) -> Result<()> {
        let mut bad: BTreeMap<&str, &'static str> =
            scan.bad.iter().map(|(path, what)| (path.as_str(), *what)).collect();
        let living = || scan.living().flat_map(|commit| commit.sources.values());
        let parts = || living().flat_map(|source| &source.parts);
        let files: BTreeMap<&str, &StoredFile> = parts()
            .flat_map(|part| std::iter::once(&part.file).chain(&part.csv))
            .map(|file| (file.path.as_str(), file))
            .collect();
        for (path, file) in &files {
            // Where rows contradict the commit, a copy with the same bytes does as well.
            let is_mendable = bad.get(path).is_some_and(|what| *what != CONTRADICTION);
            if is_mendable && self.put_copy_back(file)? {
                bad.remove(path);
                self.did(path, "put back from a snapshot folder");
            }
        }
        for (name, source) in &base.sources {
            self.mend_source(scan, base, (name, source), &mut bad, next, draft)?;
        }
        // What is left belongs to older snapshots, or has another name now.
        let is_left = |path: &str| files.contains_key(path) && !draft.left.contains(path);
        let lost: Vec<&str> = bad.keys().copied().filter(|path| is_left(path)).collect();
        for path in lost {
            self.set_aside(path)?;
            let names = |commit: &&Commit| commit.part_paths().any(|named| named == path);
            draft.ends = draft.ends.max(scan.living().filter(names).map(|commit| commit.seq).max());
        }
        Ok(())
    }

    /// Looks for a second name of a file that has the right bytes: one is left where a file was removed
    /// by hand, or where the disk knows no links.
    fn put_copy_back(&self, file: &StoredFile) -> Result<bool> {
        let below = match file.path.split_once('/') {
            Some(("parts", below)) => format!("leads/{below}"),
            Some(("csv", below)) => format!("leads_csv/{below}"),
            _ => return Ok(false),
        };
        for snapshot in self.store.list("snapshots")? {
            let path = format!("snapshots/{snapshot}/{below}");
            let copy = StoredFile { path: path.clone(), ..file.clone() };
            if matches!(load::difference(&self.store, &copy), Ok(None)) {
                self.set_aside(&file.path)?;
                self.store.link(&path, &file.path)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn mend_source(
        &mut self,
        scan: &Scan<'_>,
        base: &Commit,
        (name, source): (&SourceName, &SourceCommit),
        bad: &mut BTreeMap<&str, &'static str>,
        next: Seq,
        draft: &mut Draft,
    ) -> Result<()> {
        let is_bad = |part: &&PartFile| bad.contains_key(part.file.path.as_str());
        let lost: Vec<PartFile> = source.parts.iter().filter(is_bad).cloned().collect();
        let output = output_of(&self.job, source);
        let (store, run) = (self.store.clone(), self.holder.run.clone());
        let target = Target { store: &store, run: &run, seq: next, source: name, output: &output };
        let mut parts = source.parts.clone();
        if !lost.is_empty() {
            let remade = self.rebuild(scan, base, name, source, &lost, &target)?;
            for (lost, made) in lost.iter().zip(&remade.rebuilt) {
                let Some(place) = parts.iter().position(|part| part == lost) else { continue };
                let contradicts = bad.get(lost.file.path.as_str()) == Some(&CONTRADICTION);
                let places = Place { scan, base, name, lost, contradicts, next };
                match self.put_in_place(&places, made, &remade, draft)? {
                    Placed::Back => {
                        self.note_lost_segments(lost, source)?;
                        bad.remove(lost.file.path.as_str());
                    }
                    Placed::Anew(made) => {
                        self.note_lost_segments(&made, source)?;
                        parts[place] = *made;
                    }
                    Placed::Gone => drop(parts.remove(place)),
                    Placed::Left => drop(draft.left.insert(lost.file.path.clone())),
                }
            }
        }
        let is_ours = self.settings_of(name).is_some();
        for (number, part) in parts.iter_mut().enumerate() {
            let csv = part.csv.clone().filter(|csv| bad.contains_key(csv.path.as_str()));
            let Some(csv) = csv.filter(|_| !draft.left.contains(&part.file.path)) else { continue };
            let made = target.render(part, &format!("{next}-{run}-csv{number}"))?;
            if made.blake3 == csv.blake3 {
                self.replace(&made.path, &csv.path)?;
                bad.remove(csv.path.as_str());
            } else if is_ours {
                part.csv = Some(made);
            } else {
                // How another job renders its cells is not known here.
                self.store.remove(&made.path)?;
                draft.left.insert(csv.path.clone());
                continue;
            }
            self.did(&csv.path, "rendered again from its part");
        }
        // Of a part that stays as it is, so does the CSV.
        let left = parts.iter().filter(|part| draft.left.contains(&part.file.path));
        let csv: Vec<String> =
            left.filter_map(|part| part.csv.as_ref()).map(|csv| csv.path.clone()).collect();
        draft.left.extend(csv);
        if parts != source.parts {
            let rows = parts.iter().map(|part| part.rows).sum();
            let is_partial = draft.withdrawn.iter().any(|(withdrawn, _)| withdrawn == name);
            let mut mended = SourceCommit { parts, rows, ..source.clone() };
            if is_partial {
                mended.state = SourceState::Partial;
                mended.why = Some("rows were lost, and are read again".to_owned());
            }
            draft.sources.insert(name.clone(), mended);
        }
        Ok(())
    }

    /// Takes in a part that was made again: under the name of the lost one where it has the same bytes.
    fn put_in_place(
        &mut self,
        place: &Place<'_>,
        made: &Rebuilt,
        remade: &Remade,
        draft: &mut Draft,
    ) -> Result<Placed> {
        let lost = place.lost;
        let path = lost.file.path.as_str();
        let is_same = |made: &PartFile| made.file.blake3 == lost.file.blake3;
        if let Some(made) = made.part.as_ref().filter(|made| !place.contradicts && is_same(made)) {
            self.replace(&made.file.path, path)?;
            if let Some(csv) = &made.csv {
                self.store.remove(&csv.path)?;
            }
            self.did(path, "made again from the changes and the archive, to the byte");
            return Ok(Placed::Back);
        }
        let is_whole = made.part.as_ref().is_some_and(|made| agrees(made, lost));
        let is_ours = self.settings_of(place.name).is_some() || lost.csv.is_none();
        let is_proven = remade.is_followed && is_whole && is_ours;
        if let Some(lack) = remade.lack.as_ref().filter(|_| !is_proven) {
            tracing::warn!(path, lack, "left as it is");
            if let Some(part) = &made.part {
                self.store.remove(&part.file.path)?;
                part.csv.iter().try_for_each(|csv| self.store.remove(&csv.path))?;
            }
            return Ok(Placed::Left);
        }
        if !is_whole {
            self.withdraw(place, made, draft)?;
        } else {
            let agree = "its number of rows and its first and last lead are those of the commit";
            let mut how = format!("made again from the changes and the archive: {agree}");
            if made.untold > 0 {
                // The newest record may be lost as well, and an older one stand in its place.
                draft.withdrawn.push((place.name.clone(), lost.partition.clone()));
                how.push_str(&format!(
                    "; of {} of them the changes do not tell, so the next sync reads `{}` again",
                    made.untold, lost.partition
                ));
            }
            self.did(path, how);
        }
        let Some(mut part) = made.part.clone() else { return Ok(Placed::Gone) };
        if lost.csv.is_none() {
            part.csv = None;
        }
        Ok(Placed::Anew(Box::new(part)))
    }

    fn withdraw(&mut self, place: &Place<'_>, made: &Rebuilt, draft: &mut Draft) -> Result<()> {
        let (lost, partition) = (place.lost, &place.lost.partition);
        draft.withdrawn.push((place.name.clone(), partition.clone()));
        draft.cut_at(place.next);
        let found = made.part.as_ref().map_or(0, |part| part.rows) + made.left_out;
        let mut how = format!(
            "{found} rows were found in the changes, older parts and the archive, the commit says {}: \
             what was read of `{partition}` is withdrawn, and the next sync reads it again",
            lost.rows
        );
        if made.left_out > 0 {
            how.push_str(&format!(
                "; {} of them only the archive knows, which may be of leads that are gone: these are \
                 left out until then",
                made.left_out
            ));
        }
        if let Some(why) = self.not_read_again(place) {
            how.push_str(&format!("; {why}"));
            let rows = format!("rows of source `{}` created in `{partition}`: {why}", place.name);
            let mut losses = Losses::read(&self.store)?;
            let (since, run) = (place.scan.now, self.holder.run.clone());
            losses.0.insert(lost_span(place.name, partition), Loss { what: rows, since, run });
            losses.write(&self.store)?;
        }
        self.did(&lost.file.path, how);
        Ok(())
    }

    /// Notes the segments that rows of a part come from and that are lost: as long as the part was, nobody
    /// missed them.
    fn note_lost_segments(&mut self, part: &PartFile, source: &SourceCommit) -> Result<()> {
        let mut segments: BTreeSet<String> = BTreeSet::new();
        load::inspect(&self.store, part, source.partition, |row| {
            let segment = row.archive.and_then(|place| place.split_once('#'));
            let known = segment.filter(|(segment, _)| !segments.contains(*segment));
            segments.extend(known.map(|(segment, _)| segment.to_owned()));
        })?;
        let mut losses = Losses::read(&self.store)?;
        let mut lost = Vec::new();
        for segment in segments.into_iter().filter(|segment| !losses.has(segment)) {
            if !self.store.exists(&segment)? {
                lost.push(segment);
            }
        }
        if lost.is_empty() {
            return Ok(());
        }
        for segment in lost {
            self.did(&segment, "noted as lost: a replay leaves its rows as they are");
            let (since, run) = (self.clock.now(), self.holder.run.clone());
            losses.0.insert(segment, Loss { what: load::MISSING.to_owned(), since, run });
        }
        Ok(losses.write(&self.store)?)
    }

    /// Returns why no sync reads again what was read of the time of a part.
    fn not_read_again(&self, place: &Place<'_>) -> Option<&'static str> {
        let settings = self.settings_of(place.name)?;
        let progress = place.base.checkpoint.sources.get(place.name)?;
        let known = providers::known_partitions(settings, progress.partitions.as_ref());
        let listed: BTreeSet<ScopeKey> =
            providers::scopes(settings, known.map(|known| known.listed.as_slice()))
                .iter()
                .map(Scope::key)
                .collect();
        let span = load::span(&place.lost.partition);
        let is_in =
            |window: &Window| span.as_ref().is_none_or(|span| span.intersect(window).is_some());
        let read = |scope: &ScopeKey| {
            let spans = progress.scopes.get(scope).into_iter();
            let spans = spans.flat_map(|read| read.coverage.spans()).map(|span| span.window);
            spans.filter(|window| is_in(window)).collect::<Vec<_>>()
        };
        let is_before =
            |window: &Window| settings.start().is_some_and(|start| window.start() < start);
        if progress.scopes.keys().any(|scope| read(scope).iter().any(is_before)) {
            return Some("no sync reads what is before `start`: only a backfill does");
        }
        let is_unlisted = |scope: &&ScopeKey| !listed.contains(*scope) && !read(scope).is_empty();
        let unlisted = progress.scopes.keys().any(|scope| is_unlisted(&scope));
        unlisted.then_some("some of it was read of a listing that there is no longer")
    }

    fn settings_of(&self, name: &SourceName) -> Option<&SourceSettings> {
        self.job.sources.iter().find(|settings| settings.name == *name)
    }

    /// Puts a file in the place of a damaged one that has its bytes by name; that one is of no use.
    fn replace(&self, from: &str, to: &str) -> Result<()> {
        Ok(self.store.rename(from, to)?)
    }

    fn rebuild(
        &self,
        scan: &Scan<'_>,
        base: &Commit,
        name: &SourceName,
        source: &SourceCommit,
        lost: &[PartFile],
        target: &Target<'_>,
    ) -> Result<Remade> {
        let scratch = self.store.scratch(&self.holder.run);
        let partition = source.partition;
        let room = settings::room(&self.job)?;
        let mut rebuild = Rebuild::new(scratch, partition, room, lost.to_vec(), target.seq)?;
        let mut kept = BTreeMap::new();
        for commit in scan.commits.values().filter(|commit| commit.seq <= base.seq) {
            if self.has_changes(scan, commit)? {
                kept.insert(commit.seq, commit);
            }
        }
        // Behind the last change file that is missing, the changes say what became of a lead.
        let gap = (1..=base.seq.0).rev().map(Seq).find(|seq| !kept.contains_key(seq));
        let gap = gap.unwrap_or_default();
        let older = older_parts(scan, base, name, lost);
        let (is_followed, from) = self.followed_from(scan, &older, gap);
        for (seq, parts) in &older {
            let is_last_word = is_followed && *seq == from;
            // The oldest versions are of no use where a later commit is whole.
            if is_followed && !is_last_word {
                continue;
            }
            for part in parts.iter().filter(|part| !scan.bad.contains_key(&part.file.path)) {
                rebuild.take_part(&self.store, part, *seq, is_last_word)?;
            }
        }
        for (seq, commit) in kept.iter().filter(|(seq, _)| !is_followed || **seq > from) {
            rebuild.take_changes(&self.store, &commit.changes, name, *seq, *seq > gap)?;
        }
        let mut lack = scan.lack_of(name).map(|lack| lack.what);
        if let (Some(settings), None, false) = (self.settings_of(name), &lack, is_followed) {
            let key = self.key(Some(base))?;
            lack = self.take_archived(settings, source, base, &key, &mut rebuild)?;
        }
        let mut held: HashSet<u64> = HashSet::new();
        for part in source.parts.iter().filter(|part| !lost.contains(part)) {
            let take = |row: load::HeldRow<'_>| {
                held.insert(id_hash(row.lead_id));
            };
            load::inspect(&self.store, part, partition, take)?;
        }
        let rebuilt = rebuild.write(target, |lead_id| held.contains(&id_hash(lead_id)))?;
        Ok(Remade { rebuilt, is_followed, lack })
    }

    /// Tells whether the change file of a commit is as it was written; those before a cut nobody has
    /// looked at yet.
    fn has_changes(&self, scan: &Scan<'_>, commit: &Commit) -> Result<bool> {
        let file = &commit.changes.file;
        if scan.bad.contains_key(&file.path) {
            return Ok(false);
        }
        match commit.seq > scan.changes_from() {
            true => Ok(self.store.exists(&file.path)?),
            false => Ok(load::difference(&self.store, file)?.is_none()),
        }
    }

    /// Tells whether all that became of the lost rows since an older commit is told by the changes, and
    /// since which: the newest of which all parts of their time are whole, or the very first.
    fn followed_from(
        &self,
        scan: &Scan<'_>,
        older: &BTreeMap<Seq, Vec<PartFile>>,
        gap: Seq,
    ) -> (bool, Seq) {
        let from = gap.max(scan.changes_from());
        let is_whole =
            |parts: &[PartFile]| parts.iter().all(|part| !scan.bad.contains_key(&part.file.path));
        let whole = older.range(from..).rev().find(|(_, parts)| is_whole(parts));
        match whole {
            Some((seq, _)) => (true, *seq),
            None => (from == Seq(0), Seq(0)),
        }
    }

    /// Maps the archived pages that the commit has loaded. Returns why some were not: what a later
    /// leadpipe wrote is not guessed at.
    fn take_archived(
        &self,
        settings: &SourceSettings,
        source: &SourceCommit,
        base: &Commit,
        key: &Key,
        rebuild: &mut Rebuild,
    ) -> Result<Option<String>> {
        let mappings = settings::mappings(settings)?;
        let transform = settings::transform(settings, key);
        let names = std::iter::once(&settings.name).chain(&source.was);
        let mut seen: BTreeMap<WalkId, u64> = BTreeMap::new();
        for segment in segments_of(&self.store, names)? {
            let loaded = loaded_of(&segment.walk, base);
            let pages = seen.entry(segment.walk.clone()).or_default();
            let mut walk: Option<Arc<Walk>> = None;
            let read = archive::read_segment(&self.store, &segment.path, |record| {
                match (record, &walk) {
                    (Record::Opened(opened, before), _) => {
                        // What is lost of those before keeps its places.
                        *pages = (*pages).max(before.unwrap_or(0));
                        walk = Some(Arc::new(*opened));
                    }
                    (Record::Page(page), Some(walk)) => {
                        *pages += 1;
                        let mapping = mappings.get(walk.scope.stream.as_str());
                        let Some(mapping) = mapping.filter(|_| *pages <= loaded) else {
                            return Ok(());
                        };
                        let page = HeldPage::from_archive(Arc::clone(walk), *page, 0, None);
                        let mapped = match page.map(&**mapping, &transform) {
                            Ok(mapped) => mapped,
                            Err(error @ Error::Transform(_)) => {
                                let path = &segment.path;
                                tracing::warn!(path, page = *pages, %error, "passed over a page");
                                return Ok(());
                            }
                            Err(error) => return Err(error),
                        };
                        rebuild.take_leads(&mapped.leads, &page.recency(&mapped.places))?;
                    }
                    _ => {}
                }
                Ok::<(), Error>(())
            });
            match read {
                Ok(_) => {}
                Err(Error::Archive(error @ archive::Error::Version { .. })) => {
                    return Ok(Some(chain(&error)));
                }
                // What cannot be read tells nothing; a disk that fails is another matter.
                Err(Error::Archive(error)) if !is_of_disk(&error) => {
                    tracing::warn!(%error, "passed over a segment");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn key(&self, base: Option<&Commit>) -> Result<Key> {
        let given = lake::given_key(&self.job)?;
        let known = base.map(|base| base.key_fingerprint.as_str());
        Ok(commit::identity_key(&self.store, given.as_deref(), known)?)
    }

    /// Sets aside what commits wrote that are lost: it is read from the archive again.
    fn set_aside_beyond(&mut self, scan: &Scan<'_>) -> Result<()> {
        let base = scan.head().map_or(Seq(0), |head| head.seq);
        let path = commit::path_of(scan.newest);
        self.set_aside(&path)?;
        let mut named = BTreeSet::new();
        for commit in scan.commits.values() {
            named.extend(commit.part_paths().chain(commit.log_paths()).map(str::to_owned));
        }
        for folder in ["parts", "csv", "changes", "rejects"] {
            for path in self.store.list_all(folder)? {
                if seq_in(&path) > base && !named.contains(&path) {
                    self.set_aside(&path)?;
                }
            }
        }
        let how = match base.0 {
            0 => "no commit can be read: what was archived of late is loaded by the next sync, the rest is \
                  read again".to_owned(),
            _ => format!("gone back to commit {base}; what it lacks is loaded by the next sync"),
        };
        self.did(&path, how);
        Ok(())
    }

    fn commit(&mut self, base: Option<Commit>, seq: Seq, draft: &mut Draft) -> Result<Seq> {
        let now = self.clock.now();
        let key = match &base {
            Some(_) => None,
            None => Some(self.key(None)?),
        };
        let (store, run) = (&self.store, &self.holder.run);
        let compression = ParquetCompression::Zstd;
        let (schema, limits) = (lead::arrow_schema(), settings::limits(&self.job)?);
        let changes = ChangeWriter::create(store, run, seq, &schema, compression, limits)?;
        let changes = changes.finish()?;
        let base_seq = base.as_ref().map_or(Seq(0), |base| base.seq);
        let mut commit = Commit {
            seq,
            parent: Some(Seq(seq.0 - 1)).filter(|parent| parent.0 > 0),
            run: run.clone(),
            job: self.job.name.clone(),
            command: self.holder.command.clone(),
            created_at: now,
            leadpipe: env!("CARGO_PKG_VERSION").to_owned(),
            schema_version: lead::LEAD_SCHEMA_VERSION,
            key_fingerprint: key.map(|key| key.fingerprint().to_owned()).unwrap_or_default(),
            sources: BTreeMap::new(),
            checkpoint: Checkpoint::default(),
            changes,
            changes_from: draft.cut,
            rejects: Vec::new(),
            snapshot: seq,
            archive_checked_at: None,
        };
        if let Some(base) = base {
            commit.schema_version = base.schema_version;
            commit.key_fingerprint = base.key_fingerprint;
            commit.archive_checked_at = base.archive_checked_at;
            commit.checkpoint = base.checkpoint;
            commit.sources = base.sources;
            if draft.sources.is_empty() && base.seq.next() == seq {
                commit.snapshot = base.snapshot;
            }
        }
        commit.sources.append(&mut draft.sources);
        for (source, partition) in &draft.withdrawn {
            if let Some(progress) = commit.checkpoint.sources.get_mut(source) {
                progress.withdraw(load::span(partition).as_ref());
                // What is held of them may be what is missing: it is loaded once more.
                progress.open_walks.iter_mut().for_each(|open| open.loaded_pages = 0);
            }
        }
        commit.checkpoint.adopt(self.walks_since(base_seq, &commit.checkpoint)?);
        commit::write(&self.store, &commit)?;
        Ok(seq)
    }

    /// Returns the walks that were opened under a commit or a later one and that it does not list.
    fn walks_since(
        &self,
        base: Seq,
        checkpoint: &Checkpoint,
    ) -> Result<BTreeMap<SourceName, Vec<OpenWalk>>> {
        let listed: BTreeSet<&WalkId> = checkpoint
            .sources
            .values()
            .flat_map(|progress| &progress.open_walks)
            .map(|open| &open.walk.id)
            .collect();
        let mut walks: BTreeMap<SourceName, Vec<OpenWalk>> = BTreeMap::new();
        for name in self.store.list("archive")? {
            let Ok(source) = name.parse::<SourceName>() else { continue };
            let mut found: Vec<OpenWalk> = Vec::new();
            for segment in archive::segments(&self.store, &source)? {
                let is_since = segment.walk.opened_under().is_some_and(|under| under >= base);
                let is_known = found.iter().any(|open| open.walk.id == segment.walk);
                if !is_since || is_known || listed.contains(&segment.walk) {
                    continue;
                }
                if let Ok(Some(walk)) = archive::opening_of(&self.store, &segment.path) {
                    // One that is old by now is dropped and its time read again: leads of it may be
                    // gone since, and what it shows would be believed.
                    let (stated_rows, advanced_at) = (None, None);
                    found.push(OpenWalk { walk, loaded_pages: 0, stated_rows, advanced_at });
                }
            }
            found.sort_by_key(|open| open.walk.opened_at);
            if !found.is_empty() {
                walks.insert(source, found);
            }
        }
        Ok(walks)
    }

    /// Makes what readers see again, of all snapshots that live.
    fn show_again(&mut self, head: &Commit, left: &BTreeSet<String>) -> Result<()> {
        let is_left = |commit: &Commit| commit.part_paths().any(|path| left.contains(path));
        let (store, job, clock) = (self.store.clone(), Arc::clone(&self.job), self.clock.clone());
        let run = self.holder.run.clone();
        let scan = Scan::of_commits(&store, &job, &clock, Some(&run))?;
        let mut shown = BTreeSet::new();
        for commit in scan.living().rev().filter(|commit| !is_left(commit)) {
            let files = commit::shown_files(&store, commit);
            let is_new = shown.insert(commit.snapshot);
            if is_new && files.iter().any(|file| scan.shown_difference(file).is_some()) {
                commit::show_anew(&store, commit)?;
                self.did(&format!("snapshots/{}", commit.snapshot), "made again from its commit");
            }
        }
        if is_left(head) {
            return Ok(());
        }
        let differ = commit::derived_that_differ(&store, head)?;
        commit::derive(&store, head)?;
        for path in differ {
            self.did(path, "made again from the newest commit");
        }
        Ok(())
    }
}

/// Returns the parts that older living commits have of the time of lost ones, by commit.
fn older_parts(
    scan: &Scan<'_>,
    base: &Commit,
    name: &SourceName,
    lost: &[PartFile],
) -> BTreeMap<Seq, Vec<PartFile>> {
    let overlaps = |part: &PartFile| {
        lost.iter().any(|lost| {
            part.partition == lost.partition
                && part.first_lead_id <= lost.last_lead_id
                && lost.first_lead_id <= part.last_lead_id
        })
    };
    let older = scan.living().filter(|commit| commit.seq < base.seq);
    let of_source = older.filter_map(|commit| Some((commit.seq, commit.sources.get(name)?)));
    of_source
        .map(|(seq, source)| {
            (seq, source.parts.iter().filter(|part| overlaps(part)).cloned().collect())
        })
        .collect()
}

/// Tells whether a part that was made again has the rows that the commit says, as far as that tells.
fn agrees(made: &PartFile, lost: &PartFile) -> bool {
    (made.rows, made.deleted_rows) == (lost.rows, lost.deleted_rows)
        && made.first_lead_id == lost.first_lead_id
        && made.last_lead_id == lost.last_lead_id
}

fn segments_of<'a>(
    store: &Store,
    names: impl Iterator<Item = &'a SourceName>,
) -> Result<Vec<archive::SegmentName>> {
    let mut segments = Vec::new();
    for name in names {
        segments.extend(archive::segments(store, name)?);
    }
    Ok(segments)
}

/// Returns how many pages of a walk are loaded in a commit: all of one that it does not list as open,
/// unless it was opened since.
fn loaded_of(walk: &WalkId, base: &Commit) -> u64 {
    let mut open = base.checkpoint.sources.values().flat_map(|progress| &progress.open_walks);
    match open.find(|open| open.walk.id == *walk) {
        Some(open) => open.loaded_pages,
        None if walk.opened_under().is_some_and(|under| under >= base.seq) => 0,
        None => u64::MAX,
    }
}

/// Returns the number of the commit that a file's name begins with.
fn seq_in(path: &str) -> Seq {
    let name = path.rsplit('/').next().unwrap_or(path);
    let digits = name.split(['-', '.']).next().unwrap_or_default();
    Seq(digits.parse().unwrap_or_default())
}

/// Returns how the files of a source are written, whichever job wrote them.
fn output_of(job: &Job, source: &SourceCommit) -> load::Output {
    let csv = source.parts.iter().find_map(|part| part.csv.as_ref());
    let output = settings::output(job);
    let csv_compression = match csv.map(|csv| csv.path.as_str()) {
        Some(path) if path.ends_with(".gz") => CsvCompression::Gzip,
        Some(path) if path.ends_with(".zst") => CsvCompression::Zstd,
        Some(_) => CsvCompression::None,
        None => output.csv_compression,
    };
    load::Output { format: source.format, csv_compression, ..output }
}
