use dataset::{Annotation, Disagreements, LabelSource, Layout, OpenOptions, Split, Votes};

use crate::{Place, VOTES_HEADER, ids, png, skipped};

const HAPPY: &str = "0,10,0,0,0,0,0,0,0,0";
const SAD: &str = "0,0,0,10,0,0,0,0,0,0";

/// Two training images, of which the second is copied into test, and one for validation.
fn place() -> Place {
    let place = Place::new();
    place.write("FER2013Train/fer0000000.png", png(1));
    place.write("FER2013Train/fer0000001.png", png(2));
    place.write("FER2013Valid/fer0000002.png", png(3));
    place.write("FER2013Test/fer0000003.png", png(2));
    place.write("fer2013new.csv", table(&[]));
    let label = |name: &str, votes: &str| format!("{name},\"(0, 0, 48, 48)\",{votes}\n");
    place.write(
        "FER2013Train/label.csv",
        label("fer0000000.png", HAPPY) + &label("fer0000001.png", "0,9,1,0,0,0,0,0,0,0"),
    );
    place.write("FER2013Valid/label.csv", label("fer0000002.png", SAD));
    place.write("FER2013Test/label.csv", label("fer0000003.png", SAD));
    place
}

fn table(more: &[&str]) -> String {
    let rows = [
        format!("Training,fer0000000.png,{HAPPY}"),
        format!("Training,fer0000001.png,{HAPPY}"),
        format!("PublicTest,fer0000002.png,{SAD}"),
        format!("PrivateTest,fer0000003.png,{HAPPY}"),
    ];
    let rows: Vec<&str> = rows.iter().map(String::as_str).chain(more.iter().copied()).collect();
    format!("{VOTES_HEADER}{}\n", rows.join("\n"))
}

#[test]
fn images_votes_and_splits_come_together() {
    let place = place();
    let dataset = place.open().unwrap();
    assert_eq!(dataset.layout, Layout::Ferplus);
    let expected = [
        "FER2013Train/fer0000000.png",
        "FER2013Train/fer0000001.png",
        "FER2013Valid/fer0000002.png",
        "FER2013Test/fer0000003.png",
    ];
    assert_eq!(ids(&dataset), expected);
    let splits: Vec<Split> = dataset.images.iter().map(|image| image.split).collect();
    assert_eq!(splits, [Split::Train, Split::Train, Split::Valid, Split::Test]);
    assert_eq!(dataset.images[2].annotation, Annotation::Votes(Votes([0, 0, 0, 10, 0, 0, 0, 0, 0, 0])));
    let pixels = dataset.decode(3).unwrap();
    assert_eq!((pixels.width, pixels.height, pixels.channels, pixels.data[0]), (48, 48, 1, 2));
    assert_eq!(dataset.duplicate_groups(), [[1, 3]]);
    assert_eq!(dataset.leaked_test_images(), [3]);
}

#[test]
fn the_label_source_is_a_choice_and_changes_the_labels_digest_only() {
    let place = place();
    let common = place.open().unwrap();
    let expected = Disagreements { compared: 4, different: 2, majority_changed: 1 };
    assert_eq!(common.audit.label_disagreements, Some(expected));
    let folder = place.open_with(&OpenOptions { label_source: LabelSource::Folders, ..place.options() }).unwrap();
    assert_ne!(common.labels_digest(), folder.labels_digest());
    for (one, other) in common.images.iter().zip(&folder.images) {
        assert_eq!(one.hash, other.hash);
    }
    assert_eq!(common.labels_digest(), place.open().unwrap().labels_digest());
}

#[test]
fn a_missing_label_file_is_answered_with_the_other_source() {
    let place = place();
    fs_err::remove_file(place.root.path().join("data/fer2013new.csv")).unwrap();
    let error = place.error();
    assert!(error.contains("fer2013new.csv` is missing"), "{error}");
    assert!(error.contains("`data.label_source = \"folder\"`"), "{error}");
    let folders = OpenOptions { label_source: LabelSource::Folders, ..place.options() };
    assert_eq!(place.open_with(&folders).unwrap().audit.label_disagreements, None);
    fs_err::remove_file(place.root.path().join("data/FER2013Test/label.csv")).unwrap();
    let error = place.open_with(&folders).unwrap_err().to_string();
    assert!(error.contains("FER2013Test/label.csv` is missing"), "{error}");
}

#[test]
fn a_missing_split_is_named() {
    let place = place();
    fs_err::remove_dir_all(place.root.path().join("data/FER2013Valid")).unwrap();
    assert!(place.error().contains("FER2013Valid` is missing, which the layout ferplus needs"));
}

