//! From text files to a folder of prepared text: tokenizer, training and dev shards, and what they were made from.
//!
//! The folder is known by its key, SHA-256 of the files' contents and the settings: what is there under the same key is
//! used again. It is made beside its place and renamed, so it is complete or absent. The same contents in the same
//! order with the same settings give the same bytes, with any number of threads.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::bpe::check_vocab_size;
use super::clean::{self, Cleaning, Corpus};
use super::corpus::{self, Format, Purpose, Source, TextFile};
use super::dataset::{Dataset, check_seq_len};
use super::shards::Key;
use super::source::{Language, Weight};
use super::special::Family;
use super::tokenizer::{Tokenizer, hex};
use super::words::{self, grouped};
use crate::{Error, Result};

mod hidden;
pub(super) mod passes;
#[cfg(test)]
mod source_tests;
#[cfg(test)]
mod tests;

use hidden::Hidden;
use passes::{Split, Work, stopped, total_bytes};

/// The shard of training text.
pub const TRAIN_FILE: &str = "train.tokens";
/// The shard of dev text.
pub const DEV_FILE: &str = "dev.tokens";
/// The tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// The [`Summary`]; its presence says that the folder is complete.
pub const SUMMARY_FILE: &str = "prepared.json";

/// Changes whenever the same text and settings come out differently, or the files' format changes.
const VERSION: u32 = 3;

/// A `prepared.json` larger than this is damaged: 64 MiB, a quarter of a million files.
const MAX_SUMMARY: u64 = 64 << 20;

/// Where the tokenizer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerChoice {
    /// Trained on the training text; see [`Tokenizer::train`].
    Train {
        /// The most tokens it may have.
        vocab_size: usize,
        /// How often a pair must occur to be merged.
        min_frequency: u64,
    },
    /// A tokenizer.json.
    File(PathBuf),
}

/// What to prepare.
#[derive(Clone, Debug)]
pub struct Options {
    /// The text to train on.
    pub sources: Vec<Source>,
    /// The dev text; if there is none, one document in a hundred, chosen by the hash of its content (at least one, if
    /// there are ten documents or more; none, if there are fewer), is kept from training for it.
    pub dev: Vec<Source>,
    /// The model's family.
    pub family: Family,
    /// The tokenizer.
    pub tokenizer: TokenizerChoice,
    /// Tokens a row, framing included. It decides how the result is opened, not what is prepared.
    pub seq_len: usize,
}

/// What [`prepare`] is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Reading the files for their key (bytes).
    Hash,
    /// Looking for documents for the dev set (bytes).
    Scan,
    /// Counting pieces of words (bytes).
    Count,
    /// Learning merges (tokens).
    Merge,
    /// Encoding (bytes).
    Encode,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The phase; they come in their order, some may be left out.
    pub phase: Phase,
    /// Done of `total` (bytes, or tokens).
    pub done: u64,
    /// All there is to do in this phase, at most.
    pub total: u64,
}

/// `prepared.json`: what lies in the folder and what it was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The version of the folder's format.
    pub version: u32,
    /// SHA-256 of this file with these digits left out.
    #[serde(default)]
    pub sha256: String,
    /// The content key, in hexadecimal.
    pub key: String,
    /// The tokenizer's family.
    pub family: Family,
    /// Number of tokens of the tokenizer.
    pub vocab_size: usize,
    /// SHA-256 of tokenizer.json.
    pub tokenizer_sha256: String,
    /// The training text of an epoch: documents of a source with a weight as often as it says.
    pub train: Counts,
    /// The dev text.
    pub dev: Option<Counts>,
    /// What each source gave to the training text.
    pub sources: Vec<SourceRecord>,
    /// The files read for training.
    pub train_files: Vec<FileRecord>,
    /// The files read for the dev set; none, if it was cut from the training files.
    pub dev_files: Vec<FileRecord>,
}

impl Summary {
    /// The text of the file.
    fn to_json(&self) -> Result<String> {
        let pretty = |summary: &Summary| {
            let text = serde_json::to_string_pretty(summary).map_err(|e| Error::Usage(format!("{SUMMARY_FILE}: {e}")));
            text.map(|text| text + "\n")
        };
        let unsealed = pretty(&Summary { sha256: String::new(), ..self.clone() })?;
        pretty(&Summary { sha256: crate::files::sha256(unsealed.as_bytes()), ..self.clone() })
    }

    /// Raw words of the training text, each document counted once: what the limits of BabyLM's tracks are about.
    pub fn text_words(&self) -> u64 {
        self.sources.iter().map(|source| source.text_words).sum()
    }
}

