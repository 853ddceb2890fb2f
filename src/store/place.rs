//! Where a lake lies, as a job says it.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;

use url::Url;

/// A folder of this machine, or a place in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder.
    Folder(PathBuf),
    /// A bucket with a prefix, e.g. `s3://leads/acme`.
    Bucket(Url),
}

impl Place {
    /// Reads the address of a bucket; `None` where it is none that leadpipe knows, or names no bucket,
    /// or holds a key: what is secret stands in the environment.
    pub fn bucket(text: &str) -> Option<Self> {
        let address = Url::parse(text).ok()?;
        let is_known = SCHEMES.contains(&address.scheme());
        let is_plain = address.username().is_empty()
            && address.password().is_none()
            && address.query().is_none()
            && address.fragment().is_none();
        let names_one = address.host_str().is_some_and(|bucket| !bucket.is_empty());
        (is_known && is_plain && names_one).then_some(Self::Bucket(address))
    }

    /// Returns the folder, or `None` in a bucket.
    pub fn as_folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Bucket(_) => None,
        }
    }

    /// Returns the same place, a folder by its whole path.
    #[must_use]
    pub fn absolute(&self) -> Self {
        match self {
            Self::Folder(folder) => {
                Self::Folder(std::path::absolute(folder).unwrap_or_else(|_| folder.clone()))
            }
            Self::Bucket(_) => self.clone(),
        }
    }

    /// Returns where a path below it lies, for people and other programs.
    pub fn join(&self, path: &str) -> String {
        match self {
            Self::Folder(folder) => folder.join(path).to_string_lossy().into_owned(),
            Self::Bucket(_) => format!("{self}/{path}"),
        }
    }
}

/// S3, Google Cloud Storage, Azure.
const SCHEMES: [&str; 3] = ["s3", "gs", "az"];

impl From<PathBuf> for Place {
    fn from(folder: PathBuf) -> Self {
        Self::Folder(folder)
    }
}

impl From<&Path> for Place {
    fn from(folder: &Path) -> Self {
        Self::Folder(folder.to_owned())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(formatter),
            Self::Bucket(address) => formatter.write_str(address.as_str().trim_end_matches('/')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_buckets_are_told_from_what_is_none() {
        for text in ["s3://leads", "s3://leads/acme/", "gs://leads/a/b", "az://leads/acme"] {
            assert_eq!(Place::bucket(text).unwrap().to_string(), text.trim_end_matches('/'));
        }
        for text in
            ["file:///lake", "s3:///acme", "s3://key:secret@leads", "az://l/a?sig=x", "lake"]
        {
            assert_eq!(Place::bucket(text), None, "{text}");
        }
    }

    #[test]
    fn paths_below_it_follow_behind_one_slash() {
        assert_eq!(
            Place::bucket("s3://leads/acme/").unwrap().join("parts/a"),
            "s3://leads/acme/parts/a"
        );
        assert_eq!(Place::Folder("lake".into()).join("parts/a"), "lake/parts/a");
    }
}
