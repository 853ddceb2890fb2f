//! What can go wrong with an answer, and what each fault makes of it.
//!
//! A fault meets one request, by its place (`fail_next`) or by chance (`faults`), whoever the platform
//! is. Most change an answer that is made already: its status, its headers, its text. The rest is done
//! where the answer is made (what a platform words itself, parameters that are not heard) or below HTTP
//! (`server/wire.rs`). One that finds nothing to change, such as a page without rows, changes nothing.

use std::io::Write;

use axum::http::header;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;
use serde::Serialize;

use super::server::Answer;

/// An accident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A status (500, 502, 503, 504, 401, ...) with the body that the provider's servers have for
    /// it: for WhatConverts one that is not JSON. A 302 has no `Location`.
    Status {
        /// HTTP status.
        status: u16,
    },
    /// 429 with `Retry-After`.
    SlowDown {
        /// Seconds to wait.
        retry_after: u64,
    },
    /// 429 with any text as `Retry-After`.
    RetryAfter {
        /// The header's value.
        value: String,
    },
    /// The connection is reset before the answer.
    Reset,
    /// The connection is closed before the answer.
    Close,
    /// The body ends half way, against its stated length.
    CutBody,
    /// The stated length ends half way, and the body goes on.
    ShortLength,
    /// The JSON ends half way, in a body that is whole.
    CutJson,
    /// 200 with a page of HTML.
    Html,
    /// 200 with an error inside.
    ErrorInside,
    /// The end of a list, although there is more: with 200 a page without rows, with another status
    /// (404) the error that says so.
    EndOfList {
        /// HTTP status.
        status: u16,
    },
    /// 302 to this address.
    Redirect {
        /// Value of `Location`.
        to: String,
    },
    /// Another status before the answer, which never comes: 101, 103.
    Interim {
        /// HTTP status.
        status: u16,
    },
    /// The answer comes this much later.
    Stall {
        /// Milliseconds.
        ms: u64,
    },
    /// Half of the body comes, and then nothing more.
    Freeze,
    /// The body comes byte by byte.
    Drip {
        /// Milliseconds between two bytes.
        ms: u64,
    },
    /// A header of that many bytes.
    LongHeader {
        /// Its length.
        bytes: usize,
    },
    /// Headers without an end.
    EndlessHeaders,
    /// A body without an end, and without a length.
    EndlessBody,
    /// `Date` says something else.
    Date {
        /// The header's value.
        value: String,
    },
    /// 200 with a body of a few bytes that inflates to blanks.
    GzipBomb {
        /// What it inflates to.
        megabytes: usize,
    },
    /// The page is followed by blanks, which say nothing.
    Padded {
        /// How many.
        megabytes: usize,
    },
    /// 200 with this body, which may be empty.
    Body {
        /// The body.
        text: String,
    },
    /// The page has zeros in the place of its rows.
    TinyRows {
        /// How many.
        rows: usize,
    },
    /// The first row begins with one more member, whatever its text.
    Member {
        /// Such as `"strange":1e999`.
        json: String,
    },
    /// The first row begins with a member whose text is not UTF-8.
    InvalidText,
    /// The first row begins with a member of lists in lists.
    Nested {
        /// How many lists.
        depth: usize,
    },
    /// The first row begins with a long member.
    Long {
        /// Bytes of its name.
        name: usize,
        /// Bytes of its text.
        value: usize,
    },
    /// A field has another name in all rows.
    Renamed {
        /// The name it has.
        from: String,
        /// The name it gets.
        to: String,
    },
    /// The first row stands at the end of the page once more, with other content.
    TwoContents,
    /// An envelope names its list twice; the second one is empty.
    ListTwice,
    /// The stated total is another one.
    Total {
        /// By so many rows.
        by: i64,
    },
    /// The page before the one asked for, under the number asked for.
    Behind,
    /// A parameter is not heard.
    Deaf {
        /// Its name.
        to: String,
    },
}

/// An accident and how often it happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRate {
    /// What happens.
    pub fault: Fault,
    /// In how many of a thousand requests.
    pub per_mille: u32,
}

/// Names of the parameter that says which page is asked for.
const PAGE: [&str; 2] = ["page_number", "page"];

impl Fault {
    /// Returns the query as it is heard.
    pub(super) fn heard(&self, mut query: Vec<(String, String)>) -> Vec<(String, String)> {
        match self {
            Self::Deaf { to } => query.retain(|(name, _)| name != to),
            Self::Behind => {
                let pages = query.iter_mut().filter(|(name, _)| PAGE.contains(&name.as_str()));
                for (_, page) in pages {
                    let before = page.parse::<u64>().map_or(1, |page| page.saturating_sub(1));
                    *page = before.max(1).to_string();
                }
            }
            _ => {}
        }
        query
    }

