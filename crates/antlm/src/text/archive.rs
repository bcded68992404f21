//! Compressed text, unpacked as it is read: `.gz` and `.zst`, of one or many members, with their checksums compared.
//! Nothing is ever held whole, so a small file that unpacks to a very large one costs time, not memory.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::{Error, Result};

/// Bytes of a buffer.
const BUFFER: usize = 1 << 18;

/// How a file is packed, as the end of its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
}

impl Compression {
    /// The endings with a compression of their own.
    pub(crate) const ENDINGS: [(&'static str, Compression); 2] =
        [("gz", Compression::Gzip), ("zst", Compression::Zstd)];

    /// How a file of this name is packed, and the name that it has unpacked.
    pub(crate) fn of(path: &Path) -> (Compression, &Path) {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        match (Self::ENDINGS.iter().find(|(e, _)| *e == ending), path.file_stem()) {
            (Some(&(_, compression)), Some(stem)) => (compression, Path::new(stem)),
            _ => (Compression::None, path),
        }
    }
}

/// Opens a file for reading what is in it, unpacked. `read` is kept at the number of bytes of the file read so far.
///
/// What is wrong with an archive comes as an [`io::Error`] that is not the system's, when its place is read.
pub(crate) fn open<'a>(path: &Path, compression: Compression, read: &'a Cell<u64>) -> Result<Box<dyn BufRead + 'a>> {
    let file = File::open(path).map_err(Error::io(path))?;
    let file = BufReader::with_capacity(BUFFER, Counted { file, read });
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => {
            let gzip = Named { name: "gzip", reader: MultiGzDecoder::new(file) };
            Box::new(BufReader::with_capacity(BUFFER, gzip))
        }
        Compression::Zstd => {
            let zstd = Named { name: "zstd", reader: Frames::new(file) };
            Box::new(BufReader::with_capacity(BUFFER, zstd))
        }
    })
}

/// Counts what is read.
struct Counted<'a> {
    file: File,
    read: &'a Cell<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.read.set(self.read.get() + n as u64);
        Ok(n)
    }
}

/// Says in errors what is damaged; the system's errors stay as they are.
struct Named<R> {
    name: &'static str,
    reader: R,
}

impl<R: Read> Read for Named<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let name = self.name;
        self.reader.read(buffer).map_err(|error| {
            if error.raw_os_error().is_some() || error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let what = match error.kind() {
                io::ErrorKind::UnexpectedEof => format!("the {name} file is cut short; get or pack it again"),
                _ => format!("damaged {name} data ({error}); get or pack it again"),
            };
            io::Error::new(io::ErrorKind::InvalidData, what)
        })
    }
}

/// The content of all frames of a zstd file, one after another; frames to skip are skipped.
struct Frames<R> {
    file: R,
    decoder: FrameDecoder,
    /// Inside a frame.
    open: bool,
    /// A frame was seen.
    any: bool,
}

impl<R: BufRead> Frames<R> {
    fn new(file: R) -> Frames<R> {
        // Windows above 128 MiB are refused by the decoder.
        Frames { file, decoder: FrameDecoder::new(), open: false, any: false }
    }

    /// Starts the next frame; false at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.file.fill_buf()?.is_empty() {
                return if self.any { Ok(false) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            match self.decoder.reset(&mut self.file) {
                Ok(()) => break,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.file).take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.any = true;
                }
                Err(error) => return Err(unpacking(error)),
            }
        }
        (self.open, self.any) = (true, true);
        Ok(true)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.open || self.next_frame()? {
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder.decode_blocks(&mut self.file, BlockDecodingStrategy::UptoBlocks(1)).map_err(unpacking)?;
            }
            let n = self.decoder.read(buffer)?;
            if n > 0 {
                return Ok(n);
            }
            if let Some(sum) = self.decoder.get_checksum_from_data()
                && self.decoder.get_calculated_checksum() != Some(sum)
            {
                return Err(io::Error::other("the checksum is another"));
            }
            self.open = false;
        }
        Ok(0)
    }
}

/// The decoder's error, or the reader's inside of it.
fn unpacking(error: FrameDecoderError) -> io::Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return match io.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(io.kind(), io.to_string()),
            };
        }
        cause = inner.source();
    }
    let text = error.to_string();
    io::Error::other(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(text).unwrap();
        out.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn unpack(path: &Path, bytes: &[u8]) -> io::Result<Vec<u8>> {
        std::fs::write(path, bytes).unwrap();
        let read = Cell::new(0);
        let mut out = Vec::new();
        open(path, Compression::of(path).0, &read).unwrap().read_to_end(&mut out)?;
        assert_eq!(read.get(), bytes.len() as u64);
        Ok(out)
    }

    #[test]
    fn both_ways_with_many_members() {
        let dir = tempfile::tempdir().unwrap();
        let text: Vec<u8> = (0..100_000u64).flat_map(|i| format!("word{} ", i * i % 977).into_bytes()).collect();
        for (name, pack) in [("x.gz", gzip as fn(&[u8]) -> Vec<u8>), ("x.zst", zstd)] {
            let path = dir.path().join(name);
            assert_eq!(unpack(&path, &pack(&text)).unwrap(), text);
            let two = [pack(&text[..5]), pack(b""), pack(&text[5..])].concat();
            assert_eq!(unpack(&path, &two).unwrap(), text, "{name}");
            assert_eq!(unpack(&path, &pack(b"")).unwrap(), b"");
        }
        // A frame to skip, before and after.
        let skip = [&0x184D_2A53u32.to_le_bytes()[..], &3u32.to_le_bytes(), b"abc"].concat();
        let all = [&skip[..], &zstd(&text), &skip].concat();
        assert_eq!(unpack(&dir.path().join("x.zst"), &all).unwrap(), text);
    }

    #[test]
    fn every_cut_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for (name, packed) in
            [("x.gz", gzip(b"some text, some more text")), ("x.zst", zstd(b"some text, some more text"))]
        {
            for len in 0..packed.len() {
                let error = unpack(&dir.path().join(name), &packed[..len]).unwrap_err();
                assert!(error.to_string().contains("is cut short"), "{name} {len}: {error}");
            }
        }
    }

    #[test]
    fn flipped_bytes_never_panic_and_never_change_the_text_unseen() {
        let dir = tempfile::tempdir().unwrap();
        let text: Vec<u8> = b"some text, some more text, and an end of it ".repeat(8);
        for (name, packed) in [("x.gz", gzip(&text)), ("x.zst", zstd(&text))] {
            for at in 0..packed.len() {
                for flip in [0x01, 0x10, 0x80, 0xFF] {
                    let mut bytes = packed.clone();
                    bytes[at] ^= flip;
                    match unpack(&dir.path().join(name), &bytes) {
                        Ok(out) => assert_eq!(out, text, "{name}: byte {at} ^ {flip}"),
                        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
                    }
                }
            }
        }
        for (name, bytes) in [("x.gz", &b"plain text"[..]), ("x.zst", b"plain text"), ("x.gz", &zstd(b"a"))] {
            let error = unpack(&dir.path().join(name), bytes).unwrap_err().to_string();
            assert!(error.starts_with("damaged "), "{error}");
        }
    }
}
