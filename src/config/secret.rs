//! Where a secret comes from. The secret itself is read only when it is needed, and never printed.
//!
//! This is the one place that reads the environment.

use std::fs;
use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::ExposeSecret;
use secrecy::SecretString;
use serde::Deserialize;

use super::error::Error;

/// Where a secret is to be read from: `{ env = "NAME" }` or `{ file = "path" }`. The secret itself
/// never stands in a job file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecretFile {
    /// The environment variable that holds it.
    Env(String),
    /// The file that holds it, relative to the job file; one newline at its end is dropped.
    File(PathBuf),
}

/// A secret that was not read yet.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SecretRef {
    /// In this environment variable.
    Env(String),
    /// In this file.
    File(PathBuf),
    /// Handed in by the program, as the demo does for its sandbox; no job file can say this.
    Given(SecretString),
}

impl SecretRef {
    /// Reads the secret.
    ///
    /// # Errors
    ///
    /// Names the variable or the file where it is missing, unreadable or empty; never the value.
    pub fn read(&self) -> Result<SecretString, Error> {
        let text = match self {
            Self::Env(name) => read_variable(name)?,
            Self::File(path) => fs::read_to_string(path)
                .map_err(|source| Error::SecretFile { path: path.clone(), source })?,
            Self::Given(secret) => return Ok(secret.clone()),
        };
        let secret = SecretString::from(without_newline(text));
        if secret.expose_secret().is_empty() {
            return Err(Error::SecretEmpty { place: self.describe() });
        }
        Ok(secret)
    }

    /// Returns where the secret comes from, for hints, e.g. ``environment variable `ACME_TOKEN` ``.
    pub fn describe(&self) -> String {
        match self {
            Self::Env(name) => format!("environment variable `{name}`"),
            Self::File(path) => format!("secret file `{}`", path.display()),
            Self::Given(_) => "a secret made by the program".to_owned(),
        }
    }
}

fn read_variable(name: &str) -> Result<String, Error> {
    #[expect(clippy::disallowed_methods, reason = "this is the one home of the environment")]
    let value = std::env::var(name);
    value.map_err(|_| Error::SecretNotSet { name: name.to_owned() })
}

fn without_newline(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn a_secret_file_loses_one_newline_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (stored, read) in
            [("abc", "abc"), ("abc\n", "abc"), ("abc\r\n", "abc"), ("a\n\n", "a\n")]
        {
            fs::write(&path, stored).unwrap();
            let secret = SecretRef::File(path.clone()).read().unwrap();
            assert_eq!(secret.expose_secret(), read);
        }
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_named_by_its_place() {
        let missing = SecretRef::Env("LEADPIPE_TEST_NEVER_SET".to_owned()).read().unwrap_err();
        assert_eq!(
            missing.to_string(),
            "environment variable `LEADPIPE_TEST_NEVER_SET` is not set"
        );

        let file = SecretRef::File("/nowhere/token".into()).read().unwrap_err();
        assert_eq!(file.to_string(), "failed to read secret file `/nowhere/token`");
        assert!(file.source().is_some());

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty");
        fs::write(&path, "\n").unwrap();
        let empty = SecretRef::File(path).read().unwrap_err();
        assert!(empty.to_string().ends_with("empty` is empty"), "{empty}");
    }

    #[test]
    fn a_given_secret_is_not_printed() {
        let given = SecretRef::Given(SecretString::from("s3cr3t"));
        assert!(!format!("{given:?} {}", given.describe()).contains("s3cr3t"));
    }
}
