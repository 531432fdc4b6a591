//! For tests only: the parsers as functions of bytes, which say whether they accept them. They panic if a parser contradicts
//! itself.

use std::{io, path::Path};

use sources::Source;
use stage::{ContentHash, parse_sealed_json, parse_sealed_lines};

use crate::{
    ChannelSums, Dtype, Images, Manifest, Place, Plan, PlannedImage, PlannedShard, ShardRecord, header::ShardHeader,
    plan_file,
};

/// A manifest with its seal.
pub fn manifest(bytes: &[u8]) -> bool {
    let manifest: Option<Manifest> = parse_sealed_json(Path::new(Manifest::FILE), bytes).ok();
    let Some(manifest) = manifest.and_then(|manifest| manifest.checked(Path::new("")).ok()) else { return false };
    assert!(manifest.features.iter().all(|(source, entry)| entry.moments.channels.len() == source.channels()));
    true
}

/// A shard's record with its seal.
pub fn record(bytes: &[u8]) -> bool {
    let record: Option<ShardRecord> = parse_sealed_json(Path::new("00000.record.json"), bytes).ok();
    let mut fits = false;
    for source in Source::FEATURE_MAPS {
        if let Some(record) = record.as_ref().filter(|record| record.fits(source)) {
            fits = true;
            let mut sums = ChannelSums::new(source.channels());
            (0..2).for_each(|_| sums.merge(&record.sums));
            assert_eq!(sums.moments().channels.len(), source.channels());
        }
    }
    fits
}

/// A plan with its seal: what is read can be written, and is the same when it is read again.
pub fn plan(bytes: &[u8]) -> bool {
    let read = |bytes: &[u8]| {
        let mut lines = plan_file::Lines::default();
        parse_sealed_lines(Path::new("plan"), bytes, bytes.len() as u64, |line| lines.add(line)).ok()?;
        Some(Plan::of(lines.shards))
    };
    let Some(plan) = read(bytes) else { return false };
    let lines: String = plan.lines().collect();
    assert_eq!(read(&stage::fuzzing::sealed_lines(&lines)).as_ref(), Some(&plan));
    let images: Vec<PlannedImage<'_>> = plan.shards().iter().flat_map(PlannedShard::images).collect();
    let image = |index: usize| PlannedImage { train: true, hash: ContentHash::of(b""), ..images[index] };
    let all = Images { count: images.len(), image: &image };
    let updated = plan.update(all, |index| index % 2 == 0, 2);
    for Place { shard, slot } in updated.as_ref().unwrap_or(&plan).places(all).into_iter().flatten() {
        updated.as_ref().unwrap_or(&plan).image(Place { shard, slot });
    }
    true
}

/// A shard's file as far as its header goes; the values of a few images are said to follow.
pub fn header(bytes: &[u8]) -> bool {
    let file_bytes = bytes.len() as u64 + (1 << 20);
    let read = |buffer: &mut [u8], offset: u64| {
        let found = bytes.get(offset as usize..).and_then(|rest| rest.get(..buffer.len()));
        found.map(|found| buffer.copy_from_slice(found)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    };
    let Ok(header) = ShardHeader::parse(Path::new("00000.safetensors"), file_bytes, read) else { return false };
    header.ids();
    for source in Source::FEATURE_MAPS {
        for images in [1, 3, usize::MAX] {
            if let Ok(start) = header.values_start(source, Dtype::F16, images) {
                let map_bytes = source.values_per_image() * Dtype::F16.size_bytes();
                assert!(start + (images * map_bytes) as u64 <= file_bytes, "{source}: {images} images at {start}");
            }
        }
    }
    true
}
