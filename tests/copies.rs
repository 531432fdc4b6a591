//! Test images that show what a training image shows.

use std::path::Path;

use harness::Study;
use image::{GrayImage, ImageReader};
use serde_json::Value;

fn read(path: &Path) -> GrayImage {
    ImageReader::open(path).unwrap().decode().unwrap().into_luma8()
}

fn copies(study: &Study) -> Vec<Value> {
    let found: Value = serde_json::from_slice(&fs_err::read(study.path("cache/faces/copies.json")).unwrap()).unwrap();
    found["copies"].as_array().unwrap().clone()
}

#[test]
fn a_test_image_that_is_a_training_image_made_paler_is_left_out_as_its_copy_is() {
    let study = Study::new();
    let train = |name: &str| study.path("faces/FER2013Train").join(name);
    let test: Vec<_> = harness::files_below(&study.path("faces/FER2013Test"));
    let images: Vec<_> = test.iter().filter(|path| path.extension().is_some_and(|of| of == "png")).collect();
    study.run("extract", &[]);
    study.run("train", &[]);
    let before = study.json("eval", &[]);
    let kept = |report: &Value| {
        let evaluation = &report["runs"][0]["evaluation"];
        (evaluation["test"]["overall"]["images"].clone(), evaluation["test_without_copies"]["images"].clone())
    };
    let drawn_alike = copies(&study);
    let is_alike = |path: &Path| drawn_alike.iter().any(|copy| path.ends_with(copy["image"].as_str().unwrap()));
    let mut apart = images.iter().filter(|path| !is_alike(path));
    let (byte_for_byte, nearly) = (apart.next().unwrap(), apart.next().unwrap());

    fs_err::copy(train("fer0000003.png"), byte_for_byte).unwrap();
    let mut paler = read(&train("fer0000004.png"));
    paler.pixels_mut().for_each(|pixel| pixel.0[0] = 90 + pixel.0[0] / 2);
    // And with a small mark on it.
    (2..8).for_each(|x| paler.put_pixel(x, 45, image::Luma([200])));
    paler.save(nearly).unwrap();
    study.run("extract", &[]);
    let after = study.json("eval", &[]);
    assert_eq!(kept(&after).0, kept(&before).0);
    assert_eq!(kept(&after).1.as_u64().unwrap() + 2, kept(&before).1.as_u64().unwrap());
    let found = copies(&study);
    let of = |path: &Path| found.iter().find(|copy| path.ends_with(copy["image"].as_str().unwrap())).unwrap();
    assert_eq!(
        (&of(byte_for_byte)["identical"], &of(byte_for_byte)["of"]),
        (&true.into(), &"FER2013Train/fer0000003.png".into())
    );
    assert_eq!((&of(nearly)["identical"], &of(nearly)["of"]), (&false.into(), &"FER2013Train/fer0000004.png".into()));
}
