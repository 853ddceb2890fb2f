//! How many rows fill each column, told in the footers of parts: for telling a column that has run dry.
//!
//! Statistics of Parquet tell it, too, but with the least and the greatest text of each column, which nobody
//! looks for, and comparing each text with both costs more than to encode it.

use std::collections::BTreeMap;

use arrow::array::Array;
use arrow::array::RecordBatch;
use parquet::file::metadata::KeyValue;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;

use super::Error;
use super::Result;
use crate::schema::PartFile;
use crate::store::Store;

/// The name under which the footer of a part tells it, as a JSON object of the columns that have values.
const KEY: &str = "leadpipe.filled.v1";

/// The values of the rows that a file is given, by column.
#[derive(Debug, Default)]
pub(super) struct Filled(BTreeMap<String, u64>);

impl Filled {
    /// Counts the rows of a batch.
    pub(super) fn count(&mut self, batch: &RecordBatch) {
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            let values = (column.len() - column.null_count()) as u64;
            match self.0.get_mut(field.name()) {
                Some(filled) => *filled += values,
                None if values > 0 => drop(self.0.insert(field.name().clone(), values)),
                None => {}
            }
        }
    }

    /// Returns what the footer is to tell.
    pub(super) fn into_metadata(self) -> KeyValue {
        KeyValue::new(KEY.to_owned(), serde_json::json!(self.0).to_string())
    }

    /// Returns what a footer tells; nothing where an older version wrote it.
    fn of(metadata: &ParquetMetaData) -> Option<Self> {
        let told = metadata.file_metadata().key_value_metadata()?;
        let told = told.iter().find(|told| told.key == KEY)?.value.as_deref()?;
        serde_json::from_str(told).ok().map(Self)
    }

    /// Returns what the statistics of a file tell.
    fn of_statistics(metadata: &ParquetMetaData) -> Self {
        let mut filled = Self::default();
        for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
            let nulls = column.statistics().and_then(|statistics| statistics.null_count_opt());
            // Where nothing is told of a column, nothing is claimed of it.
            let Some(nulls) = nulls else { continue };
            let values = u64::try_from(column.num_values()).unwrap_or(0);
            let name = column.column_path().string();
            *filled.0.entry(name).or_default() += values - nulls.min(values);
        }
        filled
    }
}

/// Returns the values that are not null in `parts`, by column. Reads footers and nothing else.
pub fn filled(store: &Store, parts: &[PartFile]) -> Result<BTreeMap<String, u64>> {
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for part in parts {
        let file = store.open_file(&part.file.path)?;
        let reader = SerializedFileReader::new(file)
            .map_err(|source| Error::parquet("read", &part.file.path, source))?;
        let metadata = reader.metadata();
        let filled = Filled::of(metadata).unwrap_or_else(|| Filled::of_statistics(metadata));
        for (column, values) in filled.0 {
            *all.entry(column).or_default() += values;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use parquet::arrow::ArrowWriter;

    use super::super::testing::Lake;
    use super::super::testing::TestLead;
    use super::super::testing::batch;
    use super::*;

    fn leads() -> Vec<TestLead> {
        (0..5).map(|id| TestLead::new(id, 2024 + id as i32 % 2, "Ann", 1)).collect()
    }

    fn counted(batch: &RecordBatch) -> BTreeMap<String, u64> {
        let mut filled = Filled::default();
        filled.count(batch);
        filled.0
    }

    #[test]
    fn parts_tell_it_in_their_footers() {
        let mut lake = Lake::new();
        lake.publish(&leads());
        assert_eq!(lake.parts.len(), 2);
        let told = filled(&lake.store, &lake.parts).unwrap();
        let mut expected = counted(&batch(&leads()));
        // Of this commit.
        expected.insert("_seq".to_owned(), 5);
        assert_eq!(told, expected);
        assert!(!told.contains_key("_deleted_at"));
    }

    #[test]
    fn parts_of_an_older_version_tell_it_by_their_statistics() {
        let (mut file, rows) = (Vec::new(), batch(&leads()));
        let mut writer = ArrowWriter::try_new(&mut file, rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        let reader = SerializedFileReader::new(bytes::Bytes::from(file)).unwrap();
        assert!(Filled::of(reader.metadata()).is_none());
        let mut told = Filled::of_statistics(reader.metadata()).0;
        told.retain(|_, values| *values > 0);
        assert_eq!(told, counted(&rows));
    }

    #[test]
    fn of_a_column_without_statistics_nothing_is_claimed() {
        let mut lake = Lake::new();
        lake.publish(&leads());
        let file = lake.store.open_file(&lake.parts[0].file.path).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        let told = Filled::of_statistics(reader.metadata()).0;
        assert!(told.contains_key("created_at") && !told.contains_key("full_name"), "{told:?}");
    }
}
