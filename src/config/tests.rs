//! Whole job files: those we ship, the one of the design, and those that are wrong.

use std::error::Error as _;
use std::fmt::Write as _;
use std::path::Path;
use std::path::PathBuf;

use chrono::TimeDelta;
use proptest::prelude::*;
use secrecy::ExposeSecret;
use secrecy::SecretString;
use serde_json::Value as Json;

use super::*;
use crate::error::Hint;
use crate::ids::ProviderId;

const SHIPPED: [(&str, &str); 4] = [
    ("jobs/nightly.toml", include_str!("../../jobs/nightly.toml")),
    ("jobs/backfill.toml", include_str!("../../jobs/backfill.toml")),
    ("jobs/demo.toml", include_str!("../../jobs/demo.toml")),
    ("tests/fixtures/job/design.toml", DESIGN),
];

const DESIGN: &str = include_str!("../../tests/fixtures/job/design.toml");

/// A job file with nothing that has a default.
const LEAST: &str = r#"
name = "least"
lake = "lake"

[[sources]]
name = "acme"
provider = "whatconverts"
token = { env = "T" }
secret = { env = "S" }
plan = "profile"
start = 2024-01-01
"#;

fn parse(text: &str) -> Result<Job, Error> {
    Job::parse(text, Path::new("jobs/job.toml"))
}

fn whatconverts(job: &Job) -> &WhatConvertsSettings {
    match &job.sources[0].provider {
        ProviderSettings::WhatConverts(settings) => settings,
        other => panic!("{other:?}"),
    }
}

/// What the terminal shows of a job file that is wrong.
fn refusal(text: &str) -> String {
    let error = parse(text).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    let mut shown = error.to_string();
    if let Some(hint) = error.hint() {
        write!(shown, "\n\nhint: {hint}").unwrap();
    }
    shown
}

/// The least job with `from` replaced by `to`.
fn least_with(from: &str, to: &str) -> String {
    assert!(LEAST.contains(from));
    LEAST.replace(from, to)
}

/// TOML as an editor shows it to a JSON Schema: dates are texts.
fn to_json(value: Value) -> Json {
    match value {
        Value::Table(table) => {
            Json::Object(table.into_iter().map(|(key, value)| (key, to_json(value))).collect())
        }
        Value::Array(items) => Json::Array(items.into_iter().map(to_json).collect()),
        Value::Datetime(at) => Json::String(at.to_string()),
        other => serde_json::to_value(other).unwrap(),
    }
}

#[test]
fn every_shipped_job_is_valid_and_fits_the_published_schema() {
    let validator = jsonschema::validator_for(&schema::SCHEMA).unwrap();
    for (path, text) in SHIPPED {
        Job::parse(text, Path::new(path)).unwrap_or_else(|error| panic!("{error}"));
        assert!(text.starts_with("#:schema ../schemas/job.v1.json\n"), "{path}");
        let document = to_json(Value::Table(text.parse().unwrap()));
        let problems: Vec<String> =
            validator.iter_errors(&document).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{path}: {problems:?}");
    }
}

#[test]
fn the_published_schema_refuses_what_we_refuse() {
    let validator = jsonschema::validator_for(&schema::SCHEMA).unwrap();
    for (from, to) in [
        ("plan = \"profile\"", ""),
        ("plan = \"profile\"", "plan = \"agency\""),
        ("plan = \"profile\"", "plan = \"profile\"\nwindow_day = 3"),
        ("plan = \"profile\"", "plan = \"profile\"\nwindow_days = 401"),
        ("plan = \"profile\"", "plan = \"profile\"\nquota = { per_dya = 3 }"),
        ("{ env = \"T\" }", "\"abc\""),
        ("\"whatconverts\"", "\"callrail\""),
        ("2024-01-01", "7"),
    ] {
        let text = least_with(from, to);
        let document = to_json(Value::Table(text.parse().unwrap()));
        assert!(!validator.is_valid(&document), "{to}");
        assert!(parse(&text).is_err(), "{to}");
    }
}

