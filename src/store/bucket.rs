//! A bucket at S3, Google Cloud Storage or Azure, or what speaks as they do.
//!
//! An object appears whole or not at all, so nothing is written beside. What a folder does by its
//! own locks is done by conditions on a write: put if absent, put if unchanged. The calls block,
//! as those of a disk do; what they wait for runs on threads of its own. How a request is sent again
//! is the library's concern.

use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::TryStreamExt;
use object_store::GetOptions;
use object_store::GetRange;
use object_store::ObjectStore;
use object_store::ObjectStoreExt;
use object_store::PutMode;
use object_store::UpdateVersion;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use tokio::runtime::Runtime;
use url::Url;

use super::Error;
use super::Result;
use super::fail;
use crate::point::Steps;

/// How often a file is read again that others change at the same time, before that is an error.
const CONFLICTS: usize = 100;

/// How often a write on condition is tried of which nothing is said.
const UNANSWERED: u32 = 3;

/// How many objects are read at once.
const AT_ONCE: usize = 16;

/// A bucket, or what lies in it below a prefix. Paths are relative to that.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    /// What stands before a path, for people, e.g. `s3://leads/acme`.
    address: String,
    prefix: Path,
    client: Arc<Client>,
}

/// What speaks to a bucket.
struct Client {
    objects: Arc<dyn ObjectStore>,
    uploads: Arc<dyn MultipartStore>,
    /// Where its requests run. Gone only while it is dropped.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.objects)
    }
}

