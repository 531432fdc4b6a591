use dataset::{Annotation, DatasetError, LabelSource, Layout, OpenOptions, Split, Votes};

use crate::{Place, VOTES_HEADER, ids, skipped};

const VOTES: &str = "0,10,0,0,0,0,0,0,0,0";

fn pixels(first: &str) -> String {
    format!("{first}{}", " 7".repeat(48 * 48 - 1))
}

fn votes(usages: &[&str]) -> String {
    let rows: String = usages.iter().map(|usage| format!("{usage},,{VOTES}\n")).collect();
    format!("{VOTES_HEADER}{rows}")
}

fn place(rows: &[(&str, &str)]) -> Place {
    let place = Place::new();
    let usages: Vec<&str> = rows.iter().map(|(_, usage)| *usage).collect();
    let rows: String = rows.iter().map(|(pixels, usage)| format!("0,{pixels},{usage}\n")).collect();
    place.write("fer2013.csv", format!("emotion,pixels,Usage\n{rows}"));
    place.write("fer2013new.csv", votes(&usages));
    place
}

fn three_rows() -> Place {
    place(&[(&pixels("1"), "Training"), (&pixels("2"), "PublicTest"), (&pixels("3"), "PrivateTest")])
}

#[test]
fn rows_become_images_and_are_read_in_any_order() {
    let place = three_rows();
    for _ in 0..2 {
        let dataset = place.open().unwrap();
        assert_eq!(dataset.layout, Layout::Fer2013);
        assert_eq!(ids(&dataset), ["fer2013.csv#1", "fer2013.csv#2", "fer2013.csv#3"]);
        let splits: Vec<Split> = dataset.images.iter().map(|image| image.split).collect();
        assert_eq!(splits, [Split::Train, Split::Valid, Split::Test]);
        assert_eq!(dataset.images[0].annotation, Annotation::Votes(Votes([0, 10, 0, 0, 0, 0, 0, 0, 0, 0])));
        for index in [2, 0, 1] {
            let pixels = dataset.decode(index).unwrap();
            assert_eq!((pixels.width, pixels.height, pixels.channels), (48, 48, 1));
            assert_eq!(pixels.data[..2], [index as u8 + 1, 7]);
        }
        assert!(place.root.path().join("cache/fer2013-rows.json").is_file());
    }
}

#[test]
fn line_ends_quotes_and_column_order_do_not_matter() {
    let plain = three_rows().open().unwrap();
    let place = three_rows();
    let mut text = "emotion, Usage, pixels\r\n".to_owned();
    for (first, usage) in [("1", "Training"), ("2", "PublicTest"), ("3", "PrivateTest")] {
        text += &format!("0,{usage},\"{}\"\r\n", pixels(first));
    }
    place.write("fer2013.csv", text.trim_end());
    let dataset = place.open().unwrap();
    assert_eq!(dataset.images.iter().map(|image| image.hash).collect::<Vec<_>>(), {
        plain.images.iter().map(|image| image.hash).collect::<Vec<_>>()
    });
    assert_eq!(dataset.decode(2).unwrap(), plain.decode(2).unwrap());
}

#[test]
fn bad_rows_stop_or_are_listed_and_the_others_keep_their_labels() {
    let short = "1 2 3";
    let place = place(&[
        (&pixels("1"), "Training"),
        (short, "Training"),
        (&pixels("256"), "PublicTest"),
        (&pixels("4"), "PrivateTest"),
    ]);
    place.write(
        "fer2013new.csv",
        votes(&["Training", "Training", "PublicTest"]) + "PrivateTest,,0,0,0,10,0,0,0,0,0,0\n",
    );
    let error = place.error();
    assert!(error.contains("fer2013.csv` line 3 has 3 pixels, expected 2304"), "{error}");
    for _ in 0..2 {
        let dataset = place.open_skipping();
        assert_eq!(ids(&dataset), ["fer2013.csv#1", "fer2013.csv#4"]);
        assert_eq!(dataset.images[1].annotation, Annotation::Votes(Votes([0, 0, 0, 10, 0, 0, 0, 0, 0, 0])));
        let skipped = skipped(&dataset);
        assert!(skipped[1].contains("line 4 has `256` as pixel 1, expected a number from 0 to 255"), "{skipped:?}");
        assert_eq!(dataset.decode(1).unwrap().data[0], 4);
    }
}

#[test]
fn tables_that_do_not_fit_are_never_joined() {
    let place = three_rows();
    place.write("fer2013new.csv", votes(&["Training", "PublicTest"]));
    assert!(place.error().contains("fer2013.csv` has 3 rows, expected 2 as in"));
    place.write("fer2013new.csv", votes(&["Training", "PrivateTest", "PublicTest"]));
    let error = place.error();
    assert!(error.contains("fer2013.csv` line 3 is for `PublicTest`, but"), "{error}");
    assert!(error.contains("fer2013new.csv` line 3 for `PrivateTest`"), "{error}");
}

#[test]
fn a_changed_table_is_indexed_anew() {
    let place = three_rows();
    let before = place.open().unwrap();
    let mut text = "emotion,pixels,Usage\n".to_owned();
    for (first, usage) in [("100", "Training"), ("2", "PublicTest"), ("3", "PrivateTest")] {
        text += &format!("0,{},{usage}\n", pixels(first));
    }
    place.write("fer2013.csv", text);
    assert!(matches!(before.decode(1), Err(DatasetError::Bad(_) | DatasetError::Changed { .. })));
    let after = place.open().unwrap();
    assert_ne!(after.images[0].hash, before.images[0].hash);
    assert_eq!(after.images[1].hash, before.images[1].hash);
    assert_eq!(after.decode(1).unwrap().data[0], 2);
}

#[test]
fn a_damaged_index_is_made_anew() {
    let place = three_rows();
    let before = place.open().unwrap();
    fs_err::write(place.root.path().join("cache/fer2013-rows.json"), "{\"format\":1").unwrap();
    assert_eq!(place.open().unwrap().images, before.images);
}

#[test]
fn headers_usages_and_missing_tables_are_named() {
    let place = three_rows();
    let original = fs_err::read_to_string(place.root.path().join("data/fer2013.csv")).unwrap();
    place.write("fer2013.csv", original.replace("PublicTest", "Public"));
    assert!(place.error().contains("line 3 has `Public` as Usage, expected Training, PublicTest or PrivateTest"));
    place.write("fer2013.csv", original.replace("pixels", "image"));
    assert!(place.error().contains("line 1 is `emotion,image,usage`, expected `emotion,pixels,Usage`"));
    let folders = OpenOptions { label_source: LabelSource::Folders, ..place.options() };
    assert!(place.open_with(&folders).unwrap_err().to_string().contains("label.csv` is missing"));
    fs_err::remove_file(place.root.path().join("data/fer2013new.csv")).unwrap();
    assert!(place.error().contains("fer2013new.csv` is missing, which the layout fer2013 needs"));
}
