//! What every error can say beside what happened: what to do about it.

/// Advice for the person who reads an error; the error's own text only says what happened.
pub trait Hint {
    /// Returns one sentence that says what to do, where there is something to do.
    fn hint(&self) -> Option<String>;
}
