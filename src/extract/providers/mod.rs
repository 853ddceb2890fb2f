//! The providers, each in a folder of its own: a closed list.

pub mod whatconverts;
