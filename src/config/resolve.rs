//! Turns what was typed into what it means: pure, and all problems at once.
//!
//! Each helper reports what is wrong with its value and returns `None`; a table is put together only
//! after all its values were looked at, so that none hides behind another.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use celes::Country;
use chrono::NaiveTime;
use chrono::TimeDelta;
use url::Host;
use url::Url;

use super::check::Lines;
use super::currency;
use super::error::Problem;
use super::error::ProblemKind;
use super::file;
use super::secret::SecretFile;
use super::secret::SecretRef;
use super::settings::ArchiveSettings;
use super::settings::ConvertalkSettings;
use super::settings::ConvertalkStream;
use super::settings::CsvCompression;
use super::settings::CsvSettings;
use super::settings::Format;
use super::settings::Job;
use super::settings::KeepSettings;
use super::settings::LoadSettings;
use super::settings::ParquetCompression;
use super::settings::PartitionBy;
use super::settings::PrivacySettings;
use super::settings::ProfileSettings;
use super::settings::ProviderSettings;
use super::settings::QuotaDay;
use super::settings::QuotaSettings;
use super::settings::Rate;
use super::settings::Ratio;
use super::settings::Reach;
use super::settings::RefreshSettings;
use super::settings::Reserve;
use super::settings::RunSettings;
use super::settings::Selection;
use super::settings::SourceSettings;
use super::settings::UsersAuth;
use super::settings::WhatConvertsPlan;
use super::settings::WhatConvertsSettings;
use super::settings::WhautomateSettings;
use crate::ids::SourceName;
use crate::store::Place;

/// Turns `file`, which stands at `path`, into a job.
///
/// # Errors
///
/// With all that is wrong.
pub(super) fn resolve(
    file: file::JobFile,
    path: &Path,
    lines: &Lines,
) -> Result<Job, Vec<Problem>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut resolver = Resolver { folder, lines, problems: Vec::new() };
    match resolver.job(file, path) {
        Some(job) if resolver.problems.is_empty() => Ok(job),
        _ => Err(resolver.problems),
    }
}

/// Why nothing can be left out of what a listing shows, and what to do.
const OF_A_PROFILE_KEY: &str =
    "a profile key reads its one profile; only a source with `plan = \"master\"` can choose";
const OF_ACCOUNTS: &str = "`partition_by = \"account\"` reads each account with all its profiles; \
                           leave this out, or set `partition_by = \"profile\"`";
const OF_ALL: &str = "`partition_by = \"none\"` reads all accounts in one listing; leave this out, or \
                      set `partition_by = \"account\"`";
const OF_ALL_PROFILES: &str = "`partition_by = \"none\"` reads all profiles in one listing; leave \
                               this out, or set `partition_by = \"profile\"`";

struct Resolver<'a> {
    folder: &'a Path,
    lines: &'a Lines,
    problems: Vec<Problem>,
}

