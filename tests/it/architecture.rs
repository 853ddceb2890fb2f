//! Holds the layers of the map: a module imports only from layers with a smaller number.

use std::path::Path;
use std::path::PathBuf;

/// What a module of a layer may import: words of layer 0 may know each other, siblings above never.
const LAYERS: &[(&str, u8)] = &[
    ("error", 0),
    ("harmless", 0),
    ("calendar", 0),
    ("ids", 0),
    ("clock", 0),
    ("point", 0),
    ("seal", 0),
    ("spill", 0),
    ("store", 0),
    ("window", 0),
    ("zone", 0),
    ("record", 0),
    ("checkpoint", 0),
    ("contracts", 0),
    ("config", 1),
    ("schema", 1),
    ("quota", 1),
    ("plan", 2),
    ("extract", 2),
    ("transform", 2),
    ("archive", 2),
    ("load", 2),
    ("commit", 2),
    ("run", 3),
    ("report", 4),
    ("rehearse", 5),
    ("cli", 6),
    ("fuzzing", 6),
];

struct Source {
    path: PathBuf,
    module: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&root).unwrap();
                let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
                let module = first.trim_end_matches(".rs").to_owned();
                let text = std::fs::read_to_string(&path).unwrap();
                sources.push(Source { path: relative.to_owned(), module, text });
            }
        }
    }
    assert!(sources.len() > 50);
    sources
}

/// The sources without those that only tests are built of.
fn built() -> Vec<Source> {
    let all = sources();
    let tests: Vec<PathBuf> = all.iter().flat_map(test_modules).collect();
    all.into_iter().filter(|source| !tests.contains(&source.path)).collect()
}

fn test_modules(source: &Source) -> Vec<PathBuf> {
    let folder = source.path.parent().unwrap();
    let mut lines = source.text.lines().peekable();
    let mut modules = Vec::new();
    while let Some(line) = lines.next() {
        let declared = lines.peek().and_then(|next| next.strip_prefix("mod ")?.strip_suffix(';'));
        if let ("#[cfg(test)]", Some(name)) = (line, declared) {
            modules.push(folder.join(format!("{name}.rs")));
        }
    }
    modules
}

fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let lines = source.text.lines().enumerate();
    lines.map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The modules that a line of code names by `crate::`.
fn named(line: &str) -> Vec<&str> {
    let after = line.split("crate::").skip(1);
    after
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap())
        .collect()
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

fn may_import(module: &str, other: &str) -> bool {
    if module == other || other.is_empty() {
        return true;
    }
    match (module, other) {
        // The other side of the wire shares nothing but the clock; only rehearsals and the terminal
        // start it.
        ("sandbox", other) => other == "clock",
        // A store finishes files, and says of each what a commit says of it.
        ("store", "schema") => true,
        (module, "sandbox") => matches!(module, "rehearse" | "cli"),
        _ => match (layer(module), layer(other)) {
            (Some(0), Some(0)) => true,
            (Some(module), Some(other)) => other < module,
            _ => false,
        },
    }
}

