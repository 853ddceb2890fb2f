//! The way of a page from the provider into the archive, and on to the loader.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use async_trait::async_trait;

use super::Error;
use super::Result;
use super::event::Event;
use super::loader::HeldPage;
use super::loader::Message;
use super::source::Shared;
use crate::archive;
use crate::extract;
use crate::extract::PageSink;
use crate::extract::PageSizes;
use crate::extract::Slot;
use crate::ids::ProviderId;
use crate::point::Steps;
use crate::record::RawPage;
use crate::record::Scope;
use crate::record::Walk;
use crate::transform::Mapping;
use crate::transform::Records;

/// Holds pages of one walk in the archive and hands them to the loader.
pub(super) struct Sink<'a> {
    pub(super) shared: &'a Shared,
    pub(super) walk: &'a Arc<Walk>,
    /// Pages of the walk held before this run.
    pub(super) archived: u64,
    /// Pages held in this run.
    pub(super) held: AtomicU64,
    /// What is found out about the sizes of pages while the walk is read.
    pub(super) sizes: Option<&'a PageSizes>,
    /// What will map its pages.
    pub(super) mapping: Option<&'a dyn Mapping>,
    pub(super) provider: ProviderId,
}

impl Sink<'_> {
    /// Tells the loader which size of pages is known to fit, where that is news.
    pub(super) async fn tell_sizes(&self) -> Result<()> {
        let Some(known) = self.sizes.and_then(PageSizes::take_news) else { return Ok(()) };
        let Scope { source, stream, .. } = self.walk.scope.clone();
        let told = self.shared.messages.send(Message::SmallerPages { source, stream, known });
        told.await.map_err(|_| Error::LoaderStopped)
    }

    pub(super) async fn keep(
        &self,
        mut page: RawPage,
        slot: Option<Slot>,
        index: Option<u64>,
    ) -> std::result::Result<(), extract::Error> {
        // A page that is held is mapped in every run until it is: one that cannot be is not held.
        let places = page.places.take();
        let records = self.mapping.map(|mapping| match places {
            Some(places) => Ok(Records::at(places)),
            None => mapping.records(&page.body, page.is_json),
        });
        let records = records.transpose();
        let records = records.map_err(|error| {
            let (provider, detail) = (self.provider, error.to_string());
            extract::Error::Broken { provider, detail }
        })?;
        page.is_json |= records.is_some();
        let keep = |error| extract::Error::Keep(error);
        self.tell_sizes().await.map_err(|error| keep(Box::new(error)))?;
        let (header, body) = (page.header.clone(), page.body.clone());
        let stated_rows = page.stated_rows;
        let location = self.shared.archive.page(&self.walk.id, page).await;
        let location = location.map_err(|error| keep(Box::new(error)))?;
        let steps = Steps::new(|| "page".to_owned());
        steps.reach("held");
        self.held.fetch_add(1, Ordering::Relaxed);
        // The archive counts the pages of this run's segment from 1, in the order they are held.
        let number = location.rsplit('#').next().and_then(|number| number.parse::<u64>().ok());
        let index = index.unwrap_or(self.archived + number.unwrap_or(1) - 1);
        let source = self.walk.scope.source.clone();
        self.shared.observer.observe(&Event::PageHeld { source });
        let held = HeldPage {
            walk: Arc::clone(self.walk),
            header,
            run: self.shared.run.to_string(),
            location,
            index,
            body,
            records,
            mapped: None,
            stated_rows,
            from_archive: false,
            slot,
        };
        let sent = self.shared.messages.send(Message::Page(Box::new(held))).await;
        sent.map_err(|_| keep(Box::new(Error::LoaderStopped)))?;
        steps.reach("handed-over");
        Ok(())
    }
}

#[async_trait]
impl PageSink for Sink<'_> {
    async fn hold(
        &self,
        _walk: &Walk,
        page: RawPage,
        slot: Slot,
    ) -> std::result::Result<(), extract::Error> {
        self.keep(page, Some(slot), None).await
    }

    async fn hole(
        &self,
        walk: &Walk,
        offset: u64,
        rows: u32,
        why: &extract::Error,
    ) -> std::result::Result<(), extract::Error> {
        let hole = archive::Hole { offset, rows, why: why.to_string() };
        let kept = self.shared.archive.hole(&walk.id, hole).await;
        kept.map_err(|error| extract::Error::Keep(Box::new(error)))
    }
}
