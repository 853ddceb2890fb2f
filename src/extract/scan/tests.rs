//! Listings in memory: at rest, moving, wrong about their end, and read over several runs.

use proptest::prelude::*;

use super::*;
use crate::extract::memory;
use crate::extract::memory::Edit;
use crate::extract::memory::End;
use crate::extract::memory::MemorySource;
use crate::extract::memory::Sorting;
use crate::extract::memory::Trouble;
use crate::record::DownTo;
use crate::record::Order;

const SORTINGS: [Sorting; 4] = [
    Sorting::NewestCreated,
    Sorting::OldestCreated,
    Sorting::NewestUpdated,
    Sorting::OldestUpdated,
];

fn ids(source: &MemorySource) -> Vec<u64> {
    let mut ids: Vec<u64> = source.rows().iter().map(|row| row.id).collect();
    ids.sort_unstable();
    ids
}

fn read(source: &MemorySource, size: u32) -> memory::Reading {
    memory::read(source, &memory::whole(size), None, |_| {}).unwrap()
}

#[test]
fn a_listing_at_rest_takes_a_request_a_page_and_one_for_the_end() {
    for (rows, requests) in [(0, 1), (9, 2), (10, 2), (11, 3), (100, 11)] {
        let source = MemorySource::new(rows, Sorting::NewestCreated);
        let outcome = read(&source, 10);
        assert_eq!(outcome.shown, ids(&source));
        assert_eq!(source.requests(), requests, "{rows} rows");
    }
}

#[test]
fn where_a_short_page_is_the_end_the_last_request_is_saved() {
    for (rows, requests) in [(9, 1 + 1), (95, 10), (100, 11)] {
        let mut source = MemorySource::new(rows, Sorting::NewestCreated);
        source.abilities.short_page_ends = true;
        assert_eq!(read(&source, 10).shown, ids(&source));
        assert_eq!(source.requests(), requests, "{rows} rows");
    }
}

#[test]
fn a_short_page_is_the_end_for_a_run_that_goes_on_behind_it_too() {
    let mut source = MemorySource::new(95, Sorting::NewestCreated);
    (source.abilities.short_page_ends, source.end) = (true, End::Refused);
    // After four pages, and after the last one, when it is looked for rows that moved.
    source.troubles = vec![(4, Trouble::Dies), (12, Trouble::Dies)];
    assert_eq!(read(&source, 10).shown, ids(&source));
    let (deaths, checks, looks) = (2, 2, 1);
    assert_eq!(source.requests(), 10 + deaths + checks + looks);
}

#[test]
fn pages_cut_by_the_server_in_silence_are_no_end() {
    let mut source = MemorySource::new(95, Sorting::NewestCreated);
    (source.abilities.short_page_ends, source.own_size) = (true, Some(7));
    assert_eq!(read(&source, 10).shown, ids(&source));
}

#[test]
fn the_same_page_for_ever_is_an_error_or_proves_nothing() {
    let mut source = MemorySource::new(95, Sorting::NewestCreated);
    source.same_page = true;
    let error = memory::read(&source, &memory::whole(10), None, |_| {}).unwrap_err();
    assert!(matches!(error, Error::PageIgnored { asked: 2, got: 1, .. }), "{error}");
    (source.abilities.sized_pages, source.own_size) = (false, Some(10));
    let outcome = read(&source, 1_000);
    assert!(!outcome.proven);
    assert_eq!(outcome.shown.len(), 10);
}

#[test]
fn an_end_that_comes_early_once_is_not_believed() {
    for end in [End::Empty, End::Refused, End::LastPage] {
        for at in [4, 0] {
            // The last page for the first one shows rows, and is no end.
            if (at, end) == (0, End::LastPage) {
                continue;
            }
            let mut source = MemorySource::new(95, Sorting::NewestCreated);
            source.troubles = vec![(at, Trouble::Ends(end))];
            let outcome = memory::read(&source, &memory::whole(10), Some(95), |_| {}).unwrap();
            assert_eq!(outcome.shown, ids(&source), "{end:?} at {at}");
        }
    }
}

#[test]
fn a_window_without_a_total_that_had_rows_and_shows_none_is_asked_for_once_more() {
    let mut source = MemorySource::new(7, Sorting::OldestCreated);
    source.troubles = vec![(0, Trouble::Ends(End::Empty))];
    let window = crate::window::Window::new(memory::minute(-1), memory::minute(9_999));
    let walk = Walk { window, ..memory::whole(10) };
    let outcome = memory::read(&source, &walk, Some(7), |_| {}).unwrap();
    assert_eq!(outcome.shown, ids(&source));
}