#[test]
fn a_module_imports_only_from_layers_below_it() {
    let mut wrong = Vec::new();
    for source in sources() {
        if matches!(source.module.as_str(), "lib" | "main") {
            continue;
        }
        for (at, line) in code(&source) {
            for other in named(line).into_iter().filter(|other| !may_import(&source.module, other))
            {
                wrong.push(format!("{}:{at} imports {other}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_module_has_its_layer() {
    for source in sources() {
        let known = layer(&source.module).is_some()
            || matches!(source.module.as_str(), "lib" | "main" | "sandbox");
        assert!(known, "{} is not on the map", source.path.display());
    }
}

#[test]
fn every_file_says_first_what_it_is_for() {
    for source in sources() {
        assert!(source.text.starts_with("//! "), "{}", source.path.display());
    }
}

#[test]
fn only_the_command_line_prints() {
    for source in built().iter().filter(|source| source.module != "cli") {
        for (at, line) in code(source) {
            for print in ["println!", "print!(", "dbg!"] {
                assert!(!line.contains(print), "{}:{at} prints", source.path.display());
            }
        }
    }
}

#[test]
fn imports_are_one_a_line() {
    for source in sources() {
        for (at, line) in code(&source) {
            let import = line.trim_start().trim_start_matches("pub ").starts_with("use ");
            assert!(!(import && line.contains('{')), "{}:{at}", source.path.display());
        }
    }
}

#[test]
fn time_has_one_home() {
    // A network's slowness is real time, whatever the clock says.
    let own = ["clock", "sandbox"];
    for source in built().iter().filter(|source| !own.contains(&source.module.as_str())) {
        for (at, line) in code(source) {
            for call in ["Utc::now()", "SystemTime::now()", "thread::sleep(", "time::sleep("] {
                assert!(!line.contains(call), "{}:{at} has its own time", source.path.display());
            }
        }
    }
}

/// What touches a disk.
const TOUCHES: [&str; 20] = [
    "fs::read(",
    "fs::read_to_string(",
    "fs::read_dir(",
    "fs::write(",
    "fs::rename(",
    "fs::remove_",
    "fs::hard_link(",
    "fs::copy(",
    "fs::create_dir",
    "fs::symlink(",
    "fs::set_permissions(",
    "File::open(",
    "File::create(",
    "File::options(",
    "OpenOptions::new(",
    "tempfile_in(",
    "tempdir_in(",
    ".persist",
    ".sync_",
    ".set_len(",
];

/// Where a lake, a ledger or a scratch folder is touched: there every function that does passes points.
const LAKES: [&str; 7] = [
    "store/append.rs",
    "store/folder.rs",
    "commit/key.rs",
    "commit/lock.rs",
    "load/runs.rs",
    "load/staging.rs",
    "spill/mod.rs",
];

/// What is read or written outside of lakes: job files, secrets, the folder of the demo, of a rehearsal
/// and of schemas, the name of the machine.
const ELSEWHERE: [&str; 9] = [
    "point.rs",
    "contracts.rs",
    "config/mod.rs",
    "config/secret.rs",
    "cli/demo.rs",
    "cli/schema.rs",
    "fuzzing/seeds.rs",
    "rehearse/stage.rs",
    "run/lake.rs",
];

/// The functions of a file outside of its tests, as text, each with its first line.
fn functions(source: &Source) -> Vec<String> {
    let code = source.text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let mut functions = vec![String::new()];
    for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let begins = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(super) ");
        if begins.starts_with("fn ") || begins.starts_with("async fn ") {
            functions.push(String::new());
        }
        let function = functions.last_mut().unwrap();
        function.push_str(line);
        function.push('\n');
    }
    functions
}

#[test]
fn what_touches_a_disk_has_its_home_and_passes_points_there() {
    let mut wrong = Vec::new();
    let mut touching = 0;
    for source in built().iter().filter(|source| source.module != "sandbox") {
        let path = source.path.to_str().unwrap();
        for function in functions(source) {
            let touches = {
                // Writers of ours that are called so go through the store.
                let function = function.replace("ParquetFile::create(", "");
                TOUCHES.iter().any(|call| function.contains(call))
            };
            let is_fine = ELSEWHERE.contains(&path)
                || (LAKES.contains(&path) && function.to_lowercase().contains("steps"));
            touching += usize::from(touches);
            if touches && !is_fine {
                wrong.push(format!("{path}: {}", function.lines().next().unwrap()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(touching > 25, "{touching}");
}

#[test]
fn the_rule_itself_tells_above_from_below() {
    assert!(may_import("extract", "quota") && may_import("checkpoint", "record"));
    assert!(!may_import("extract", "load") && !may_import("quota", "config"));
    assert!(!may_import("transform", "run") && !may_import("sandbox", "record"));
    assert!(!may_import("run", "sandbox") && may_import("cli", "sandbox"));
    assert_eq!(named("use crate::ids::Seq; crate::load::x"), ["ids", "load"]);
}