/// What a source gave to the training text, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Its name.
    pub name: String,
    /// Its language, if the recipe says it.
    pub language: Option<Language>,
    /// How it was cleaned.
    pub cleaning: Cleaning,
    /// How often an epoch has its documents.
    pub weight: Weight,
    /// What was counted as a word.
    pub words: words::Rule,
    /// Documents, each counted once; without those of the dev set and those that the weight leaves out.
    pub documents: u64,
    /// Documents of which cleaning left nothing; they count no words.
    pub dropped: u64,
    /// Raw words of the documents, before cleaning.
    pub text_words: u64,
    /// What an epoch has of them, repeats counted.
    pub epoch: Counts,
}

impl SourceRecord {
    /// Of a source that has given nothing yet.
    pub fn of(source: &Source) -> SourceRecord {
        SourceRecord {
            name: source.name.clone(),
            language: source.language.clone(),
            cleaning: source.cleaning,
            weight: source.weight,
            words: source.words,
            documents: 0,
            dropped: 0,
            text_words: 0,
            epoch: Counts::default(),
        }
    }
}

/// In a line: the name, the words, and what is not as it is by default.
impl fmt::Display for SourceRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (words, documents) = (grouped(self.text_words), grouped(self.documents));
        write!(f, "{}: {words} words in {documents} documents", self.name)?;
        if self.words == words::Rule::Bytes {
            write!(f, ", counted by bytes")?;
        }
        if let Some(language) = &self.language {
            write!(f, ", {language}")?;
        }
        if self.cleaning != Cleaning::None {
            write!(f, ", cleaning {} (dropped {} documents)", self.cleaning, grouped(self.dropped))?;
        }
        if !self.weight.is_one() {
            let weight: f64 = self.weight.into();
            write!(f, ", weight {weight} ({} words an epoch)", grouped(self.epoch.words))?;
        }
        Ok(())
    }
}

/// How much text there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Documents.
    pub documents: u64,
    /// Tokens without framing.
    pub tokens: u64,
    /// Raw words.
    pub words: u64,
}

impl Counts {
    fn add(&mut self, tokens: u64, words: u64) {
        self.documents += 1;
        self.tokens += tokens;
        self.words += words;
    }
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its source.
    pub source: String,
    /// Its name without folders.
    pub name: String,
    /// How it was read.
    pub format: Format,
    /// Whose rules it was cleaned by.
    pub cleaning: Option<Corpus>,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: String,
}

/// Prepared text, open.
#[derive(Debug)]
pub struct Prepared {
    /// The folder.
    pub dir: PathBuf,
    /// What is in it.
    pub summary: Summary,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The training text.
    pub train: Dataset,
    /// The dev text, if there is any.
    pub dev: Option<Dataset>,
    /// It was there already.
    pub reused: bool,
}

