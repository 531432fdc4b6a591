use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use half::f16;
use rayon::prelude::*;
use sources::Source;

use crate::{
    Dtype, Manifest, Moments, Place, ShardError,
    header::ShardHeader,
    positioned::{fetch, read_cached_at, read_exact_at},
    shard_path,
};

/// Reads single images' feature maps out of the shards of one feature.
#[derive(Debug)]
pub struct FeatureReader {
    cache: PathBuf,
    source: Source,
    dtype: Dtype,
    moments: Moments,
    shards: BTreeMap<usize, Shard>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    images: usize,
    /// Where the first image's values begin in the file.
    data_start: u64,
}

impl FeatureReader {
    /// Opens the shards of `source`, whose headers must be as the manifest says. Reads headers only: whether
    /// the contents are unchanged is for [`Manifest::verify`].
    pub fn open(cache: &Path, manifest: &Manifest, source: Source) -> Result<Self, ShardError> {
        let entry = manifest.feature(cache, source)?;
        let shards = entry
            .shards
            .par_iter()
            .map(|(number, shard)| {
                let path = shard_path(cache, source, *number);
                let data_start = ShardHeader::read(&path)?.values_start(source, manifest.dtype, shard.images)?;
                Ok((*number, Shard { path, images: shard.images, data_start }))
            })
            .collect::<Result<_, ShardError>>()?;
        Ok(Self { cache: cache.to_owned(), source, dtype: manifest.dtype, moments: entry.moments.clone(), shards })
    }

    /// Which feature this is.
    pub const fn source(&self) -> Source {
        self.source
    }

    /// Mean and standard deviation over the training images.
    pub const fn moments(&self) -> &Moments {
        &self.moments
    }

    /// How values are stored.
    pub const fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Reads the map at `place`, (side, side, channels), into `values`. `buffer` is scratch space, reused from
    /// call to call.
    ///
    /// The file is opened for the one read, which costs a few µs and keeps the number of open files small
    /// however many shards there are.
    pub fn read(&self, place: Place, buffer: &mut Vec<u8>, values: &mut [f32]) -> Result<(), ShardError> {
        buffer.resize(self.source.values_per_image() * self.dtype.size_bytes(), 0);
        self.read_bytes(place, buffer)?;
        self.dtype.decode(buffer, values);
        Ok(())
    }

    /// Reads the map at `place` like [`read`](Self::read) if that takes no waiting for the disk; tells whether it did.
    pub fn read_cached(&self, place: Place, buffer: &mut Vec<u8>, values: &mut [f32]) -> Result<bool, ShardError> {
        buffer.resize(self.source.values_per_image() * self.dtype.size_bytes(), 0);
        let (file, offset) = self.locate(place, buffer.len())?;
        let is_read = read_cached_at(file.file(), buffer, offset);
        if is_read {
            self.dtype.decode(buffer, values);
        }
        Ok(is_read)
    }

    /// Reads the map at `place` as it is stored.
    ///
    /// # Panics
    /// If values are not stored as f16, or `values` has another length than a map.
    pub fn read_f16(&self, place: Place, values: &mut [f16]) -> Result<(), ShardError> {
        self.read_bytes(place, self.bytes_of(values))?;
        from_little_endian(values);
        Ok(())
    }

    /// Reads the map at `place` like [`read_f16`](Self::read_f16) if that takes no waiting for the disk; tells whether it
    /// did.
    ///
    /// # Panics
    /// As for [`read_f16`](Self::read_f16).
    pub fn read_f16_cached(&self, place: Place, values: &mut [f16]) -> Result<bool, ShardError> {
        let bytes = self.bytes_of(values);
        let (file, offset) = self.locate(place, bytes.len())?;
        let is_read = read_cached_at(file.file(), bytes, offset);
        if is_read {
            from_little_endian(values);
        }
        Ok(is_read)
    }

    /// Has the system fetch the map at `place` from the disk meanwhile.
    pub fn fetch(&self, place: Place) -> Result<(), ShardError> {
        let length = self.source.values_per_image() * self.dtype.size_bytes();
        let (file, offset) = self.locate(place, length)?;
        fetch(file.file(), offset, length);
        Ok(())
    }

    fn bytes_of<'a>(&self, values: &'a mut [f16]) -> &'a mut [u8] {
        let expected = (Dtype::F16, self.source.values_per_image());
        assert_eq!((self.dtype, values.len()), expected, "type and length of a map");
        bytemuck::cast_slice_mut(values)
    }

    fn read_bytes(&self, place: Place, bytes: &mut [u8]) -> Result<(), ShardError> {
        let (file, offset) = self.locate(place, bytes.len())?;
        read_exact_at(file.file(), bytes, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ShardError::Damaged {
                path: file.path().to_owned(),
                reason: format!("it has become shorter than the {} bytes that it had", offset + bytes.len() as u64),
            },
            kind => io::Error::new(kind, format!("cannot read `{}`: {error}", file.path().display())).into(),
        })
    }

    /// The file that holds the map at `place`, of `length` bytes, and where in it the map begins.
    fn locate(&self, place: Place, length: usize) -> Result<(fs_err::File, u64), ShardError> {
        let shard = self.shards.get(&(place.shard as usize)).ok_or_else(|| ShardError::MissingFeature {
            path: shard_path(&self.cache, self.source, place.shard as usize),
            feature: self.source.to_string(),
        })?;
        let slot = place.slot as usize;
        if slot >= shard.images {
            return Err(ShardError::Unexpected {
                path: shard.path.clone(),
                what: "number of images",
                got: shard.images.to_string(),
                expected: format!("more than {slot}"),
            });
        }
        Ok((fs_err::File::open(&shard.path)?, shard.data_start + (slot * length) as u64))
    }
}

fn from_little_endian(values: &mut [f16]) {
    if cfg!(target_endian = "big") {
        values.iter_mut().for_each(|value| *value = f16::from_bits(value.to_bits().swap_bytes()));
    }
}