/// The file's own values.
impl Resolver<'_> {
    fn job(&mut self, file: file::JobFile, path: &Path) -> Option<Job> {
        let name = self.slug("name", file.name);
        let lake = self.place("lake", &file.lake);
        let quota_dir = match &file.quota_dir {
            Some(text) => self.place("quota_dir", text).map(Some),
            None => Some(None),
        };
        let run = self.run(&file.run);
        let refresh = self.refresh(&file.refresh);
        let load = self.load(&file.load);
        let keep = self.keep(&file.keep);
        let archive = self.positive("archive.keep", &file.archive.keep);
        let key = file
            .privacy
            .key
            .map(|key| self.secret("privacy.key", key))
            .map_or(Some(None), |key| key.map(Some));
        let sources = self.sources(file.sources);
        let job = Job {
            path: path.to_owned(),
            name: name?,
            lake: lake?,
            quota_dir: quota_dir?,
            sources: sources?,
            run: run?,
            refresh: refresh?,
            load: load?,
            keep: keep?,
            archive: ArchiveSettings { keep: archive? },
            csv: CsvSettings { formula_guard: file.csv.formula_guard },
            privacy: PrivacySettings { key: key? },
        };
        match job.memory_shares() {
            Ok(_) => Some(job),
            Err(error) => self.fail("run.memory_limit", error.to_string()),
        }
    }

    /// Reads where a lake or its ledgers lie.
    fn place(&mut self, key: &str, text: &str) -> Option<Place> {
        if !text.contains("://") {
            return self.path(key, text).map(Place::Folder);
        }
        let place = Place::bucket(text);
        if place.is_none() {
            let expected =
                "expected a folder, or a bucket as `s3://bucket/prefix`, `gs://` or `az://`";
            let found = "without a key or a query in it";
            self.report::<()>(key, ProblemKind::Bucket, format!("{expected}, {found}"));
        }
        place
    }

    fn run(&mut self, run: &file::RunFile) -> Option<RunSettings> {
        let publish_every = self.positive("run.publish_every", &run.publish_every);
        let patience = self.duration("run.patience", &run.patience.0);
        let settle = self.duration("run.settle", &run.settle.0);
        let windows = self.positive("run.walk_max_age.windows", &run.walk_max_age.windows);
        let scans = self.positive("run.walk_max_age.scans", &run.walk_max_age.scans);
        let memory_limit = match run.memory_limit.parse() {
            Ok(limit) => Some(limit),
            Err(message) => self.fail("run.memory_limit", message),
        };
        Some(RunSettings {
            publish_every: publish_every?,
            patience: patience?,
            settle: settle?,
            window_max_age: windows?,
            scan_max_age: scans?,
            reread_limit: run.reread_limit,
            lookups: run.lookups,
            memory_limit: memory_limit?,
        })
    }

    fn refresh(&mut self, refresh: &file::RefreshFile) -> Option<RefreshSettings> {
        let every_run = self.reach("refresh.every_run", &refresh.every_run);
        let weekly = self.reach("refresh.weekly", &refresh.weekly);
        let monthly = self.reach("refresh.monthly", &refresh.monthly);
        let spare = self.percent("refresh.spare", &refresh.spare);
        Some(RefreshSettings {
            every_run: every_run?,
            weekly: weekly?,
            monthly: monthly?,
            spare: spare?,
        })
    }

    fn load(&mut self, load: &file::LoadFile) -> Option<LoadSettings> {
        let compression = self.compression(load.format, load.compression);
        let max_delete_ratio = self.percent("load.max_delete_ratio", &load.max_delete_ratio);
        let max_reject_ratio = self.percent("load.max_reject_ratio", &load.max_reject_ratio);
        let (parquet_compression, csv_compression) = compression?;
        Some(LoadSettings {
            format: load.format,
            parquet_compression,
            csv_compression,
            partition: load.partition,
            nested: load.nested,
            tree: load.tree,
            on_delete: load.on_delete,
            readable_by: load.readable_by,
            max_delete_ratio: max_delete_ratio?,
            max_reject_ratio: max_reject_ratio?,
        })
    }

    /// One key serves both forms; a form that does not know the word keeps its default, and at least
    /// one that is written has to know it.
    fn compression(
        &mut self,
        format: Format,
        typed: Option<file::CompressionFile>,
    ) -> Option<(ParquetCompression, CsvCompression)> {
        use file::CompressionFile as Typed;
        let (parquet, csv) = match typed {
            None => (None, None),
            Some(Typed::Zstd) => (Some(ParquetCompression::Zstd), Some(CsvCompression::Zstd)),
            Some(Typed::None) => (Some(ParquetCompression::None), Some(CsvCompression::None)),
            Some(Typed::Snappy) => (Some(ParquetCompression::Snappy), None),
            Some(Typed::Gzip) => (None, Some(CsvCompression::Gzip)),
        };
        match (format, parquet, csv) {
            (Format::Parquet, None, Some(_)) => self.fail(
                "load.compression",
                "`gzip` is for CSV; Parquet takes `zstd`, `snappy` or `none`".to_owned(),
            ),
            (Format::Csv, Some(_), None) => self.fail(
                "load.compression",
                "`snappy` is for Parquet; CSV takes `none`, `gzip` or `zstd`".to_owned(),
            ),
            // What a lake keeps is Parquet whatever the form, and then not the job's concern.
            (Format::Csv, _, csv) => {
                Some((ParquetCompression::Zstd, csv.unwrap_or(CsvCompression::None)))
            }
            (_, parquet, csv) => Some((
                parquet.unwrap_or(ParquetCompression::Zstd),
                csv.unwrap_or(CsvCompression::None),
            )),
        }
    }

    fn keep(&mut self, keep: &file::KeepFile) -> Option<KeepSettings> {
        let snapshot_age = self.duration("keep.snapshot_age", &keep.snapshot_age.0);
        let changes = self.positive("keep.changes", &keep.changes);
        Some(KeepSettings {
            snapshots: keep.snapshots,
            snapshot_age: snapshot_age?,
            changes: changes?,
        })
    }
}

