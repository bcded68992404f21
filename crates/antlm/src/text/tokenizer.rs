//! The tokenizer: byte-level BPE with a space before the first word and exactly five special tokens, ids 0-4.
//!
//! How text meets it: a newline is a space (tokenizer.json has a normaliser that says so to other readers), the text
//! gets a space in front unless it starts with one, and every byte has a token, so nothing is unknown and decoding
//! gives back the text up to these two rules. Encoding never yields a special token, whatever the text looks like.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokenizers::models::bpe::BPE;
use tokenizers::{AddedToken, Model};

use super::bpe::{self, MAX_VOCAB, MIN_VOCAB};
use super::encode::{Cache, count_pieces};
use super::pieces::{BYTE_CHARS, CHAR_BYTES, with_prefix};
use super::special::{CLS, FIRST_ORDINARY, Family, UNK};
use crate::{Error, Result, files};

/// A byte-level BPE tokenizer of one family.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    family: Family,
    /// The crate's model; without a cache, [`Cache`] is ours.
    bpe: BPE,
    /// Every token in byte characters, by id: `[V]`.
    tokens: Vec<String>,
}

impl Tokenizer {
    /// A tokenizer.json larger than this is not read: 65,536 tokens and their merges take a few megabytes.
    pub const MAX_FILE: u64 = 64 << 20;

    /// Trains on the documents: the merges of pairs that occur at least `min_frequency` times, until there are
    /// `vocab_size` tokens. A small corpus may not have that many merges: the vocabulary is then smaller, and
    /// [`vocab_size`](Self::vocab_size) tells its true size, which is the one to build a model with.
    ///
    /// The same documents give the same tokenizer, in any order and with any number of threads.
    ///
    /// # Errors
    /// A `vocab_size` below 261 (five special tokens and 256 bytes) or above 65,536 (ids are stored in 16 bits).
    ///
    /// ```
    /// use antlm::text::{special::Family, tokenizer::Tokenizer};
    /// let tokenizer = Tokenizer::train(["the cat and the hat"; 9], 300, 2, Family::LtgBert)?;
    /// let ids = tokenizer.encode("the hat")?;
    /// assert!(ids.iter().all(|&id| id >= 5));
    /// assert_eq!(tokenizer.decode(&ids), " the hat");
    /// # Ok::<(), antlm::Error>(())
    /// ```
    pub fn train(
        documents: impl IntoIterator<Item = impl AsRef<str>>,
        vocab_size: usize,
        min_frequency: u64,
        family: Family,
    ) -> Result<Tokenizer> {
        let documents: Vec<String> = documents.into_iter().map(|d| with_prefix(d.as_ref())).collect();
        let mut counts = HashMap::new();
        count_pieces(&documents, &mut counts);
        Ok(Self::from_counts(&counts, vocab_size, min_frequency, family, |_| true)?.expect("nobody stops it"))
    }

    /// Trains on counted pieces; `None` if `go_on`, called with the number of tokens so far, stops it.
    pub(crate) fn from_counts(
        counts: &HashMap<Box<str>, u64>,
        vocab_size: usize,
        min_frequency: u64,
        family: Family,
        go_on: impl FnMut(usize) -> bool,
    ) -> Result<Option<Tokenizer>> {
        bpe::check_vocab_size(vocab_size)?;
        let Some(learnt) = bpe::learn(counts, family, vocab_size, min_frequency, go_on) else { return Ok(None) };
        let name = |id: u32| learnt.tokens[id as usize].clone();
        let merges = learnt.merges.iter().map(|&(a, b)| (name(a), name(b))).collect();
        Self::from_parts(family, learnt.tokens, merges).map(Some).map_err(Error::Usage)
    }

