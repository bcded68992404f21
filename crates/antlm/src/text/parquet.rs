//! Documents from a column of a `.parquet` file (feature `parquet`), some hundred rows at a time.

use std::cell::Cell;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;

use parquet::basic::Type;
use parquet::column::reader::ColumnReader;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::Error;

type Result<T, E = Error> = std::result::Result<T, E>;

/// Rows at a time.
const ROWS: usize = 256;

/// Hands the column's texts to `each`, in order, with the share of the rows read so far.
///
/// # Errors
/// A file that is no parquet file or damaged, without this column or with something else than text in it, an empty
/// cell, and whatever `each` returns.
pub(crate) fn read(path: &Path, column: &str, mut each: impl FnMut(&str, f64) -> Result<()>) -> Result<()> {
    let wrong = |place: String| {
        move |error: ParquetError| {
            let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            Error::data(path, place, format!("cannot be read as parquet: {text}"))
        }
    };
    let file = File::open(path).map_err(Error::io(path))?;
    let reader = guarded(|| SerializedFileReader::new(file)).map_err(wrong("file".into()))?;
    let metadata = reader.metadata();
    let schema = metadata.file_metadata().schema_descr();
    let names: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
    let place = format!("column {column:?}");
    let Some(index) = names.iter().position(|name| name == column) else {
        let what = format!("not there; name one of these with `field`: {}", names.join(", "));
        return Err(Error::data(path, place, what));
    };
    let descriptor = schema.column(index);
    if descriptor.physical_type() != Type::BYTE_ARRAY || descriptor.max_rep_level() != 0 {
        return Err(Error::data(path, place, "holds something else than one text in each row"));
    }
    // Not to be trusted before it was read.
    let total = metadata.file_metadata().num_rows();
    let mut row: i64 = 0;
    for group in 0..metadata.num_row_groups() {
        let here = || wrong(format!("row {}", row + 1));
        let group = guarded(|| reader.get_row_group(group)).map_err(here())?;
        let texts = guarded(|| group.get_column_reader(index)).map_err(here())?;
        let ColumnReader::ByteArrayColumnReader(mut texts) = texts else {
            return Err(Error::data(path, place, "holds something else than one text in each row"));
        };
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        loop {
            values.clear();
            levels.clear();
            let (rows, present, _) = guarded(|| texts.read_records(ROWS, Some(&mut levels), None, &mut values))
                .map_err(wrong(format!("row {}", row + 1)))?;
            if rows == 0 {
                break;
            }
            if present != rows {
                let empty = levels.iter().position(|&level| level < descriptor.max_def_level()).unwrap_or(0) as i64;
                return Err(Error::data(path, format!("row {}", row + 1 + empty), format!("no text in {place}")));
            }
            for value in &values {
                row += 1;
                let text = std::str::from_utf8(value.data())
                    .map_err(|_| Error::data(path, format!("row {row}"), "not UTF-8"))?;
                each(text, row as f64 / total.max(row) as f64)?;
            }
        }
    }
    if row != total {
        return Err(Error::data(path, format!("row {row}"), format!("ends here, but should have {total} rows")));
    }
    Ok(())
}

thread_local! {
    /// This thread is in [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Calls the `parquet` crate, whose decoders panic on some damaged files (tests found an assertion on the length of a
/// dictionary's page): that is an error, and nothing is printed for it. What was being read is not used afterwards.
fn guarded<T>(call: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                usual(info);
            }
        }));
    });
    GUARDED.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(false);
    result.unwrap_or_else(|_| Err(ParquetError::General("damaged data".into())))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    /// A file with the columns `id` and `text`, in row groups of so many rows.
    pub(crate) fn write(path: &Path, texts: &[Option<&str>], group: usize, compression: parquet::basic::Compression) {
        let schema = "message m { required int64 id; optional binary text (UTF8); }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
        let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
        for texts in texts.chunks(group) {
            let mut rows = writer.next_row_group().unwrap();
            let mut ids = rows.next_column().unwrap().unwrap();
            let numbers: Vec<i64> = (0..texts.len() as i64).collect();
            ids.typed::<Int64Type>().write_batch(&numbers, None, None).unwrap();
            ids.close().unwrap();
            let mut column = rows.next_column().unwrap().unwrap();
            let values: Vec<ByteArray> = texts.iter().flatten().map(|&text| text.into()).collect();
            let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
            column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
            column.close().unwrap();
            rows.close().unwrap();
        }
        writer.close().unwrap();
    }

    fn texts(path: &Path, column: &str) -> Result<Vec<String>> {
        let mut all = Vec::new();
        read(path, column, |text, share| {
            assert!(share > 0.0 && share <= 1.0);
            all.push(text.to_owned());
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn rows_are_read_in_order() {
        use parquet::basic::{Compression, GzipLevel};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let expect: Vec<String> = (0..1000).map(|i| format!("text {i}")).collect();
        let given: Vec<Option<&str>> = expect.iter().map(|text| Some(text.as_str())).collect();
        let gzip = Compression::GZIP(GzipLevel::default());
        for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, gzip, Compression::LZ4_RAW] {
            write(&path, &given, 300, compression);
            assert_eq!(texts(&path, "text").unwrap(), expect);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        write(&path, &[Some("a"), Some("b"), None, Some("d")], 3, parquet::basic::Compression::SNAPPY);
        for (column, expect) in [
            ("body", "column \"body\": not there; name one of these with `field`: id, text"),
            ("id", "column \"id\": holds something else"),
            ("text", "row 3: no text in column \"text\""),
        ] {
            let error = texts(&path, column).unwrap_err().to_string();
            assert!(error.contains("x.parquet: ") && error.contains(expect), "{error}");
        }
    }

    #[test]
    fn no_cut_and_no_flipped_byte_makes_it_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        write(&path, &[Some("some text"), Some("more"), Some("")], 2, parquet::basic::Compression::SNAPPY);
        let good = std::fs::read(&path).unwrap();
        for len in 0..good.len() {
            std::fs::write(&path, &good[..len]).unwrap();
            let error = texts(&path, "text").unwrap_err().to_string();
            assert!(error.contains("x.parquet: ") && !error.contains('\n'), "{error}");
        }
        for at in 0..good.len() {
            for flip in [0x01, 0x40, 0x80, 0xFF] {
                let mut bytes = good.clone();
                bytes[at] ^= flip;
                std::fs::write(&path, &bytes).unwrap();
                let _ = texts(&path, "text");
            }
        }
    }
}
