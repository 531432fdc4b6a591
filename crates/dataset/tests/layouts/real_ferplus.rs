//! The published counts, on the real images. Each test says so and passes where they are absent.

use std::collections::HashMap;

use dataset::{ClassSet, Dataset, Disagreements, LabelRule, OpenOptions, Split, SplitCount, target};
use rayon::prelude::*;
use stage::HashMemo;

fn open() -> Option<Dataset> {
    let dir = testdata::real_ferplus()?;
    let cache = tempfile::tempdir().unwrap();
    let memo = HashMemo::open(&cache.path().join("hashes"));
    Some(Dataset::open(&dir, &OpenOptions::new(cache.path()), &memo).unwrap())
}

/// Images per split and class under a rule.
fn counts(dataset: &Dataset, rule: LabelRule, classes: ClassSet) -> HashMap<Split, Vec<usize>> {
    let mut counts: HashMap<Split, Vec<usize>> = HashMap::new();
    for image in &dataset.images {
        let per_class = counts.entry(image.split).or_insert_with(|| vec![0; classes.len()]);
        if let Some(target) = target(&image.annotation, rule, classes, image.split) {
            per_class[target.class()] += 1;
        }
    }
    counts
}

fn totals(counts: &HashMap<Split, Vec<usize>>) -> [usize; 3] {
    [Split::Train, Split::Valid, Split::Test].map(|split| counts[&split].iter().sum())
}

#[test]
fn label_rules_give_the_published_counts() {
    let Some(dataset) = open() else { return };
    let six = counts(&dataset, LabelRule::Majority, ClassSet::Six);
    assert_eq!(totals(&six), [24_819, 3_162, 3_119]);
    assert_eq!(six[&Split::Train], [8739, 7287, 3149, 3013, 2099, 532]);
    assert_eq!(six[&Split::Test], [1090, 893, 396, 384, 273, 83]);
    assert_eq!(totals(&counts(&dataset, LabelRule::Majority, ClassSet::Eight)), [25_057, 3_199, 3_153]);
    for rule in LabelRule::ALL {
        let [train, valid, test] = totals(&counts(&dataset, *rule, ClassSet::Six));
        assert!(train >= 24_819, "{rule} needs no majority: {train}");
        assert_eq!([valid, test], [3_162, 3_119], "{rule} is for training only");
    }
}

#[test]
fn the_audit_counts_what_is_odd() {
    let Some(dataset) = open() else { return };
    let audit = &dataset.audit;
    let images = [28_558, 3_579, 3_573];
    for (split, images) in Split::ALL.iter().zip(images) {
        assert_eq!(audit.splits[split], SplitCount { images, unlabelled: 0 });
    }
    let common = &audit.label_tables[0];
    assert_eq!((common.rows, common.lines_without_name.len()), (35_887, 173));
    let repeated: Vec<(&str, bool)> =
        common.repeated.iter().map(|repeated| (repeated.name.as_str(), repeated.same_votes)).collect();
    let expected =
        [("fer0006953.png", true), ("fer0011785.png", true), ("fer0008403.png", true), ("fer0033120.png", false)];
    assert_eq!(repeated, expected);
    let expected = Disagreements { compared: 35_710, different: 1_601, majority_changed: 377 };
    assert_eq!(audit.label_disagreements, Some(expected));
    assert_eq!((audit.duplicate_groups, audit.duplicate_images), (1_513, 3_353));
    assert!(audit.skipped.is_empty());

    let takes_part = |index: &usize| {
        let image = &dataset.images[*index];
        target(&image.annotation, LabelRule::Majority, ClassSet::Six, image.split).is_some()
    };
    assert_eq!(dataset.leaked_test_images().len(), 288);
    assert_eq!(dataset.leaked_test_images().iter().filter(|index| takes_part(index)).count(), 252);
}

#[test]
fn every_image_decodes_to_48_grey_pixels_a_side() {
    let Some(dataset) = open() else { return };
    (0..dataset.images.len()).into_par_iter().for_each(|index| {
        let pixels = dataset.decode(index).unwrap();
        assert_eq!((pixels.width, pixels.height, pixels.channels), (48, 48, 1), "{}", dataset.images[index].id);
    });
}
