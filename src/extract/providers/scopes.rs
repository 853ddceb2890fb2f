//! What the scopes of providers have in common: partitions, as selected, times queries; and the lists
//! of one partition.

use crate::checkpoint::Partition;
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

/// Returns the scopes of a stream of a source: each partition that `selects` takes, with each query.
/// Without partitions there is one, of all.
pub(super) fn partitioned(
    source: &SourceName,
    stream: &str,
    partitions: Option<&[Partition]>,
    selects: impl Fn(&Partition) -> bool,
    filters: Filters,
) -> Vec<Scope> {
    let names: Vec<&str> = match partitions {
        None => vec![ALL],
        Some(listed) => {
            listed.iter().filter(|p| selects(p)).map(|partition| partition.name.as_str()).collect()
        }
    };
    let queries = filters.queries();
    let scope = |partition: &str, query: &String| Scope {
        source: source.clone(),
        stream: stream.to_owned(),
        partition: partition.to_owned(),
        query: query.clone(),
        list: String::new(),
    };
    names.iter().flat_map(|name| queries.iter().map(|query| scope(name, query))).collect()
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

    #[test]
    fn a_master_key_has_a_scope_a_selected_profile() {
        let listed =
            [1, 2, 3].map(|id| Partition { name: format!("profile:{id}"), account: Some(9) });
        let source = "acme".parse().unwrap();
        let none = Filters { spam: MarkFilter::Default, duplicate: MarkFilter::Default };
        let selected = |partition: &Partition| partition.name != "profile:2";
        let labels: Vec<_> = partitioned(&source, "leads", Some(&listed), selected, none)
            .iter()
            .map(Scope::label)
            .collect();
        assert_eq!(labels, ["profile:1", "profile:3"]);
    }
}