impl Drop for Client {
    /// A runtime must not be waited for where tasks run.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Bucket {
    /// Fails where a bucket does not keep to the conditions of writes, which stand for the locks of a disk:
    /// some that speak as S3 does ignore what they do not know.
    pub(super) fn refuse_unconditional(&self, path: &str, steps: &Steps) -> Result<()> {
        const SAYS: &[u8] = b"leadpipe writes this on conditions that do not hold\n";
        let never =
            UpdateVersion { e_tag: Some("\"0\"".to_owned()), version: Some("1".to_owned()) };
        let modes = [PutMode::Create, PutMode::Create, PutMode::Update(never)];
        for (number, mode) in modes.into_iter().enumerate() {
            let kind = match self.put(path, SAYS, mode, steps) {
                // The first write ever makes it.
                Ok(()) if number == 0 => continue,
                Ok(()) => io::ErrorKind::Unsupported,
                Err(error) => error.source.kind(),
            };
            match kind {
                io::ErrorKind::AlreadyExists => {}
                io::ErrorKind::Unsupported => {
                    let what = "it does not keep to conditions on writes";
                    let source = self.refusal(io::ErrorKind::Unsupported, what.to_owned());
                    return Err(fail("trust", self.address(""), source));
                }
                // Whatever else is wrong, the next request says.
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn refusal(&self, kind: io::ErrorKind, text: String) -> io::Error {
        io::Error::new(kind, Refusal { address: self.address.clone(), kind, text })
    }

    /// Opens a bucket by its address, e.g. `s3://leads/acme`, without a request. Where it is and who may
    /// use it comes from the environment, under the names that the provider's own tools know.
    pub(super) fn open(address: &Url) -> Result<Self> {
        let text = address.as_str();
        let fail = |source| fail("open", text, source);
        let prefix = Path::from_url_path(address.path());
        let prefix = prefix.map_err(|error| fail(io::Error::other(told(&error))))?;
        let (objects, uploads): (Arc<dyn ObjectStore>, Arc<dyn MultipartStore>) =
            match address.scheme() {
                "s3" => both(AmazonS3Builder::from_env().with_url(text).build()),
                "gs" => both(GoogleCloudStorageBuilder::from_env().with_url(text).build()),
                _ => both(MicrosoftAzureBuilder::from_env().with_url(text).build()),
            }
            .map_err(|error| fail(io_error(&error, text)))?;
        let client = Client { objects, uploads, runtime: Some(runtime().map_err(fail)?) };
        let address = text.trim_end_matches('/').to_owned();
        Ok(Self { address, prefix, client: Arc::new(client) })
    }

    /// Opens an empty bucket in memory.
    #[cfg(test)]
    pub(super) fn in_memory() -> Self {
        let (objects, uploads) = both(Ok(object_store::memory::InMemory::new())).unwrap();
        let client = Client { objects, uploads, runtime: Some(runtime().unwrap()) };
        let address = "memory://leads/acme".to_owned();
        Self { address, prefix: Path::from("acme"), client: Arc::new(client) }
    }

    pub(super) fn folder(&self, path: &str) -> Self {
        let (address, prefix) = (self.address(path), self.at(path));
        Self { address, prefix, client: Arc::clone(&self.client) }
    }

    /// Returns the whole address of a path.
    pub(super) fn address(&self, path: &str) -> String {
        match path {
            "" => self.address.clone(),
            path => format!("{}/{path}", self.address),
        }
    }

    pub(super) fn read(&self, path: &str, steps: &Steps) -> Result<Bytes> {
        self.step(steps.read("begun"), "read", path)?;
        let (objects, at) = (self.objects(), self.at(path));
        let bytes = self.wait(async move { objects.get(&at).await?.bytes().await });
        self.told(bytes, "read", path)
    }

    /// Reads some of the bytes of an object, as many as it has.
    pub(super) fn read_range(&self, path: &str, range: std::ops::Range<u64>) -> Result<Bytes> {
        let (objects, at) = (self.objects(), self.at(path));
        let bytes = self.wait(async move { objects.get_range(&at, range).await });
        self.told(bytes, "read", path)
    }

    /// Returns how many bytes an object has, and the first of them, up to `most`: in one request, which
    /// for most objects is all that there is to ask.
    pub(super) fn begin_reading(
        &self,
        path: &str,
        most: u64,
        steps: &Steps,
    ) -> Result<(u64, Bytes)> {
        self.step(steps.read("begun"), "open", path)?;
        let (objects, at) = (self.objects(), self.at(path));
        let read = self.wait(async move {
            let range = GetRange::Bounded(0..most);
            let options = GetOptions { range: Some(range), ..GetOptions::default() };
            let found = objects.get_opts(&at, options).await?;
            Ok((found.meta.size, found.bytes().await?))
        });
        match read {
            // An empty object has no first byte.
            Err(error) if error.kind() == io::ErrorKind::Other && self.size(path)? == 0 => {
                Ok((0, Bytes::new()))
            }
            read => self.told(read, "open", path),
        }
    }

    /// Returns how many bytes an object has.
    pub(super) fn size(&self, path: &str) -> Result<u64> {
        let (objects, at) = (self.objects(), self.at(path));
        let found = self.wait(async move { objects.head(&at).await });
        Ok(self.told(found, "look at", path)?.size)
    }

    /// Tells whether there is an object of this name, or one below it.
    pub(super) fn exists(&self, path: &str) -> Result<bool> {
        let (objects, at) = (self.objects(), self.at(path));
        let found = self.wait(async move {
            match objects.head(&at).await {
                Err(object_store::Error::NotFound { .. }) => {}
                found => return found.map(|_| true),
            }
            objects.list(Some(&at)).next().await.transpose().map(|first| first.is_some())
        });
        self.told(found, "look at", path)
    }

    pub(super) fn write(&self, path: &str, bytes: &[u8], steps: &Steps) -> Result<()> {
        self.put(path, bytes, PutMode::Overwrite, steps)
    }

    /// Writes an object that must not exist yet. One that says the same is this one: the answer to a
    /// write can be lost, and it is sent again then.
    pub(super) fn write_if_absent(&self, path: &str, bytes: &[u8], steps: &Steps) -> Result<bool> {
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.put(path, bytes, PutMode::Create, steps) {
                Ok(()) => return Ok(true),
                Err(error) => error,
            };
            let was_there = error.source.kind() == io::ErrorKind::AlreadyExists;
            if !was_there && !is_unanswered(&error) {
                return Err(error);
            }
            match self.read(path, &Steps::default()) {
                Ok(found) => return Ok(found == bytes),
                Err(missing) if missing.is_not_found() && tries < UNANSWERED => {}
                Err(_) => return Err(error),
            }
        }
    }

    fn put(&self, path: &str, bytes: &[u8], mode: PutMode, steps: &Steps) -> Result<()> {
        self.step(steps.change("begun"), "write", path)?;
        let (objects, at) = (self.objects(), self.at(path));
        let payload = Bytes::copy_from_slice(bytes).into();
        let put = self.wait(async move { objects.put_opts(&at, payload, mode.into()).await });
        self.told(put, "write", path)?;
        steps.reach("done");
        Ok(())
    }

    /// Replaces an object by what `change` makes of it, or leaves it where it makes nothing. Where
    /// somebody else changes it at the same time, all is done again.
    pub(super) fn update<T, E: From<Error>>(
        &self,
        path: &str,
        steps: &Steps,
        mut change: impl FnMut(Option<Bytes>) -> std::result::Result<(Option<Vec<u8>>, T), E>,
    ) -> std::result::Result<T, E> {
        let mut unanswered = 0;
        for _ in 0..CONFLICTS {
            let (before, mode) = match self.read_version(path, steps)? {
                Some((bytes, version)) => (Some(bytes), PutMode::Update(version)),
                None => (None, PutMode::Create),
            };
            let is_there = before.is_some();
            let (after, outcome) = change(before)?;
            let Some(after) = after else { return Ok(outcome) };
            match self.put(path, &after, mode, steps) {
                Ok(()) => return Ok(outcome),
                Err(error) if error.source.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if is_unanswered(&error) && unanswered < UNANSWERED => unanswered += 1,
                // It was removed meanwhile. What cannot be made at all lacks its bucket.
                Err(error) if is_there && error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let source = io::Error::other("others keep changing it");
        Err(fail("write", self.address(path), source).into())
    }

    fn read_version(&self, path: &str, steps: &Steps) -> Result<Option<(Bytes, UpdateVersion)>> {
        self.step(steps.read("begun"), "read", path)?;
        let (objects, at) = (self.objects(), self.at(path));
        let read = self.wait(async move {
            let found = objects.get(&at).await?;
            let (e_tag, version) = (found.meta.e_tag.clone(), found.meta.version.clone());
            Ok((found.bytes().await?, UpdateVersion { e_tag, version }))
        });
        match self.told(read, "read", path) {
            Err(error) if error.is_not_found() => Ok(None),
            read => read.map(Some),
        }
    }

    pub(super) fn list(&self, folder: &str, steps: &Steps) -> Result<Vec<String>> {
        self.step(steps.read("begun"), "list", folder)?;
        let (objects, at) = (self.objects(), self.at(folder));
        let listed = self.wait(async move { objects.list_with_delimiter(Some(&at)).await });
        let listed = self.told(listed, "list", folder)?;
        let below = listed.objects.iter().map(|object| &object.location);
        let names = listed.common_prefixes.iter().chain(below);
        let mut names: Vec<_> =
            names.filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Reads objects, some at a time, and returns them in the order of their paths.
    pub(super) fn read_each(&self, paths: &[String], steps: &Steps) -> Vec<Result<Bytes>> {
        let objects = self.objects();
        let ats: Vec<Path> = paths.iter().map(|path| self.at(path)).collect();
        let read = steps.read("begun").and_then(|()| {
            self.wait(async move {
                let asked = futures::stream::iter(ats).map(|at| {
                    let objects = Arc::clone(&objects);
                    async move { objects.get(&at).await?.bytes().await }
                });
                Ok(asked.buffered(AT_ONCE).collect::<Vec<_>>().await)
            })
        });
        let told = |(path, read): (&String, object_store::Result<Bytes>)| {
            self.told(read.map_err(|error| io_error(&error, &self.address)), "read", path)
        };
        match read {
            Ok(read) => paths.iter().zip(read).map(told).collect(),
            Err(source) => vec![Err(fail("read", self.address(""), source))],
        }
    }

    pub(super) fn list_all(&self, folder: &str, steps: &Steps) -> Result<Vec<String>> {
        Ok(self.list_sizes(folder, steps)?.into_iter().map(|(path, _)| path).collect())
    }

    /// Returns all objects below those names in a folder that are `first` or come after it, sorted.
    pub(super) fn list_all_from(
        &self,
        folder: &str,
        first: &str,
        steps: &Steps,
    ) -> Result<Vec<String>> {
        self.step(steps.read("begun"), "list", folder)?;
        let (objects, at) = (self.objects(), self.at(folder));
        // All that lies below a name comes after the name itself.
        let from = self.at(&format!("{folder}/{first}"));
        let listed = self.wait(async move {
            objects.list_with_offset(Some(&at), &from).try_collect::<Vec<_>>().await
        });
        let found = self.told(listed, "list", folder)?;
        let mut paths: Vec<_> =
            found.iter().filter_map(|one| self.relative(&one.location)).collect();
        let lies_deeper = |path: &String| path[folder.len()..].matches('/').count() > 1;
        paths.retain(lies_deeper);
        paths.sort_unstable();
        Ok(paths)
    }

    /// Returns all objects below a name, sorted, with how many bytes each has.
    pub(super) fn list_sizes(&self, folder: &str, steps: &Steps) -> Result<Vec<(String, u64)>> {
        self.step(steps.read("begun"), "list", folder)?;
        let (objects, at) = (self.objects(), self.at(folder));
        let listed =
            self.wait(async move { objects.list(Some(&at)).try_collect::<Vec<_>>().await });
        let found = self.told(listed, "list", folder)?;
        let sizes = found.iter().filter_map(|one| Some((self.relative(&one.location)?, one.size)));
        let mut sizes: Vec<_> = sizes.collect();
        sizes.sort_unstable();
        Ok(sizes)
    }

    pub(super) fn remove(&self, path: &str, steps: &Steps) -> Result<()> {
        self.step(steps.change("begun"), "remove", path)?;
        let (objects, at) = (self.objects(), self.at(path));
        let removed = self.wait(async move {
            match objects.delete(&at).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                removed => removed,
            }
        });
        self.told(removed, "remove", path)?;
        steps.reach("done");
        Ok(())
    }

    pub(super) fn remove_all(&self, folder: &str, steps: &Steps) -> Result<()> {
        self.step(steps.change("begun"), "remove", folder)?;
        let (objects, at) = (self.objects(), self.at(folder));
        let removed = self.wait(async move {
            let found = objects.list(Some(&at)).map_ok(|found| found.location).boxed();
            let removed = objects.delete_stream(found).filter(|removed| {
                // A removal that is sent again finds nothing.
                let is_gone = matches!(removed, Err(object_store::Error::NotFound { .. }));
                futures::future::ready(!is_gone)
            });
            removed.try_collect::<Vec<_>>().await
        });
        self.told(removed, "remove", folder)?;
        steps.reach("done");
        Ok(())
    }

    /// Copies an object within the bucket.
    pub(super) fn copy(&self, from: &str, to: &str, steps: &Steps) -> Result<()> {
        self.step(steps.change("begun"), "copy", to)?;
        let (objects, source, target) = (self.objects(), self.at(from), self.at(to));
        let copied = self.wait(async move { objects.copy(&source, &target).await });
        self.told(copied, "copy", from)?;
        steps.reach("done");
        Ok(())
    }

    /// Moves an object, or all below a name. Others see some of it at the old names, some at the new.
    pub(super) fn rename(&self, from: &str, to: &str, steps: &Steps) -> Result<()> {
        let below = self.list_all(from, steps)?;
        let moved = below.iter().map(|path| (path.as_str(), path.replacen(from, to, 1)));
        let itself = below.is_empty().then(|| (from, to.to_owned()));
        for (from, to) in moved.chain(itself) {
            self.copy(from, &to, steps)?;
            self.remove(from, steps)?;
        }
        Ok(())
    }

    /// Begins an upload in pieces and returns its id.
    pub(super) fn begin_upload(&self, path: &str) -> Result<String> {
        let (uploads, at) = (Arc::clone(&self.client.uploads), self.at(path));
        let begun = self.wait(async move { uploads.create_multipart(&at).await });
        self.told(begun, "write", path)
    }

    /// Sends a piece of an upload, and returns at once; the piece is asked for with
    /// [`Pending::finish`].
    pub(super) fn send_piece(&self, path: &str, id: &str, number: usize, bytes: Bytes) -> Pending {
        let (uploads, at) = (Arc::clone(&self.client.uploads), self.at(path));
        let id = id.to_owned();
        let answer =
            self.begin(async move { uploads.put_part(&at, &id, number, bytes.into()).await });
        Pending { answer, address: self.address(path), root: self.address.clone() }
    }

    pub(super) fn complete_upload(&self, path: &str, id: &str, pieces: Vec<Piece>) -> Result<()> {
        let (uploads, at, id) = (Arc::clone(&self.client.uploads), self.at(path), id.to_owned());
        let done = self.wait(async move { uploads.complete_multipart(&at, &id, pieces).await });
        self.told(done, "write", path).map(drop)
    }

    /// Ends an upload that is not wanted; that there is none is no error.
    pub(super) fn abort_upload(&self, path: &str, id: &str) -> Result<()> {
        let (uploads, at, id) = (Arc::clone(&self.client.uploads), self.at(path), id.to_owned());
        let aborted = self.wait(async move { uploads.abort_multipart(&at, &id).await });
        match self.told(aborted, "remove", path) {
            Err(error) if error.is_not_found() => Ok(()),
            aborted => aborted,
        }
    }

    fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.client.objects)
    }

    fn at(&self, path: &str) -> Path {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.fold(self.prefix.clone(), |at, name| at.join(name))
    }

    fn relative(&self, path: &Path) -> Option<String> {
        let names: Vec<_> = path.prefix_match(&self.prefix)?.collect();
        Some(names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("/"))
    }

    /// Runs a request on the bucket's threads, whatever thread this is.
    fn begin<T: Send + 'static>(
        &self,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> std::sync::mpsc::Receiver<object_store::Result<T>> {
        let (done, answer) = std::sync::mpsc::sync_channel(1);
        if let Some(runtime) = &self.client.runtime {
            // Nobody waits any more where the run ends.
            runtime.spawn(async move { drop(done.send(request.await)) });
        }
        answer
    }

    fn wait<T: Send + 'static>(
        &self,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        answer_of(&self.begin(request), &self.address)
    }

    fn told<T>(&self, result: io::Result<T>, action: &'static str, path: &str) -> Result<T> {
        result.map_err(|source| fail(action, self.address(path), source))
    }

    fn step(&self, step: io::Result<()>, action: &'static str, path: &str) -> Result<()> {
        self.told(step, action, path)
    }
}

/// A piece of an upload that has arrived.
pub(super) type Piece = object_store::multipart::PartId;

/// A piece of an upload that is under way.
#[derive(Debug)]
pub(super) struct Pending {
    answer: std::sync::mpsc::Receiver<object_store::Result<Piece>>,
    address: String,
    root: String,
}

impl Pending {
    pub(super) fn finish(self) -> Result<Piece> {
        answer_of(&self.answer, &self.root).map_err(|source| fail("write", self.address, source))
    }
}

fn answer_of<T>(
    answer: &std::sync::mpsc::Receiver<object_store::Result<T>>,
    address: &str,
) -> io::Result<T> {
    let answer = answer.recv().map_err(|_| io::Error::other("the request was given up"))?;
    answer.map_err(|error| io_error(&error, address))
}

fn both<S: ObjectStore + MultipartStore>(
    built: object_store::Result<S>,
) -> object_store::Result<(Arc<dyn ObjectStore>, Arc<dyn MultipartStore>)> {
    let store = Arc::new(built?);
    Ok((Arc::clone(&store) as Arc<dyn ObjectStore>, store))
}

fn runtime() -> io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).max_blocking_threads(1).thread_name("bucket").enable_all().build()
}