#[test]
fn rows_without_their_image_stop_or_are_listed() {
    let place = place();
    let (absent, misfiled) =
        (format!("Training,fer0000009.png,{HAPPY}"), format!("PrivateTest,fer0000002.png,{HAPPY}"));
    place.write("fer2013new.csv", table(&[&absent, &misfiled]));
    let error = place.error();
    assert!(error.contains("fer2013new.csv` line 6 names `fer0000009.png`, which is not in `FER2013Train`"), "{error}");
    assert!(error.contains("data.skip_bad = true"), "{error}");
    let dataset = place.open_skipping();
    assert_eq!(dataset.images.len(), 4);
    let skipped = skipped(&dataset);
    assert_eq!(skipped.len(), 2);
    assert!(
        skipped[1].contains("line 7 says `fer0000002.png` is for test, but the image lies in the folder for valid")
    );
}

#[test]
fn an_image_without_a_row_is_kept_and_counted() {
    let place = place();
    place.write("FER2013Train/extra.png", png(9));
    let dataset = place.open().unwrap();
    assert_eq!(ids(&dataset)[0], "FER2013Train/extra.png");
    assert_eq!(dataset.images[0].annotation, Annotation::None);
    assert_eq!(dataset.audit.splits[&Split::Train].unlabelled, 1);
}

#[test]
fn odd_rows_are_audited() {
    let place = place();
    let nameless = "Training,,0,0,0,0,0,0,0,0,0,10";
    place.write("fer2013new.csv", table(&[nameless, &format!("Training,fer0000000.png,{SAD}")]));
    let dataset = place.open().unwrap();
    assert_eq!(dataset.images[0].annotation, Annotation::Votes(Votes([0, 10, 0, 0, 0, 0, 0, 0, 0, 0])), "the first");
    let table = &dataset.audit.label_tables[0];
    assert_eq!(table.lines_without_name, [6]);
    assert_eq!(table.repeated[0].lines, [2, 7]);
    assert!(!table.repeated[0].same_votes);
    let text = dataset.audit.to_string();
    assert!(text.contains("fer2013new.csv: 1 rows name no file"), "{text}");
    assert!(text.contains("fer0000000.png occurs in lines 2, 7 with different votes"), "{text}");
    assert!(text.contains("1 groups of identical images (2 images); 1 test images have a copy in train"), "{text}");
}

#[test]
fn bad_files_stop_or_are_listed_every_time() {
    let place = place();
    let cut = png(5);
    place.write("FER2013Train/cut.png", &cut[..cut.len() - 5]);
    place.write("FER2013Train/empty.png", "");
    place.write("FER2013Train/notes.txt", "mine");
    place.write("FER2013Train/page.png", "<html>");
    place.write("FER2013Train/.DS_Store", "litter");
    assert!(place.error().contains("FER2013Train/notes.txt` is not named like an image"));
    for _ in 0..2 {
        let dataset = place.open_skipping();
        assert_eq!(dataset.images.len(), 4);
        let skipped = skipped(&dataset);
        assert_eq!(skipped.len(), 4, "{skipped:?}");
        assert!(skipped[1].ends_with("FER2013Train/cut.png` is a truncated PNG image"), "{skipped:?}");
        assert!(skipped[2].ends_with("FER2013Train/empty.png` is empty"), "{skipped:?}");
        assert!(skipped[3].ends_with("FER2013Train/page.png` is no PNG, JPEG or BMP image"), "{skipped:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_dangling_link_is_a_bad_file() {
    let place = place();
    let link = place.root.path().join("data/FER2013Test/gone.png");
    std::os::unix::fs::symlink("/no/such/image.png", link).unwrap();
    assert!(place.error().contains("FER2013Test/gone.png` cannot be read"));
}

#[test]
fn an_image_that_changes_after_opening_is_not_decoded_under_its_old_hash() {
    let place = place();
    let dataset = place.open().unwrap();
    place.write("FER2013Train/fer0000000.png", png(77));
    let error = dataset.decode(0).unwrap_err().to_string();
    assert!(error.contains("fer0000000.png` changed while it was in use"), "{error}");
    let again = place.open().unwrap();
    assert_ne!(again.images[0].hash, dataset.images[0].hash);
    assert_eq!(again.labels_digest(), dataset.labels_digest());
    assert_eq!(again.decode(0).unwrap().data[0], 77);
}

#[test]
fn an_undecodable_image_is_named() {
    let place = place();
    let mut damaged = png(5);
    let middle = damaged.len() - 20;
    damaged[middle] ^= 0xff;
    place.write("FER2013Train/fer0000000.png", damaged);
    let error = place.open().unwrap().decode(0).unwrap_err().to_string();
    assert!(error.contains("FER2013Train/fer0000000.png` cannot be decoded"), "{error}");
}

#[test]
fn no_training_image_is_an_error() {
    let place = place();
    for name in ["fer0000000.png", "fer0000001.png"] {
        place.write(&format!("FER2013Train/{name}"), "");
    }
    let error = place.open_with(&OpenOptions { skip_bad: true, ..place.options() }).unwrap_err().to_string();
    assert!(error.contains("has no usable training image"), "{error}");
}
