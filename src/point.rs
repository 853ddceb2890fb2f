//! Named points on the way of everything that touches disk or network, at which a test can let the
//! process die or the disk fail.
//!
//! An operation has [`Steps`], named by place and operation, as in `commits/write`; each moment of it
//! that a crash could fall into is a point, as in `commits/write/staged`. What happens there is a
//! [`Plan`], set once a process by the command line. Only builds with debug assertions have points:
//! in a release, steps are nothing, and what asks them is compiled to nothing.

use std::io;
use std::io::Write;

/// The steps of one operation at one place.
#[derive(Debug, Clone, Default)]
pub struct Steps {
    /// Nothing where no plan is set, so that nobody pays for a name.
    #[cfg(debug_assertions)]
    name: Option<String>,
}

impl Steps {
    /// Returns the steps of the operation that `name` gives, e.g. `commits/write`.
    pub fn new(name: impl FnOnce() -> String) -> Self {
        #[cfg(debug_assertions)]
        return Self { name: active::is_set().then(name) };
        #[cfg(not(debug_assertions))]
        {
            drop(name);
            Self {}
        }
    }

    /// Passes a moment that no disk can spoil: a request, a hand-over, the end of an operation.
    pub fn reach(&self, moment: &str) {
        #[cfg(debug_assertions)]
        if let Some(name) = &self.name {
            active::pass(active::Kind::Reach, name, moment);
        }
        #[cfg(not(debug_assertions))]
        let _ = moment;
    }

    /// Passes the moment before something is read.
    ///
    /// # Errors
    ///
    /// Where the plan has the disk fail here, as do its siblings.
    pub fn read(&self, moment: &str) -> io::Result<()> {
        #[cfg(debug_assertions)]
        if let Some(name) = &self.name {
            return active::pass(active::Kind::Read, name, moment)
                .map_or(Ok(()), |fault| fault.fail());
        }
        #[cfg(not(debug_assertions))]
        let _ = moment;
        Ok(())
    }

    /// Passes the moment before something is changed: a name made, moved or removed, a file synced.
    pub fn change(&self, moment: &str) -> io::Result<()> {
        #[cfg(debug_assertions)]
        if let Some(name) = &self.name {
            return active::pass(active::Kind::Change, name, moment)
                .map_or(Ok(()), |fault| fault.fail());
        }
        #[cfg(not(debug_assertions))]
        let _ = moment;
        Ok(())
    }

    /// Writes `bytes` with `write`; of a write that the plan has fail or torn, half is written.
    pub fn write(
        &self,
        moment: &str,
        bytes: &[u8],
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        #[cfg(debug_assertions)]
        if let Some(name) = &self.name
            && let Some(fault) = active::pass(active::Kind::Write, name, moment)
        {
            if fault.writes_half() {
                write(&bytes[..bytes.len() / 2])?;
            }
            return fault.fail();
        }
        #[cfg(not(debug_assertions))]
        let _ = moment;
        write(bytes)
    }
}

/// A writer whose writes are steps of an operation.
#[derive(Debug)]
pub struct Stepped<W> {
    /// What is written to.
    pub inner: W,
    /// The operation.
    pub steps: Steps,
}

impl<W: Write> Write for Stepped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let inner = &mut self.inner;
        self.steps.write("bytes", bytes, |bytes| inner.write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(debug_assertions)]
pub use active::Plan;
#[cfg(debug_assertions)]
pub use active::set;

/// What a test build has behind the points.
#[cfg(debug_assertions)]
mod active {
    use std::collections::HashMap;
    use std::fmt;
    use std::fs::File;
    use std::io;
    use std::io::Write;
    use std::path::PathBuf;
    use std::str::FromStr;
    use std::sync::Mutex;
    use std::sync::OnceLock;
    use std::sync::PoisonError;

    /// What is to happen at which points.
    ///
    /// As text, parted by `;`: `record FILE` appends the kind and the name of every point passed to a
    /// file, a line each; `die NAME#2` ends the process at the second time that a point is passed;
    /// `full`, `denied` and `failing` have the disk fail there, without room, without permission, or by
    /// itself, and with `+` behind the number at everything that is changed from then on; `torn` has
    /// half of the bytes written, and then ends the process.
    #[derive(Debug, Clone, Default)]
    pub struct Plan {
        record: Option<PathBuf>,
        faults: Vec<Planned>,
    }

    #[derive(Debug, Clone)]
    struct Planned {
        fault: Fault,
        name: String,
        occurrence: u64,
        lasts: bool,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Fault {
        Die,
        Full,
        Denied,
        Failing,
        Torn,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Kind {
        Reach,
        Read,
        Change,
        Write,
    }

    impl fmt::Display for Kind {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str(match self {
                Self::Reach => "reach",
                Self::Read => "read",
                Self::Change => "change",
                Self::Write => "write",
            })
        }
    }

    /// What the operating system calls them, on every system that leadpipe runs on.
    const EIO: i32 = 5;
    const EACCES: i32 = 13;
    const ENOSPC: i32 = 28;

