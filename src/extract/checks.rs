//! Checks a page against what was asked.
//!
//! Providers ignore parameters they do not know and answer all the same; a window or a page number
//! that was ignored must stop the walk before rows are counted under it.

use chrono::TimeDelta;

use super::Error;
use super::PageFacts;
use super::Result;
use crate::ids::ProviderId;
use crate::record::Walk;

/// How far outside its window a row may lie before it speaks against the provider: time zones reach
/// 14 hours, and a day or so is lost in careless rounding.
const TOLERANCE: TimeDelta = TimeDelta::hours(48);

/// Checks that `facts` answer what was asked: page `page` of `walk`.
pub(super) fn check_page(
    provider: ProviderId,
    walk: &Walk,
    page: u32,
    facts: &PageFacts,
) -> Result<()> {
    check_length(provider, walk, facts)?;
    check_number(provider, page, facts)?;
    check_window(provider, walk, facts)
}

/// Nobody has so many pages: figures like that would have us list them for ever.
pub const MOST_PAGES: u32 = 100_000;

fn check_length(provider: ProviderId, walk: &Walk, facts: &PageFacts) -> Result<()> {
    let by_total = facts.total.map(|total| total.div_ceil(u64::from(walk.page_size.max(1))));
    let pages = facts.total_pages.map(u64::from).into_iter().chain(by_total).max();
    match pages.filter(|pages| *pages > u64::from(MOST_PAGES)) {
        Some(pages) => {
            let text = format!("it says that there are {pages} pages, which cannot be");
            Err(Error::Refused { provider, request: "the page".to_owned(), status: 200, text })
        }
        None => Ok(()),
    }
}

/// An echo of another page, although the page asked for exists, says that the number is ignored.
fn check_number(provider: ProviderId, asked: u32, facts: &PageFacts) -> Result<()> {
    let exists = facts.total_pages.is_none_or(|pages| asked <= pages);
    match facts.page {
        Some(got) if got != asked && exists => Err(Error::PageIgnored { provider, asked, got }),
        _ => Ok(()),
    }
}

/// Rows far outside, all of them or more than a tenth, say that the dates are ignored. A few rows
/// without a date, or some hours outside, pass.
fn check_window(provider: ProviderId, walk: &Walk, facts: &PageFacts) -> Result<()> {
    let Some(window) = walk.window else { return Ok(()) };
    let (from, to) = (window.start() - TOLERANCE, window.end() + TOLERANCE);
    let created = facts.rows.iter().filter_map(|row| row.created_at);
    let dated = created.clone().count();
    let outside = created.filter(|at| *at < from || *at > to).count();
    let all = outside > 0 && outside == dated;
    let many = outside > 2 && outside * 10 > dated;
    if all || many {
        return Err(Error::WindowIgnored { provider, window: window.to_string(), dated, outside });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::RowFacts;
    use crate::ids::Seq;
    use crate::ids::WalkId;
    use crate::record::Reason;
    use crate::record::Scope;
    use crate::window::Window;
    use chrono::DateTime;

    fn walk() -> Walk {
        let start = DateTime::UNIX_EPOCH;
        Walk {
            id: WalkId::new(Seq(0)),
            scope: Scope {
                source: "acme".parse().unwrap(),
                stream: "leads".into(),
                partition: "all".into(),
                query: String::new(),
                list: String::new(),
            },
            window: Window::new(start, start + TimeDelta::days(30)),
            page_size: 10,
            opened_at: start,
            reason: Reason::NewTime,
            down_to: None,
        }
    }

    fn rows(hours: &[i64]) -> PageFacts {
        let at = |hours: &i64| Some(DateTime::UNIX_EPOCH + TimeDelta::hours(*hours));
        let rows = hours.iter().map(|hours| RowFacts {
            id: Some(1),
            created_at: at(hours),
            updated_at: None,
        });
        PageFacts { rows: rows.collect(), ..PageFacts::default() }
    }

    fn check(facts: &PageFacts) -> Result<()> {
        check_page(ProviderId::WhatConverts, &walk(), 1, facts)
    }

    #[test]
    fn some_hours_outside_pass_and_days_outside_do_not() {
        assert!(check(&rows(&[-14, 0, 719, 720 + 14])).is_ok());
        assert!(check(&rows(&[-49])).is_err());
        assert!(check(&rows(&[-900, 1, 2, 3])).is_ok());
        assert!(check(&rows(&[-900, -800, -700, 3])).is_err());
        assert!(check(&rows(&[])).is_ok());
    }

    #[test]
    fn a_listing_of_more_pages_than_anybody_has_is_none() {
        let stated = |total, total_pages| PageFacts { total, total_pages, ..PageFacts::default() };
        assert!(check(&stated(Some(1_000_000), Some(MOST_PAGES))).is_ok());
        for (total, pages) in
            [(None, Some(MOST_PAGES + 1)), (Some(1_000_001), None), (Some(u64::MAX), None)]
        {
            assert!(check(&stated(total, pages)).is_err(), "{total:?} {pages:?}");
        }
    }

    #[test]
    fn an_echo_of_another_page_stops_the_walk_unless_the_page_is_past_the_end() {
        let echo = |page, total_pages| PageFacts { page, total_pages, ..PageFacts::default() };
        let check = |facts| check_page(ProviderId::WhatConverts, &walk(), 3, &facts);
        assert!(check(echo(Some(3), Some(4))).is_ok());
        assert!(check(echo(None, None)).is_ok());
        assert!(check(echo(Some(1), Some(4))).is_err());
        assert!(check(echo(Some(2), Some(2))).is_ok());
    }
}
