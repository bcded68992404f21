//! Raw text: the first byte says what the file's name ends in, and what separates documents.

use antlm::recipe::init;
use antlm::text::corpus::{self, DocumentRule, Purpose};
use antlm::text::source::Source;

const ENDINGS: [&str; 8] = ["txt", "jsonl", "txt.gz", "txt.zst", "jsonl.gz", "jsonl.zst", "train", "txt"];
const RULES: [DocumentRule; 3] = [DocumentRule::BlankLine, DocumentRule::File, DocumentRule::Title];

pub fn run(data: &[u8]) -> bool {
    let Some((way, bytes)) = crate::choice(data, ENDINGS.len() * RULES.len()) else { return false };
    let ending = ENDINGS[way % ENDINGS.len()];
    let path = crate::file(&format!("fuzzed.{ending}"), bytes);
    let source = Source { documents: RULES[way / ENDINGS.len()], ..Source::new("s", [&path]) };
    let files = corpus::files(&[source], Purpose::Train).expect("a file with a known ending");
    let mut documents = 0;
    let read = corpus::read_documents(&files[0], bytes, |document| {
        assert!(!document.trim().is_empty() && !document.contains('\0') && document.len() <= 6 * bytes.len());
        documents += 1;
        Ok(())
    });
    if let Some(read) = crate::read(read) {
        assert!(read == bytes.len() as u64 && documents > 0);
    }
    let Some(amount) = crate::read(init::count(&[path], &mut |_| {}, &|| false)) else { return false };
    assert!(amount.documents > 0);
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let text = "\u{feff}= = = One = = =\r\n\r\nThe cat.\n\n\n = = = Two = = =\nThe dog\u{a0}sleeps.\n";
    let json = "{\"text\": \"The cat.\\n\\nThe dog.\"}\n\n{\"id\": 3, \"text\": \"\\u00e9\"}\r\n";
    (0..(ENDINGS.len() * RULES.len()) as u8)
        .map(|way| {
            let ending = ENDINGS[usize::from(way) % ENDINGS.len()];
            let text = if ending.starts_with("jsonl") { json } else { text };
            let packed = match ending.rsplit('.').next() {
                Some("gz") => gzip(text.as_bytes()),
                Some("zst") => zstd(text.as_bytes()),
                _ => text.into(),
            };
            [&[way], &packed[..]].concat()
        })
        .collect()
}

/// A gzip file that stores its text as it is (RFC 1952 and 1951).
fn gzip(text: &[u8]) -> Vec<u8> {
    let length = (text.len() as u16).to_le_bytes();
    let inverse = (!(text.len() as u16)).to_le_bytes();
    let mut crc = !0u32;
    for &byte in text {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    let head = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    [&head[..], &length, &inverse, text, &(!crc).to_le_bytes(), &(text.len() as u32).to_le_bytes()].concat()
}

/// A zstd frame that stores its text as it is, without a checksum (RFC 8878).
fn zstd(text: &[u8]) -> Vec<u8> {
    // A single segment with two bytes of size (minus 256), or one.
    let size = if text.len() < 256 { vec![0x20, text.len() as u8] } else { vec![0x60, (text.len() - 256) as u8, 0] };
    let block = (text.len() as u32) << 3 | 1;
    [&[0x28, 0xB5, 0x2F, 0xFD][..], &size, &block.to_le_bytes()[..3], text].concat()
}
