//! What the scopes of providers have in common: partitions times queries, and the lists of one
//! partition.

use crate::config::MarkFilter;
use crate::ids::SourceName;
use crate::record::Scope;

/// How a source's listing is narrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Filters {
    /// Leads marked as spam.
    pub(super) spam: MarkFilter,
    /// Leads marked as duplicates.
    pub(super) duplicate: MarkFilter,
}

impl Filters {
    /// Returns the queries to ask with, as `name=value` joined by `&`; one empty text where nothing
    /// is to be said.
    fn queries(self) -> Vec<String> {
        let mut queries = vec![String::new()];
        for (name, marks) in [("spam", self.spam), ("duplicate", self.duplicate)] {
            let values: &[&str] = match marks {
                MarkFilter::Default => continue,
                MarkFilter::Without => &["false"],
                MarkFilter::Both => &["false", "true"],
            };
            let joined = |query: &String, value: &str| match query.as_str() {
                "" => format!("{name}={value}"),
                query => format!("{query}&{name}={value}"),
            };
            queries =
                queries.iter().flat_map(|q| values.iter().map(move |v| joined(q, v))).collect();
        }
        queries
    }
}

/// The partition of an account that is read as a whole.
pub(super) const ALL: &str = "all";

/// Returns the scopes of a stream of a source: each partition with each query.
pub(super) fn partitioned(
    source: &SourceName,
    stream: &str,
    partitions: &[String],
    filters: Filters,
) -> Vec<Scope> {
    let queries = filters.queries();
    let scope = |partition: &str, query: &String| Scope {
        source: source.clone(),
        stream: stream.to_owned(),
        partition: partition.to_owned(),
        query: query.clone(),
        list: String::new(),
    };
    partitions.iter().flat_map(|name| queries.iter().map(|query| scope(name, query))).collect()
}

/// Returns the scopes of one partition without filters: its `lists`, one empty name where there is
/// but one.
pub(super) fn listings(
    source: &SourceName,
    stream: &str,
    partition: &str,
    lists: &[&str],
) -> Vec<Scope> {
    let scope = |list: &&str| Scope {
        source: source.clone(),
        stream: stream.to_owned(),
        partition: partition.to_owned(),
        query: String::new(),
        list: (*list).to_owned(),
    };
    lists.iter().map(scope).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_take_as_many_walks_as_that_needs() {
        let both = Filters { spam: MarkFilter::Both, duplicate: MarkFilter::Without };
        let none = Filters { spam: MarkFilter::Default, duplicate: MarkFilter::Default };
        assert_eq!(both.queries(), ["spam=false&duplicate=false", "spam=true&duplicate=false"]);
        assert_eq!(none.queries(), [""]);
    }
}