#[test]
fn the_example_of_the_design_means_what_it_says() {
    let job = Job::parse(DESIGN, Path::new("jobs/design.toml")).unwrap();
    assert_eq!(job.name, "agency-nightly");
    assert_eq!(job.lake, Path::new("jobs/../lake").into());
    let providers: Vec<_> = job.sources.iter().map(SourceSettings::provider_id).collect();
    assert_eq!(
        providers,
        [ProviderId::WhatConverts, ProviderId::Whautomate, ProviderId::Convertalk]
    );
    let acme = &job.sources[0];
    assert_eq!(acme.was[0].as_str(), "acme-old");
    assert_eq!(acme.currency_of(Some(123)), Some("GBP"));
    assert_eq!(acme.currency_of(Some(7)), Some("USD"));
    assert_eq!(acme.region_of(Some(123)).map(|country| country.alpha2), Some("GB"));
    assert_eq!(acme.quota.per_day, Some(1000));
    assert_eq!(acme.quota.reserve, Ratio::new(0.1).map(Reserve::Ratio));
    assert_eq!(acme.quota.group.as_deref(), Some("acme"));
    let settings = whatconverts(&job);
    assert_eq!(settings.start.to_rfc3339(), "2019-01-01T00:00:00+00:00");
    assert_eq!(settings.plan, WhatConvertsPlan::Master);
    assert!(!settings.profiles.selects(991) && settings.profiles.selects(123));
    let ProviderSettings::Convertalk(bots) = &job.sources[2].provider else { panic!() };
    assert_eq!(bots.streams, [ConvertalkStream::Chats]);
    assert_eq!(bots.users_auth.prefix, "Bearer ");
}

#[test]
fn what_is_left_out_is_as_in_the_design() {
    let least = parse(LEAST).unwrap();
    let design = Job::parse(DESIGN, Path::new("jobs/design.toml")).unwrap();
    assert_eq!(least.run, design.run);
    assert_eq!(least.refresh, design.refresh);
    assert_eq!(least.load.max_delete_ratio, design.load.max_delete_ratio);
    assert_eq!(least.keep, design.keep);
    assert_eq!(least.archive, design.archive);
    assert_eq!(least.csv, design.csv);
    assert_eq!(least.run.publish_every, TimeDelta::minutes(30));
    assert_eq!(least.refresh.weekly, Reach::Back(TimeDelta::days(400)));
    assert_eq!(least.refresh.monthly, Reach::All);
    let settings = whatconverts(&least);
    assert_eq!((settings.window_days, settings.page_size), (400, 2500));
    assert_eq!(settings.date_parameters, ["start_date", "end_date"]);
    assert_eq!((settings.spam, settings.duplicate), (MarkFilter::Default, MarkFilter::Default));
    let source = &least.sources[0];
    assert_eq!(source.base_url.as_str(), "https://app.whatconverts.com/");
    assert_eq!((source.timeout, source.retries), (TimeDelta::seconds(60), 5));
    assert_eq!(source.quota, QuotaSettings::default());
}

#[test]
fn defaults_stay_where_a_table_is_given_in_part() {
    let job =
        parse(&format!("{LEAST}\n[run]\nwalk_max_age = {{ scans = \"60d\" }}\nlookups = 0\n"))
            .unwrap();
    assert_eq!(job.run.window_max_age, TimeDelta::hours(48));
    assert_eq!(job.run.scan_max_age, TimeDelta::days(60));
    assert_eq!(job.run.lookups, 0);
    assert_eq!(job.run.patience, TimeDelta::hours(1));
}

#[test]
fn quota_overrides_are_typed() {
    let quota = "[sources.quota]\nrate = \"300/min\"\nat_once = 3\nreserve = 50\n\
                 day = { resets_at = \"06:30\", zone = \"America/New_York\" }\n";
    let job = parse(&format!("{LEAST}{quota}")).unwrap();
    let quota = &job.sources[0].quota;
    assert_eq!(quota.rate, Some(Rate { requests: 300, per: TimeDelta::minutes(1) }));
    assert_eq!(quota.at_once, Some(3));
    assert_eq!(quota.reserve, Some(Reserve::Requests(50)));
    let QuotaDay::Fixed { resets_at, zone } = quota.day else { panic!() };
    assert_eq!(
        (resets_at.to_string().as_str(), zone),
        ("06:30:00", "America/New_York".parse().unwrap())
    );
}