    /// From checked parts.
    fn from_parts(
        family: Family,
        tokens: Vec<String>,
        merges: Vec<(String, String)>,
    ) -> std::result::Result<Tokenizer, String> {
        let vocab: tokenizers::models::bpe::Vocab = tokens.iter().cloned().zip(0..).collect();
        let bpe = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .unk_token(tokens[UNK as usize].clone())
            .cache_capacity(0)
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Tokenizer { family, bpe, tokens })
    }

    /// Reads a tokenizer.json. If a family is given, it must be of that family.
    ///
    /// # Errors
    /// Anything but a byte-level BPE with a space before the first word, exactly the five special tokens of a family
    /// at ids 0-4, and at most 65,536 tokens: one line that says what is different. Never a panic.
    pub fn load(path: impl AsRef<Path>, family: Option<Family>) -> Result<Tokenizer> {
        let path = path.as_ref();
        let meta = std::fs::metadata(path).map_err(Error::io(path))?;
        if meta.len() > Self::MAX_FILE {
            return Err(Error::data(path, "file", format!("{} bytes are too many for a tokenizer.json", meta.len())));
        }
        if !meta.is_file() {
            // A pipe would make us wait, a device never ends.
            return Err(Error::data(path, "file", "not a regular file"));
        }
        let json = files::read_text(path, Self::MAX_FILE)?;
        Self::from_json(&json, family).map_err(|(place, what)| Error::data(path, place, what))
    }

    /// From the text of a tokenizer.json; on error the place in it and what is wrong there.
    ///
    /// The crate's own reader is not used: it can panic on hostile input. What it would need to know is checked here.
    pub fn from_json(json: &str, family: Option<Family>) -> std::result::Result<Tokenizer, (String, String)> {
        // What is wrong may quote the file at any length.
        Self::read_json(json, family).map_err(|(place, what)| (place, what.chars().take(300).collect()))
    }

    fn read_json(json: &str, family: Option<Family>) -> std::result::Result<Tokenizer, (String, String)> {
        let wrong = |place: &str, what: String| Err((place.to_owned(), what));
        let file: File = serde_json::from_str(json).map_err(|e| {
            let what = e.to_string();
            let what = what.split(" at line ").next().unwrap_or("").replace('\n', " ");
            (format!("line {}, column {}", e.line(), e.column()), format!("no tokenizer.json: {what}"))
        })?;
        let model = &file.model;
        if model.kind.as_deref() != Some("BPE") {
            let kind = model.kind.as_deref().unwrap_or("nameless");
            return wrong("model.type", format!("a {kind:?} model; antlm needs a byte-level BPE"));
        }
        let unset = |v: &Option<String>| v.as_deref().unwrap_or("").is_empty();
        if !unset(&model.continuing_subword_prefix) || !unset(&model.end_of_word_suffix) {
            return wrong("model", "subword prefixes and suffixes are not supported".into());
        }
        if model.byte_fallback || model.ignore_merges || model.dropout.is_some_and(|p| p != 0.0) {
            return wrong("model", "byte_fallback, ignore_merges and dropout are not supported".into());
        }
        match &file.pre_tokenizer {
            Some(p) if p.kind == "ByteLevel" && p.add_prefix_space && p.use_regex.unwrap_or(true) => {}
            _ => return wrong("pre_tokenizer", "must be ByteLevel with add_prefix_space and GPT-2's pattern".into()),
        }
        if file.normalizer.as_ref().is_some_and(|n| *n != newline_rule()) {
            return wrong("normalizer", "must be null, or replace newlines by spaces".into());
        }
        if file.decoder.as_ref().is_some_and(|d| d.kind != "ByteLevel") {
            return wrong("decoder", "must be ByteLevel".into());
        }

        let size = model.vocab.len();
        if !(MIN_VOCAB..=MAX_VOCAB).contains(&size) {
            return wrong("model.vocab", format!("{size} tokens; must be {MIN_VOCAB} to {MAX_VOCAB}"));
        }
        let mut tokens = vec![""; size];
        for (token, &id) in &model.vocab {
            match tokens.get_mut(id as usize) {
                Some(slot) if slot.is_empty() && !token.is_empty() => *slot = token,
                _ => return wrong("model.vocab", format!("token {token:?}: ids must be 0 to {}, each once", size - 1)),
            }
        }
        let found = [Family::LtgBert, Family::Llama].into_iter().find(|f| f.special_names() == tokens[..5]);
        let Some(found) = found else {
            let names = Family::LtgBert.special_names().join(" ");
            let others = Family::Llama.special_names().join(" ");
            return wrong("model.vocab", format!("ids 0-4 are {:?}; must be {names} or {others}", &tokens[..5]));
        };
        if let Some(wanted) = family.filter(|f| *f != found) {
            let (is, needs) = (found.special_names().join(" "), wanted.special_names().join(" "));
            return wrong("model.vocab", format!("wrong family: ids 0-4 are {is}; this model needs {needs}"));
        }
        let listed: Vec<(u32, &str)> = file.added_tokens.iter().map(|t| (t.id, t.content.as_str())).collect();
        let mut sorted = listed.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq((0..).zip(found.special_names())) || !file.added_tokens.iter().all(|t| t.special)
        {
            return wrong("added_tokens", "must be exactly the five special tokens".into());
        }
        for token in &tokens[5..] {
            if !token.chars().all(|c| CHAR_BYTES.contains_key(&c)) {
                return wrong("model.vocab", format!("token {token:?} is not made of byte characters"));
            }
        }
        if let Some(byte) =
            (0..256).find(|&b| !model.vocab.contains_key(BYTE_CHARS[b].encode_utf8(&mut [0; 4]) as &str))
        {
            return wrong("model.vocab", format!("no token for byte 0x{byte:02X}"));
        }
        let mut merges = Vec::with_capacity(model.merges.len());
        let mut seen = HashSet::new();
        for (i, merge) in model.merges.iter().enumerate() {
            let (a, b) = match merge {
                Merge::Pair(a, b) => (a.as_str(), b.as_str()),
                Merge::Text(text) => text.split_once(' ').unwrap_or((text, "")),
            };
            let ordinary = |t: &str| model.vocab.get(t).is_some_and(|&id| id >= FIRST_ORDINARY);
            if !ordinary(a) || !ordinary(b) || !ordinary(&format!("{a}{b}")) || !seen.insert((a, b)) {
                let what =
                    format!("{a:?} {b:?}: both and their sum must be tokens that are not special, each pair once");
                return wrong(&format!("model.merges[{i}]"), what);
            }
            merges.push((a.to_owned(), b.to_owned()));
        }
        let tokens = tokens.into_iter().map(String::from).collect();
        Self::from_parts(found, tokens, merges).map_err(|what| ("model".into(), what))
    }

    /// The text of a tokenizer.json that other readers of the format give the same ids from: the newline rule as a
    /// normaliser, a template that adds the opening mark only, and the byte-level decoder.
    ///
    /// # Errors
    /// If the crate refuses to write it.
    pub fn to_json(&self) -> Result<String> {
        let mut json = self.to_crate()?.to_string(true).map_err(refused)?;
        json.push('\n');
        Ok(json)
    }

    /// SHA-256 of [`to_json`](Self::to_json), in hexadecimal.
    ///
    /// # Errors
    /// As `to_json`.
    pub fn hash(&self) -> Result<String> {
        Ok(hex(&Sha256::digest(self.to_json()?)))
    }

    /// The same as the crate's tokenizer.
    fn to_crate(&self) -> Result<tokenizers::Tokenizer> {
        use tokenizers::normalizers::replace::Replace;
        use tokenizers::pre_tokenizers::byte_level::ByteLevel;
        use tokenizers::processors::template::TemplateProcessing;
        let names = self.family.special_names();
        let open = names[CLS as usize];
        let template = TemplateProcessing::builder()
            .try_single(format!("{open} $A"))
            .and_then(|b| b.try_pair(format!("{open} $A {open}:1 $B:1")))
            .map_err(Error::Usage)?
            .special_tokens(vec![(open, CLS)])
            .build()
            .map_err(refused)?;
        let mut tokenizer = tokenizers::Tokenizer::new(self.bpe.clone());
        tokenizer.with_normalizer(Some(Replace::new("\n", " ").map_err(refused)?)).map_err(refused)?;
        tokenizer.with_pre_tokenizer(Some(ByteLevel::default()));
        tokenizer.with_post_processor(Some(template));
        tokenizer.with_decoder(Some(ByteLevel::default()));
        tokenizer.add_special_tokens(names.map(|name| AddedToken::from(name, true))).map_err(refused)?;
        Ok(tokenizer)
    }

    /// Number of tokens, V: ids are `0..V`.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// The family, told by the special tokens' names.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The ids of a text, without any mark. What looks like a special token in the text stays text; ids are >= 5.
    ///
    /// # Errors
    /// If the crate refuses a piece of it (not known to happen).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut cache = Cache::for_one();
        cache.encode(self, &with_prefix(text), &mut ids)?;
        Ok(ids.into_iter().map(u32::from).collect())
    }

    /// The ids of one piece in byte characters, appended.
    pub(crate) fn encode_piece(&self, piece: &str, out: &mut Vec<u16>) -> Result<()> {
        for token in self.bpe.tokenize(piece).map_err(refused)? {
            // V is at most 65,536.
            out.push(token.id as u16);
        }
        Ok(())
    }

    /// How many bytes of text an ordinary token stands for.
    pub(super) fn bytes_of(&self, id: u32) -> usize {
        self.tokens.get(id as usize).map_or(0, |token| token.chars().count())
    }

    /// The text of ids. Special tokens appear under their names; ids that are no token and bytes that are no UTF-8
    /// become U+FFFD. The space before the first word stays.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        ids.iter().for_each(|&id| self.push_bytes(id, &mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The name of a token in tokenizer.json: `Ġthe` for the word ` the`.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    /// Appends the bytes of one token, which need not be whole characters; see [`decode`](Self::decode).
    pub fn push_bytes(&self, id: u32, bytes: &mut Vec<u8>) {
        match self.tokens.get(id as usize) {
            Some(token) if id >= FIRST_ORDINARY => bytes.extend(token.chars().map(|c| CHAR_BYTES[&c])),
            Some(name) => bytes.extend(name.bytes()),
            None => bytes.extend("\u{fffd}".bytes()),
        }
    }
}

