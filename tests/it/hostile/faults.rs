//! The list of faults, and the providers at which each makes sense.

use leadpipe::sandbox::Fault;
use leadpipe::sandbox::Provider;

/// A fault by name.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) name: &'static str,
    pub(super) fault: Fault,
    pub(super) providers: &'static [Provider],
    /// Whether it takes real time.
    pub(super) is_slow: bool,
    /// Whether it says that a listing ends, of which nobody knows yet how long it is: that cannot be
    /// told from the truth, and the next reading shows the rest.
    pub(super) says_end: bool,
}

const ALL: &[Provider] = &[Provider::WhatConverts, Provider::Whautomate, Provider::Convertalk];
const WHATCONVERTS: &[Provider] = &[Provider::WhatConverts];
const ENVELOPES: &[Provider] = &[Provider::WhatConverts, Provider::Convertalk];
const SCANS: &[Provider] = &[Provider::Whautomate, Provider::Convertalk];
const WHAUTOMATE: &[Provider] = &[Provider::Whautomate];
const CONVERTALK: &[Provider] = &[Provider::Convertalk];

fn named(name: &'static str, fault: Fault) -> Named {
    Named { name, fault, providers: ALL, is_slow: false, says_end: false }
}

impl Named {
    fn at(self, providers: &'static [Provider]) -> Self {
        Self { providers, ..self }
    }

    fn slow(self) -> Self {
        Self { is_slow: true, ..self }
    }

    fn says_end(self) -> Self {
        Self { says_end: true, ..self }
    }
}

fn status(status: u16) -> Fault {
    Fault::Status { status }
}

fn member(json: &str) -> Fault {
    Fault::Member { json: json.to_owned() }
}

fn body(text: &str) -> Fault {
    Fault::Body { text: text.to_owned() }
}

fn retry_after(value: &str) -> Fault {
    Fault::RetryAfter { value: value.to_owned() }
}

fn redirect(to: &str) -> Fault {
    Fault::Redirect { to: to.to_owned() }
}

fn deaf(to: &str) -> Fault {
    Fault::Deaf { to: to.to_owned() }
}

fn renamed(from: &str) -> Fault {
    Fault::Renamed { from: from.to_owned(), to: "renamed".to_owned() }
}

/// All of them.
pub(super) fn all() -> Vec<Named> {
    [refusals(), connections(), answers(), rows(), listings()].concat()
}

fn refusals() -> Vec<Named> {
    vec![
        named("500", status(500)),
        named("502", status(502)),
        named("503", status(503)),
        named("504", status(504)),
        named("429", status(429)),
        named("429, 30 s", Fault::SlowDown { retry_after: 30 }),
        named("429, a date in a minute", retry_after("Sun, 01 Nov 2026 00:11:00 GMT")),
        named("429, a day", retry_after("86400")),
        named("429, negative", retry_after("-5")),
        named("429, 10^18 s", retry_after("1000000000000000000")),
        named("429, the year 9999", retry_after("Fri, 31 Dec 9999 23:59:59 GMT")),
        named("429, text", retry_after("soon")),
        named("429, nothing", retry_after("")),
        named("401", status(401)),
        named("403", status(403)),
        named("error inside a 200", Fault::ErrorInside),
        named("302 without a place", status(302)),
        named("302 to another host", redirect("http://127.0.0.1:9/x")),
        named("302 in a loop", redirect("")),
        named("302 without the query", redirect("/api/v1/leads")).at(WHATCONVERTS),
        named("302 without the query", redirect("/v1/contacts")).at(WHAUTOMATE),
        named("302 without the query", redirect("/inbox/direct/chats")).at(CONVERTALK),
        named("304", status(304)),
        named("204", status(204)),
        named("101", Fault::Interim { status: 101 }),
        named("103 and no more", Fault::Interim { status: 103 }),
    ]
}