    /// Returns what becomes of a sound answer to a request for the page `asked`, as far as its text and
    /// headers go.
    pub(super) fn applied(&self, answer: Answer, asked: Option<&str>) -> Answer {
        match self {
            Self::Html => Answer::html(200, "Maintenance"),
            Self::Redirect { to } => {
                Answer::html(302, "302 Found").with(header::LOCATION, to.clone())
            }
            Self::Body { text } => Answer::json(200, text.clone().into_bytes()),
            Self::Date { value } => answer.with(header::DATE, value),
            Self::GzipBomb { megabytes } => {
                Answer::json(200, packed_blanks(*megabytes)).with(header::CONTENT_ENCODING, "gzip")
            }
            _ => answer.edited(|body| self.edited(body, asked)),
        }
    }

    fn edited(&self, body: Vec<u8>, asked: Option<&str>) -> Vec<u8> {
        match self {
            Self::CutJson => body[..body.len() / 2].to_vec(),
            Self::Padded { megabytes } => [body, vec![b' '; megabytes * 1_000_000]].concat(),
            Self::TinyRows { rows } => with_tiny_rows(body, *rows),
            Self::Member { json } => with_member(body, json.as_bytes()),
            Self::InvalidText => with_member(body, b"\"strange\":\"caf\xe9 \xff\""),
            Self::Nested { depth } => {
                let lists = [vec![b'['; *depth], vec![b']'; *depth]].concat();
                with_member(body, &[b"\"strange\":".as_slice(), &lists].concat())
            }
            Self::Long { name, value } => {
                let member = format!("\"strange{}\":\"{}\"", "n".repeat(*name), "v".repeat(*value));
                with_member(body, member.as_bytes())
            }
            Self::Renamed { from, to } => {
                replaced(&body, &format!("\"{from}\":"), &format!("\"{to}\":"))
            }
            Self::TwoContents => with_first_row_again(body),
            Self::ListTwice => with_list_twice(body),
            Self::Total { by } => with_total(body, *by),
            Self::Behind => with_page_number(body, asked),
            _ => body,
        }
    }
}

/// Returns the page that a query asks for.
pub(super) fn page_asked(query: &[(String, String)]) -> Option<&str> {
    query.iter().find(|(name, _)| PAGE.contains(&name.as_str())).map(|(_, page)| page.as_str())
}

fn packed_blanks(megabytes: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let blanks = vec![b' '; 1_000_000];
    // Compressing into memory cannot fail.
    let written = (0..megabytes).try_for_each(|_| encoder.write_all(&blanks));
    written.and_then(|()| encoder.finish()).unwrap_or_default()
}

/// Where the rows of a page stand: the first of them, and the end of the last.
struct Rows {
    first: std::ops::Range<usize>,
    end: usize,
}

/// Returns where the rows stand: in the first list of objects.
fn rows_of(body: &[u8]) -> Option<Rows> {
    let list = body.windows(2).position(|pair| pair == b"[{")?;
    let first = list + 1..end_of(body, list + 1)?;
    Some(Rows { first, end: end_of(body, list)? - 1 })
}

