//! Maps pages on a thread of its own, ahead of the loader: that is the larger half of its work.
//!
//! All messages go through it and keep their order. Memory: each page has its slot until it is loaded,
//! and its body goes once it is mapped.

use crate::config::SourceSettings;
use crate::ids::SourceName;
use crate::run::Error;
use crate::run::Result;
use crate::run::loader::message::Message;
use crate::run::settings;
use crate::transform;
use crate::transform::Mapping;
use std::collections::BTreeMap;
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// Messages that may wait for the loader, mapped.
const AHEAD: usize = 1;

/// The thread that maps.
pub(super) struct Mapper {
    sources: BTreeMap<SourceName, OfSource>,
}

/// What maps the pages of a source.
struct OfSource {
    /// By stream.
    mappings: BTreeMap<String, Box<dyn Mapping>>,
    transform: transform::Settings,
}

impl Mapper {
    /// Returns the mapper of some sources.
    pub(super) fn new<'a>(
        sources: impl Iterator<Item = (&'a SourceSettings, &'a transform::Settings)>,
    ) -> Result<Self> {
        let of_source = |(source, transform): (&SourceSettings, &transform::Settings)| {
            let (mappings, transform) = (settings::mappings(source)?, transform.clone());
            Ok((source.name.clone(), OfSource { mappings, transform }))
        };
        Ok(Self { sources: sources.map(of_source).collect::<Result<_>>()? })
    }

    /// Starts the thread; it ends when all senders of `messages` are gone, or the receiver of what it returns.
    pub(super) fn start(
        self,
        mut messages: mpsc::Receiver<Message>,
    ) -> (mpsc::Receiver<Message>, JoinHandle<()>) {
        let (sender, mapped) = mpsc::channel(AHEAD);
        let thread = std::thread::spawn(move || {
            while let Some(mut message) = messages.blocking_recv() {
                if let Message::Page(page) = &mut message {
                    let scope = &page.walk.scope;
                    let source = self.sources.get(&scope.source);
                    // A walk of a stream that the job no longer names is dropped, not loaded.
                    page.mapped = source.and_then(|source| {
                        let mapping = source.mappings.get(&scope.stream)?;
                        Some(page.map(&**mapping, &source.transform))
                    });
                    (page.body, page.records) = (bytes::Bytes::new(), None);
                }
                if sender.blocking_send(message).is_err() {
                    break;
                }
            }
        });
        (mapped, thread)
    }
}

/// Tells an end of the thread from a death: what came after it was never seen.
pub(super) fn join(thread: JoinHandle<()>) -> Result<()> {
    thread.join().map_err(|_| Error::Bug("the thread that maps pages has died"))
}
