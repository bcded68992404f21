//! Safetensors files of a flat f32 buffer: written straight from it, read straight into it, nothing trusted.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use antlm_nn::params::Layout;
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, TensorView};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::{Error, Result, files};

#[cfg(target_endian = "big")]
compile_error!("safetensors files are little-endian, and tensor_file copies values as they lie in memory");

/// A header larger than this is refused (the safetensors crate has the same limit): 100 MB.
const MAX_HEADER: u64 = 100_000_000;

/// One flat buffer of a file, and what its tensors' names begin with there.
///
/// `("", params)` writes the Hub's names; `("exp_avg.", m)` writes `exp_avg.NAME`.
pub type Set<'a> = (&'a str, &'a [f32]);

/// Writes buffers of one layout as a safetensors file with the metadata `{"format": "pt"}`, and syncs it. The values
/// are not copied on the way.
///
/// # Errors
/// [`Error::Usage`] when a buffer does not have the layout's length, [`Error::Io`] when the file cannot be written.
pub fn write(path: &Path, layout: &Layout, sets: &[Set]) -> Result<()> {
    let mut views = Vec::with_capacity(layout.tensors().len() * sets.len());
    for (prefix, values) in sets {
        check_len(layout, values.len())?;
        for tensor in layout.tensors() {
            let bytes = bytemuck::cast_slice(&values[tensor.range()]);
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)
                .map_err(|e| Error::data(path, format!("tensor {}", tensor.name), e.to_string()))?;
            views.push((format!("{prefix}{}", tensor.name), view));
        }
    }
    // The safetensors crate writes through a temporary file that only its owner may read; a model is there to be
    // shared, so the file gets the permissions that any new file of this user gets.
    let permissions = File::create(path).and_then(|f| f.metadata()).map_err(Error::io(path))?.permissions();
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|e| match e {
        SafeTensorError::IoError(source) => Error::Io { path: path.to_owned(), source },
        e => Error::Io { path: path.to_owned(), source: std::io::Error::other(e) },
    })?;
    std::fs::set_permissions(path, permissions).map_err(Error::io(path))?;
    files::sync_file(path)
}

/// Reads what [`write`] wrote into new buffers, one for each prefix. The file must hold exactly these tensors, in f32
/// and in the layout's shapes, and end where its header says.
///
/// # Errors
/// [`Error::Io`], or [`Error::Data`] with the byte or the tensor that is wrong.
pub fn read(path: &Path, layout: &Layout, prefixes: &[&str]) -> Result<Vec<Vec<f32>>> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let (start, header) = read_header(path, &mut file)?;
    let mut offsets = Vec::new();
    for prefix in prefixes {
        for tensor in layout.tensors() {
            let name = format!("{prefix}{}", tensor.name);
            let place = format!("tensor {name}");
            let info = header.info(&name).ok_or_else(|| Error::data(path, &place, "missing"))?;
            if info.dtype != Dtype::F32 || info.shape != tensor.shape {
                let what = format!(
                    "is {:?} {:?}, but this model needs F32 {:?}; is it another model's file?",
                    info.dtype, info.shape, tensor.shape
                );
                return Err(Error::data(path, place, what));
            }
            offsets.push(start + info.data_offsets.0 as u64);
        }
    }
    if header.tensors().len() != offsets.len() {
        let known: Vec<String> =
            prefixes.iter().flat_map(|p| layout.tensors().iter().map(move |t| format!("{p}{}", t.name))).collect();
        let mut extra: Vec<String> = header.offset_keys();
        extra.retain(|name| !known.contains(name));
        extra.sort();
        let name = extra.first().cloned().unwrap_or_default();
        return Err(Error::data(path, format!("tensor {name:?}"), "this model has no such tensor"));
    }
    let mut offsets = offsets.into_iter();
    let mut sets = Vec::with_capacity(prefixes.len());
    for _ in prefixes {
        let mut values = vec![0.0f32; layout.len()];
        for (tensor, offset) in layout.tensors().iter().zip(&mut offsets) {
            file.seek(SeekFrom::Start(offset)).map_err(Error::io(path))?;
            file.read_exact(bytemuck::cast_slice_mut(&mut values[tensor.range()])).map_err(Error::io(path))?;
        }
        sets.push(values);
    }
    Ok(sets)
}

/// What a tensor of a file from elsewhere is that the layout does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spare {
    /// Of no use (a buffer that follows from the sizes).
    Ignored,
    /// A second copy of this tensor, which must have the same values.
    CopyOf(&'static str),
    /// Not known: the file is refused.
    Unknown,
}