/// Sources.
impl Resolver<'_> {
    fn sources(&mut self, files: Vec<file::SourceFile>) -> Option<Vec<SourceSettings>> {
        let count = files.len();
        let mut sources = Vec::with_capacity(count);
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        let mut customers: BTreeMap<String, String> = BTreeMap::new();
        for (index, source) in files.into_iter().enumerate() {
            let place = format!("sources[{index}]");
            self.unique_names(&place, &source, &mut names);
            self.unique_customer(&place, &source, &mut customers);
            sources.extend(self.source(&place, source));
        }
        (sources.len() == count).then_some(sources)
    }

    /// A row tells its source by name alone, so no two may share one, now or earlier.
    fn unique_names(
        &mut self,
        place: &str,
        source: &file::SourceFile,
        names: &mut BTreeMap<String, String>,
    ) {
        let common = common_of(source);
        let own = (format!("{place}.name"), &common.name);
        let earlier = common.was.iter().enumerate();
        let earlier = earlier.map(|(index, name)| (format!("{place}.was[{index}]"), name));
        for (place, name) in std::iter::once(own).chain(earlier) {
            match names.get(name) {
                Some(first) => {
                    let message = format!("`{name}` is already the name at `{first}`");
                    self.fail::<()>(&place, message);
                }
                None => {
                    names.insert(name.clone(), place);
                }
            }
        }
    }

    /// The stream `users` lists a customer's whole account: twice, every lead would be there twice.
    fn unique_customer(
        &mut self,
        place: &str,
        source: &file::SourceFile,
        customers: &mut BTreeMap<String, String>,
    ) {
        let file::SourceFile::Convertalk(source) = source else { return };
        if !source.streams.contains(&ConvertalkStream::Users) {
            return;
        }
        let place = format!("{place}.streams");
        if let Some(first) = customers.insert(source.customer_id.clone(), place.clone()) {
            let message = format!(
                "`users` lists the customer's whole account, which `{first}` does already",
            );
            self.fail::<()>(&place, message);
        }
    }

    fn source(&mut self, place: &str, source: file::SourceFile) -> Option<SourceSettings> {
        let common = common_of(&source).clone();
        let name = self.source_name(&format!("{place}.name"), &common.name);
        let was = common.was.iter().enumerate();
        let was: Vec<_> = was
            .filter_map(|(index, name)| self.source_name(&format!("{place}.was[{index}]"), name))
            .collect();
        let base_url = self.base_url(&format!("{place}.base_url"), &common.base_url);
        let currency = self.currency(&format!("{place}.currency"), common.currency);
        let default_region =
            self.region(&format!("{place}.default_region"), common.default_region.as_deref());
        let timeout = self.positive(&format!("{place}.timeout"), &common.timeout);
        let stall = self.positive(&format!("{place}.stall"), &common.stall);
        let quota = self.quota(&format!("{place}.quota"), common.quota);
        let (provider, profiles) = match source {
            file::SourceFile::WhatConverts(source) => self.whatconverts(place, source),
            file::SourceFile::Whautomate(source) => {
                (self.whautomate(place, source), BTreeMap::new())
            }
            file::SourceFile::Convertalk(source) => {
                (self.convertalk(place, source), BTreeMap::new())
            }
        };
        Some(SourceSettings {
            name: name?,
            was,
            base_url: base_url?,
            currency,
            default_region,
            profiles,
            timeout: timeout?,
            stall: stall?,
            retries: common.retries,
            max_body_bytes: u64::from(common.max_body_megabytes) * 1_000_000,
            quota: quota?,
            provider: provider?,
        })
    }

    fn whatconverts(
        &mut self,
        place: &str,
        source: file::WhatConvertsFile,
    ) -> (Option<ProviderSettings>, BTreeMap<u64, ProfileSettings>) {
        let profile_settings = self.profiles(place, source.profiles);
        let accounts =
            self.selection(place, "accounts", source.include_accounts, source.exclude_accounts);
        let profiles =
            self.selection(place, "profiles", source.include_profiles, source.exclude_profiles);
        if source.plan == WhatConvertsPlan::Profile {
            self.no_selection(place, "accounts", &accounts, OF_A_PROFILE_KEY);
            self.no_selection(place, "profiles", &profiles, OF_A_PROFILE_KEY);
        }
        self.partition_by(place, source.partition_by, source.plan, &accounts, &profiles);
        self.parameters(&format!("{place}.date_parameters"), &source.date_parameters);
        let token = self.secret(&format!("{place}.token"), source.token);
        let secret = self.secret(&format!("{place}.secret"), source.secret);
        let settings = token.zip(secret).map(|(token, secret)| {
            ProviderSettings::WhatConverts(WhatConvertsSettings {
                token,
                secret,
                plan: source.plan,
                start: source.start.0.and_time(NaiveTime::MIN).and_utc(),
                window_days: source.window_days,
                page_size: source.page_size,
                date_parameters: source.date_parameters,
                partition_by: source.partition_by,
                spam: source.spam,
                duplicate: source.duplicate,
                accounts,
                profiles,
            })
        });
        (settings, profile_settings)
    }

    fn profiles(
        &mut self,
        place: &str,
        profiles: BTreeMap<String, file::ProfileFile>,
    ) -> BTreeMap<u64, ProfileSettings> {
        let mut settings = BTreeMap::new();
        for (id, profile) in profiles {
            let place = format!("{place}.profiles.{id}");
            let currency = self.currency(&format!("{place}.currency"), profile.currency);
            let region = profile.default_region.as_deref();
            let default_region = self.region(&format!("{place}.default_region"), region);
            match id.parse() {
                Ok(id) => {
                    settings.insert(id, ProfileSettings { currency, default_region });
                }
                Err(_) => {
                    self.fail::<()>(&place, "expected a profile's id, a number".to_owned());
                }
            }
        }
        settings
    }

    fn selection(
        &mut self,
        place: &str,
        what: &str,
        include: Vec<u64>,
        exclude: Vec<u64>,
    ) -> Selection {
        if let Some(both) = include.iter().find(|id| exclude.contains(id)) {
            let message = format!("{both} is in `include_{what}` too");
            self.fail::<()>(&format!("{place}.exclude_{what}"), message);
        }
        Selection { include, exclude }
    }

    /// A listing cannot leave out a part of what it shows.
    fn partition_by(
        &mut self,
        place: &str,
        by: PartitionBy,
        plan: WhatConvertsPlan,
        accounts: &Selection,
        profiles: &Selection,
    ) {
        match (by, plan) {
            (PartitionBy::Profile, _) => {}
            (by, WhatConvertsPlan::Profile) => {
                let message = format!(
                    "`{}` is for a source with `plan = \"master\"`: a profile key reads its one \
                     profile; leave it out",
                    by.as_str()
                );
                self.fail::<()>(&format!("{place}.partition_by"), message);
            }
            (PartitionBy::Account, WhatConvertsPlan::Master) => {
                self.no_selection(place, "profiles", profiles, OF_ACCOUNTS);
            }
            (PartitionBy::None, WhatConvertsPlan::Master) => {
                self.no_selection(place, "accounts", accounts, OF_ALL);
                self.no_selection(place, "profiles", profiles, OF_ALL_PROFILES);
            }
        }
    }

    fn no_selection(&mut self, place: &str, what: &str, selection: &Selection, why: &str) {
        for (word, ids) in [("include", &selection.include), ("exclude", &selection.exclude)] {
            if !ids.is_empty() {
                self.fail::<()>(&format!("{place}.{word}_{what}"), why.to_owned());
            }
        }
    }

    fn parameters(&mut self, place: &str, names: &[String; 2]) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if names.iter().any(|name| name.is_empty() || !name.chars().all(allowed)) {
            self.fail::<()>(place, "expected names of letters, digits and `_`".to_owned());
        } else if names[0] == names[1] {
            self.fail::<()>(place, format!("`{}` cannot bound both ends", names[0]));
        }
    }

    fn whautomate(
        &mut self,
        place: &str,
        source: file::WhautomateFile,
    ) -> Option<ProviderSettings> {
        let streams = self.each_once(&format!("{place}.streams"), source.streams);
        let api_key = self.secret(&format!("{place}.api_key"), source.api_key);
        Some(ProviderSettings::Whautomate(WhautomateSettings {
            api_key: api_key?,
            plan: source.plan,
            streams,
            page_size: source.page_size,
            short_page_ends: source.short_page_ends,
        }))
    }

    fn convertalk(
        &mut self,
        place: &str,
        source: file::ConvertalkFile,
    ) -> Option<ProviderSettings> {
        let bot_ids = self.each_once(&format!("{place}.bot_ids"), source.bot_ids);
        for (index, id) in bot_ids.iter().enumerate() {
            self.external_id(&format!("{place}.bot_ids[{index}]"), id);
        }
        self.external_id(&format!("{place}.customer_id"), &source.customer_id);
        let streams = self.each_once(&format!("{place}.streams"), source.streams);
        if bot_ids.is_empty() && streams.contains(&ConvertalkStream::Chats) {
            let message = "missing; the stream `chats` is read bot by bot".to_owned();
            self.report::<()>(&format!("{place}.bot_ids"), ProblemKind::MissingKey, message);
        }
        self.header(&format!("{place}.auth_header"), &source.auth_header);
        self.header(&format!("{place}.users_auth.header"), &source.users_auth.header);
        self.header_text(&format!("{place}.users_auth.prefix"), &source.users_auth.prefix);
        self.header_text(&format!("{place}.users_auth.authtype"), &source.users_auth.authtype);
        let token = self.secret(&format!("{place}.token"), source.token);
        let authtype = Some(source.users_auth.authtype).filter(|text| !text.is_empty());
        Some(ProviderSettings::Convertalk(ConvertalkSettings {
            bot_ids,
            customer_id: source.customer_id,
            token: token?,
            auth_header: source.auth_header,
            streams,
            users_auth: UsersAuth {
                header: source.users_auth.header,
                prefix: source.users_auth.prefix,
                authtype,
            },
        }))
    }

    fn quota(&mut self, place: &str, quota: file::QuotaFile) -> Option<QuotaSettings> {
        let rate = match &quota.rate {
            Some(text) => self.rate(&format!("{place}.rate"), text).map(Some),
            None => Some(None),
        };
        let reserve = match quota.reserve {
            Some(reserve) => {
                self.reserve(&format!("{place}.reserve"), reserve, quota.per_day).map(Some)
            }
            None => Some(None),
        };
        let group = match quota.group {
            Some(text) => self.slug(&format!("{place}.group"), text).map(Some),
            None => Some(None),
        };
        let day = self.day(&format!("{place}.day"), quota.day);
        Some(QuotaSettings {
            per_day: quota.per_day,
            rate: rate?,
            at_once: quota.at_once,
            reserve: reserve?,
            group: group?,
            day: day?,
        })
    }

    fn reserve(
        &mut self,
        place: &str,
        reserve: file::ReserveFile,
        per_day: Option<u64>,
    ) -> Option<Reserve> {
        let reserve = match reserve {
            file::ReserveFile::Percent(text) => Reserve::Ratio(self.percent(place, &text)?),
            file::ReserveFile::Requests(requests) => Reserve::Requests(requests),
        };
        let all = match reserve {
            Reserve::Ratio(ratio) => ratio.get() >= 1.0,
            Reserve::Requests(requests) => per_day.is_some_and(|per_day| requests >= per_day),
        };
        if all {
            return self.fail(place, "the whole day is reserved for others".to_owned());
        }
        Some(reserve)
    }

    fn day(&mut self, place: &str, day: Option<file::DayFile>) -> Option<QuotaDay> {
        let Some(file::DayFile::Fixed(day)) = day else { return Some(QuotaDay::Rolling) };
        let resets_at = NaiveTime::parse_from_str(&day.resets_at, "%H:%M").ok();
        if resets_at.is_none() {
            let message = format!("`{}` is not a time of day, such as `00:00`", day.resets_at);
            self.fail::<()>(&format!("{place}.resets_at"), message);
        }
        let zone = day.zone.parse().ok();
        if zone.is_none() {
            let message = format!("`{}` is not a time zone, such as `America/New_York`", day.zone);
            self.fail::<()>(&format!("{place}.zone"), message);
        }
        Some(QuotaDay::Fixed { resets_at: resets_at?, zone: zone? })
    }
}

