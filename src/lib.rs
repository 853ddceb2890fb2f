//! leadpipe moves leads from call-tracking, chat and booking platforms into Parquet or CSV that
//! you own, inside the platforms' request quotas.
//!
//! The tree is the pipeline: `plan` decides what to read, `extract` asks for pages under
//! permits of `quota`, `archive` keeps them as received, `transform` maps them to the
//! unified lead of [`schema`], `load` writes parts and changes, and `commit` makes all of it
//! visible in one file. `run` joins the stages. A module imports only from the layers below it.

pub mod archive;
pub mod calendar;
pub mod checkpoint;
pub mod cli;
pub mod clock;
pub mod commit;
pub mod config;
pub mod contracts;
pub mod error;
pub mod extract;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod harmless;
pub mod ids;
pub mod load;
pub mod plan;
pub mod point;
pub mod quota;
pub mod record;
pub mod rehearse;
pub mod report;
pub mod run;
pub mod sandbox;
pub mod schema;
pub mod seal;
pub mod spill;
pub mod store;
pub mod transform;
pub mod window;
pub mod zone;
