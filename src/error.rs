//! What every stage's error can do besides saying what happened.
//!
//! Each stage has its own error type beside its code; this trait is the one thing they share. An
//! error says what happened, a hint says what to do about it, and the terminal prints both.

/// Advice to the person who reads an error.
pub trait Hint {
    /// Returns what to do about the error, as a sentence without a final period, or `None` where
    /// there is nothing to say beyond the error itself.
    ///
    /// A hint holds no secret and no personal data. It may span lines, one advice each.
    fn hint(&self) -> Option<String>;
}