#[test]
fn compression_goes_to_the_form_that_knows_it() {
    let resolved = |load: &str| {
        let job = parse(&format!("{LEAST}[load]\n{load}\n")).unwrap();
        (job.load.parquet_compression.as_str(), job.load.csv_compression.as_str())
    };
    assert_eq!(resolved(""), ("zstd", "none"));
    assert_eq!(resolved("compression = \"snappy\""), ("snappy", "none"));
    assert_eq!(resolved("format = \"csv\"\ncompression = \"gzip\""), ("zstd", "gzip"));
    assert_eq!(resolved("format = \"both\"\ncompression = \"zstd\""), ("zstd", "zstd"));
    assert_eq!(resolved("format = \"both\""), ("zstd", "none"));
    assert_eq!(resolved("nested = \"native\""), ("zstd", "none"));
}

#[test]
fn plain_http_is_for_this_machine_alone() {
    for host in ["127.0.0.1:8080", "127.8.9.1", "[::1]:80", "localhost:1"] {
        let url = format!("base_url = \"http://{host}\"\nplan");
        parse(&least_with("plan", &url)).unwrap();
    }
    for host in ["example.com", "203.0.113.7", "localhost.example.com", "[::2]", "0.0.0.0"] {
        let url = format!("base_url = \"http://{host}\"\nplan");
        assert!(parse(&least_with("plan", &url)).is_err(), "{host}");
    }
}

#[test]
fn a_short_page_ends_a_listing_only_where_the_job_says_so() {
    let clinic = |more: &str| {
        let text = format!(
            "{LEAST}[[sources]]\nname = \"clinic\"\nprovider = \"whautomate\"\n\
             api_key = {{ env = \"K\" }}\nplan = \"trial\"\n{more}",
        );
        match &parse(&text).unwrap().sources[1].provider {
            ProviderSettings::Whautomate(settings) => settings.short_page_ends,
            other => panic!("{other:?}"),
        }
    };
    assert!(!clinic(""));
    assert!(clinic("short_page_ends = true"));
}

#[test]
fn what_goes_into_a_header_must_fit_into_one() {
    let with = |users_auth: &str| {
        parse(&format!(
            "{LEAST}[[sources]]\nname = \"bots\"\nprovider = \"convertalk\"\n\
             bot_ids = [\"1\"]\ncustomer_id = \"2\"\ntoken = {{ env = \"K\" }}\n\
             users_auth = {{ {users_auth} }}\n",
        ))
    };
    assert!(with("prefix = \"\", authtype = \"\"").is_ok());
    for wrong in ["prefix = \"Bärer \"", "authtype = \"a\\nb\"", "header = \"two words\""] {
        let shown = with(wrong).unwrap_err().to_string();
        assert!(shown.contains("sources[1].users_auth."), "{shown}");
    }
}

#[test]
fn paths_are_taken_from_the_folder_of_the_job_file() {
    let text = least_with("{ env = \"T\" }", "{ file = \"secrets/token\" }");
    let job = Job::parse(&text, Path::new("/srv/jobs/job.toml")).unwrap();
    assert_eq!(job.lake, Path::new("/srv/jobs/lake").into());
    let SecretRef::File(path) = &whatconverts(&job).token else { panic!() };
    assert_eq!(path, Path::new("/srv/jobs/secrets/token"));
    let absolute = least_with("lake = \"lake\"", "lake = \"/lakes/one\"");
    assert_eq!(parse(&absolute).unwrap().lake, Path::new("/lakes/one").into());
}

#[test]
fn a_stand_in_takes_the_place_of_lake_servers_and_credentials() {
    let stand_in = StandIn {
        lake: PathBuf::from("elsewhere"),
        base_url: Url::parse("http://127.0.0.1:4000").unwrap(),
        whatconverts: (SecretString::from("one"), SecretString::from("two")),
        whautomate: Vec::new(),
        convertalk: SecretString::from("three"),
    };
    let text = least_with("lake = \"lake\"", "lake = \"lake\"\nquota_dir = \"shared\"")
        + "[privacy]\nkey = { env = \"KEY\" }\n";
    let own = parse(&text).unwrap();
    assert!(own.quota_dir.is_some() && own.privacy.key.is_some());
    let job = own.with_stand_in(&stand_in);
    assert_eq!(job.lake, Path::new("elsewhere").into());
    assert!(job.quota_dir.is_none() && job.privacy.key.is_none());
    assert_eq!(job.sources[0].base_url, stand_in.base_url);
    assert_eq!(whatconverts(&job).secret.read().unwrap().expose_secret(), "two");
}

