//! Which size of pages a stream gives: what earlier runs have found out, and what this one does.
//!
//! A size that is refused, or of which a page never comes whole although its pieces do, is too large
//! for all walks of the stream. What is found by one of them holds for the others at once. Nothing
//! here asks for anything.

use chrono::DateTime;
use chrono::Utc;
use tokio::sync::watch;

use crate::checkpoint::SmallerPages;

/// The sizes of the pages of one stream, shared by the walks that read it.
#[derive(Debug)]
pub struct PageSizes {
    /// The size that the job asks for.
    asked: u32,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone)]
struct State {
    /// The size to ask for.
    size: u32,
    known: Option<SmallerPages>,
    /// What `known` will be once a page of that size has come.
    trial: Option<SmallerPages>,
    /// Whether `size` is larger than what is known to fit, to see whether it does again.
    is_enlarged: bool,
    /// Whether a page of `size` has come in this run, or need not be waited for.
    is_settled: bool,
    is_searching: bool,
    /// Whether `known` differs from what was taken last.
    is_news: bool,
}

impl PageSizes {
    /// Returns the sizes of a stream of which the job asks for pages of `asked` rows.
    pub fn new(asked: u32, known: Option<SmallerPages>, now: DateTime<Utc>) -> Self {
        let size = known.as_ref().map_or(asked, |known| known.to_ask(asked, now));
        let is_enlarged = known.as_ref().is_some_and(|known| size > known.rows);
        let (state, _) = watch::channel(State {
            size,
            known,
            trial: None,
            is_enlarged,
            is_settled: true,
            is_searching: false,
            is_news: false,
        });
        Self { asked, state }
    }

    /// Has the other walks wait until the first page of one of them has come, or the walk has ended:
    /// what it costs to find a size that fits is paid once.
    #[must_use]
    pub fn unsettled(self) -> Self {
        self.state.send_modify(|state| state.is_settled = false);
        self
    }

    /// Returns the rows to ask for in one request of a new walk.
    pub fn size(&self) -> u32 {
        self.state.borrow().size
    }

    /// Returns the most rows to ask for in one request of any walk; `None` where no size is known to
    /// be too large.
    pub fn limit(&self) -> Option<u32> {
        let state = self.state.borrow();
        state.known.as_ref().map(|_| state.size)
    }

    /// Tells whether the size is larger than what is known to fit, to see whether it does again.
    pub fn is_enlarged(&self) -> bool {
        self.state.borrow().is_enlarged
    }

    /// Tells whether other walks need not wait for the first.
    pub fn is_settled(&self) -> bool {
        self.state.borrow().is_settled
    }

    /// Lets the other walks begin.
    pub fn settle(&self) {
        self.state.send_modify(|state| state.is_settled = true);
    }

    /// Waits until the other walks may begin.
    pub async fn settled(&self) {
        // It fails only where the sizes are gone, and with them whoever waits.
        let _ = self.state.subscribe().wait_for(|state| state.is_settled).await;
    }

    /// Becomes the one who looks for a size that is not refused, once nobody else does.
    pub async fn begin_search(&self) {
        let mut states = self.state.subscribe();
        loop {
            let begin = |state: &mut State| {
                let is_free = !state.is_searching;
                state.is_searching = true;
                is_free
            };
            if self.state.send_if_modified(begin) {
                return;
            }
            // As above.
            let _ = states.wait_for(|state| !state.is_searching).await;
        }
    }

    /// Lets others look; what was tried and has not come is forgotten.
    pub fn end_search(&self) {
        self.state.send_modify(|state| (state.is_searching, state.trial) = (false, None));
    }

    /// Records that pages of `too_large` rows were refused and that `rows` are asked for instead: they
    /// fit once one has come.
    pub fn try_smaller(&self, rows: u32, too_large: u32, now: DateTime<Utc>) {
        let trial = SmallerPages { rows, too_large, refused: true, as_of: now };
        self.state.send_modify(|state| state.trial = Some(trial));
    }

    /// Records that a page of `too_large` rows never came whole, and that pieces of `rows` did.
    pub fn note_broken(&self, rows: u32, too_large: u32, now: DateTime<Utc>) {
        self.state.send_modify(|state| {
            // Another walk may have found a smaller one.
            if rows < state.size {
                state.size = rows;
                state.known = Some(SmallerPages { rows, too_large, refused: false, as_of: now });
                (state.is_enlarged, state.is_news) = (false, true);
            }
            state.is_settled = true;
        });
    }

