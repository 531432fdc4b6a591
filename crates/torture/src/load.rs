//! A million images: what a person waits for must not grow with them.
//!
//! The images are empty files and the shards sparse ones, whose hashes are remembered as if they had been taken: nothing that
//! is measured here may look into them, but for the few that a step learns from.

use std::{
    fmt::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use harness::Study;
use shards::{FeatureEntry, Images, Manifest, Plan, PlannedImage, ShardEntry, ShardRecord, record_path, shard_path};
use sources::Source;
use stage::{ContentHash, HashMemo, write_sealed_json};

use crate::item::{Item, Outcome, Scale};

/// What a command may take.
const LONGEST: Duration = Duration::from_secs(2);
const MOST_BYTES: u64 = 500 << 20;

/// Runs of each command.
const RUNS: usize = 3;

/// Images for validation and test.
const OTHER_IMAGES: usize = 1000;

const SHARD_IMAGES: usize = 256;

/// Keys that all commands of this study have.
const OVERRIDES: [&str; 3] = ["extract.shard_images=256", "recipe.steps=2", "recipe.batch=64"];

pub fn run(scale: Scale) -> Result<Outcome> {
    let mut outcome = Outcome::new(Item::Load);
    let study = Study::new();
    let images = scale.pick(200_000, 1_000_000);
    outcome.counts.insert("images", images as u64);
    make(&study, images)?;
    for (name, [ms, mib], binary, arguments, bytes_read) in [
        ("status", ["ms of status", "MiB of status"], "fmstudy", &["status"][..], u64::MAX),
        ("an extraction with nothing to do", ["ms of extract", "MiB of extract"], "extract", &[], u64::MAX),
        ("a training of two steps", ["ms of train", "MiB of train"], "train", &[], 2 << 30),
    ] {
        let used = measure_often(&study, binary, &[arguments, &OVERRIDES].concat())?;
        outcome.counts.extend([(ms, used.wall.as_millis() as u64), (mib, used.most_bytes >> 20)]);
        outcome.case(format!("{name}: {used:?}"), used.require_little(bytes_read));
    }
    Ok(outcome)
}

/// Makes a data set of `images` and its features from a small one.
fn make(study: &Study, images: usize) -> Result<()> {
    study.run("extract", &OVERRIDES);
    let cache = study.features();
    let mut manifest = Manifest::read(&cache)?.context("the small study has features")?;
    fs_err::remove_dir_all(study.path("faces"))?;

    let folders = ["FER2013Train", "FER2013Valid", "FER2013Test"];
    let usages = ["Training", "PublicTest", "PrivateTest"];
    let split = |number: usize| match number {
        number if number < OTHER_IMAGES => 2,
        number if number < 2 * OTHER_IMAGES => 1,
        _ => 0,
    };
    let mut table =
        String::from("Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n");
    folders.iter().try_for_each(|folder| fs_err::create_dir_all(study.path("faces").join(folder)))?;
    // As the study's commands call them.
    let memo_path = |below: &str| PathBuf::from("faces").join(below);
    let memo = HashMemo::open(&study.path("cache/faces/hashes"));
    let mut planned = Vec::with_capacity(images);
    for number in 0..images {
        let (split, name) = (split(number), format!("fer{number:07}.png"));
        let mut votes = [0; 10];
        votes[number % 6] = 10;
        let votes = votes.map(|vote| vote.to_string()).join(",");
        writeln!(table, "{},{name},{votes}", usages[split])?;
        let id = format!("{}/{name}", folders[split]);
        let hash = ContentHash::of(id.as_bytes());
        fs_err::File::create(study.path("faces").join(&id))?;
        planned.push((id, split == 0, hash));
    }
    fs_err::write(study.path("faces/fer2013new.csv"), table)?;
    // The data set lists folders in their order, and names in theirs.
    let place = |(id, train, _): &(String, bool, ContentHash)| (!train, id.starts_with("FER2013Test"), id.clone());
    planned.sort_by_key(place);
    std::env::set_current_dir(study.path(""))?;
    for (id, _, hash) in &planned {
        memo.remember(&memo_path(id), *hash)?;
    }

    let image = |index: usize| {
        let (id, train, hash) = &planned[index];
        PlannedImage { id, train: *train, hash: *hash }
    };
    let all = Images { count: planned.len(), image: &image };
    let plan = Plan::default().update(all, |_| true, SHARD_IMAGES).context("there are images to place")?;
    plan.write(&cache)?;
    let source = Source::Fm3;
    let entry = manifest.features.get(&source).context("the small study has fm3")?.clone();
    let sums = ShardRecord::read(&cache, source, 0).context("the small study has a record")?.sums;
    let relative = PathBuf::from(cache.strip_prefix(study.path("")).unwrap_or(&cache));
    let mut shards = std::collections::BTreeMap::new();
    for (number, images) in plan.shards().iter().enumerate() {
        let shard = ShardEntry {
            images: images.len(),
            images_digest: images.digest(),
            size_bytes: write_sparse(&relative, source, number, images.len())?,
            blake3: ContentHash::of(&number.to_le_bytes()),
        };
        memo.remember(&shard_path(&relative, source, number), shard.blake3)?;
        let record = ShardRecord { format: shards::FORMAT_VERSION, shard: shard.clone(), sums: sums.clone() };
        write_sealed_json(&record_path(&relative, source, number), &record)?;
        shards.insert(number, shard);
    }
    manifest.features.insert(source, FeatureEntry { shards, ..entry });
    manifest.plan = plan.digest();
    manifest.write(&cache)?;
    memo.save()?;
    // What the system has still to write of a million files is not what is measured.
    crate::victim::require_success("sync", &Command::new("sync").output()?)
}

/// A shard of zeros that takes no room; gives its size.
fn write_sparse(cache: &std::path::Path, source: Source, number: usize, images: usize) -> Result<u64> {
    let values_bytes = images * source.values_per_image() * 2;
    let shape = [images, source.side(), source.side(), source.channels()];
    let mut header = format!(r#"{{"features":{{"dtype":"F16","shape":{shape:?},"data_offsets":[0,{values_bytes}]}}}}"#);
    while (8 + header.len()) % 64 != 0 {
        header.push(' ');
    }
    let path = shard_path(cache, source, number);
    fs_err::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat())?;
    let size_bytes = (8 + header.len() + values_bytes) as u64;
    fs_err::OpenOptions::new().write(true).open(&path)?.file().set_len(size_bytes)?;
    Ok(size_bytes)
}

/// What a command took.
#[derive(Debug)]
struct Used {
    wall: Duration,
    most_bytes: u64,
    bytes_read: u64,
}

impl Used {
    fn require_little(&self, bytes_read: u64) -> Result<()> {
        ensure!(self.wall <= LONGEST, "it took longer than {LONGEST:?}");
        ensure!(self.most_bytes <= MOST_BYTES, "it took more than {MOST_BYTES} bytes");
        ensure!(self.bytes_read <= bytes_read, "it read more than {bytes_read} bytes");
        Ok(())
    }
}

/// The median time of some runs, and the most that any of them took of the rest.
fn measure_often(study: &Study, binary: &str, arguments: &[&str]) -> Result<Used> {
    let runs = (0..RUNS).map(|_| {
        // Each with all of its work to do.
        let trained = study.path("cache/faces/runs-v2");
        if trained.exists() {
            fs_err::remove_dir_all(trained)?;
        }
        measure(study, binary, arguments)
    });
    let mut runs = runs.collect::<Result<Vec<_>>>()?;
    runs.sort_by_key(|used| used.wall);
    Ok(Used {
        wall: runs[RUNS / 2].wall,
        most_bytes: runs.iter().map(|used| used.most_bytes).max().unwrap_or_default(),
        bytes_read: runs.iter().map(|used| used.bytes_read).max().unwrap_or_default(),
    })
}

/// Runs a command, which must succeed, and asks the system what it takes.
fn measure(study: &Study, binary: &str, arguments: &[&str]) -> Result<Used> {
    let begun = Instant::now();
    let mut command: Command = study.command(binary, arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (mut most_bytes, mut bytes_read) = (0, 0);
    loop {
        let proc = PathBuf::from(format!("/proc/{}", child.id()));
        let number = |file: &str, key: &str| -> Option<u64> {
            let text = std::fs::read_to_string(proc.join(file)).ok()?;
            let line = text.lines().find(|line| line.starts_with(key))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        most_bytes = number("status", "VmHWM").map_or(most_bytes, |kib| kib << 10);
        bytes_read = number("io", "rchar").unwrap_or(bytes_read);
        if child.try_wait()?.is_some() {
            break;
        }
        sleep(Duration::from_millis(2));
    }
    let wall = begun.elapsed();
    crate::victim::require_success(binary, &child.wait_with_output()?)?;
    Ok(Used { wall, most_bytes, bytes_read })
}
