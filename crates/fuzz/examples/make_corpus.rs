//! Writes the corpora: `cargo run -p fuzz --example make_corpus`. Valid files come from the project's own writers, but for
//! `state_dict.pth`, which is `crates/backbone/tests/fixtures/make_state_dict.py`'s; files named `found-` are hostile.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Cursor, Read as _, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use candle_core::{Device, Tensor};
use dataset::{Dataset, OpenOptions};
use fuzz::corpus_folder;
use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use shards::{ChannelSums, Dtype, EncodedMap, FeatureEntry, Images, Manifest, Plan, PlannedImage, ShardWriter};
use sources::Source;
use stage::{ContentHash, Fingerprint, HashMemo};
use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

fn main() -> Result<()> {
    tables()?;
    put("study", "study.toml", STUDY)?;
    feature_cache()?;
    tensor_files()?;
    weights()?;
    pickles()?;
    images()
}

fn put(target: &str, name: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
    let folder = corpus_folder(target);
    fs_err::create_dir_all(&folder)?;
    Ok(fs_err::write(folder.join(name), bytes)?)
}

const FER2013NEW: &str = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF
Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0
PublicTest,,0,0,0,0,0,0,0,0,0,10
";

const STUDY: &str = r#"# The study.
combo = "study"
device = "cuda:1"

[data]
labels = "majority"
classes = 6

[recipe]
name = "paper" # Adam
lr = 0.005

[study]
combos = ["orig", "fm1+fm2"]
seeds = [0, 1]
variants = ["model.collapse=mean", "classes=8 loss.weights=inverse"]
=====
combo=fm1+fm2,orig
lr=0.001
study.seeds=1,2
eval.class_names=joy=happiness,calm=none
"#;

fn tables() -> Result<()> {
    put("fer2013new", "fer2013new.csv", FER2013NEW)?;
    put("fer2013new", "windows.csv", FER2013NEW.replace('\n', "\r\n"))?;
    let row = "fer0000000.png,\"(0, 0, 48, 48)\",4,0,0,1,3,2,0,0,0,0\n";
    put("folder-labels", "label.csv", row.repeat(2))?;

    let pixels = |first: usize| (first..first + 2304).map(|i| (i % 256).to_string()).collect::<Vec<_>>().join(" ");
    let table = format!("emotion,pixels,Usage\n0,{},Training\n1,\"{}\",PublicTest\n", pixels(0), pixels(7));
    put("fer2013", "fer2013.csv", &table)?;
    let folder = tempfile::tempdir()?;
    fs_err::write(folder.path().join("fer2013.csv"), table)?;
    fs_err::write(folder.path().join("fer2013new.csv"), FER2013NEW)?;
    let memo = HashMemo::open(&folder.path().join("hashes"));
    Dataset::open(folder.path(), &OpenOptions::new(folder.path()), &memo)?;
    for table in ["fer2013.csv", "fer2013new.csv"] {
        memo.hash_written(&folder.path().join(table))?;
    }
    memo.save()?;
    put("memo", "hashes", fs_err::read(folder.path().join("hashes"))?)?;
    put("fer2013-rows", "fer2013-rows.json", fs_err::read(folder.path().join("fer2013-rows.json"))?)
}

fn feature_cache() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (cache, source) = (folder.path(), Source::Fm1);
    let image = |index: usize| {
        let id = ["FER2013Train/fer0000000.png", "a  b.png"][index];
        PlannedImage { id, train: index == 0, hash: ContentHash::of(b"") }
    };
    let plan = Plan::default().update(Images { count: 2, image: &image }, |_| true, 1).context("there are images")?;
    plan.write(cache)?;
    put("plan", "plan", fs_err::read(cache.join(Plan::FILE))?)?;

    let mut writer = ShardWriter::create(cache, &plan, 0, source, Dtype::F16)?;
    let mut map = EncodedMap::new(source, Dtype::F16);
    let row = vec![0.5; source.side() * source.channels()];
    map.encode((0..source.side()).map(|_| row.as_slice()));
    writer.push(&map)?;
    let record = writer.finish(&HashMemo::open(&cache.join("hashes")))?;
    put("record", "00000.record.json", fs_err::read(shards::record_path(cache, source, 0))?)?;
    let shard = fs_err::read(shards::shard_path(cache, source, 0))?;
    let length = shard.first_chunk().copied().map(u64::from_le_bytes).context("a shard has a header")?;
    put("shard", "header.safetensors", &shard[..8 + length as usize])?;

    let mut fingerprint = Fingerprint::default();
    fingerprint.set("extract.dtype", Dtype::F16);
    let shape = [source.side(), source.side(), source.channels()];
    let entry = FeatureEntry { shape, moments: record.sums.moments(), shards: BTreeMap::from([(0, record.shard)]) };
    let manifest = Manifest {
        format: shards::FORMAT_VERSION,
        fingerprint,
        calibration: None,
        dtype: Dtype::F16,
        layout: "NHWC".to_owned(),
        features: BTreeMap::from([(source, entry)]),
        orig: ChannelSums::new(1).moments(),
        plan: plan.digest(),
    };
    manifest.write(cache)?;
    put("manifest", Manifest::FILE, fs_err::read(cache.join(Manifest::FILE))?)?;
    let sealed = cache.join("sealed.json");
    stage::write_sealed_json(
        &sealed,
        &serde_json::json!({"images": 256, "name": "a\u{7f}", "list": [1.5, null, true]}),
    )?;
    put("sealed", "sealed.json", fs_err::read(&sealed)?)?;
    stage::write_sealed_lines(&sealed, ["one\ntwo\n".to_owned()])?;
    put("sealed", "sealed-lines", fs_err::read(&sealed)?)
}

