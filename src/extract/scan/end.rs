//! Tells where a listing without a total ends: what each kind of page says of it, and what is asked for once
//! more before it is believed.

use super::Said;
use super::Scan;
use super::is_end;
use crate::extract::Error;
use crate::extract::Reader;
use crate::extract::Result;
use crate::extract::book::Book;
use crate::extract::book::Entry;
use crate::record::Walk;

/// An end before this share of the rows expected is asked for once more, in hundredths.
const EARLY_BELOW: u64 = 98;

impl Reader<'_> {
    /// Decides what follows from a page: `None` where the listing has ended, else what to go on
    /// with. An end that is an error, or that comes early, is asked for once more.
    pub(super) async fn believe(
        &self,
        walk: &Walk,
        page: u32,
        said: Said,
        book: &mut Book,
        scan: &mut Scan,
    ) -> Result<Option<Said>> {
        match said {
            Said::More | Said::Passing => Ok(Some(Said::More)),
            Said::Reached => {
                book.whole = false;
                Ok(None)
            }
            Said::Short if self.is_early(book, scan) => Ok(Some(Said::More)),
            Said::Short => Ok(None),
            Said::Nothing if !self.is_early(book, scan) || book.round_of(page) > 0 => Ok(None),
            Said::Nothing | Said::Refused(_) => {
                let (_, again) = self.next(walk, page, book, scan).await?;
                book.probes += 1;
                match again {
                    Said::Refused(error) if self.is_early(book, scan) => {
                        self.believe_refusal(walk, page, error, book, scan).await.map(|()| None)
                    }
                    Said::Nothing | Said::Refused(_) => Ok(None),
                    _ => Ok(Some(Said::More)),
                }
            }
            Said::Same | Said::OldNews => {
                match self.ask_again(walk, page, said, book, scan).await? {
                    Said::Same if page == 2 => self.believe_second(walk, book, scan).await,
                    Said::Same if !self.is_early(book, scan) => Ok(None),
                    Said::Same | Said::OldNews => Ok(Some(Said::OldNews)),
                    said => Ok(Some(said)),
                }
            }
        }
    }

    /// A page that shows nothing new, where it is not known that nothing more is to come, may be
    /// another one than was asked for: it is asked for once more.
    async fn ask_again(
        &self,
        walk: &Walk,
        page: u32,
        said: Said,
        book: &mut Book,
        scan: &mut Scan,
    ) -> Result<Said> {
        if self.is_known_end(page, &said, book, scan) || self.is_one_page(page, book) {
            return Ok(said);
        }
        let has_repeated = book.round_of(page) > 0;
        // A second page like the first may also say that the number is ignored: see `believe_second`.
        if page > 2 && matches!(said, Said::Same) {
            // It may have been asked for once as the page after another, and shown other rows then.
            let shows = |page| book.page(page).map(|entry| entry.digest);
            return match has_repeated && shows(page - 2) == shows(page) {
                true => Ok(said),
                false => self.ask_beyond(walk, page, book, scan).await,
            };
        }
        if has_repeated {
            return Ok(said);
        }
        let (_, again) = self.next(walk, page, book, scan).await?;
        book.probes += 1;
        Ok(match again {
            // What it says the second time is for the page after it to confirm.
            Said::Refused(_) | Said::Nothing => said,
            again => again,
        })
    }

    /// A page like the one before it is the end where the page after it is like them, too: what came in
    /// the place of another page is not followed by the same. Else it is asked for once more.
    async fn ask_beyond(
        &self,
        walk: &Walk,
        page: u32,
        book: &mut Book,
        scan: &mut Scan,
    ) -> Result<Said> {
        let (_, beyond) = self.next(walk, page + 1, book, scan).await?;
        book.probes += 1;
        if matches!(beyond, Said::Same) {
            return Ok(beyond);
        }
        let (_, again) = self.next(walk, page, book, scan).await?;
        book.probes += 1;
        if !matches!(again, Said::Same) {
            return Ok(again);
        }
        if matches!(beyond, Said::Nothing | Said::Refused(_)) {
            // The listing ends otherwise than by its last page again.
            book.settled = false;
            return Ok(again);
        }
        // There is more, and what this page has of it was not shown.
        (book.proven, book.settled) = (false, false);
        Ok(Said::More)
    }

    /// Tells whether a page that shows nothing new comes where the last whole reading has ended, behind a
    /// page that is not full: one more row would have stood there.
    fn is_known_end(&self, page: u32, said: &Said, book: &Book, scan: &Scan) -> bool {
        let is_expected = self.options.expected_rows.is_some() && !self.is_early(book, scan);
        let before = book.page(page - 1).map_or(0, Entry::rows);
        let may_be_full = page > 2 && matches!(said, Said::Same) && before >= book.first_rows();
        is_expected && !may_be_full
    }

    /// Tells whether the first page alone says that there is no second one.
    fn is_one_page(&self, page: u32, book: &Book) -> bool {
        page == 2 && self.source.abilities().sized_pages && !book.first_page_is_full()
    }

    /// A second page like the first is the end of a listing of one page, or says that the number is
    /// ignored, or came in the place of another one.
    async fn believe_second(
        &self,
        walk: &Walk,
        book: &mut Book,
        scan: &mut Scan,
    ) -> Result<Option<Said>> {
        if self.is_one_page(2, book) {
            return Ok(None);
        }
        // Where it cannot be told, what was shown is loaded and proves nothing.
        book.proven &= self.refuse_ignored_numbers(walk, book).await?;
        if self.is_known_end(2, &Said::Same, book, scan) {
            return Ok(None);
        }
        if !self.is_more_behind(walk, book, scan).await? {
            return Ok(None);
        }
        // What the second page has of it was not shown.
        (book.proven, book.settled) = (false, false);
        Ok(Some(Said::OldNews))
    }

    /// Asks for what stands behind the second page, in halves where the size can be told: the first one is
    /// the first half of the second page, under another number, and the next one what that would show if
    /// the page before were shown for each.
    async fn is_more_behind(&self, walk: &Walk, book: &mut Book, scan: &mut Scan) -> Result<bool> {
        let half = book.size / 2;
        if !self.source.abilities().sized_pages || half == 0 {
            let (_, third) = self.next(walk, 3, book, scan).await?;
            book.probes += 1;
            return Ok(matches!(third, Said::More));
        }
        for page in [3, 4] {
            book.probes += 1;
            match self.read_page(walk, page, half, 0).await {
                Ok((_, facts)) => {
                    for id in facts.rows.iter().filter_map(|row| row.id) {
                        if scan.place_of(id, book)?.is_none() {
                            return Ok(true);
                        }
                    }
                }
                Err(error) if is_end(page, &error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// A page that was refused twice, although more is expected, is the end only where the one after it
    /// is refused as well; nothing is gone by that.
    async fn believe_refusal(
        &self,
        walk: &Walk,
        page: u32,
        refused: Error,
        book: &mut Book,
        scan: &mut Scan,
    ) -> Result<()> {
        let (_, after) = self.next(walk, page + 1, book, scan).await?;
        book.probes += 1;
        match after {
            Said::Refused(_) | Said::Nothing => {
                book.settled = false;
                Ok(())
            }
            _ => Err(refused),
        }
    }

    pub(super) fn is_early(&self, book: &Book, scan: &Scan) -> bool {
        let rejects: u64 = book.entries.values().map(|entry| entry.rejects).sum();
        let holes: u64 = book.holes.values().map(|rows| u64::from(*rows)).sum();
        let seen = scan.known + rejects + holes;
        self.options.expected_rows.is_some_and(|expected| seen * 100 < expected * EARLY_BELOW)
    }
}