/// Prepares text in the folder `out`, or opens what is there if it was made from the same contents and settings.
///
/// `progress` is called now and then; when `cancelled` says so, everything stops and nothing is left behind.
///
/// # Errors
/// Text that is missing or wrong (path and place), a tokenizer of the wrong family, no text left to train on, a folder
/// at `out` that holds something else, a damaged file in it, [`Error::Stopped`] (with SIGINT's number; the caller knows
/// the signal) if cancelled.
///
/// ```
/// use antlm::text::{corpus::Source, prepare::{Options, TokenizerChoice, prepare}, special::Family};
/// let dir = tempfile::tempdir().unwrap();
/// let file = dir.path().join("stories.txt");
/// std::fs::write(&file, "A cat sat down.\nIt slept.\n\nA dog ran.\n").unwrap();
/// let options = Options {
///     sources: vec![Source::new("stories", [file])],
///     dev: vec![],
///     family: Family::LtgBert,
///     tokenizer: TokenizerChoice::Train { vocab_size: 4096, min_frequency: 2 },
///     seq_len: 128,
/// };
/// let prepared = prepare(&options, dir.path().join("text"), &mut |_| {}, &|| false)?;
/// assert_eq!((prepared.train.len(), prepared.train.total_words()), (2, 9));
/// # Ok::<(), antlm::Error>(())
/// ```
pub fn prepare(
    options: &Options,
    out: impl AsRef<Path>,
    progress: &mut dyn FnMut(Progress),
    cancelled: &dyn Fn() -> bool,
) -> Result<Prepared> {
    let out = out.as_ref();
    check_place(out)?;
    let mut work = Work { progress, cancelled };
    let Inputs { train_files, dev_files, given, train_records, dev_records, key } = Inputs::find(options, &mut work)?;
    if let Some(summary) = read_summary(out)?
        && summary.version == VERSION
        && summary.key == hex(&key)
    {
        return open(out, options.seq_len);
    }
    if read_summary(out)?.is_some() {
        let what = "holds other prepared text, which runs may need; name another folder, or remove this one";
        return Err(Error::data(out, "folder", what));
    }

    let split = if dev_files.is_empty() { work.scan(&options.sources, &train_files)? } else { Split::None };
    let tokenizer = match (given, &options.tokenizer) {
        (Some(tokenizer), _) => tokenizer,
        (None, &TokenizerChoice::Train { vocab_size, min_frequency }) => {
            work.train((&options.sources, &train_files), split, vocab_size, min_frequency, options.family)?
        }
        (None, TokenizerChoice::File(_)) => unreachable!("a tokenizer file was loaded above"),
    };

    // Everything is made in a hidden folder and renamed as a whole. It lies in the nearest folder above the place that
    // is there already, so that an error does not leave empty folders.
    let parent = crate::files::parent(out);
    let above = parent.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let beside = Hidden::create(above)?;
    let new = beside.path().join("new");
    fs::create_dir(&new).map_err(Error::io(&new))?;

    let json = tokenizer.to_json()?;
    write_synced(&new.join(TOKENIZER_FILE), json.as_bytes())?;
    let (train_text, dev_text) = ((&options.sources[..], &train_files[..]), (&options.dev[..], &dev_files[..]));
    let (sources, train, dev) = work.encode(&new, &tokenizer, train_text, dev_text, split, key)?;
    if train.tokens == 0 {
        return Err(Error::Usage(
            "no text is left to train on: the dev set (give it text of its own), cleaning and weights took it all"
                .into(),
        ));
    }
    let summary = Summary {
        version: VERSION,
        sha256: String::new(),
        key: hex(&key),
        family: options.family,
        vocab_size: tokenizer.vocab_size(),
        tokenizer_sha256: hex(&Sha256::digest(&json)),
        train,
        dev,
        sources,
        train_files: train_records,
        dev_files: dev_records,
    };
    write_synced(&new.join(SUMMARY_FILE), summary.to_json()?.as_bytes())?;
    if (work.cancelled)() {
        return Err(stopped());
    }
    check_place(out)?;
    crate::files::create_folders(parent)?;
    crate::files::sync_folder(&new)?;
    if out.exists() {
        let old = beside.path().join("old");
        fs::rename(out, &old).map_err(Error::io(out))?;
    }
    fs::rename(&new, out).map_err(Error::io(out))?;
    crate::files::sync_folder(parent)?;
    Ok(Prepared { reused: false, ..open(out, options.seq_len)? })
}

/// Prepares text for a run in `run`: in a folder beside it, `prepared/<key>`, that all runs on the same contents and
/// settings share.
///
/// # Errors
/// Those of [`prepare`].
pub fn prepare_beside(
    options: &Options,
    run: &Path,
    progress: &mut dyn FnMut(Progress),
    cancelled: &dyn Fn() -> bool,
) -> Result<Prepared> {
    let key = Inputs::find(options, &mut Work { progress, cancelled })?.key;
    let beside = crate::files::parent(run).join("prepared").join(&hex(&key)[..16]);
    prepare(options, beside, progress, cancelled)
}

/// Opens prepared text, for rows of `seq_len` tokens.
///
/// # Errors
/// A folder without prepared text, of another version, or with damaged or mismatched files.
pub fn open(dir: impl AsRef<Path>, seq_len: usize) -> Result<Prepared> {
    let dir = dir.as_ref();
    let path = dir.join(SUMMARY_FILE);
    let wrong = |place: &str, what: String| Err(Error::data(&path, place, what));
    let Some(summary) = read_summary(dir)? else { return wrong("file", "missing: no prepared text here".into()) };
    if summary.version != VERSION {
        return wrong("version", format!("{}; this antlm reads {VERSION}: prepare the text again", summary.version));
    }
    let tokenizer_path = dir.join(TOKENIZER_FILE);
    let bytes = fs::read(&tokenizer_path).map_err(Error::io(&tokenizer_path))?;
    if hex(&Sha256::digest(&bytes)) != summary.tokenizer_sha256 {
        let what = "not the tokenizer that the text was prepared with; prepare the text again";
        return Err(Error::data(&tokenizer_path, "sha256", what));
    }
    let tokenizer = Tokenizer::load(&tokenizer_path, Some(summary.family))?;
    let train = Dataset::open(dir, seq_len)?;
    let dev = if summary.dev.is_some() { Some(Dataset::open_file(dir.join(DEV_FILE), seq_len)?) } else { None };
    for (set, name) in [(Some(&train), TRAIN_FILE), (dev.as_ref(), DEV_FILE)] {
        if let Some(set) = set
            && (set.hash() != summary.key || set.vocab_size() != tokenizer.vocab_size())
        {
            let what = format!("does not belong to this {SUMMARY_FILE}; prepare the text again");
            return Err(Error::data(dir.join(name), "key", what));
        }
    }
    Ok(Prepared { dir: dir.to_owned(), summary, tokenizer, train, dev, reused: true })
}

