//! Numbers in the order in which they came.

use std::ops::Range;
use std::path::PathBuf;

use super::Records;
use super::Result;

/// Numbers in the order in which they came; any stretch of them can be read.
#[derive(Debug)]
pub struct Log {
    scratch: PathBuf,
    /// Numbers in memory, at most.
    most: usize,
    latest: Vec<u64>,
    file: Option<Records<1>>,
    /// How many lie in the file.
    written: usize,
}

impl Default for Log {
    /// Returns one of which all is in memory.
    fn default() -> Self {
        Self::new(PathBuf::new(), usize::MAX)
    }
}

impl Log {
    /// Returns none yet; what exceeds `most` numbers will lie in the folder `scratch`, which must be there by
    /// then.
    pub fn new(scratch: PathBuf, most: usize) -> Self {
        Self { scratch, most: most.max(1), latest: Vec::new(), file: None, written: 0 }
    }

    /// Takes a number.
    ///
    /// # Errors
    ///
    /// Where the scratch disk fails.
    pub fn push(&mut self, number: u64) -> Result<()> {
        if self.latest.len() == self.most {
            self.write()?;
        }
        self.latest.push(number);
        Ok(())
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.written + self.latest.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the numbers at some places, from 0.
    ///
    /// # Errors
    ///
    /// Where the scratch disk fails.
    pub fn read(&self, places: Range<usize>) -> Result<Vec<u64>> {
        let mut numbers: Vec<[u64; 1]> = Vec::with_capacity(places.len());
        let written = places.start.min(self.written)..places.end.min(self.written);
        if let Some(file) = self.file.as_ref().filter(|_| !written.is_empty()) {
            file.read(written.start as u64..written.end as u64, &mut numbers)?;
        }
        let mut numbers = numbers.into_flattened();
        let latest = |place: usize| place.max(self.written) - self.written;
        numbers.extend_from_slice(&self.latest[latest(places.start)..latest(places.end)]);
        Ok(numbers)
    }

    /// Hands all numbers to a function, one after the other.
    ///
    /// # Errors
    ///
    /// Where the scratch disk or the function fails.
    pub fn each<E: From<super::Error>>(
        &self,
        mut take: impl FnMut(u64) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        for start in (0..self.len()).step_by(AT_ONCE) {
            let end = self.len().min(start + AT_ONCE);
            self.read(start..end)?.into_iter().try_for_each(&mut take)?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => Records::create(&self.scratch)?,
        };
        self.file.insert(file).write(self.written as u64, self.latest.as_chunks().0)?;
        self.written += self.latest.len();
        self.latest.clear();
        Ok(())
    }
}

/// Numbers that are read at once.
const AT_ONCE: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_stretch_is_read_as_it_came(
            numbers in prop::collection::vec(any::<u64>(), 0..300),
            most in 1_usize..80,
            places in (0_usize..300, 0_usize..300),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut log = Log::new(folder.path().to_owned(), most);
            for number in &numbers {
                log.push(*number).unwrap();
                prop_assert!(log.latest.len() <= most);
            }
            prop_assert_eq!(log.len(), numbers.len());
            let (start, end) = (places.0.min(places.1), places.0.max(places.1));
            let places = start.min(numbers.len())..end.min(numbers.len());
            prop_assert_eq!(log.read(places.clone()).unwrap(), &numbers[places]);
            let mut all = Vec::new();
            log.each(|number| { all.push(number); Ok::<(), super::super::Error>(()) }).unwrap();
            prop_assert_eq!(all, numbers);
        }
    }

    #[test]
    fn a_scratch_disk_that_fails_is_told_and_nothing_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::new(folder.path().join("gone"), 1);
        log.push(1).unwrap();
        assert!(log.push(2).unwrap_err().to_string().starts_with("failed to create scratch file"));
        assert_eq!(log.read(0..1).unwrap(), [1]);
    }
}