#[test]
fn a_file_from_a_windows_editor_is_read_alike() {
    let text = format!("\u{feff}{}", LEAST.replace('\n', "\r\n"));
    assert_eq!(parse(&text).unwrap().name, "least");
    let shown = refusal(&format!("{text}tmeout = \"1s\"\r\n"));
    assert!(shown.starts_with("jobs/job.toml:12: `sources[0].tmeout`"), "{shown}");
}

#[test]
fn a_job_file_that_is_not_there_is_named() {
    let error = Job::load(Path::new("nowhere/job.toml")).unwrap_err();
    assert_eq!(error.to_string(), "failed to read job file `nowhere/job.toml`");
    assert!(error.source().is_some() && error.hint().is_some());
}

#[test]
fn misspelt_keys_name_the_nearest_at_their_place() {
    let text = format!(
        "nmae = \"x\"\n{LEAST}widow_days = 400\npage-size = 5\n\
         [sources.quota]\nper_dya = 3\nday = {{ reset_at = \"00:00\", zone = \"UTC\" }}\n\
         [sources.profiles.123]\ncurency = \"USD\"\n\
         [run]\nwalk_max_age = {{ window = \"1h\" }}\nzzzzzz = 1\n[laod]\n",
    );
    insta::assert_snapshot!(refusal(&text));
}

#[test]
fn a_key_of_another_provider_is_not_taken_in_silence() {
    insta::assert_snapshot!(refusal(&format!("{LEAST}bot_ids = [\"631a\"]\napi_key = \"abc\"\n")));
}

#[test]
fn a_literal_secret_is_refused_and_not_repeated() {
    let text = least_with("{ env = \"T\" }", "\"hunter2\"")
        .replace("{ env = \"S\" }", "{ environment = \"hunter2\" }")
        + "[privacy]\nkey = { env = \"$hunter2\" }\n";
    let shown = refusal(&text);
    assert!(!shown.contains("hunter2"));
    insta::assert_snapshot!(shown);
}