fn connections() -> Vec<Named> {
    vec![
        named("reset", Fault::Reset),
        named("closed", Fault::Close),
        named("body cut short", Fault::CutBody),
        named("length too short", Fault::ShortLength),
        named("a header of 1 MB", Fault::LongHeader { bytes: 1_000_000 }),
        named("headers without end", Fault::EndlessHeaders),
        named("a body without end", Fault::EndlessBody),
        named("no answer", Fault::Stall { ms: 5_000 }).slow(),
        named("half an answer", Fault::Freeze).slow(),
        named("a byte at a time", Fault::Drip { ms: 40 }).slow(),
        named(
            "the date is 1970",
            Fault::Date { value: "Thu, 01 Jan 1970 00:00:00 GMT".to_owned() },
        ),
        named(
            "the date is 9999",
            Fault::Date { value: "Fri, 31 Dec 9999 23:59:59 GMT".to_owned() },
        ),
        named("the date is no date", Fault::Date { value: "yesterday".to_owned() }),
    ]
}

fn answers() -> Vec<Named> {
    vec![
        named("HTML", Fault::Html),
        named("JSON cut short", Fault::CutJson),
        named("a bomb of gzip", Fault::GzipBomb { megabytes: 40 }),
        named("a page of 2 MB of 1", Fault::Padded { megabytes: 2 }),
        named("an empty body", body("")),
        named("null", body("null")),
        named("a list of nothing", body("[]")).says_end(),
        named("a text", body("\"x\"")),
        named("a number", body("1")),
        named("an object of nothing", body("{}")),
        named("a list of scalars", body("[null,1,25,1,0,[]]")),
        named("100,001 rows of nothing", Fault::TinyRows { rows: 100_001 }),
        named("the list twice", Fault::ListTwice).at(ENVELOPES),
    ]
}

fn rows() -> Vec<Named> {
    vec![
        named("10,000 levels deep", Fault::Nested { depth: 10_000 }),
        named("duplicate keys", member(r#""lead_id":0,"profile_id":7"#)).at(WHATCONVERTS),
        named("duplicate keys", member(r#""id":"x","createdAt":1"#)).at(WHAUTOMATE),
        named("duplicate keys", member(r#""_id":"x","createdAt":1"#)).at(CONVERTALK),
        named("invalid UTF-8", Fault::InvalidText),
        named("half a surrogate pair", member(r#""strange\ud800":"\udfff""#)),
        named("NUL as such", member("\"strange\":\"\0\"")),
        named("NUL escaped", member(r#""strange":"a\u0000b""#)),
        named(
            "numbers beyond 64 bits",
            member(r#""strange":[123456789012345678901234567890,-1e999]"#),
        ),
        named("a name of 500 KB", Fault::Long { name: 500_000, value: 1 }),
        named("a text of 500 KB", Fault::Long { name: 1, value: 500_000 }),
        named("ids renamed", renamed("lead_id")).at(WHATCONVERTS),
        named("ids renamed", renamed("id")).at(WHAUTOMATE),
        named("ids renamed", renamed("_id")).at(CONVERTALK),
        named("one id, two contents", Fault::TwoContents),
    ]
}

fn listings() -> Vec<Named> {
    vec![
        named("the page before", Fault::Behind),
        named("the page is not heard", deaf("page_number")).at(WHATCONVERTS),
        named("the page is not heard", deaf("page")).at(SCANS),
        named("the size is not heard", deaf("leads_per_page")).at(WHATCONVERTS),
        named("the start is not heard", deaf("start_date")).at(WHATCONVERTS),
        named("the end is not heard", deaf("end_date")).at(WHATCONVERTS),
        named("an empty page", Fault::EndOfList { status: 200 }).says_end(),
        named("a total too large", Fault::Total { by: 7 }).at(WHATCONVERTS),
        named("a total of 500,000", Fault::Total { by: 500_000 }).at(WHATCONVERTS),
        named("a total beyond all", Fault::Total { by: 1_000_000_000_000 }).at(WHATCONVERTS),
        named("a total too small", Fault::Total { by: -30 }).at(WHATCONVERTS),
    ]
}