fn refused(e: impl std::fmt::Display) -> Error {
    Error::Usage(format!("tokenizer: {}", e.to_string().replace('\n', " ")))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// tokenizer.json, as far as antlm looks at it. The post-processor, padding and truncation are the Hub's affair.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<serde_json::Value>,
    pre_tokenizer: Option<ByteLevelFile>,
    decoder: Option<ByteLevelFile>,
    model: ModelFile,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct ByteLevelFile {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    add_prefix_space: bool,
    use_regex: Option<bool>,
}

#[derive(Deserialize)]
struct ModelFile {
    #[serde(rename = "type")]
    kind: Option<String>,
    dropout: Option<f32>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(deserialize_with = "ids_only")]
    vocab: BTreeMap<String, u32>,
    #[serde(default)]
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Text(String),
}

/// A vocabulary of a model that is not BPE has another shape (Unigram: a list); it is then left empty, so that the
/// message is about the model's type.
fn ids_only<'de, D: serde::Deserializer<'de>>(d: D) -> std::result::Result<BTreeMap<String, u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Vocab {
        Ids(BTreeMap<String, u32>),
        Other(serde::de::IgnoredAny),
    }
    Ok(match Vocab::deserialize(d)? {
        Vocab::Ids(ids) => ids,
        Vocab::Other(_) => BTreeMap::new(),
    })
}

fn newline_rule() -> serde_json::Value {
    serde_json::json!({"type": "Replace", "pattern": {"String": "\n"}, "content": " "})
}

#[cfg(test)]
mod tests;