    /// Records that a page has come: that `size` rows were asked for, and `rows` are on it.
    pub fn note_page(&self, size: u32, rows: usize, now: DateTime<Utc>) {
        self.state.send_if_modified(|state| {
            let fits = state.trial.as_ref().is_some_and(|trial| trial.rows == size);
            if let Some(trial) = state.trial.take_if(|_| fits) {
                state.size = state.size.min(size);
                state.known = Some(SmallerPages { as_of: now, ..trial });
                (state.is_enlarged, state.is_searching, state.is_news) = (false, false, true);
            } else if state.is_enlarged && size == state.size {
                state.take_for_fitting(size, rows, self.asked, now);
            }
            let was_settled = state.is_settled;
            state.is_settled |= size >= state.size;
            fits || state.is_settled != was_settled
        });
    }

    /// Returns what is known now, where it differs from what was returned last.
    pub fn take_news(&self) -> Option<Option<SmallerPages>> {
        let mut news = None;
        self.state.send_if_modified(|state| {
            if std::mem::take(&mut state.is_news) {
                news = Some(state.known.clone());
            }
            false
        });
        news
    }
}

impl State {
    /// A larger size was tried again and a page has come. Where pages had been refused, that will do;
    /// where they broke, only one that really has more rows tells.
    fn take_for_fitting(&mut self, size: u32, rows: usize, asked: u32, now: DateTime<Utc>) {
        let Some(known) = &mut self.known else { return };
        if !known.refused && rows <= known.rows as usize {
            return;
        }
        if size >= asked {
            self.known = None;
        } else {
            (known.rows, known.as_of) = (size, now);
        }
        (self.is_enlarged, self.is_news) = (false, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    fn day(day: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(day)
    }

    fn known(rows: u32, refused: bool) -> Option<SmallerPages> {
        Some(SmallerPages { rows, too_large: rows * 2, refused, as_of: day(0) })
    }

    fn rows(sizes: &PageSizes) -> Option<Option<u32>> {
        sizes.take_news().map(|known| known.map(|known| known.rows))
    }

    #[test]
    fn a_size_that_fits_is_asked_for_until_a_month_later_twice_as_many_rows_are_tried() {
        let size = |now| PageSizes::new(2500, known(1250, true), day(now)).size();
        assert_eq!((size(29), size(30)), (1250, 2500));
        assert_eq!(PageSizes::new(2500, known(500, true), day(30)).size(), 1000);
        assert_eq!(PageSizes::new(300, known(500, true), day(1)).size(), 300);
    }

    #[test]
    fn a_larger_size_that_fits_again_is_kept_and_the_whole_one_forgets_the_rest() {
        let sizes = PageSizes::new(2500, known(500, true), day(40));
        sizes.note_page(1000, 3, day(40));
        assert_eq!((rows(&sizes), rows(&sizes)), (Some(Some(1000)), None));
        let sizes = PageSizes::new(2500, known(1250, true), day(40));
        sizes.note_page(2500, 3, day(40));
        assert_eq!((rows(&sizes), sizes.limit()), (Some(None), None));
    }

    #[test]
    fn a_page_of_few_rows_says_nothing_of_a_size_that_broke() {
        let sizes = PageSizes::new(2500, known(1250, false), day(40));
        sizes.note_page(2500, 1250, day(40));
        assert_eq!(rows(&sizes), None);
        sizes.note_page(2500, 1251, day(40));
        assert_eq!(rows(&sizes), Some(None));
    }

    #[test]
    fn a_size_that_breaks_again_is_not_tried_for_another_month() {
        let sizes = PageSizes::new(2500, known(1250, false), day(40));
        sizes.note_broken(1250, 2500, day(40));
        assert_eq!(rows(&sizes), Some(Some(1250)));
        // One that was on its way meanwhile changes nothing.
        sizes.note_page(2500, 2500, day(40));
        assert_eq!((rows(&sizes), sizes.limit()), (None, Some(1250)));
    }

    #[test]
    fn what_is_tried_instead_of_a_refused_size_counts_once_it_has_come() {
        let sizes = PageSizes::new(2500, None, day(0)).unsettled();
        sizes.try_smaller(1250, 2500, day(0));
        assert_eq!((sizes.size(), rows(&sizes)), (2500, None));
        sizes.try_smaller(625, 1250, day(0));
        sizes.note_page(625, 40, day(0));
        assert_eq!((sizes.size(), rows(&sizes)), (625, Some(Some(625))));
        assert!(sizes.is_settled());
    }
}
