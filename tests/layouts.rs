//! Every layout and label rule goes through the whole chain.
use std::fmt::Write as _;

use fs_err as fs;
use harness::Study;
use ndarray::Array4;

/// Names of the demo set's folders and what its table calls them.
const SPLITS: [(&str, &str); 3] =
    [("FER2013Train", "Training"), ("FER2013Valid", "PublicTest"), ("FER2013Test", "PrivateTest")];

/// The rows of the study's `fer2013new.csv`: usage, image name, ten counts.
fn rows(study: &Study) -> Vec<Vec<String>> {
    let table = fs::read_to_string(study.path("faces/fer2013new.csv")).unwrap();
    table.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

fn image_of(study: &Study, row: &[String]) -> std::path::PathBuf {
    let (folder, _) = SPLITS.iter().find(|(_, usage)| *usage == row[0]).unwrap();
    study.path("faces").join(folder).join(&row[1])
}

fn exported(study: &Study, arguments: &[&str]) -> Array4<f32> {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["export.npy=out"]).collect();
    study.run("extract", &arguments);
    ndarray_npy::read_npy(study.path("out/fm3.npy")).unwrap()
}

#[test]
fn kaggles_table_gives_the_same_features_as_the_images() {
    let study = Study::new();
    let mut pixels_table = "emotion,pixels,Usage\n".to_owned();
    let mut votes_table =
        fs::read_to_string(study.path("faces/fer2013new.csv")).unwrap().lines().next().unwrap().to_owned();
    votes_table.push('\n');
    // FERPlus lists the training images first, as the export does.
    for row in rows(&study) {
        let pixels = image::open(image_of(&study, &row)).unwrap().into_luma8().into_raw();
        let pixels: Vec<String> = pixels.iter().map(ToString::to_string).collect();
        writeln!(pixels_table, "0,{},{}", pixels.join(" "), row[0]).unwrap();
        // Its rows are joined by their order, not by name.
        writeln!(votes_table, "{},,{}", row[0], row[2..].join(",")).unwrap();
    }
    fs::create_dir_all(study.path("kaggle")).unwrap();
    fs::write(study.path("kaggle/fer2013.csv"), pixels_table).unwrap();
    fs::write(study.path("kaggle/fer2013new.csv"), votes_table).unwrap();

    let from_images = exported(&study, &["dtype=f32"]);
    let from_table = exported(&study, &["dtype=f32", "data.dir=kaggle"]);
    assert_eq!(from_images, from_table);
    assert!(fs::read_to_string(study.path("out/ids.txt")).unwrap().starts_with("fer2013.csv#1\n"));

    let accuracy = |dir: &str| {
        let dir = format!("data.dir={dir}");
        study.run("train", &[&dir, "dtype=f32"]);
        study.json("eval", &[&dir, "dtype=f32"])["runs"][0]["evaluation"]["test"]["overall"].clone()
    };
    assert_eq!(accuracy("faces"), accuracy("kaggle"));
}

#[test]
fn class_folders_go_through_the_chain() {
    const CLASSES: [&str; 8] = ["Neutral", "Happy", "Surprise", "Sad", "Angry", "Disgust", "Fear", "Contempt"];
    let study = Study::new();
    for (index, row) in rows(&study).iter().enumerate() {
        let split = match row[0].as_str() {
            "Training" => "train",
            "PublicTest" => "valid",
            _ => "test",
        };
        let most = (0..8).max_by_key(|class| row[2 + class].parse::<u8>().unwrap()).unwrap();
        let folder = study.path("raf").join(split).join(CLASSES[most]);
        fs::create_dir_all(&folder).unwrap();
        let face = image::open(image_of(&study, row)).unwrap();
        // Other sets come in colour, in other sizes and formats.
        let face = face.resize_exact(100 + index as u32, 100, image::imageops::FilterType::Triangle).to_rgb8();
        face.save(folder.join(format!("{index:03}.{}", ["png", "jpg", "bmp"][index % 3]))).unwrap();
    }
    let report = study.json("extract", &["data.dir=raf"]);
    assert_eq!(report["images"], 80);
    let trained = study.json("train", &["data.dir=raf", "combo=orig+fm3", "classes=8"]);
    assert_eq!(trained["runs"][0]["trained"]["outcome"]["steps"], 6);
    let evaluated = study.json("eval", &["data.dir=raf", "combo=orig+fm3", "classes=8"]);
    assert_eq!(evaluated["runs"][0]["evaluation"]["test"]["overall"]["images"], 16);
    assert!(evaluated["runs"][0]["paper_test"].is_null(), "the paper has other images and classes");
    assert!(study.run("extract", &["data.dir=raf"]).contains("nothing to do"));
    assert!(study.run("eval", &["data.dir=raf", "combo=orig+fm3", "classes=8"]).contains("nothing to do"));
}

/// Lets six of ten annotators agree on every face and four name the next class.
fn divide_votes(study: &Study) {
    let path = study.path("faces/fer2013new.csv");
    let mut table = fs::read_to_string(&path).unwrap().lines().next().unwrap().to_owned();
    for row in rows(study) {
        let most = (0..8).max_by_key(|class| row[2 + class].parse::<u8>().unwrap()).unwrap();
        let mut counts = [0; 10];
        (counts[most], counts[(most + 1) % 8]) = (6, 4);
        write!(table, "\n{},{},{}", row[0], row[1], counts.map(|count| count.to_string()).join(",")).unwrap();
    }
    fs::write(path, table).unwrap();
}

#[test]
fn every_label_rule_trains_and_only_training_differs() {
    let study = Study::new();
    divide_votes(&study);
    study.run("extract", &[]);
    let (mut tests, mut losses, mut trained_on) = (Vec::new(), Vec::new(), Vec::new());
    for rule in ["majority", "plurality", "probability", "crossentropy"] {
        let labels = format!("labels={rule}");
        let trained = &study.json("train", &[&labels])["runs"][0]["trained"];
        losses.push(trained["outcome"]["final_loss"].as_f64().unwrap());
        trained_on.push(trained["train_images"].as_u64().unwrap());
        let evaluated = study.json("eval", &[&labels]);
        tests.push(evaluated["runs"][0]["evaluation"]["test"]["overall"]["images"].as_u64().unwrap());
        assert!(study.run("extract", &[&labels]).contains("nothing to do"), "{rule} needs no extraction");
    }
    assert!(tests.iter().all(|count| *count == tests[0]), "valid and test go by majority always: {tests:?}");
    let [majority, plurality, probability, crossentropy] = losses[..] else { unreachable!() };
    assert_eq!(trained_on, [trained_on[0]; 4], "six of ten are a majority");
    assert_eq!(majority, plurality);
    assert!(majority != probability && majority != crossentropy && probability != crossentropy, "{losses:?}");
}