/// Reads a file that something else wrote: the tensors of the layout in f32, f16 or bf16, all of them in their shapes,
/// and no others but those that `spare` knows.
///
/// # Errors
/// [`Error::Io`], or [`Error::Data`] with the byte or the tensors that are wrong; missing and surplus ones are listed.
pub fn read_foreign(path: &Path, layout: &Layout, spare: impl Fn(&str) -> Spare) -> Result<Vec<f32>> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let (start, header) = read_header(path, &mut file)?;
    let known: HashMap<&str, &antlm_nn::params::Tensor> =
        layout.tensors().iter().map(|tensor| (&*tensor.name, tensor)).collect();
    let mut names = header.offset_keys();
    names.sort();
    let of = |name: &str| if known.contains_key(name) { None } else { Some(spare(name)) };
    let missing = layout.tensors().iter().map(|tensor| &*tensor.name).filter(|name| header.info(name).is_none());
    let surplus = names.iter().map(String::as_str).filter(|name| of(name) == Some(Spare::Unknown));
    // Each tensor of the file, and the one of the layout that it is or is a copy of.
    let needed = names.iter().filter_map(|name| match (known.get(&**name), of(name)) {
        (Some(tensor), _) => Some((name, *tensor)),
        (None, Some(Spare::CopyOf(first))) => known.get(first).map(|tensor| (name, *tensor)),
        (None, _) => None,
    });
    let other = needed.filter_map(|(name, tensor)| {
        let info = header.info(name)?;
        let fits = info.shape == tensor.shape && matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
        let dims: Vec<String> = info.shape.iter().take(8).map(usize::to_string).collect();
        let more = if info.shape.len() > dims.len() { ", …" } else { "" };
        let is = format!("{} is {:?} [{}{more}], not {:?}", quoted(name), info.dtype, dims.join(", "), tensor.shape);
        (!fits).then_some(is)
    });
    let wrong = [
        ("missing", listed(missing.map(quoted))),
        ("surplus", listed(surplus.map(quoted))),
        ("of another shape, or not in F32, F16 or BF16", listed(other)),
    ];
    let wrong: Vec<String> = wrong
        .into_iter()
        .filter(|(_, (count, _))| *count > 0)
        .map(|(what, (count, names))| format!("{count} {what}: {names}"))
        .collect();
    if !wrong.is_empty() {
        return Err(Error::data(path, "tensors", wrong.join("; ")));
    }
    let read = |file: &mut File, name: &str, out: &mut [f32]| -> Result<()> {
        // Both callers have seen the name in the header, with a type and a shape that fit.
        let info = header.info(name).ok_or_else(|| Error::data(path, format!("tensor {name:?}"), "missing"))?;
        file.seek(SeekFrom::Start(start + info.data_offsets.0 as u64)).map_err(Error::io(path))?;
        if info.dtype == Dtype::F32 {
            return file.read_exact(bytemuck::cast_slice_mut(out)).map_err(Error::io(path));
        }
        let mut halves = vec![0u16; out.len()];
        file.read_exact(bytemuck::cast_slice_mut(&mut halves)).map_err(Error::io(path))?;
        for (out, bits) in out.iter_mut().zip(halves) {
            *out = match info.dtype {
                Dtype::F16 => half::f16::from_bits(bits).to_f32(),
                _ => half::bf16::from_bits(bits).to_f32(),
            };
        }
        Ok(())
    };
    // Before any memory is taken for values: the file is as long as its header says, so the model is not larger.
    let bytes: usize = header.tensors().values().map(|info| info.data_offsets.1 - info.data_offsets.0).sum();
    if layout.len() > bytes / 2 {
        let what = format!("{bytes} bytes of values are too few for the {} of this model", layout.len());
        return Err(Error::data(path, "tensors", what));
    }
    let mut values = vec![0.0f32; layout.len()];
    for tensor in layout.tensors() {
        read(&mut file, &tensor.name, &mut values[tensor.range()])?;
    }
    for name in &names {
        let Some(Spare::CopyOf(first)) = of(name) else { continue };
        let Some(tensor) = known.get(first) else { continue };
        let mut copy = vec![0.0; tensor.range().len()];
        read(&mut file, name, &mut copy)?;
        if copy != values[tensor.range()] {
            let what = format!("is not the same as {first}, but this model has one matrix for both");
            return Err(Error::data(path, format!("tensor {name:?}"), what));
        }
    }
    Ok(values)
}

/// The most entries that an error lists, and the most bytes of them: all of a model's tensors, not all of a hostile file's.
const MOST_LISTED: (usize, usize) = (1000, 64 << 10);

/// How many there are, and all of them in a line as far as the limits go, with the number of those that are left out.
fn listed(entries: impl Iterator<Item = String>) -> (usize, String) {
    let (mut count, mut shown, mut text) = (0, 0, String::new());
    for entry in entries {
        if count == shown && shown < MOST_LISTED.0 && text.len() + entry.len() < MOST_LISTED.1 {
            text += if shown > 0 { ", " } else { "" };
            text += &entry;
            shown += 1;
        }
        count += 1;
    }
    if count > shown {
        text += &format!(" and {} more", count - shown);
    }
    (count, text)
}

/// A name from a file; control characters cannot hide in it, and it is not long.
fn quoted(name: &(impl AsRef<str> + ?Sized)) -> String {
    let short: String = name.as_ref().chars().take(100).collect();
    format!("{short:?}")
}

