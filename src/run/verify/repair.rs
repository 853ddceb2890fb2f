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
use super::scan::Scan;
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
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::ids::WalkId;
use crate::load;
use crate::load::ChangeWriter;
use crate::load::Rebuild;
use crate::load::Rebuilt;
use crate::load::Target;
use crate::record::Walk;
use crate::record::id_hash;
use crate::run::Error;
use crate::run::Result;
use crate::run::STAGING_BYTES;
use crate::run::chain;
use crate::run::lake;
use crate::run::loader::HeldPage;
use crate::run::settings;
use crate::schema::PartFile;
use crate::schema::StoredFile;
use crate::schema::lead;
use crate::store::Store;

/// What was done, and the commit that was written.
pub(super) type Mended = (Vec<Repaired>, Option<Seq>);

/// A repair that holds its lake.
pub(super) struct Repairer {
    job: Arc<Job>,
    store: Store,
    clock: SharedClock,
    holder: Holder,
    done: Vec<Repaired>,
    _lock: Lock,
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
    /// Whether older snapshots cannot be shown any more.
    ends_older: bool,
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
        clock: SharedClock,
    ) -> Result<Self> {
        let store = Store::create(&job.lake)?;
        let holder = lake::holder(&job, "verify", clock.now());
        let lock = Lock::acquire(&store, &holder, lock_wait, &*clock).await?;
        commit::begin_run(&store, &holder)?;
        Ok(Self { job, store, clock, holder, done: Vec::new(), _lock: lock })
    }

    /// Mends what can be mended, and records the run.
    pub(super) fn mend(mut self) -> Result<Mended> {
        let mended = self.mend_all();
        let now = self.clock.now();
        self.store.remove_all(&format!("state/scratch/{}", self.holder.run))?;
        let (code, summary) = match &mended {
            Ok(committed) => (0, serde_json::json!({ "repairs": self.done, "commit": committed })),
            Err(error) => {
                // Where that cannot be done, the next run does it; the first error says more.
                let _ = commit::discard(&self.store, &self.holder.run);
                (1, serde_json::json!({ "error": chain(error) }))
            }
        };
        commit::end_run(&self.store, &self.holder, code, summary, now)?;
        Ok((self.done, mended?))
    }

    fn mend_all(&mut self) -> Result<Option<Seq>> {
        let (store, job, clock) = (self.store.clone(), Arc::clone(&self.job), self.clock.clone());
        let run = self.holder.run.clone();
        let scan = Scan::make(&store, &job, &clock, Some(&run))?;
        if let Some(newer) = scan.findings.iter().find(|found| found.kind == Kind::CommitNewer) {
            // Says which version it takes; nothing of such a lake is ours to judge.
            return Err(self.refusal_of(&newer.path));
        }
        self.refuse_newer_state()?;
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
        if draft.ends_older {
            commit::end_all_before(&store, &head)?;
        }
        self.show_again(&head)?;
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
        if self.store.exists(path) {
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
            let at = ledger.path();
            if let (Some(folder), Some(name)) = (at.parent(), at.file_name()) {
                let (folder, name) = (Store::open(folder), name.to_string_lossy());
                if folder.exists(&name) {
                    folder.rename(&name, &format!("{name}.damaged"))?;
                }
            }
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
            if bad.contains_key(path) && self.put_copy_back(file)? {
                bad.remove(path);
                self.did(path, "put back from a snapshot folder");
            }
        }
        for (name, source) in &base.sources {
            self.mend_source(scan, base, (name, source), &mut bad, next, draft)?;
        }
        // What is left belongs to older snapshots, or has another name now.
        for path in bad.keys().filter(|path| files.contains_key(*path)) {
            self.set_aside(path)?;
            draft.ends_older = true;
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
            let made = self.rebuild(scan, base, name, source, &lost, &target)?;
            for (lost, made) in lost.iter().zip(made) {
                let Some(place) = parts.iter().position(|part| part == lost) else { continue };
                let made = self.put_in_place(name, lost, made, next, draft)?;
                if made.as_ref() == Some(lost) {
                    bad.remove(lost.file.path.as_str());
                }
                match made {
                    Some(made) => parts[place] = made,
                    None => drop(parts.remove(place)),
                }
            }
        }
        for (number, part) in parts.iter_mut().enumerate() {
            let Some(csv) = part.csv.clone().filter(|csv| bad.contains_key(csv.path.as_str()))
            else {
                continue;
            };
            let made = target.render(part, &format!("{next}-{run}-csv{number}"))?;
            if made.blake3 == csv.blake3 {
                self.replace(&made.path, &csv.path)?;
                bad.remove(csv.path.as_str());
            } else {
                part.csv = Some(made);
            }
            self.did(&csv.path, "rendered again from its part");
        }
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
        name: &SourceName,
        lost: &PartFile,
        made: Option<Rebuilt>,
        next: Seq,
        draft: &mut Draft,
    ) -> Result<Option<PartFile>> {
        let path = lost.file.path.as_str();
        let Some(Rebuilt { part: mut made, untold }) = made else {
            self.withdraw(name, lost, 0, next, draft);
            return Ok(None);
        };
        if made.file.blake3 == lost.file.blake3 {
            self.replace(&made.file.path, path)?;
            if let Some(csv) = &made.csv {
                self.store.remove(&csv.path)?;
            }
            self.did(path, "made again from the changes and the archive, to the byte");
            return Ok(Some(lost.clone()));
        }
        let same_rows = (made.rows, made.deleted_rows) == (lost.rows, lost.deleted_rows);
        let same_keys =
            made.first_lead_id == lost.first_lead_id && made.last_lead_id == lost.last_lead_id;
        if lost.csv.is_none() {
            made.csv = None;
        }
        if same_rows && same_keys {
            let agree = "its number of rows and its first and last lead are those of the commit";
            let mut how = format!("made again from the changes and the archive: {agree}");
            if untold > 0 {
                // The newest record may be lost as well, and an older one stand in its place.
                draft.withdrawn.push((name.clone(), lost.partition.clone()));
                how.push_str(&format!(
                    "; {untold} of them only the archive tells of, so the next sync reads `{}` again",
                    lost.partition
                ));
            }
            self.did(path, how);
        } else {
            self.withdraw(name, lost, made.rows, next, draft);
        }
        Ok(Some(made))
    }

    fn withdraw(
        &mut self,
        name: &SourceName,
        lost: &PartFile,
        found: u64,
        next: Seq,
        draft: &mut Draft,
    ) {
        draft.withdrawn.push((name.clone(), lost.partition.clone()));
        draft.cut_at(next);
        let how = format!(
            "{found} rows were found in the changes and the archive, the commit says {}: what was read \
             of `{}` is withdrawn, and the next sync reads it again",
            lost.rows, lost.partition
        );
        self.did(&lost.file.path, how);
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
    ) -> Result<Vec<Option<Rebuilt>>> {
        let scratch = self.store.path(&format!("state/scratch/{}", self.holder.run));
        let partition = source.partition;
        let mut rebuild =
            Rebuild::new(scratch, partition, STAGING_BYTES, lost.to_vec(), target.seq)?;
        let is_there = |commit: &Commit| {
            let path = &commit.changes.file.path;
            !scan.bad.contains_key(path) && self.store.exists(path)
        };
        let is_followed = |seq: &u64| scan.commits.get(&Seq(*seq)).is_some_and(&is_there);
        // Behind the last change file that is missing, the changes say what became of a lead.
        let gap = (1..=base.seq.0).rev().find(|seq| !is_followed(seq)).unwrap_or(0);
        let kept = scan.commits.values().filter(|commit| commit.seq <= base.seq);
        for commit in kept.filter(|commit| is_there(commit)) {
            let (changes, seq) = (&commit.changes, commit.seq);
            rebuild.take_changes(&self.store, changes, name, seq, seq.0 > gap)?;
        }
        let settings = self.job.sources.iter().find(|settings| settings.name == *name);
        let key = self.key(Some(base)).ok();
        if let (Some(settings), Some(key)) = (settings, key) {
            self.take_archived(settings, source, base, &key, &mut rebuild)?;
        }
        let mut held: HashSet<u64> = HashSet::new();
        for part in source.parts.iter().filter(|part| !lost.contains(part)) {
            let take = |row: load::HeldRow<'_>| {
                held.insert(id_hash(row.lead_id));
            };
            load::inspect(&self.store, part, partition, take)?;
        }
        Ok(rebuild.write(target, |lead_id| held.contains(&id_hash(lead_id)))?)
    }

    /// Maps the archived pages that the commit has loaded.
    fn take_archived(
        &self,
        settings: &SourceSettings,
        source: &SourceCommit,
        base: &Commit,
        key: &Key,
        rebuild: &mut Rebuild,
    ) -> Result<()> {
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
                        let mapped = page.map(&**mapping, &transform)?;
                        rebuild.take_leads(&mapped.leads, &page.recency(&mapped.places))?;
                    }
                    _ => {}
                }
                Ok::<(), Error>(())
            });
            match read {
                Ok(_) => {}
                // What cannot be read tells nothing.
                Err(Error::Archive(error)) => tracing::warn!(%error, "passed over a segment"),
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
            0 => "no commit can be read: what is archived is loaded by the next sync".to_owned(),
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
        let changes = ChangeWriter::create(store, run, seq, &lead::arrow_schema(), compression)?;
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
    fn show_again(&mut self, head: &Commit) -> Result<()> {
        let (store, job, clock) = (self.store.clone(), Arc::clone(&self.job), self.clock.clone());
        let run = self.holder.run.clone();
        let scan = Scan::of_commits(&store, &job, &clock, Some(&run))?;
        let mut shown = BTreeSet::new();
        for commit in scan.living().rev() {
            let files = commit::shown_files(commit);
            let is_new = shown.insert(commit.snapshot);
            if is_new && files.iter().any(|file| scan.shown_difference(file).is_some()) {
                commit::show_anew(&store, commit)?;
                self.did(&format!("snapshots/{}", commit.snapshot), "made again from its commit");
            }
        }
        let differ = commit::derived_that_differ(&store, head)?;
        commit::derive(&store, head)?;
        for path in differ {
            self.did(path, "made again from the newest commit");
        }
        Ok(())
    }
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
