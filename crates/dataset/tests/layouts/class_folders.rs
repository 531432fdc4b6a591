use dataset::{Annotation, Emotion, Layout, Split};
use image::{DynamicImage, ImageFormat};

use crate::{Place, ids, png, shade, skipped};

#[test]
fn class_folders_of_any_naming_and_format_are_read() {
    let place = Place::new();
    place.write("train/Happy/a.PNG", png(1));
    place.write("train/Happy/b.jpg", shade(2, ImageFormat::Jpeg));
    place.write("train/sadness/c.bmp", shade(3, ImageFormat::Bmp));
    place.write("val/Joy/d.jpeg", shade(4, ImageFormat::Jpeg));
    place.write("Test/6/e.png", png(5));
    let dataset = place.open().unwrap();
    assert_eq!(dataset.layout, Layout::Folders);
    let expected = ["train/Happy/a.PNG", "train/Happy/b.jpg", "train/sadness/c.bmp", "val/Joy/d.jpeg", "Test/6/e.png"];
    assert_eq!(ids(&dataset), expected);
    let emotions: Vec<Annotation> = dataset.images.iter().map(|image| image.annotation).collect();
    let expected = [Emotion::Happiness, Emotion::Happiness, Emotion::Sadness, Emotion::Happiness, Emotion::Anger];
    assert_eq!(emotions, expected.map(Annotation::Class));
    assert_eq!(dataset.images[3].split, Split::Valid);
    assert!(!dataset.audit.valid_set_apart);
    for index in 0..dataset.images.len() {
        let pixels = dataset.decode(index).unwrap();
        assert_eq!(pixels.data.len(), pixels.width * pixels.height * pixels.channels);
    }
}

#[test]
fn colour_and_any_size_are_kept() {
    let place = Place::new();
    let mut colour = std::io::Cursor::new(Vec::new());
    DynamicImage::new_rgb8(100, 60).write_to(&mut colour, ImageFormat::Png).unwrap();
    place.write("train/fear/a.png", colour.into_inner());
    place.write("test/fear/b.png", png(1));
    place.write("valid/fear/c.png", png(2));
    let pixels = place.open().unwrap().decode(0).unwrap();
    assert_eq!((pixels.width, pixels.height, pixels.channels), (100, 60, 3));
}

#[test]
fn without_a_validation_folder_the_same_tenth_is_set_apart_every_time() {
    let place = Place::new();
    for index in 0..=200 {
        place.write(&format!("train/angry/{index:03}.png"), png(index));
    }
    place.write("test/angry/a.png", png(255));
    let dataset = place.open().unwrap();
    assert!(dataset.audit.valid_set_apart);
    let valid = |dataset: &dataset::Dataset| -> Vec<String> {
        let images = dataset.images.iter().filter(|image| image.split == Split::Valid);
        images.map(|image| image.id.clone()).collect()
    };
    let set_apart = valid(&dataset);
    assert!((8..40).contains(&set_apart.len()), "{}", set_apart.len());
    assert!(set_apart.iter().all(|id| id.starts_with("train/")));
    place.write("train/angry/new.png", png(254));
    let mut again = valid(&place.open().unwrap());
    again.retain(|id| !id.ends_with("new.png"));
    assert_eq!(again, set_apart, "an image more moves no other");
}

#[test]
fn an_unknown_class_is_an_error_even_when_skipping() {
    let place = Place::new();
    place.write("train/happy/a.png", png(1));
    place.write("train/surprized/a.png", png(2));
    place.write("test/happy/b.png", png(3));
    let error = place.error();
    assert!(error.contains("train/surprized` is named after no emotion") && error.contains("did you mean `surprise"));
    let options = dataset::OpenOptions { skip_bad: true, ..place.options() };
    assert!(place.open_with(&options).is_err());
}

#[test]
fn what_lies_beside_images_and_classes_is_listed() {
    let place = Place::new();
    place.write("train/happy/a.png", png(1));
    place.write("train/happy/more/b.png", png(2));
    place.write("train/readme.txt", "");
    place.write("train/.DS_Store", "");
    place.write("test/happy/c.png", png(3));
    place.write("valid/happy/d.png", png(4));
    let skipped = skipped(&place.open_skipping());
    assert_eq!(skipped.len(), 2, "{skipped:?}");
    assert!(skipped[1].ends_with("train/happy/more` is a folder, expected an image"), "{skipped:?}");
    assert!(skipped[0].ends_with("train/readme.txt` lies in no class folder"), "{skipped:?}");
}

#[test]
fn two_folders_of_one_split_are_an_error() {
    let place = Place::new();
    place.write("train/happy/a.png", png(1));
    place.write("val/happy/b.png", png(2));
    place.write("valid/happy/c.png", png(3));
    place.write("test/happy/d.png", png(4));
    let error = place.error();
    assert!(error.contains("/val` and `") && error.contains("could both be the images for valid"), "{error}");
}

#[test]
fn a_missing_test_folder_is_named_when_the_layout_is_given() {
    let place = Place::new();
    place.write("train/happy/a.png", png(1));
    let options = dataset::OpenOptions { layout: Layout::Folders, ..place.options() };
    let error = place.open_with(&options).unwrap_err().to_string();
    assert!(error.contains("test` is missing, which the layout folders needs"), "{error}");
    assert!(place.error().contains("is no known data set: it has train"));
}
