//! Puts lost parts and CSV files back, or others in their place, and withdraws what was read of those that
//! come out with other rows.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::Repairer;
use super::draft::Draft;
use super::rebuild::Remade;
use crate::commit::Commit;
use crate::commit::Loss;
use crate::commit::Losses;
use crate::commit::SourceCommit;
use crate::commit::SourceState;
use crate::config::CsvCompression;
use crate::config::Job;
use crate::extract::providers;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::load;
use crate::load::Rebuilt;
use crate::load::Target;
use crate::record::Scope;
use crate::record::ScopeKey;
use crate::run::Result;
use crate::run::settings;
use crate::run::verify::scan::CONTRADICTION;
use crate::run::verify::scan::Scan;
use crate::run::verify::scan::lost_span;
use crate::schema::PartFile;
use crate::schema::StoredFile;
use crate::window::Window;

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

impl Repairer {
    /// Puts parts and CSV files back, or makes them again.
    pub(super) fn mend_parts(
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

    /// Puts a file in the place of a damaged one that has its bytes by name; that one is of no use.
    fn replace(&self, from: &str, to: &str) -> Result<()> {
        Ok(self.store.rename(from, to)?)
    }
}

/// Tells whether a part that was made again has the rows that the commit says, as far as that tells.
fn agrees(made: &PartFile, lost: &PartFile) -> bool {
    (made.rows, made.deleted_rows) == (lost.rows, lost.deleted_rows)
        && made.first_lead_id == lost.first_lead_id
        && made.last_lead_id == lost.last_lead_id
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