fn tensor_files() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("file.safetensors");
    vit::fuzzing::sample()?.0.save(&path)?;
    let model = fs_err::read(&path)?;
    put("model", "model.safetensors", &model)?;
    let huge = replaced(&model, br#"\"width\":4,\"depth\":1,"#, br#"\"width\":8192,\"depth\":256,"#)?;
    put("model", "found-huge-model.safetensors", vit::fuzzing::resealed(&huge))?;
    vit::fuzzing::write_checkpoint(&path)?;
    put("checkpoint", "checkpoint.safetensors", fs_err::read(&path)?)
}

/// A safetensors file with `old`, which is in its header, replaced by `new`.
fn replaced(file: &[u8], old: &[u8], new: &[u8]) -> Result<Vec<u8>> {
    let at = file.windows(old.len()).position(|window| window == old).context("the header has other words")?;
    let length = file.first_chunk().copied().map(u64::from_le_bytes).context("a file has a header")?;
    let header = [&file[8..at], new, &file[at + old.len()..8 + length as usize]].concat();
    Ok([&(header.len() as u64).to_le_bytes(), header.as_slice(), &file[8 + length as usize..]].concat())
}

fn weights() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let tensors = HashMap::from([
        ("conv.weight".to_owned(), Tensor::new(&[-0.25f32, -0.125, 0.0, 0.125, 0.25, 0.375], &Device::Cpu)?),
        ("bn.num_batches_tracked".to_owned(), Tensor::new(&[3i64], &Device::Cpu)?),
    ]);
    let path = folder.path().join("weights");
    candle_core::safetensors::save(&tensors, &path)?;
    put("safetensors", "small.safetensors", fs_err::read(&path)?)?;
    let mut named: Vec<_> = tensors.iter().collect();
    named.sort_by_key(|(name, _)| *name);
    Tensor::write_npz(&named, &path)?;
    put("npz", "small.npz", fs_err::read(&path)?)?;
    let mut archive = ZipArchive::new(Cursor::new(fs_err::read(&path)?))?;
    let mut array = Vec::new();
    archive.by_name("conv.weight.npy")?.read_to_end(&mut array)?;
    put("npy", "conv.weight.npy", &array)?;

    let npy =
        |header: &str| [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
    let of_shape = |shape: &str| npy(&format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}"));
    put("npy", "found-huge-shape.npy", of_shape("1099511627776,"))?;
    put("npy", "found-shape-beyond-64-bits.npy", of_shape("4294967296, 4294967296,"))?;
    put("npy", "found-empty-shape-beyond-64-bits.npy", of_shape("0, 9223372036854775808, 4,"))?;
    put("npy", "found-huge-header.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff")?;
    put("npz", "found-huge-shape.npz", zipped(&[("conv.weight.npy", &of_shape("1099511627776,"))])?)?;
    put("npz", "found-path-out-of-it.npz", zipped(&[("../../conv.weight.npy", &array), ("/etc/passwd", b"")])?)?;
    let two_names = zipped(&[("a", &of_shape("1099511627776,")), ("a.npy", &array)])?;
    put("npz", "found-two-names-of-one-array.npz", two_names)
}

fn zipped(entries: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        zip.start_file(*name, SimpleFileOptions::default())?;
        zip.write_all(content)?;
    }
    Ok(zip.finish()?.into_inner())
}