/// Returns the end of the object or list that begins at `start`.
fn end_of(body: &[u8], start: usize) -> Option<usize> {
    let (mut depth, mut in_text, mut at) = (0_usize, false, start);
    while let Some(byte) = body.get(at) {
        match (in_text, byte) {
            (true, b'\\') => at += 1,
            (_, b'"') => in_text = !in_text,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Puts `text` in the place of what stands in `range`.
fn spliced(body: Vec<u8>, range: std::ops::Range<usize>, text: &[u8]) -> Vec<u8> {
    [&body[..range.start], text, &body[range.end..]].concat()
}

fn with_member(body: Vec<u8>, member: &[u8]) -> Vec<u8> {
    let Some(rows) = rows_of(&body) else { return body };
    let start = rows.first.start + 1;
    spliced(body, start..start, &[member, b","].concat())
}

fn with_tiny_rows(body: Vec<u8>, rows: usize) -> Vec<u8> {
    let Some(found) = rows_of(&body) else { return body };
    let zeros = [b"0".as_slice(), &b",0".repeat(rows.saturating_sub(1))].concat();
    spliced(body, found.first.start..found.end, &zeros)
}

fn with_first_row_again(body: Vec<u8>) -> Vec<u8> {
    let Some(rows) = rows_of(&body) else { return body };
    let rest = &body[rows.first.start + 1..rows.first.end];
    let again = [b",{\"strange\":\"twice\",".as_slice(), rest].concat();
    spliced(body, rows.end..rows.end, &again)
}

fn with_list_twice(body: Vec<u8>) -> Vec<u8> {
    let Some(rows) = rows_of(&body) else { return body };
    // What stands before the list, where it is not the page itself: `"leads":[`.
    let before = &body[..rows.first.start - 1];
    let Some(name) = before.strip_suffix(b"\":").and_then(|b| b.rsplit(|c| *c == b'"').next())
    else {
        return body;
    };
    let second = [b",\"".as_slice(), name, b"\":[]"].concat();
    spliced(body, rows.end + 1..rows.end + 1, &second)
}

fn with_total(body: Vec<u8>, by: i64) -> Vec<u8> {
    let changed = |text: &str| text.parse::<i64>().map_or(0, |total| (total + by).max(0));
    with_number(body, "\"total_leads\":", |text| changed(text).to_string())
}

fn with_page_number(body: Vec<u8>, asked: Option<&str>) -> Vec<u8> {
    let Some(asked) = asked else { return body };
    with_number(body, "\"page_number\":", |_| asked.to_owned())
}

/// Changes the number after `name`.
fn with_number(body: Vec<u8>, name: &str, change: impl Fn(&str) -> String) -> Vec<u8> {
    let found = body.windows(name.len()).position(|text| text == name.as_bytes());
    let Some(start) = found.map(|at| at + name.len()) else { return body };
    let is_digit = |byte: &&u8| byte.is_ascii_digit();
    let end = start + body[start..].iter().take_while(is_digit).count();
    let Ok(number) = std::str::from_utf8(&body[start..end]).map(str::to_owned) else { return body };
    if number.is_empty() { body } else { spliced(body, start..end, change(&number).as_bytes()) }
}

fn replaced(body: &[u8], from: &str, to: &str) -> Vec<u8> {
    String::from_utf8_lossy(body).replace(from, to).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        r#"{"page_number":2,"total_leads":7,"leads":[{"id":1,"t":"]}\""},{"id":2}]}"#;

    fn edited(fault: &Fault, body: &str) -> String {
        String::from_utf8(fault.edited(body.as_bytes().to_vec(), Some("3"))).unwrap()
    }

    #[test]
    fn a_page_is_edited_where_its_rows_stand() {
        let member = Fault::Member { json: r#""a":1e999"#.to_owned() };
        let cases = [
            (
                member,
                r#"[{"id":1,"t":"]}\""},{"id":2}]"#,
                r#"[{"a":1e999,"id":1,"t":"]}\""},{"id":2}]"#,
            ),
            (Fault::TwoContents, r#"[{"id":1}]"#, r#"[{"id":1},{"strange":"twice","id":1}]"#),
            (
                Fault::ListTwice,
                r#"{"data":[{"id":1}],"x":1}"#,
                r#"{"data":[{"id":1}],"data":[],"x":1}"#,
            ),
            (Fault::ListTwice, r#"[{"id":1}]"#, r#"[{"id":1}]"#),
            (Fault::TinyRows { rows: 3 }, r#"{"data":[{"id":1},{"id":2}]}"#, r#"{"data":[0,0,0]}"#),
            (Fault::Total { by: -2 }, r#"{"total_leads":7}"#, r#"{"total_leads":5}"#),
            (Fault::Nested { depth: 2 }, r#"[{"id":1}]"#, r#"[{"strange":[[]],"id":1}]"#),
        ];
        for (fault, before, after) in cases {
            assert_eq!(edited(&fault, before), after, "{fault:?}");
        }
        assert!(edited(&Fault::Behind, PAGE).contains(r#""page_number":3,"#));
        let renamed = Fault::Renamed { from: "id".to_owned(), to: "key".to_owned() };
        assert_eq!(edited(&renamed, PAGE).matches("\"key\":").count(), 2);
    }

    #[test]
    fn a_page_without_rows_stays_as_it_is() {
        for fault in [Fault::TwoContents, Fault::InvalidText, Fault::TinyRows { rows: 9 }] {
            for body in ["[]", r#"{"leads":[]}"#, r#"{"error_message":"no"}"#] {
                assert_eq!(edited(&fault, body), body);
            }
        }
    }

    #[test]
    fn a_parameter_that_is_not_heard_is_one_that_was_not_sent() {
        let query =
            || vec![("page".to_owned(), "3".to_owned()), ("type".to_owned(), "a".to_owned())];
        assert_eq!(Fault::Deaf { to: "page".to_owned() }.heard(query()), query()[1..]);
        assert_eq!(Fault::Behind.heard(query())[0].1, "2");
        assert_eq!(Fault::Html.heard(query()), query());
    }
}