/// Refuses a place that holds anything but prepared text: it would be replaced.
fn check_place(out: &Path) -> Result<()> {
    let entries = match fs::read_dir(out) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::Io { path: out.to_owned(), source: e }),
    };
    let ours = [TRAIN_FILE, DEV_FILE, TOKENIZER_FILE, SUMMARY_FILE];
    let (mut any, mut foreign) = (false, false);
    for entry in entries {
        let name = entry.map_err(Error::io(out))?.file_name();
        any = true;
        foreign |= !ours.iter().any(|o| name == *o);
    }
    if foreign || any && !out.join(SUMMARY_FILE).exists() {
        return Err(Error::data(out, "folder", "holds something else than prepared text; name another, or empty it"));
    }
    Ok(())
}

/// What lies in a folder of prepared text; nothing where there is none.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] for a damaged `prepared.json`.
pub fn read_summary(dir: &Path) -> Result<Option<Summary>> {
    let path = dir.join(SUMMARY_FILE);
    let text = match crate::files::read_text(&path, MAX_SUMMARY) {
        Ok(text) => text,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let damaged = |place: String, what: String| {
        Error::data(&path, place, format!("{what}; remove the folder and prepare the text again"))
    };
    let summary: Summary =
        serde_json::from_str(&text).map_err(|e| damaged(format!("line {}", e.line()), e.to_string()))?;
    // Byte by byte what was written; what another version wrote is for the caller.
    if summary.version == VERSION && summary.to_json()? != text {
        return Err(damaged("sha256".into(), "its own checksum differs: the file was damaged or changed".into()));
    }
    Ok(Some(summary))
}

/// The files to read, their records, and the key that follows from them and the settings.
struct Inputs {
    train_files: Vec<TextFile>,
    dev_files: Vec<TextFile>,
    given: Option<Tokenizer>,
    train_records: Vec<FileRecord>,
    dev_records: Vec<FileRecord>,
    key: Key,
}

impl Inputs {
    /// Finds and reads all files once, for their checksums.
    fn find(options: &Options, work: &mut Work<'_>) -> Result<Inputs> {
        check_seq_len(options.seq_len)?;
        if let TokenizerChoice::Train { vocab_size, .. } = options.tokenizer {
            check_vocab_size(vocab_size)?;
        }
        let train_files = corpus::files(&options.sources, Purpose::Train)?;
        let dev_files = if options.dev.is_empty() { Vec::new() } else { corpus::files(&options.dev, Purpose::Dev)? };
        let given = match &options.tokenizer {
            TokenizerChoice::File(path) => Some(Tokenizer::load(path, Some(options.family))?),
            TokenizerChoice::Train { .. } => None,
        };
        let total = total_bytes(&train_files) + total_bytes(&dev_files);
        let mut done = 0;
        let train_records = work.records(&options.sources, &train_files, &mut done, total)?;
        let dev_records = work.records(&options.dev, &dev_files, &mut done, total)?;
        let trained = |d: &FileRecord| train_records.iter().any(|t| t.sha256 == d.sha256);
        if let Some(i) = dev_records.iter().position(trained) {
            return Err(Error::data(&dev_files[i].path, "file", "is in both the training and the dev text"));
        }
        let key = content_key(options, given.as_ref(), (&train_files, &train_records), (&dev_files, &dev_records))?;
        Ok(Inputs { train_files, dev_files, given, train_records, dev_records, key })
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let mut file = File::create(path).map_err(Error::io(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io(path))
}

/// Everything that the prepared text follows from, and nothing else: not names, not places.
fn content_key(
    options: &Options,
    given: Option<&Tokenizer>,
    (train_files, train): (&[TextFile], &[FileRecord]),
    (dev_files, dev): (&[TextFile], &[FileRecord]),
) -> Result<Key> {
    let content = |sources: &[Source], files: &[TextFile], records: &[FileRecord]| -> Vec<serde_json::Value> {
        let each = files.iter().zip(records).map(|(file, record)| {
            let source = &sources[file.source];
            let cleaning = file.cleaning.map(|corpus| (clean::VERSION, corpus));
            let settings = (cleaning, source.weight, source.words, &source.language);
            serde_json::json!([record.format, record.bytes, record.sha256, settings])
        });
        each.collect()
    };
    let tokenizer = match (&options.tokenizer, given) {
        (TokenizerChoice::Train { vocab_size, min_frequency }, _) => serde_json::json!([vocab_size, min_frequency]),
        (TokenizerChoice::File(_), given) => serde_json::json!(given.map(Tokenizer::hash).transpose()?),
    };
    let train = content(&options.sources, train_files, train);
    let dev = content(&options.dev, dev_files, dev);
    // Arrays, so that the order of keys plays no part.
    let all = serde_json::json!([VERSION, options.family, tokenizer, train, dev]);
    Ok(Sha256::digest(all.to_string()).into())
}
