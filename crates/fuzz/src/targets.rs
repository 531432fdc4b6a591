use std::path::Path;

use dataset::Pixels;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use study::Study;

use crate::{
    mend,
    mutate::Mutator,
    packed::{read_weights, zipped},
};

type Mend = fn(&[u8]) -> Vec<u8>;

/// A parser, and what is worth knowing of its format.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Words of its format.
    dictionary: &'static [&'static [u8]],
    /// Makes the checksums of an input right, if it has any.
    mend: Option<Mend>,
    /// Whether it accepts the bytes.
    parse: fn(&[u8]) -> bool,
}

impl Target {
    /// The input of case `number` under `seed`: one of `seeds`, changed, with its checksums mended in every other case.
    pub(crate) fn input(&self, seeds: &[Vec<u8>], seed: u64, number: u64) -> Vec<u8> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(number);
        let input = Mutator { seeds, dictionary: self.dictionary }.input(&mut random);
        if random.random() { self.mended(&input) } else { input }
    }

    /// `input` with its checksums mended.
    pub(crate) fn mended(&self, input: &[u8]) -> Vec<u8> {
        self.mend.map_or_else(|| input.to_vec(), |mend| mend(input))
    }

    /// Whether the parser accepts `input`.
    pub(crate) fn parse(&self, input: &[u8]) -> bool {
        (self.parse)(input)
    }
}

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// All of them.
pub const TARGETS: &[Target] = &[
    plain("fer2013new", LABELS, dataset::fuzzing::fer2013new),
    plain("folder-labels", LABELS, dataset::fuzzing::folder_labels),
    plain("fer2013", LABELS, dataset::fuzzing::pixel_table),
    sealed("fer2013-rows", JSON, stage::fuzzing::resealed_json, dataset::fuzzing::pixel_index),
    plain("study", STUDY, study),
    sealed("manifest", JSON, stage::fuzzing::resealed_json, shards::fuzzing::manifest),
    sealed("record", JSON, stage::fuzzing::resealed_json, shards::fuzzing::record),
    sealed("plan", PLAN, stage::fuzzing::resealed_lines, shards::fuzzing::plan),
    sealed("shard", SAFETENSORS, mend::safetensors, shards::fuzzing::header),
    sealed("model", SAFETENSORS, mend::tensor_file, vit::fuzzing::model),
    sealed("checkpoint", SAFETENSORS, mend::tensor_file, vit::fuzzing::checkpoint),
    sealed("safetensors", SAFETENSORS, mend::safetensors, |bytes| read_weights(".safetensors", bytes)),
    plain("npz", NPY, |bytes| read_weights(".npz", bytes)),
    plain("npy", NPY, |bytes| read_weights(".npz", &zipped(&[("conv.weight.npy", bytes)]))),
    plain("pth", PICKLE, |bytes| read_weights(".pth", bytes)),
    plain("pickle", PICKLE, |bytes| {
        read_weights(".pth", &zipped(&[&[("archive/data.pkl", bytes)], STORAGES].concat()))
    }),
    sealed("png", PNG, mend::png, decode),
    plain("jpeg", JPEG, decode),
    plain("bmp", BMP, decode),
    sealed("memo", &[b"fmstudy hashes 3"], stage::fuzzing::resealed_memo, stage::fuzzing::memo),
    sealed("sealed", JSON, stage::fuzzing::resealed_json, stage::fuzzing::sealed_file),
];

const fn plain(name: &'static str, dictionary: &'static [&'static [u8]], parse: fn(&[u8]) -> bool) -> Target {
    Target { name, dictionary, mend: None, parse }
}

const fn sealed(
    name: &'static str,
    dictionary: &'static [&'static [u8]],
    mend: Mend,
    parse: fn(&[u8]) -> bool,
) -> Target {
    Target { name, dictionary, mend: Some(mend), parse }
}

/// A configuration and, after a line of `=====`, overrides, one to a line.
fn study(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let (file, overrides) = text.split_once("=====\n").unwrap_or((&text, ""));
    let overrides: Vec<String> = overrides.lines().map(str::to_owned).collect();
    let Ok(study) = Study::parse(file, Path::new("study.toml"), &overrides) else { return false };
    assert!(!study.combinations().is_empty() && !study.seeds().is_empty());
    true
}

/// An image, which is as large as it says.
fn decode(bytes: &[u8]) -> bool {
    let Ok(Pixels { width, height, channels, data }) = Pixels::decode(bytes) else { return false };
    assert_eq!(data.len(), width * height * channels);
    true
}

/// What a pickle's tensors are parts of.
const STORAGES: &[(&str, &[u8])] = &[
    ("archive/data/0", &[0; 64]),
    ("archive/data/1", &[0; 64]),
    ("archive/data/2", &[0; 64]),
    ("archive/data/3", &[0; 64]),
    ("archive/data/4", &[0; 64]),
    ("archive/data/5", &[0; 64]),
];

const LABELS: &[&[u8]] = &[
    b",",
    b"\n",
    b"\r\n",
    b"\"",
    b"\"\"",
    b"Training",
    b"PublicTest",
    b"PrivateTest",
    b"Usage",
    b"pixels",
    b"emotion",
    b"fer0000000.png",
    b"\"(0, 0, 48, 48)\"",
    b"\xef\xbb\xbf",
    b"\xff",
    b" ",
    b"256",
    b"-1",
];

