use std::{collections::BTreeMap, path::Path};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sources::Source;
use stage::{ContentHash, Fingerprint, read_sealed_json, write_sealed_json};

use crate::{Dtype, FORMAT_VERSION, Moments, ShardError, shard_path};

/// The table of contents of a feature cache, written when everything it names is on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format.
    pub format: u32,
    /// What all features were computed with: weights, precision, preprocessing, dtype, version of the numerics.
    pub fingerprint: Fingerprint,
    /// What the backbone's integers stood for, as it wrote it down; none if it computed in floats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Value>,
    /// How values are stored.
    pub dtype: Dtype,
    /// Order of the axes of a stored map; the first is the image.
    pub layout: String,
    /// The extracted features.
    pub features: BTreeMap<Source, FeatureEntry>,
    /// Moments of the original images' grey values in [0, 1], over the training split.
    pub orig: Moments,
    /// Digest of the plan that was carried out: every image's id and content hash, in its shard and place.
    pub plan: ContentHash,
}

/// One extracted feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureEntry {
    /// Height, width, channels of one image's map.
    pub shape: [usize; 3],
    /// Mean and standard deviation over the training images.
    pub moments: Moments,
    /// The shards by number; those without images have no file and no entry.
    pub shards: BTreeMap<usize, ShardEntry>,
}

/// One shard in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// Number of images.
    pub images: usize,
    /// Hash of the images' contents: [`PlannedShard::digest`](crate::PlannedShard::digest).
    pub images_digest: ContentHash,
    /// Size of the file.
    pub size_bytes: u64,
    /// Hash of the file.
    pub blake3: ContentHash,
}

impl Manifest {
    /// The manifest's file name.
    pub const FILE: &str = "manifest.json";

    /// Reads the manifest of `cache`; none if there is none yet.
    pub fn read(cache: &Path) -> Result<Option<Self>, ShardError> {
        read_sealed_json::<Self>(&cache.join(Self::FILE))?.map(|manifest| manifest.checked(cache)).transpose()
    }

    /// Itself, if it is of this version and its features have the shapes of their sources.
    pub(crate) fn checked(self, cache: &Path) -> Result<Self, ShardError> {
        let unexpected =
            |what, got, expected| Err(ShardError::Unexpected { path: cache.join(Self::FILE), what, got, expected });
        if self.format != FORMAT_VERSION {
            return unexpected("format", self.format.to_string(), FORMAT_VERSION.to_string());
        }
        let shape_of = |source: Source| [source.side(), source.side(), source.channels()];
        let orig = (Source::Orig, shape_of(Source::Orig), &self.orig);
        let features = self.features.iter().map(|(source, entry)| (*source, entry.shape, &entry.moments));
        for (source, shape, moments) in features.chain([orig]) {
            let expected = shape_of(source);
            if shape != expected || moments.channels.len() != source.channels() {
                let got = format!("{shape:?} with moments of {} channels", moments.channels.len());
                return unexpected("shape", got, format!("{expected:?} for {source}"));
            }
        }
        Ok(self)
    }

    /// Writes the manifest: the last thing that an extraction does.
    pub fn write(&self, cache: &Path) -> Result<(), ShardError> {
        Ok(write_sealed_json(&cache.join(Self::FILE), self)?)
    }

    /// The entry of `source`.
    pub fn feature(&self, cache: &Path, source: Source) -> Result<&FeatureEntry, ShardError> {
        self.features
            .get(&source)
            .ok_or_else(|| ShardError::MissingFeature { path: cache.join(Self::FILE), feature: source.to_string() })
    }

    /// Checks that every shard of `source` is there and unchanged. `hash_file` gives a file's content hash,
    /// remembered or computed.
    pub fn verify(
        &self,
        cache: &Path,
        source: Source,
        hash_file: impl Fn(&Path) -> std::io::Result<ContentHash> + Sync,
    ) -> Result<(), ShardError> {
        let fault = self
            .feature(cache, source)?
            .shards
            .par_iter()
            .find_map_first(|(number, entry)| entry.verify(&shard_path(cache, source, *number), &hash_file).err());
        fault.map_or(Ok(()), Err)
    }
}

impl ShardEntry {
    /// Compares the shard's file with the entry: its size, and its content hash as `hash_file` gives it.
    pub fn verify(
        &self,
        path: &Path,
        hash_file: impl FnOnce(&Path) -> std::io::Result<ContentHash>,
    ) -> Result<(), ShardError> {
        let unexpected =
            |what, got: String, expected: String| ShardError::Unexpected { path: path.to_owned(), what, got, expected };
        let size_bytes = fs_err::metadata(path)?.len();
        if size_bytes != self.size_bytes {
            return Err(unexpected("size", format!("{size_bytes} bytes"), format!("{} bytes", self.size_bytes)));
        }
        let hash = hash_file(path)?;
        if hash != self.blake3 {
            return Err(unexpected("content hash", hash.short(), self.blake3.short()));
        }
        Ok(())
    }
}