#[test]
fn a_second_page_that_comes_as_the_first_twice_proves_nothing() {
    for rows in [11, 15, 35] {
        for own_size in [None, Some(10)] {
            let mut source = MemorySource::new(rows, Sorting::NewestCreated);
            (source.abilities.sized_pages, source.own_size) = (own_size.is_none(), own_size);
            source.troubles = vec![(1, Trouble::Shows(0)), (2, Trouble::Shows(0))];
            let outcome = read(&source, 10);
            assert!(!outcome.proven, "{rows} rows, {own_size:?}");
            let shows_more_behind = own_size.is_none() || rows > 20;
            assert_eq!(outcome.settled, !shows_more_behind, "{rows} rows, {own_size:?}");
        }
    }
}

#[test]
fn a_page_that_came_as_another_is_remembered_by_the_run_that_goes_on() {
    for troubles in [
        // It comes so twice; and it dies before it could ask again.
        [(2, Trouble::Shows(1)), (4, Trouble::Shows(1)), (6, Trouble::Dies)].as_slice(),
        &[(2, Trouble::Shows(1)), (4, Trouble::Dies)],
    ] {
        let mut source = MemorySource::new(72, Sorting::OldestCreated);
        source.troubles = troubles.to_vec();
        let outcome = read(&source, 10);
        assert!(!outcome.settled || outcome.shown == ids(&source), "{troubles:?}");
    }
}

#[test]
fn pieces_that_come_as_others_settle_nothing() {
    let mut source = MemorySource::new(35, Sorting::OldestCreated);
    // The third page breaks; of its two pieces the first comes as one of the second page.
    source.troubles = vec![(2, Trouble::Breaks), (3, Trouble::Shows(3))];
    let outcome = memory::read(&source, &memory::whole(10), None, |_| {}).unwrap();
    assert!(!outcome.settled || outcome.shown == ids(&source));
}

#[test]
fn a_last_page_that_comes_as_the_one_before_it_twice_settles_nothing() {
    let mut source = MemorySource::new(32, Sorting::OldestCreated);
    source.troubles = vec![(3, Trouble::Shows(2)), (5, Trouble::Shows(2))];
    let outcome = read(&source, 10);
    assert!(!outcome.settled && outcome.shown.len() == 30);
}

#[test]
fn a_page_that_was_asked_for_as_the_one_after_another_is_no_end_for_coming_as_that_one() {
    let mut source = MemorySource::new(42, Sorting::OldestCreated);
    // The third page comes as the second, and the fourth as the third, twice.
    let troubles = [(2, 1), (3, 2), (5, 2)];
    source.troubles = troubles.map(|(at, page)| (at, Trouble::Shows(page))).to_vec();
    assert_eq!(read(&source, 10).shown, ids(&source));
}

#[test]
fn a_full_last_page_in_the_place_of_one_with_a_new_row_is_no_end() {
    let mut source = MemorySource::new(31, Sorting::OldestCreated);
    source.troubles = vec![(3, Trouble::Shows(2))];
    let outcome = memory::read(&source, &memory::whole(10), Some(30), |_| {}).unwrap();
    assert_eq!(outcome.shown, ids(&source));
    assert!(outcome.proven && outcome.settled);
}

#[test]
fn an_end_behind_another_page_than_was_asked_for_settles_nothing() {
    let mut source = MemorySource::new(101, Sorting::OldestCreated);
    source.troubles = vec![(10, Trouble::Shows(0))];
    let outcome = memory::read(&source, &memory::whole(10), Some(100), |_| {}).unwrap();
    // What it hid was looked for as for rows that moved, or the reading says that it is not all.
    assert!(!outcome.settled || outcome.shown == ids(&source));
}

#[test]
fn a_listing_that_has_become_shorter_ends_all_the_same() {
    for end in [End::Empty, End::Refused, End::LastPage] {
        let mut source = MemorySource::new(50, Sorting::NewestCreated);
        source.end = end;
        let outcome = memory::read(&source, &memory::whole(10), Some(95), |_| {}).unwrap();
        assert_eq!(outcome.shown, ids(&source), "{end:?}");
        assert!(source.requests() <= 9, "{end:?}: {}", source.requests());
    }
}

