//! The floor of a sync: the least that any program must do with the same pages.
//!
//! It parses the archived WhatConverts pages of a lake into borrowed structs and writes their fields as
//! columns of one zstd Parquet file that goes nowhere, on one thread. No network, disk, keys, numbers,
//! hashes, sorting or changes. `make bench` reads a sync's figures against it.
//!
//!     cargo bench --bench floor -- LAKE SOURCE

mod plain;

use std::path::PathBuf;
use std::time::Duration;

use cpu_time::ThreadTime;
use leadpipe::archive;
use leadpipe::archive::Record;
use leadpipe::store::Store;
use parquet::arrow::ArrowWriter;

use plain::Lead;
use plain::Page;
use plain::Plain;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    // `cargo bench` adds arguments of its own.
    let given: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [lake, source] = given.as_slice() else {
        return Err("give the folder of a lake and the name of a WhatConverts source".into());
    };
    let store = Store::open(PathBuf::from(lake));
    let schema = Lead::batch(&[])?.schema();
    let mut writer = ArrowWriter::try_new(std::io::sink(), schema, Some(plain::properties()?))?;
    let (mut rows, mut bytes, mut spent) = (0, 0, Duration::ZERO);
    for segment in archive::segments(&store, &source.parse()?)? {
        archive::read_segment(&store, &segment.path, |record| -> Result<()> {
            let Record::Page(archived) = record else { return Ok(()) };
            let began = ThreadTime::now();
            let page: Page<'_> = serde_json::from_slice(&archived.body)?;
            writer.write(&Lead::batch(&page.leads)?)?;
            rows += page.leads.len();
            bytes += archived.body.len();
            drop(page);
            spent += began.elapsed();
            Ok(())
        })?;
    }
    let began = ThreadTime::now();
    writer.close()?;
    spent += began.elapsed();
    #[expect(clippy::print_stdout, reason = "what it is for")]
    {
        println!(
            "{}",
            serde_json::json!({"rows": rows, "bytes": bytes, "cpu": spent.as_secs_f64()})
        );
    }
    Ok(())
}