/// Single values.
impl Resolver<'_> {
    fn report<T>(&mut self, place: &str, kind: ProblemKind, message: String) -> Option<T> {
        let line = self.lines.of(place);
        self.problems.push(Problem { place: place.to_owned(), line, kind, message });
        None
    }

    fn fail<T>(&mut self, place: &str, message: String) -> Option<T> {
        self.report(place, ProblemKind::Value, message)
    }

    fn source_name(&mut self, place: &str, text: &str) -> Option<SourceName> {
        match text.parse() {
            Ok(name) => Some(name),
            Err(error) => self.fail(place, error.to_string()),
        }
    }

    /// A name that becomes part of a path; its form is that of a source's name.
    fn slug(&mut self, place: &str, text: String) -> Option<String> {
        match text.parse::<SourceName>() {
            Ok(_) => Some(text),
            Err(error) => self.fail(place, format!("`{text}` is not a name: {}", error.reason)),
        }
    }

    fn path(&mut self, place: &str, text: &str) -> Option<PathBuf> {
        if text.trim().is_empty() {
            return self.fail(place, "expected a path, found an empty text".to_owned());
        }
        if text.starts_with('~') {
            return self.fail(place, "`~` is a shell's word; write the path out".to_owned());
        }
        Some(self.folder.join(text))
    }

    fn secret(&mut self, place: &str, secret: SecretFile) -> Option<SecretRef> {
        match secret {
            SecretFile::File(path) => {
                let text = path.to_string_lossy().into_owned();
                self.path(&format!("{place}.file"), &text).map(SecretRef::File)
            }
            SecretFile::Env(name) if is_variable(&name) => Some(SecretRef::Env(name)),
            // What stands there may be the secret itself, so it is not repeated.
            SecretFile::Env(_) => self.fail(
                &format!("{place}.env"),
                "expected the name of an environment variable: letters, digits and `_`, first no \
                 digit"
                    .to_owned(),
            ),
        }
    }

    fn duration(&mut self, place: &str, text: &str) -> Option<TimeDelta> {
        let parsed = humantime::parse_duration(text).ok();
        match parsed.and_then(|duration| TimeDelta::from_std(duration).ok()) {
            // Beyond a lifetime, instants run out of the calendar.
            Some(duration) if duration > TimeDelta::days(36_500) => {
                self.fail(place, format!("`{text}` is more than a hundred years"))
            }
            Some(duration) => Some(duration),
            None => {
                self.fail(place, format!("`{text}` is not a time, such as `30m`, `48h` or `90d`"))
            }
        }
    }

    fn positive(&mut self, place: &str, text: &file::DurationText) -> Option<TimeDelta> {
        let duration = self.duration(place, &text.0)?;
        if duration <= TimeDelta::zero() {
            return self.fail(place, "expected a time longer than none".to_owned());
        }
        Some(duration)
    }

    fn reach(&mut self, place: &str, text: &file::ReachText) -> Option<Reach> {
        match text.0.as_str() {
            "all" => Some(Reach::All),
            text => self.duration(place, text).map(Reach::Back),
        }
    }

    fn percent(&mut self, place: &str, text: &file::PercentText) -> Option<Ratio> {
        let number = text.0.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        match number.and_then(|number| Ratio::new(number / 100.0)) {
            Some(ratio) => Some(ratio),
            None => {
                self.fail(place, format!("`{}` is not a percentage from `0%` to `100%`", text.0))
            }
        }
    }

    fn rate(&mut self, place: &str, text: &str) -> Option<Rate> {
        let parsed = text.split_once('/').and_then(|(requests, unit)| {
            let per = match unit.trim() {
                "ms" => TimeDelta::milliseconds(1),
                "s" => TimeDelta::seconds(1),
                "min" => TimeDelta::minutes(1),
                "h" => TimeDelta::hours(1),
                _ => return None,
            };
            Some(Rate { requests: requests.trim().parse().ok()?, per })
        });
        match parsed.filter(|rate| rate.requests > 0) {
            Some(rate) => Some(rate),
            None => self.fail(
                place,
                format!("`{text}` is not a rate, such as `5/s` or `300/min` (ms, s, min or h)"),
            ),
        }
    }

    fn base_url(&mut self, place: &str, text: &str) -> Option<Url> {
        // What stands there may hold credentials, so it is not repeated.
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => return self.fail(place, format!("not a URL: {error}")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return self.fail(place, "a URL must not carry credentials".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return self.fail(place, "a base URL has no query and no fragment".to_owned());
        }
        match url.scheme() {
            "https" => Some(url),
            "http" if is_loopback(&url) => Some(url),
            "http" => self.fail(
                place,
                "`http` would send the credentials readable by anyone; write `https`".to_owned(),
            ),
            scheme => self.fail(place, format!("`{scheme}` is not known here; write `https`")),
        }
    }

    fn currency(&mut self, place: &str, code: Option<String>) -> Option<String> {
        let code = code?;
        if currency::is_known(&code) {
            return Some(code);
        }
        self.fail(place, format!("`{code}` is not a currency of ISO 4217, such as `USD`"))
    }

    fn region(&mut self, place: &str, code: Option<&str>) -> Option<Country> {
        let code = code?;
        match Country::from_alpha2(code) {
            Ok(country) if country.alpha2 == code => Some(country),
            _ => {
                let message = format!("`{code}` is not a country of ISO 3166-1, such as `US`");
                self.fail(place, message)
            }
        }
    }

    /// An id at the provider, which becomes part of requests and paths.
    fn external_id(&mut self, place: &str, id: &str) {
        if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
            self.fail::<()>(place, format!("`{id}` is not an id of letters and digits"));
        }
    }

    fn header(&mut self, place: &str, name: &str) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(allowed) {
            self.fail::<()>(place, "expected the name of an HTTP header".to_owned());
        }
    }

    fn header_text(&mut self, place: &str, text: &str) {
        if !text.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
            self.fail::<()>(place, "expected text that may stand in an HTTP header".to_owned());
        }
    }

    fn each_once<T: PartialEq>(&mut self, place: &str, items: Vec<T>) -> Vec<T> {
        let twice = items.iter().enumerate().find(|(index, item)| items[..*index].contains(item));
        if let Some((index, _)) = twice {
            self.fail::<()>(&format!("{place}[{index}]"), "this is in the list twice".to_owned());
        }
        items
    }
}

fn common_of(source: &file::SourceFile) -> &file::CommonFile {
    match source {
        file::SourceFile::WhatConverts(source) => &source.common,
        file::SourceFile::Whautomate(source) => &source.common,
        file::SourceFile::Convertalk(source) => &source.common,
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