fn pickles() -> Result<()> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../backbone/tests/fixtures/state_dict.pth");
    let file = fs_err::read(fixture)?;
    put("pth", "state_dict.pth", &file)?;
    let mut archive = ZipArchive::new(Cursor::new(file))?;
    let name =
        archive.file_names().flatten().find(|name| name.ends_with("data.pkl")).context("no pickle")?.into_owned();
    let mut pickle = Vec::new();
    archive.by_name(&name)?.read_to_end(&mut pickle)?;
    put("pickle", "data.pkl", pickle)?;

    put("pickle", "found-system-call.pkl", b"cos\nsystem\nX\x1b\x00\x00\x00touch /tmp/fuzz-was-executed\x85R.")?;
    put(
        "pickle",
        "found-doubling-list.pkl",
        [b"]K\x00a".as_slice(), &b"q\x00](h\x00h\x00e".repeat(40), b"."].concat(),
    )?;
    put("pickle", "found-deep-tuple.pkl", [b")".as_slice(), &b"\x85".repeat(60_000), b"."].concat())?;
    put("pickle", "found-huge-text.pkl", b"X\xff\xff\xff\xff")?;
    put("pickle", "found-long-integer.pkl", [b"\x8a\xff".as_slice(), &[0xff; 255], b"."].concat())?;
    let tensor = |size: &[u8], offset: &[u8], stride: &[u8]| {
        let rebuild =
            b"}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n";
        let storage = b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x10tQ";
        [rebuild.as_slice(), storage, offset, size, stride, b"\x89ccollections\nOrderedDict\n)RtRs."].concat()
    };
    let most = b"J\xff\xff\xff\x7f";
    put("pickle", "tensor.pkl", tensor(b"K\x02K\x03\x86", b"K\x01", b"K\x03K\x01\x86"))?;
    let (shape, stride) = ([most.as_slice(), most, b"\x86"].concat(), [most.as_slice(), b"K\x01\x86"].concat());
    put("pickle", "found-huge-shape.pkl", tensor(&shape, b"K\x00", &stride))?;
    let offset = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    put("pickle", "found-offset-beyond-64-bits.pkl", tensor(b"K\x01\x85", offset, b"K\x01\x85"))
}

fn images() -> Result<()> {
    let colour = RgbImage::from_fn(13, 9, |x, y| Rgb([(x * 19) as u8, (y * 28) as u8, (x ^ y) as u8]));
    let grey = GrayImage::from_fn(13, 9, |x, y| Luma([((x * 19) ^ (y * 7)) as u8]));
    let deep = DynamicImage::from(colour.clone()).into_rgba16();
    for (ending, format) in [("png", ImageFormat::Png), ("jpeg", ImageFormat::Jpeg), ("bmp", ImageFormat::Bmp)] {
        let encoded = |image: DynamicImage| -> Result<Vec<u8>> {
            let mut bytes = Cursor::new(Vec::new());
            image.write_to(&mut bytes, format)?;
            Ok(bytes.into_inner())
        };
        put(ending, &format!("colour.{ending}"), encoded(colour.clone().into())?)?;
        put(ending, &format!("grey.{ending}"), encoded(grey.clone().into())?)?;
    }
    let mut bytes = Cursor::new(Vec::new());
    deep.write_to(&mut bytes, ImageFormat::Png)?;
    put("png", "deep.png", bytes.get_ref())?;

    // As many pixels as are allowed, of which the files hold a hundred.
    let (width, height) = (6000u32, 4000u32);
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let png = [&bytes.get_ref()[..16], &size, &bytes.get_ref()[24..]].concat();
    put("png", "found-huge-deep-image.png", png)?;
    let jpeg = fs_err::read(corpus_folder("jpeg").join("colour.jpeg"))?;
    let frame = jpeg.windows(2).position(|two| two == b"\xff\xc0").context("a JPEG has a frame")?;
    for (name, kind) in [("found-huge-image.jpeg", 0xc0), ("found-huge-progressive-image.jpeg", 0xc2)] {
        let mut huge = jpeg.clone();
        huge[frame + 1] = kind;
        huge[frame + 5..frame + 7].copy_from_slice(&size[6..]);
        huge[frame + 7..frame + 9].copy_from_slice(&size[2..4]);
        put("jpeg", name, huge)?;
    }
    let mut bmp = fs_err::read(corpus_folder("bmp").join("colour.bmp"))?;
    bmp[18..22].copy_from_slice(&width.to_le_bytes());
    bmp[22..26].copy_from_slice(&height.to_le_bytes());
    put("bmp", "found-huge-image.bmp", bmp)
}
