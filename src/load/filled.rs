//! How many rows fill each column, from the footers of parts: for telling a column that has run
//! dry.

use std::collections::BTreeMap;

use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;

use super::Error;
use super::Result;
use crate::schema::PartFile;
use crate::store::Store;

/// Returns the values that are not null in `parts`, by column. Reads footers and nothing else.
pub fn filled(store: &Store, parts: &[PartFile]) -> Result<BTreeMap<String, u64>> {
    let mut filled: BTreeMap<String, u64> = BTreeMap::new();
    for part in parts {
        let file = store.open_file(&part.file.path)?;
        let reader = SerializedFileReader::new(file)
            .map_err(|source| Error::parquet("read", &part.file.path, source))?;
        for group in reader.metadata().row_groups() {
            for column in group.columns() {
                let nulls = column.statistics().and_then(|statistics| statistics.null_count_opt());
                let values = u64::try_from(column.num_values()).unwrap_or(0);
                let name = column.column_path().string();
                *filled.entry(name).or_default() += values - nulls.unwrap_or(0).min(values);
            }
        }
    }
    Ok(filled)
}
