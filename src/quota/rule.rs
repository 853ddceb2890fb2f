//! What a provider allows: a rate, a day's requests, and how many at once.
//!
//! A [`Rule`] is a value and does no counting. The presets are the documented limits of each
//! provider's plans; where none is documented, no daily limit is set.

use std::num::NonZeroU32;

use chrono::NaiveTime;
use chrono::TimeDelta;

use crate::ids::ProviderId;
use crate::zone::Zone;

/// What a provider allows for one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// How fast requests may follow each other.
    pub rate: Rate,
    /// Requests a day, or `None` where the provider documents no limit.
    pub per_day: Option<u32>,
    /// Requests that may be on their way at the same time.
    pub at_once: NonZeroU32,
    /// What is left for others that use the same key.
    pub reserve: Reserve,
    /// When a day begins.
    pub day: Day,
}

impl Rule {
    /// Returns the requests a day that we may send: the limit without the reserve.
    pub fn allowance(&self) -> Option<u32> {
        self.per_day.map(|per_day| per_day - self.reserved())
    }

    /// Returns the requests a day left for others; 0 where there is no daily limit.
    pub fn reserved(&self) -> u32 {
        let per_day = self.per_day.unwrap_or(0);
        match self.reserve {
            Reserve::Requests(requests) => requests.min(per_day),
            Reserve::Percent(percent) => {
                let hundredths = u64::from(per_day) * u64::from(percent.min(100));
                u32::try_from(hundredths.div_ceil(100)).unwrap_or(per_day)
            }
        }
    }

    /// Returns how many permits are leased at a time: 1 where each of them is precious, else a
    /// thousandth of the day's, at most 20, since a crash loses what is left of a block.
    pub(super) fn block(&self) -> u32 {
        self.allowance()
            .map_or(LARGEST_BLOCK, |allowance| (allowance / 1_000).clamp(1, LARGEST_BLOCK))
    }
}

const LARGEST_BLOCK: u32 = 20;

/// At most `permits` requests in any span as long as `per`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests in a span.
    pub permits: NonZeroU32,
    /// The length of a span; positive.
    pub per: TimeDelta,
}

/// The part of a day's requests that is left for others on the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// Hundredths of the day's requests, rounded up; above 100 is 100.
    Percent(u32),
    /// A number of requests.
    Requests(u32),
}

/// When a provider's day begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Day {
    /// At every instant: the last 24 hours count. Right whenever the provider's day begins.
    Rolling,
    /// At a local time of a zone.
    ResetsAt {
        /// The local time.
        time: NaiveTime,
        /// The zone.
        zone: Zone,
    },
}

/// Returns the documented rule of a provider's plan, or `None` where the provider has no such plan
/// or `plan` is missing and there is more than one.
pub fn preset(provider: ProviderId, plan: Option<&str>) -> Option<Rule> {
    let (minute, second, millisecond) =
        (TimeDelta::minutes(1), TimeDelta::seconds(1), TimeDelta::milliseconds(1));
    match (provider, plan) {
        (ProviderId::WhatConverts, Some("profile")) => rule(1, millisecond, Some(1_000), 20, 10),
        (ProviderId::WhatConverts, Some("master")) => rule(1, millisecond, Some(10_000), 20, 20),
        (ProviderId::Whautomate, Some("trial")) => rule(60, minute, Some(100), 2, 10),
        (ProviderId::Whautomate, Some("subscribed")) => rule(300, minute, Some(432_000), 4, 10),
        // No limit is documented; this rate is meant to trouble nobody.
        (ProviderId::Convertalk, None) => rule(5, second, None, 2, 10),
        _ => None,
    }
}

fn rule(
    permits: u32,
    per: TimeDelta,
    per_day: Option<u32>,
    at_once: u32,
    reserve: u32,
) -> Option<Rule> {
    let rate = Rate { permits: NonZeroU32::new(permits)?, per };
    let reserve = Reserve::Percent(reserve);
    Some(Rule { rate, per_day, at_once: NonZeroU32::new(at_once)?, reserve, day: Day::Rolling })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_required_where_there_are_two() {
        assert_eq!(preset(ProviderId::WhatConverts, None), None);
        assert_eq!(preset(ProviderId::Whautomate, Some("master")), None);
        assert!(preset(ProviderId::Convertalk, None).is_some());
    }

    #[test]
    fn the_reserve_is_left_for_others() {
        let allowance = |provider, plan| preset(provider, plan).unwrap().allowance();
        assert_eq!(allowance(ProviderId::WhatConverts, Some("profile")), Some(900));
        assert_eq!(allowance(ProviderId::WhatConverts, Some("master")), Some(8_000));
        assert_eq!(allowance(ProviderId::Whautomate, Some("trial")), Some(90));
        assert_eq!(allowance(ProviderId::Whautomate, Some("subscribed")), Some(388_800));
        assert_eq!(allowance(ProviderId::Convertalk, None), None);
    }

    #[test]
    fn a_reserve_is_never_more_than_the_day() {
        let mut rule = preset(ProviderId::Whautomate, Some("trial")).unwrap();
        for reserve in [Reserve::Requests(1_000), Reserve::Percent(1_000)] {
            rule.reserve = reserve;
            assert_eq!(rule.allowance(), Some(0));
        }
        rule.reserve = Reserve::Requests(30);
        assert_eq!(rule.allowance(), Some(70));
    }

    #[test]
    fn blocks_are_single_permits_where_permits_are_few() {
        let block = |provider, plan| preset(provider, plan).unwrap().block();
        assert_eq!(block(ProviderId::WhatConverts, Some("profile")), 1);
        assert_eq!(block(ProviderId::WhatConverts, Some("master")), 8);
        assert_eq!(block(ProviderId::Whautomate, Some("subscribed")), 20);
        assert_eq!(block(ProviderId::Convertalk, None), 20);
    }
}