fn assert_order_is_shown(sorting: Sorting, end: End) {
    let mut source = MemorySource::new(95, sorting);
    source.end = end;
    source.edit(Edit::Touch(3));
    let outcome = read(&source, 10);
    assert_eq!(outcome.newest_created_first, sorting == Sorting::NewestCreated, "{end:?}");
    assert_eq!(outcome.newest_updated_first, sorting == Sorting::NewestUpdated, "{end:?}");
}

#[test]
fn the_order_is_shown_by_a_whole_reading() {
    for sorting in SORTINGS {
        // The last page again is no row that stands where it should not.
        for end in [End::Empty, End::Refused, End::LastPage] {
            assert_order_is_shown(sorting, end);
        }
    }
}

#[test]
fn a_reading_from_the_top_ends_below_what_is_asked_for() {
    let source = MemorySource::new(100, Sorting::NewestUpdated);
    source.edit(Edit::Touch(7));
    let down_to = DownTo { order: Order::Updated, at: memory::minute(88) };
    let outcome = memory::read(&source, &memory::top(10, down_to), None, |_| {}).unwrap();
    assert!(!outcome.whole);
    assert!(outcome.shown.contains(&7) && outcome.shown.contains(&88));
    assert_eq!(source.requests(), 2);
}

#[test]
fn a_reading_from_the_top_that_finds_another_order_reads_all() {
    let source = MemorySource::new(100, Sorting::OldestCreated);
    let down_to = DownTo { order: Order::Created, at: memory::minute(88) };
    let outcome = memory::read(&source, &memory::top(10, down_to), None, |_| {}).unwrap();
    assert!(outcome.whole);
    assert_eq!(outcome.shown, ids(&source));
}

#[test]
fn the_order_is_shown_by_a_reading_that_others_come_before_while_it_goes_on() {
    let mut source = MemorySource::new(95, Sorting::NewestCreated);
    source.edits = (3..6).chain(3..6).map(|at| (at, Edit::Insert)).collect();
    assert!(read(&source, 10).newest_created_first);
    let mut source = MemorySource::new(95, Sorting::NewestUpdated);
    source.troubles = vec![(5, Trouble::Dies)];
    let outcome = memory::read(&source, &memory::whole(10), None, |source| {
        (0..25).for_each(|at| source.edit(Edit::Touch(at)));
    });
    assert!(outcome.unwrap().newest_updated_first);
}

#[test]
fn a_list_without_an_end_is_an_error() {
    let mut source = MemorySource::new(20, Sorting::OldestCreated);
    source.edits = (0..200).flat_map(|at| [(at, Edit::Insert); 10]).collect();
    let error = memory::read(&source, &memory::whole(10), None, |_| {}).unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error}");
    assert_eq!(source.requests(), u64::from(memory::MOST_PAGES));
}

#[test]
fn a_reading_from_the_top_that_comes_to_the_end_finds_what_moved_as_a_whole_one_does() {
    for sorting in [Sorting::NewestUpdated, Sorting::OldestUpdated] {
        for touched in 0..40 {
            let mut source = MemorySource::new(40, sorting);
            source.edits = vec![(2, Edit::Touch(touched))];
            let down_to = DownTo { order: Order::Updated, at: memory::minute(-1) };
            let outcome = memory::read(&source, &memory::top(10, down_to), None, |_| {});
            let outcome = outcome.unwrap();
            assert!(outcome.whole);
            let is_all = outcome.shown == ids(&source);
            assert!(is_all || !outcome.settled, "{sorting:?}, {touched}");
        }
    }
}

#[test]
fn what_goes_to_the_top_or_the_end_while_it_is_read_is_found() {
    for sorting in [Sorting::NewestUpdated, Sorting::OldestUpdated] {
        for touched in 0..100 {
            let mut source = MemorySource::new(100, sorting);
            source.edits = vec![(5, Edit::Touch(touched))];
            let outcome = read(&source, 10);
            assert_eq!(outcome.shown, ids(&source), "{sorting:?}, {touched}");
            assert!(outcome.settled);
            assert!(source.requests() <= 11 + 10, "{}", source.requests());
        }
    }
}

#[test]
fn what_appears_in_the_midst_while_it_is_read_is_found() {
    for at in 0..100 {
        let mut source = MemorySource::new(100, Sorting::OldestCreated);
        source.edits = vec![(5, Edit::InsertOld(at))];
        let outcome = read(&source, 10);
        assert_eq!(outcome.shown, ids(&source), "{at}");
        assert!(source.requests() <= 11 + 10, "{}", source.requests());
    }
}

