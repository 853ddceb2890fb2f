//! Each answer that a provider may give to an open question, and what the pipeline makes of it.
//!
//! One sync against one switch of the sandbox ends with the right rows, by key and by content, or
//! with the documented error and the rows there were.

mod drift;
mod faults;
mod filters;
mod forms;
mod paging;
mod quota;
mod windows;