#[test]
fn no_error_shows_a_line_that_may_hold_a_secret() {
    for broken in ["\"hunter2", "hunter2", "{ env = \"hunter2 }", "[\"hunter2\"", "'hunter2\n'"] {
        let shown = refusal(&least_with("{ env = \"T\" }", broken));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    insta::assert_snapshot!(refusal(&least_with("{ env = \"T\" }", "\"hunter2")));
}

#[test]
fn addresses_are_https_and_carry_no_credentials() {
    let with = |url: &str| refusal(&least_with("plan", &format!("base_url = \"{url}\"\nplan")));
    insta::assert_snapshot!(
        [
            with("http://example.com"),
            with("https://user:hunter2@example.com"),
            with("https://example.com/?key=hunter2"),
            with("ftp://example.com"),
            with("example.com"),
        ]
        .join("\n")
    );
}

#[test]
fn what_must_be_given_is_asked_for() {
    insta::assert_snapshot!(
        [
            refusal(""),
            refusal("name = \"x\"\nlake = \"lake\"\nsources = []\n"),
            refusal("name = \"x\"\nlake = \"lake\"\n[[sources]]\nprovider = \"whatconverts\"\n"),
            refusal("name = \"x\"\nlake = \"lake\"\n[[sources]]\nprovider = \"whautomate\"\n"),
            refusal("name = \"x\"\nlake = \"lake\"\n[[sources]]\nprovider = \"convertalk\"\n"),
            refusal("name = \"x\"\nlake = \"lake\"\n[[sources]]\nname = \"y\"\n"),
            refusal(&least_with("plan = \"profile\"", "")),
        ]
        .join("\n\n")
    );
}

#[test]
fn words_out_of_a_list_are_checked() {
    let text = least_with("\"profile\"", "\"mastr\"")
        + "spam = \"all\"\n[load]\nformat = \"CSV\"\npartition = \"day\"\n";
    insta::assert_snapshot!(refusal(&text));
    insta::assert_snapshot!(refusal(&least_with("\"whatconverts\"", "\"what-converts\"")));
    insta::assert_snapshot!(refusal(&least_with("\"whatconverts\"", "\"callrail\"")));
}

#[test]
fn wrong_types_say_what_is_expected() {
    let text = least_with("2024-01-01", "\"2024-01-01\"")
        + "window_days = \"400\"\nretries = 1.5\nwas = \"old\"\nexclude_profiles = [\"991\"]\n\
           [sources.quota]\nreserve = true\nday = 7\n\
           [run]\npublish_every = 30\nwalk_max_age = \"48h\"\n[csv]\nformula_guard = \"yes\"\n";
    insta::assert_snapshot!(refusal(&text));
}

#[test]
fn numbers_have_bounds() {
    let text = format!(
        "{LEAST}window_days = 401\npage_size = 0\ndate_parameters = [\"from\"]\nretries = -1\n\
         [sources.quota]\nper_day = 0\nat_once = 99999999999999999999\nreserve = -1\n[keep]\nsnapshots = 0\n",
    );
    insta::assert_snapshot!(refusal(&text));
}

#[test]
fn values_are_checked_for_what_they_mean() {
    let text = least_with("name = \"least\"", "name = \"Not a slug\"")
        .replace("lake = \"lake\"", "lake = \"~/lake\"\nquota_dir = \"\"")
        + "currency = \"usd\"\ndefault_region = \"UK\"\ntimeout = \"0s\"\n\
           exclude_profiles = [991]\ndate_parameters = [\"from\", \"from\"]\n\
           [sources.profiles.main]\ncurrency = \"XXX\"\n\
           [sources.quota]\nrate = \"300/day\"\nreserve = \"100%\"\ngroup = \"../x\"\n\
           day = { resets_at = \"24:00\", zone = \"America/Gotham\" }\n\
           [run]\npatience = \"soon\"\npublish_every = \"0m\"\nmemory_limit = \"half of it\"\n\
           [refresh]\nweekly = \"everything\"\nspare = \"110%\"\n\
           [load]\ncompression = \"gzip\"\nmax_delete_ratio = \"0.2\"\n";
    insta::assert_snapshot!(refusal(&text));
}

#[test]
fn memory_that_no_page_fits_into_is_refused_from_the_job_as_from_elsewhere() {
    let little = format!("{LEAST}[run]\nmemory_limit = \"40MB\"\n");
    let refused = refusal(&little);
    assert!(refused.contains("`run.memory_limit`: a memory limit of 40MB is too"), "{refused}");
    let small_pages = little.replace("40MB", "85MB");
    assert!(parse(&small_pages).is_err());
    assert!(parse(&format!("{LEAST}page_size = 500\n[run]\nmemory_limit = \"85MB\"\n")).is_ok());
    let job = parse(LEAST).unwrap();
    assert_eq!(job.run.memory_limit.to_string(), "150MB");
    let job = job.within_memory("1GB".parse().ok()).unwrap();
    assert_eq!(job.run.memory_limit.to_string(), "1000MB");
    assert_eq!(job.clone().within_memory(None).unwrap().run, job.run);
    assert!(matches!(job.within_memory("9MB".parse().ok()), Err(Error::TooLittleMemory(_))));
}

#[test]
fn a_listing_of_more_than_a_profile_leaves_nothing_out_of_what_it_shows() {
    let agency = |more: &str| {
        let all = "include_accounts = [45]\nexclude_profiles = [7]";
        least_with("plan = \"profile\"", &format!("plan = \"master\"\n{more}\n{all}"))
    };
    let clinic = "[[sources]]\nname = \"clinic\"\nprovider = \"whautomate\"\n\
                  api_key = { env = \"K\" }\nplan = \"trial\"\npartition_by = \"none\"\n";
    assert_eq!(whatconverts(&parse(&agency("")).unwrap()).partition_by, PartitionBy::Profile);
    insta::assert_snapshot!(
        [
            refusal(&agency("partition_by = \"account\"")),
            refusal(&agency("partition_by = \"none\"")),
            refusal(&agency("partition_by = \"acount\"")),
            refusal(&format!("{LEAST}partition_by = \"none\"\n")),
            refusal(&format!("{LEAST}{clinic}")),
        ]
        .join("\n\n")
    );
    let accounts = agency("partition_by = \"account\"").replace("exclude_profiles = [7]", "");
    assert!(parse(&accounts).is_ok());
}

#[test]
fn names_are_given_once() {
    let second = "[[sources]]\nname = \"beta\"\nprovider = \"whautomate\"\n\
                  api_key = { env = \"K\" }\nplan = \"trial\"\nwas = [\"acme\", \"Old\"]\n\
                  streams = [\"clients\", \"clients\"]\n";
    let third = second.replace("beta", "acme").replace("acme\", ", "beta\", ");
    insta::assert_snapshot!(refusal(&format!("{LEAST}{second}{third}")));
}

#[test]
fn bots_are_named_and_an_account_is_listed_once() {
    let bots = |name: &str, rest: &str| {
        format!(
            "[[sources]]\nname = \"{name}\"\nprovider = \"convertalk\"\ntoken = {{ env = \"B\" }}\n\
             customer_id = \"631a\"\n{rest}\n"
        )
    };
    let text = format!(
        "{LEAST}{}{}{}",
        bots("chats", "auth_header = \"x bot\""),
        bots("users", "streams = [\"users\"]\nbot_ids = [\"a/b\"]"),
        bots("again", "streams = [\"users\"]"),
    );
    insta::assert_snapshot!(refusal(&text));
}

#[test]
fn selections_do_not_contradict_each_other() {
    let text = least_with("\"profile\"", "\"master\"")
        + "include_accounts = [1, 2]\nexclude_accounts = [2]\n";
    insta::assert_snapshot!(refusal(&text));
}

#[test]
fn a_bucket_is_a_problem_of_its_own_kind() {
    let text = least_with("lake = \"lake\"", "lake = \"s3://bucket/leads\"");
    assert_eq!(parse(&text).unwrap().lake, Place::bucket("s3://bucket/leads").unwrap());
    let text = text.replace("bucket/leads", "key:secret@bucket");
    let Error::Invalid { problems, .. } = parse(&text).unwrap_err() else { panic!() };
    assert_eq!(problems[0].kind, ProblemKind::Bucket);
    insta::assert_snapshot!(refusal(&text));
    insta::assert_snapshot!(refusal(&text.replace("s3://", "file:///")));
}

#[test]
fn problems_of_form_and_of_meaning_are_told_together() {
    let text = format!("{LEAST}currency = \"usd\"\nwindow_dayz = 4\n");
    insta::assert_snapshot!(refusal(&text));
}

proptest! {
    #[test]
    fn any_key_that_is_not_known_is_refused_with_its_place(key in "[a-z_]{1,12}") {
        let known = &schema::SCHEMA["definitions"]["WhatConvertsFile"]["properties"];
        prop_assume!(known.get(&key).is_none());
        let error = parse(&format!("{LEAST}{key} = 1\n")).unwrap_err();
        let place = format!("jobs/job.toml:12: `sources[0].{key}`: unknown key");
        prop_assert!(error.to_string().starts_with(&place), "{error}");
    }

    #[test]
    fn times_and_parts_are_read_as_written(hours in 1_i64..10_000, percent in 0_u32..100) {
        let text = format!(
            "{LEAST}[run]\npatience = \"{hours}h\"\n[refresh]\nweekly = \"{hours}d\"\n\
             spare = \"{percent}%\"\n[sources.quota]\nreserve = \"{percent}.5%\"\n",
        );
        let job = parse(&text).unwrap();
        prop_assert_eq!(job.run.patience, TimeDelta::hours(hours));
        prop_assert_eq!(job.refresh.weekly, Reach::Back(TimeDelta::days(hours)));
        prop_assert_eq!(job.refresh.spare.get(), f64::from(percent) / 100.0);
        let Some(Reserve::Ratio(reserve)) = job.sources[0].quota.reserve else { panic!() };
        prop_assert!((reserve.get() - (f64::from(percent) + 0.5) / 100.0).abs() < 1e-9);
    }

    #[test]
    fn no_text_makes_the_parser_fail_other_than_by_saying_so(text in "[ -~\n]{0,200}") {
        if let Err(error) = parse(&text) {
            prop_assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
        }
    }
}
