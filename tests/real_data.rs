//! The whole chain on real images with real weights; skipped with a message where they are absent.

use harness::Study;

#[test]
fn three_hundred_real_faces_from_image_to_accuracy() {
    let (Some(faces), Some(weights)) = (testdata::real_ferplus(), testdata::real_weights()) else { return };
    let study = Study::new();
    let data = format!("data.dir={}", faces.display());
    let weights = format!("extract.weights={}", weights.display());
    let with = |more: &[&str]| -> Vec<String> {
        let keys = [data.as_str(), weights.as_str(), "extract.limit=300", "features=fm2", "combo=fm2"];
        keys.iter().chain(more).map(ToString::to_string).collect()
    };
    let long = with(&["model.width=64", "model.depth=2", "model.heads=2", "recipe.steps=40", "recipe.batch=32"]);
    let arguments: Vec<&str> = long.iter().map(String::as_str).collect();
    assert_eq!(study.json("extract", &arguments)["images"], 302);
    let trained = study.json("train", &arguments);
    let outcome = &trained["runs"][0]["trained"]["outcome"];
    let (loss, entropy) = (outcome["final_loss"].as_f64().unwrap(), outcome["class_entropy"].as_f64().unwrap());
    assert!(loss < entropy, "something was learned: loss {loss}, class entropy {entropy}");
    assert_eq!(outcome["collapsed"], false);
    let evaluated = study.json("eval", &arguments);
    assert!(evaluated["runs"][0]["evaluation"]["train"]["overall"]["accuracy"].as_f64().unwrap() > 0.4);
}
