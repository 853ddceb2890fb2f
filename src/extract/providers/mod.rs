//! The providers, each in a folder of its own: a closed list.
//!
//! [`connect`] is the one place that turns a source's settings into its client; what the providers
//! have in common on the wire stands in the private modules beside them.

pub mod convertalk;
mod json;
pub(super) mod refusal;
mod rows;
#[cfg(test)]
mod testing;
pub mod whatconverts;
pub mod whautomate;

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;

use super::Error;
use super::HttpSettings;
use super::Result;
use super::Source;
use crate::clock::SharedClock;
use crate::config::ConvertalkSettings;
use crate::config::ConvertalkStream;
use crate::config::ProviderSettings;
use crate::config::SourceSettings;
use crate::config::WhatConvertsPlan;
use crate::config::WhatConvertsSettings;
use crate::config::WhautomateSettings;
use crate::ids::ProviderId;

/// The longest that no byte of an answer may come.
const STALL: Duration = Duration::from_secs(30);

/// Reads the secrets of a source and makes its client. Nothing is sent.
pub fn connect(source: &SourceSettings, clock: SharedClock) -> Result<Arc<dyn Source>> {
    let http = HttpSettings {
        base_url: source.base_url.clone(),
        timeout: source.timeout.to_std().unwrap_or(Duration::from_secs(60)),
        stall: STALL,
        max_body_bytes: source.max_body_bytes,
    };
    match &source.provider {
        ProviderSettings::WhatConverts(settings) => {
            let settings = whatconverts(settings, http)?;
            Ok(Arc::new(whatconverts::WhatConverts::new(settings, clock)?))
        }
        ProviderSettings::Whautomate(settings) => {
            let settings = whautomate(settings, http)?;
            Ok(Arc::new(whautomate::Whautomate::new(settings, clock)?))
        }
        ProviderSettings::Convertalk(settings) => {
            let settings = convertalk(settings, http)?;
            Ok(Arc::new(convertalk::Convertalk::new(settings, clock)?))
        }
    }
}

fn whatconverts(
    settings: &WhatConvertsSettings,
    http: HttpSettings,
) -> Result<whatconverts::Settings> {
    Ok(whatconverts::Settings {
        http,
        token: settings.token.read()?,
        secret: settings.secret.read()?,
        is_master: settings.plan == WhatConvertsPlan::Master,
        date_parameters: settings.date_parameters.clone(),
    })
}

fn whautomate(settings: &WhautomateSettings, http: HttpSettings) -> Result<whautomate::Settings> {
    Ok(whautomate::Settings {
        http,
        api_key: settings.api_key.read()?,
        stream: settings.streams.first().map_or("contacts", |stream| stream.as_str()),
        short_page_ends: settings.short_page_ends,
    })
}

fn convertalk(settings: &ConvertalkSettings, http: HttpSettings) -> Result<convertalk::Settings> {
    let reads_chats = settings.streams.contains(&ConvertalkStream::Chats);
    let users = &settings.users_auth;
    Ok(convertalk::Settings {
        http,
        token: settings.token.read()?,
        customer_id: settings.customer_id.clone(),
        first_bot: settings.bot_ids.first().filter(|_| reads_chats).cloned(),
        chats: convertalk::Carrier::by_header(&settings.auth_header),
        users: convertalk::Carrier {
            header: users.header.clone(),
            prefix: users.prefix.clone(),
            authtype: users.authtype.clone(),
        },
    })
}

/// Returns `text` as the value of a header that is not printed. Fails where it cannot stand in one.
fn credential(provider: ProviderId, text: &str) -> Result<HeaderValue> {
    let made = HeaderValue::from_str(text);
    let mut value = made.map_err(|source| Error::Setup { provider, source: Box::new(source) })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Job;
    use crate::config::SecretRef;
    use crate::error::Hint;

    fn job() -> Job {
        let text = include_str!("../../../tests/fixtures/job/design.toml");
        let mut job = Job::parse(text, Path::new("job.toml")).unwrap();
        let given = || SecretRef::Given(testing::SECRET.into());
        for source in &mut job.sources {
            match &mut source.provider {
                ProviderSettings::WhatConverts(settings) => {
                    (settings.token, settings.secret) = (given(), given());
                }
                ProviderSettings::Whautomate(settings) => settings.api_key = given(),
                ProviderSettings::Convertalk(settings) => settings.token = given(),
            }
        }
        job
    }

    #[test]
    fn a_source_of_every_provider_is_connected() {
        for source in &job().sources {
            let connected = connect(source, testing::clock()).unwrap();
            assert_eq!(connected.provider(), source.provider_id());
            assert!(!format!("{connected:?}").contains(testing::SECRET), "{connected:?}");
        }
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_named_and_not_tried_again() {
        let mut job = job();
        let missing = || SecretRef::Env("LEADPIPE_TEST_NEVER_SET".to_owned());
        for source in &mut job.sources {
            match &mut source.provider {
                ProviderSettings::WhatConverts(settings) => settings.secret = missing(),
                ProviderSettings::Whautomate(settings) => settings.api_key = missing(),
                ProviderSettings::Convertalk(settings) => settings.token = missing(),
            }
            let error = connect(source, testing::clock()).unwrap_err();
            assert!(matches!(error, Error::Secret(_)) && !error.is_retryable(), "{error}");
            assert!(error.to_string().contains("LEADPIPE_TEST_NEVER_SET"));
            assert!(error.hint().is_some());
        }
    }
}