#[test]
fn where_the_server_alone_cuts_the_pages_a_newcomer_does_not_have_half_of_them_read_again() {
    let mut source = MemorySource::new(400, Sorting::NewestCreated);
    (source.abilities.sized_pages, source.own_size) = (false, Some(10));
    source.edits = vec![(30, Edit::Insert)];
    let outcome = read(&source, 1_000);
    assert_eq!(outcome.shown, ids(&source));
    assert!(source.requests() <= 41 + 4, "{}", source.requests());
}

#[test]
fn a_top_of_mixed_rows_that_are_all_known_is_not_read_down_to_its_end() {
    let mut source = MemorySource::new(200, Sorting::NewestUpdated);
    // Known rows go to the top, none next to one that it stood next to.
    source.edits = (0..90).map(|row| (38, Edit::Touch(20 + row * 37 % 180))).collect();
    source.troubles = vec![(39, Trouble::Dies)];
    let outcome = read(&source, 5);
    assert_eq!(outcome.shown, ids(&source));
    assert!(source.requests() <= 41 + 2 + 4, "{}", source.requests());
}

/// Reads a hundred rows that move before three requests, and dies after the last of them.
fn read_over_deaths(
    sorting: Sorting,
    moved: [usize; 3],
    dies_at: &[u64],
) -> (MemorySource, memory::Reading) {
    let mut source = MemorySource::new(100, sorting);
    source.edits = (3..).zip(moved.map(Edit::Touch)).collect();
    source.troubles = dies_at.iter().map(|at| (*at, Trouble::Dies)).collect();
    let outcome = read(&source, 10);
    (source, outcome)
}

#[test]
fn what_moved_before_a_run_died_is_found_by_the_one_that_goes_on() {
    for sorting in [Sorting::NewestUpdated, Sorting::OldestUpdated] {
        for moved in (0..100).step_by(9) {
            let touched = [moved, (moved + 31) % 100, (moved + 62) % 100];
            // While it is read, and while what has moved is looked for, once and again.
            for dies_at in [&[7][..], &[12], &[14], &[13, 16]] {
                let (source, outcome) = read_over_deaths(sorting, touched, dies_at);
                let context = format!("{sorting:?}, {touched:?}, {dies_at:?}");
                let is_all = outcome.shown == ids(&source);
                assert!(is_all || !outcome.settled, "{context}: {outcome:?}");
            }
        }
    }
}

proptest! {
    /// Whatever leaves, comes or changes while no run is on, in any order, is accounted for by
    /// the page that is asked for again; deaths cost that page, and the one in flight.
    #[test]
    fn a_scan_over_many_runs_shows_all_that_is_there_at_its_end(
        rows in 1_u64..80,
        size in 2_u32..12,
        sorting in proptest::sample::select(&SORTINGS[..2]),
        end in proptest::sample::select(&[End::Empty, End::Refused, End::LastPage][..]),
        deaths in proptest::collection::btree_set(1_u64..20, 0..4),
        removed in proptest::collection::vec(any::<usize>(), 0..3),
        inserted in 0_usize..3,
    ) {
        let mut source = MemorySource::new(rows, sorting);
        source.end = end;
        source.troubles = deaths.iter().map(|at| (*at, Trouble::Dies)).collect();
        let walk = memory::whole(size);
        let outcome = memory::read(&source, &walk, None, |source| {
            removed.iter().for_each(|at| source.edit(Edit::Remove(*at)));
            (0..inserted).for_each(|_| source.edit(Edit::Insert));
        });
        let outcome = outcome.unwrap();
        let is_shown = |id: &u64| outcome.shown.binary_search(id).is_ok();
        prop_assert!(ids(&source).iter().all(is_shown), "{:?}", outcome);
    }

    /// Rows that come and change while it is read are found, or the reading says that it has not
    /// accounted for all.
    #[test]
    fn a_scan_over_a_moving_listing_shows_all_or_says_so(
        rows in 1_u64..80,
        size in 2_u32..12,
        sorting in proptest::sample::select(&SORTINGS[..]),
        at in 1_u64..9,
        edit in prop_oneof![
            any::<usize>().prop_map(Edit::Touch),
            any::<usize>().prop_map(Edit::InsertOld),
        ],
    ) {
        let mut source = MemorySource::new(rows, sorting);
        source.edits = vec![(at, edit)];
        let outcome = read(&source, size);
        let is_shown = |id: &u64| outcome.shown.binary_search(id).is_ok();
        let was_there = |id: &u64| *id < 10_000;
        let all = ids(&source).into_iter().filter(was_there).all(|id| is_shown(&id));
        prop_assert!(all || !outcome.settled, "{:?}", outcome);
    }
}