/// Where the values begin, and the checked header; the file's length agrees with it.
fn read_header(path: &Path, file: &mut File) -> Result<(u64, Metadata)> {
    let size = file.metadata().map_err(Error::io(path))?.len();
    let wrong = |place: &str, what: String| Error::data(path, place, what);
    if size < 8 {
        return Err(wrong("byte 0", format!("not a safetensors file: it has {size} bytes")));
    }
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(Error::io(path))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length > size - 8 {
        return Err(wrong(
            "byte 0",
            format!("a header of {length} bytes in a file of {size}: damaged or no safetensors file"),
        ));
    }
    let mut json = vec![0; length as usize]; // at most MAX_HEADER
    file.read_exact(&mut json).map_err(Error::io(path))?;
    let header: Metadata = serde_json::from_slice(&json)
        .map_err(|e| wrong(&format!("header, character {}", e.column()), e.to_string()))?;
    // Of a name that stands there twice the crate takes one, and readers may differ in which.
    serde_json::from_slice::<EachOnce>(&json)
        .map_err(|e| wrong(&format!("header, character {}", e.column()), e.to_string()))?;
    let start = 8 + length;
    if header.data_len() as u64 != size - start {
        let end = start.saturating_add(header.data_len() as u64);
        return Err(wrong(&format!("byte {size}"), format!("the file ends here, but its header says byte {end}")));
    }
    Ok((start, header))
}

/// A JSON object whose keys are looked at, and nothing else.
struct EachOnce;

impl<'de> Deserialize<'de> for EachOnce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(EachOnce)
    }
}

impl<'de> Visitor<'de> for EachOnce {
    type Value = EachOnce;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<EachOnce, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            if names.contains(&name) {
                return Err(serde::de::Error::custom(format!("{} stands in it twice", quoted(&name))));
            }
            names.insert(name);
        }
        Ok(EachOnce)
    }
}

fn check_len(layout: &Layout, got: usize) -> Result<()> {
    if got == layout.len() {
        return Ok(());
    }
    Err(Error::Engine(antlm_nn::Error::Shape {
        op: "tensor file",
        expected: format!("a buffer of {} values", layout.len()),
        got: format!("{got} values"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use antlm_nn::params::Init;

    fn layout() -> Layout {
        let mut layout = Layout::default();
        layout.add("b.weight", &[3, 2], Init::Normal { std: 1.0 }, true);
        layout.add("a.bias", &[5], Init::Normal { std: 1.0 }, false);
        layout
    }

    #[test]
    fn round_trip_and_equal_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("1"), folder.path().join("2"));
        let (m, v) = (layout().init(1), layout().init(2));
        for path in [&one, &two] {
            write(path, &layout(), &[("m.", &m), ("v.", &v)]).unwrap();
        }
        assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
        assert_eq!(read(&one, &layout(), &["m.", "v."]).unwrap(), [m, v]);
        // What the Hub's readers look for.
        let bytes = std::fs::read(&one).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
        assert_eq!(header.info("v.b.weight").unwrap().shape, [3, 2]);
    }

    #[test]
    fn a_buffer_of_another_length_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        assert!(write(&path, &layout(), &[("", &[0.0; 3])]).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn wrong_files_are_errors_with_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let good = {
            write(&path, &layout(), &[("", &layout().init(1))]).unwrap();
            std::fs::read(&path).unwrap()
        };
        let with_header = |header: &str, data: &[u8]| {
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            bytes.extend(data);
            bytes
        };
        let a = r#""a.bias":{"dtype":"F32","shape":[5],"data_offsets":[0,20]}"#;
        let huge = r#"{"a.bias":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,20]}}"#;
        let cases: [(Vec<u8>, &str); 11] = [
            (with_header(&format!("{{{a},{a}}}"), &[0; 20]), "\"a.bias\" stands in it twice"),
            (vec![], "byte 0: not a safetensors file"),
            (u64::MAX.to_le_bytes().repeat(2), "byte 0: a header of"),
            (good[..good.len() - 1].to_vec(), "the file ends here"),
            (good[..40].to_vec(), "byte 0: a header of"),
            ([good.as_slice(), b"x"].concat(), "the file ends here"),
            (with_header("{not json", b""), "header, character"),
            (with_header(huge, &[0; 20]), "header, character"),
            (with_header(&format!("{{{a}}}"), &[0; 20]), "tensor b.weight: missing"),
            (
                with_header(
                    &format!(r#"{{{a},"b.weight":{{"dtype":"F32","shape":[2,3],"data_offsets":[20,44]}}}}"#),
                    &[0; 44],
                ),
                "tensor b.weight: is F32 [2, 3]",
            ),
            (
                with_header(
                    &format!(
                        r#"{{{a},"b.weight":{{"dtype":"F32","shape":[3,2],"data_offsets":[20,44]}},
                           "z":{{"dtype":"F32","shape":[1],"data_offsets":[44,48]}}}}"#
                    ),
                    &[0; 48],
                ),
                "tensor \"z\": this model has no such tensor",
            ),
        ];
        for (bytes, expected) in cases {
            std::fs::write(&path, bytes).unwrap();
            let error = read(&path, &layout(), &[""]).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("x.safetensors") && !error.contains('\n'), "{error}");
        }
    }
}
