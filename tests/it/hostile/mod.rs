//! Providers that are wrong in every way that is known, and what comes of it: the right snapshot, or a
//! clear error and the snapshot from before.
//!
//! `alone` has each fault by itself at each provider, `mixed` draws worlds and faults from seeds
//! (`LEADPIPE_HOSTILE` says how many, `LEADPIPE_HOSTILE_SEED` lives one alone), `pages` holds that what
//! is read of a page is what is mapped of it, `stalls` and `certificates` are what a connection may do,
//! `memory` what a page may cost. Rows that shift while they are read are in `moving` and `shifts`,
//! parameters that a provider never hears in `contract`.

mod alone;
mod certificates;
mod faults;
mod memory;
mod mixed;
mod pages;
mod stalls;
mod strangers;
mod witness;