const STUDY: &[&[u8]] = &[
    b"=====\n",
    b"[recipe]\n",
    b"[study]\n",
    b"[[study]]\n",
    b"combo=",
    b"all",
    b"study",
    b"fm1+fm2",
    b"orig,fm4",
    b"seed=",
    b"device=cuda:",
    b"recipe=robust\n",
    b"lr=",
    b"width=",
    b"heads=",
    b"combos = [",
    b"seeds=1,2\n",
    b"variants = [\"",
    b"classes=8\n",
    b"class_names=joy=happiness\n",
    b".",
    b"=",
    b"\"\"\"",
    b"'''",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\\u0000",
    b"1979-05-27T07:32:00Z",
    b"inf",
    b"nan",
    b"true",
    b"0b1",
    b"\xc2\x85",
];

const JSON: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"\\u0000",
    b"\\ud800",
    b"\"images\": ",
    b"\"format\": 2",
    b"\"pixels\": ",
    b"\"fm1\": ",
    b"\"fm4\": ",
    b"\"orig\": ",
    b"1e308",
    b"-0",
];

const PLAN: &[&[u8]] =
    &[b"shard\n", b"  ", b"train", b"other", b"\n", b"\r", b"\r\n", b"\xc2\x85", b"\xe2\x80\xa8", b"blake3 "];

const SAFETENSORS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"\"F16\"",
    b"\"F32\"",
    b"\"BF16\"",
    b"\"F64\"",
    b"\"I64\"",
    b"\"BOOL\"",
    b"\"F4\"",
    b"\"F8_E4M3\"",
    b"\"F6_E2M3\"",
    b"\"U16\"",
    b"\"shape\":[",
    b"\"shape\":[]",
    b"\"data_offsets\":[",
    b"\"dtype\":",
    b"\"__metadata__\":",
    b"\"features\":",
    b"\\\"ids\\\":[",
    b"\\\"width\\\":8192",
    b"\\\"depth\\\":256",
    b"\\\"layer_scale\\\":0.1",
    b"\\\"pool\\\":\\\"cls\\\"",
];

const NPY: &[&[u8]] = &[
    b"\x93NUMPY\x01\x00",
    b"\x93NUMPY\x02\x00",
    b"'<f2'",
    b"'<f4'",
    b"'<f8'",
    b"'|b1'",
    b"'shape': (",
    b"), }",
    b",",
    b"(",
    b")",
    b"True",
    b"False",
    b"'fortran_order': ",
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"../",
    b"/",
    b".npy",
];

const PICKLE: &[&[u8]] = &[
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"ctorch\nHalfStorage\n",
    b"ctorch\nLongStorage\n",
    b"ctorch._tensor\n_rebuild_from_type_v2\n",
    b"cos\nsystem\n",
    b"ccollections\nOrderedDict\n",
    b"c__torch__\nModule\n",
    b"X\x04\x00\x00\x00name",
    b"}",
    b"]",
    b")",
    b"(",
    b"t",
    b"u",
    b"e",
    b"s",
    b"a",
    b"R",
    b"Q",
    b"b",
    b".",
    b"\x81",
    b"\x85",
    b"\x86",
    b"\x87",
    b"\x8a\x09",
    b"J\xff\xff\xff\x7f",
    b"K\x00",
    b"q\x00",
    b"h\x00",
    b"h\x00h\x00\x86q\x00",
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"data.pkl",
    b"../",
];

const PNG: &[&[u8]] = &[
    b"\x89PNG\r\n\x1a\n",
    b"IHDR",
    b"PLTE",
    b"IDAT",
    b"IEND",
    b"tRNS",
    b"iCCP",
    b"zTXt",
    b"iTXt",
    b"gAMA",
    b"acTL",
    b"fcTL",
    b"fdAT",
    b"eXIf",
    b"\x78\x9c",
    b"\x01\x03\x00\x00\x01",
    b"\x10\x06\x00\x00\x01",
];

const JPEG: &[&[u8]] = &[
    b"\xff\xd8\xff",
    b"\xff\xd9",
    b"\xff\xda",
    b"\xff\xdb",
    b"\xff\xc0",
    b"\xff\xc1",
    b"\xff\xc2",
    b"\xff\xc4",
    b"\xff\xcc",
    b"\xff\xdd",
    b"\xff\xd0",
    b"\xff\xe0",
    b"\xff\xe1",
    b"\xff\xe2",
    b"\xff\xee",
    b"Adobe\x00",
    b"ICC_PROFILE\x00",
    b"Exif\x00",
];

const BMP: &[&[u8]] = &[
    b"BM",
    b"\x28\x00\x00\x00",
    b"\x7c\x00\x00\x00",
    b"\x0c\x00\x00\x00",
    b"\x01\x00\x00\x00",
    b"\x02\x00\x00\x00",
    b"\x03\x00\x00\x00",
    b"\x04\x00\x00\x00",
    b"\x20\x00",
    b"\x08\x00",
    b"\x04\x00",
    b"\x01\x00",
    b"\x00\x00\x00\x80",
];