/// Tells whether a write may have been done all the same: nothing was said of it, as where a connection is
/// cut. Writes on condition are not sent again by the library then.
fn is_unanswered(error: &Error) -> bool {
    error.source.kind() == io::ErrorKind::Other && error.source.raw_os_error().is_none()
}

/// What a bucket said no with, inside an error of input and output: so that it is known for one of
/// storage, and for which, however deep it stands in another error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    address: String,
    kind: io::ErrorKind,
    text: String,
}

impl Refusal {
    /// Returns what a bucket said, where the error is of one.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Returns what to do about it, where that can be told.
    pub fn hint(&self) -> Option<String> {
        let (scheme, below) = self.address.split_once("://")?;
        let names = match scheme {
            "s3" => "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL",
            "gs" => "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT",
            _ => "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
        };
        let bucket = below.split('/').next().unwrap_or(below);
        let lacks_bucket = ["NoSuchBucket", "ContainerNotFound", "bucket does not exist"];
        match self.kind {
            io::ErrorKind::NotFound if lacks_bucket.iter().any(|code| self.text.contains(code)) => {
                Some(format!("make the bucket `{bucket}` first: leadpipe makes none"))
            }
            io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists => None,
            io::ErrorKind::Unsupported => Some(
                "use a store that knows `If-None-Match` and `If-Match`: without them two runs at once \
                 would lose leads"
                    .to_owned(),
            ),
            io::ErrorKind::PermissionDenied => Some(format!(
                "who asks comes from the environment ({names}, or the role of the machine), and must be \
                 allowed to read, write, list and remove"
            )),
            _ => Some(format!(
                "where the bucket is comes from the environment ({names}); once it answers, run the \
                 same: what is held stays held"
            )),
        }
    }
}

