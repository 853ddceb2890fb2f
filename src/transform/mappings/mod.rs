//! One file for each provider: the fields it sends, and the columns they go to.

pub(super) mod whatconverts;