    impl Fault {
        /// Fails as the operating system does, or ends the process.
        pub(super) fn fail(self) -> io::Result<()> {
            let code = match self {
                Self::Die | Self::Torn => std::process::abort(),
                Self::Full => ENOSPC,
                Self::Denied => EACCES,
                Self::Failing => EIO,
            };
            Err(io::Error::from_raw_os_error(code))
        }

        pub(super) fn writes_half(self) -> bool {
            matches!(self, Self::Torn | Self::Full | Self::Failing)
        }
    }

    impl FromStr for Plan {
        type Err = String;

        fn from_str(text: &str) -> Result<Self, String> {
            let mut plan = Self::default();
            for item in text.split(';').map(str::trim).filter(|item| !item.is_empty()) {
                let unclear = || format!("`{item}` is no `record FILE` and no `die NAME#1`");
                let (what, rest) = item.split_once(' ').ok_or_else(unclear)?;
                let fault = match what {
                    "record" => {
                        plan.record = Some(PathBuf::from(rest));
                        continue;
                    }
                    "die" => Fault::Die,
                    "full" => Fault::Full,
                    "denied" => Fault::Denied,
                    "failing" => Fault::Failing,
                    "torn" => Fault::Torn,
                    _ => return Err(unclear()),
                };
                let (name, number) = rest.rsplit_once('#').ok_or_else(unclear)?;
                let lasts = number.ends_with('+');
                let occurrence = number.trim_end_matches('+').parse().map_err(|_| unclear())?;
                plan.faults.push(Planned { fault, name: name.to_owned(), occurrence, lasts });
            }
            Ok(plan)
        }
    }

    struct Set {
        record: Option<Mutex<File>>,
        faults: Vec<Planned>,
        passed: Mutex<Passed>,
    }

    #[derive(Default)]
    struct Passed {
        times: HashMap<String, u64>,
        lasting: Option<Fault>,
    }

    static SET: OnceLock<Set> = OnceLock::new();

    /// Sets what happens at points of this process, once.
    ///
    /// # Errors
    ///
    /// Where the file for what is recorded cannot be opened.
    pub fn set(plan: Plan) -> io::Result<()> {
        let open = |path: PathBuf| File::options().create(true).append(true).open(path);
        let record = plan.record.map(open).transpose()?.map(Mutex::new);
        let passed = Mutex::new(Passed::default());
        // A plan that was set before stays.
        let _ = SET.set(Set { record, faults: plan.faults, passed });
        Ok(())
    }

    pub(super) fn is_set() -> bool {
        SET.get().is_some()
    }

    /// Passes a point: counts it, dies where that is planned, or returns what goes wrong.
    pub(super) fn pass(kind: Kind, name: &str, moment: &str) -> Option<Fault> {
        let set = SET.get()?;
        let name = format!("{name}/{moment}");
        if let Some(record) = &set.record {
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody can be told of a record that is not written but the test that reads it.
            let _ = record.write_all(format!("{kind} {name}\n").as_bytes());
        }
        let fault =
            set.passed.lock().unwrap_or_else(PoisonError::into_inner).fault(set, kind, name);
        if fault == Some(Fault::Die) {
            std::process::abort();
        }
        fault
    }

    impl Passed {
        fn fault(&mut self, set: &Set, kind: Kind, name: String) -> Option<Fault> {
            let planned = set.faults.iter().find(|planned| planned.name == name);
            let times = self.times.entry(name).or_default();
            *times += 1;
            let changes = matches!(kind, Kind::Change | Kind::Write);
            if let Some(planned) = planned.filter(|planned| planned.occurrence == *times) {
                self.lasting = Some(planned.fault).filter(|_| planned.lasts);
                return Some(planned.fault);
            }
            self.lasting.filter(|_| changes)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn set(plan: &str) -> Set {
            let Plan { faults, .. } = plan.parse().unwrap();
            Set { record: None, faults, passed: Mutex::default() }
        }

        fn passes(set: &Set, kind: Kind, names: &[&str]) -> Vec<Option<Fault>> {
            let mut passed = set.passed.lock().unwrap();
            names.iter().map(|name| passed.fault(set, kind, (*name).to_owned())).collect()
        }

        #[test]
        fn a_fault_comes_at_the_time_it_is_planned_for_and_goes() {
            let set = set("full parts/new/bytes#2; die a/b#9");
            let name = "parts/new/bytes";
            let faults = passes(&set, Kind::Write, &[name, "csv/new/bytes", name, name]);
            assert_eq!(faults, [None, None, Some(Fault::Full), None]);
        }

        #[test]
        fn a_fault_that_lasts_meets_every_change_from_then_on_and_no_reading() {
            let set = set("denied parts/new/bytes#1+");
            let faults = passes(&set, Kind::Write, &["csv/new/bytes", "parts/new/bytes", "x/y"]);
            assert_eq!(faults, [None, Some(Fault::Denied), Some(Fault::Denied)]);
            assert_eq!(passes(&set, Kind::Read, &["commits/read"]), [None]);
        }

        #[test]
        fn a_plan_that_is_unclear_is_refused() {
            for text in ["die", "die a/b", "die a/b#x", "burn a/b#1"] {
                assert!(text.parse::<Plan>().unwrap_err().contains("record FILE"), "{text}");
            }
        }
    }
}