fn io_error(error: &object_store::Error, address: &str) -> io::Error {
    use object_store::Error as E;
    let kind = match error {
        E::NotFound { .. } => io::ErrorKind::NotFound,
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => {
            io::ErrorKind::AlreadyExists
        }
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        E::NotSupported { .. } | E::NotImplemented { .. } => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, Refusal { address: address.to_owned(), kind, text: told(error) })
}

/// What a store says is wrong, without what could be secret in it: the query of an address may be a
/// key, and the body of a refusal repeats the headers of the request.
fn told(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let (before, body) = match text.find("<?xml").or_else(|| text.find('<')) {
        Some(body) => text.split_at(body),
        None => (text.as_str(), ""),
    };
    let words = before.split_whitespace().map(|word| match word.contains("://") {
        true => word.split('?').next().unwrap_or(word),
        false => word,
    });
    let mut told = words.collect::<Vec<_>>().join(" ");
    for tag in ["Code", "Message"] {
        told.extend(tagged(body, tag).into_iter().flat_map(|said| [" ", said]));
    }
    told
}

fn tagged<'a>(body: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{tag}>"))?;
    rest.split_once(&format!("</{tag}>")).map(|(said, _)| said.lines().next().unwrap_or(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_bucket_says_no_to_comes_with_a_way_out_however_deep_it_stands() {
        let hint = |kind: io::ErrorKind, address: &str, text: &str| {
            let refusal = Refusal { address: address.to_owned(), kind, text: text.to_owned() };
            let error = fail("read", "x", io::Error::new(kind, refusal)).clone();
            Refusal::of(&error.source).unwrap().hint()
        };
        let missing =
            hint(io::ErrorKind::NotFound, "s3://leads/acme", "404: NoSuchBucket").unwrap();
        assert!(missing.contains("`leads`"), "{missing}");
        let denied = hint(io::ErrorKind::PermissionDenied, "az://leads/acme", "403").unwrap();
        assert!(denied.contains("AZURE_STORAGE_ACCOUNT_NAME"), "{denied}");
        assert_eq!(hint(io::ErrorKind::NotFound, "s3://leads", "404: NoSuchKey"), None);
        assert_eq!(hint(io::ErrorKind::AlreadyExists, "s3://leads", "412"), None);
        assert!(Refusal::of(&io::Error::from_raw_os_error(5)).is_none());
    }

    #[test]
    fn a_store_that_keeps_to_conditions_is_trusted_the_first_time_and_later() {
        let bucket = Bucket::in_memory();
        for _ in 0..2 {
            bucket.refuse_unconditional("state/conditions", &Steps::default()).unwrap();
        }
    }

    #[test]
    fn what_is_told_of_a_refusal_has_no_key_in_it() {
        let text = "Error performing PUT https://x.blob.core.windows.net/l/a?sv=1&sig=SECRET in \
                    3ms - Server returned non-2xx status code: 403 Forbidden: <?xml \
                    version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>It does \
                    not.\nmore</Message><CanonicalRequest>x-amz-security-token:SECRET\
                    </CanonicalRequest></Error>";
        let told = told(&io::Error::other(text));
        assert!(told.ends_with("403 Forbidden: SignatureDoesNotMatch It does not."), "{told}");
        assert!(told.contains("https://x.blob.core.windows.net/l/a in 3ms"), "{told}");
        assert!(!told.contains("SECRET"), "{told}");
    }
}
