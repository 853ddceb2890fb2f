//! How the rows of a listing without a total stand: whether the newest come first, and how far down a reading
//! has come.

use chrono::DateTime;
use chrono::Utc;

use super::RowFacts;
use crate::record::DownTo;
use crate::record::Order;

/// How the rows of a listing stand, as far as they were read one page after the other.
#[derive(Debug, Default)]
pub(super) struct Descent {
    pub(super) created: Course,
    pub(super) updated: Course,
    /// The page followed last.
    page: u32,
}

/// One kind of time, from row to row.
#[derive(Debug, Default)]
pub(super) struct Course {
    last: Option<DateTime<Utc>>,
    /// Rows older than the one before.
    steps: u64,
    /// Rows newer than the one before.
    breaks: u64,
    /// Rows without this time.
    missing: u64,
}

/// Fewer steps down show no order.
const STEPS_THAT_SHOW: u64 = 20;

impl Course {
    fn follow(&mut self, at: Option<DateTime<Utc>>) {
        let Some(at) = at else {
            self.missing += 1;
            return;
        };
        if let Some(last) = self.last {
            self.steps += u64::from(at < last);
            self.breaks += u64::from(at > last);
        }
        self.last = Some(at);
    }

    /// Tells whether the newest stand first.
    pub(super) fn is_shown(&self) -> bool {
        self.breaks == 0 && self.steps >= STEPS_THAT_SHOW && self.missing * 50 <= self.steps
    }
}

impl Descent {
    /// Follows the rows of a page that comes after those before it, but those that had been shown: they
    /// have moved down to it, below others that came meanwhile, and say nothing of the order.
    pub(super) fn follow<'a>(&mut self, new: impl Iterator<Item = &'a RowFacts>, page: u32) {
        if page <= self.page {
            return;
        }
        self.page = page;
        for row in new {
            self.created.follow(row.created_at);
            self.updated.follow(row.updated_at);
        }
    }

    /// Tells whether the rows have come down to what is asked for; never where they do not stand in
    /// the order that was expected.
    pub(super) fn has_reached(&self, down_to: Option<DownTo>) -> bool {
        let Some(down_to) = down_to else { return false };
        let course = match down_to.order {
            Order::Created => &self.created,
            Order::Updated => &self.updated,
        };
        course.breaks == 0 && course.last.is_some_and(|last| last < down_to.at)
    }
}
