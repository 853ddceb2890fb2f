//! The contracts of what is written: the unified lead and the files of a lake.

pub mod batch;
pub mod json;
pub mod lead;
mod part;
pub mod text;

pub use part::ChangeFile;
pub use part::KeyHashes;
pub use part::PartFile;
pub use part::RejectFile;
pub use part::StoredFile;
