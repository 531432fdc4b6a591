use std::fmt::Write as _;

/// A stage that reads a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The backbone pass.
    Extract,
    /// Training.
    Train,
    /// Evaluation.
    Eval,
    /// The report and what else looks at results.
    Report,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Extract, Self::Train, Self::Eval, Self::Report];
}

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its full name.
    pub name: &'static str,
    /// Its values.
    pub values: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// Which binaries read it.
    pub stages: &'static [Stage],
}

const EVERY: &[Stage] = &Stage::ALL;
const EXTRACT: &[Stage] = &[Stage::Extract];
const MAPS: &[Stage] = &[Stage::Extract, Stage::Report];
const PASSES: &[Stage] = &[Stage::Extract, Stage::Eval, Stage::Report];
const RUNS: &[Stage] = &[Stage::Train, Stage::Eval, Stage::Report];
const RESULTS: &[Stage] = &[Stage::Eval, Stage::Report];
const REPORT: &[Stage] = &[Stage::Report];

macro_rules! keys {
    ($($name:literal, $stages:ident, $values:literal, $meaning:literal;)*) => {
        &[$(Key { name: $name, values: $values, meaning: $meaning, stages: $stages },)*]
    };
}

/// Every key, in the order of the file.
pub const KEYS: &[Key] = keys! {
    "combo", RUNS, "study | all | fm1+fm2[,…]", "which combinations; `study` takes study.combos";
    "seed", RUNS, "number", "one seed instead of study.seeds";
    "device", EVERY, "auto | cpu | cuda:N", "where to compute";
    "threads", EVERY, "number", "CPU threads, 0 for one per core; never changes a result";
    "data.dir", EVERY, "folder", "the data set; `data=` for short";
    "data.layout", EVERY, "auto | ferplus | fer2013 | folders", "how the data set lies there";
    "data.label_source", RUNS, "fer2013new | folder", "which of FERPlus's label files counts";
    "data.labels", RUNS, "majority | plurality | probability | crossentropy", "how votes become training labels";
    "data.classes", RUNS, "6 | 8", "with or without disgust and contempt";
    "data.skip_bad", EVERY, "true | false", "leave bad images and rows out and list them, instead of stopping";
    "cache.dir", EVERY, "folder", "where features, runs and results are kept";
    "extract.weights", EVERY, "file | owner/model", "ResNet-18: .safetensors, .npz, .pth, or a model on the Hub";
    "extract.features", MAPS, "fm1+fm2+fm3+fm4", "which feature maps to store; the pass goes only as deep";
    "extract.dtype", EVERY, "f16 | bf16 | f32", "how values are stored";
    "extract.engine", EVERY, "auto | native | candle | cudnn", "what runs the convolutions; auto: what made the features there, or native on the CPU and cudnn on a GPU";
    "extract.precision", EVERY, "f32 | bf16 | int8", "what the convolutions multiply; int8 is for processors with VNNI, and 4% off at fm4 (docs/benchmarks.md)";
    "extract.views", EVERY, "plain | plain+flip", "with the mirror image, which has a cache of its own: training draws one of the two, evaluation averages both";
    "extract.batch", PASSES, "number", "images per batch of the pass, 0 for 32 on the CPU and 256 on a GPU";
    "extract.shard_images", EXTRACT, "number", "images per new shard";
    "extract.limit", EVERY, "number", "use about so many images, of each split its share (rounded up); 0 for all. Tokens are standardised over all training images that are cached";
    "export.npy", EXTRACT, "folder", "also write the features as .npy, (images, channels, height, width)";
    "model.grid", RUNS, "7 | 14", "tokens per side";
    "model.fuse", RUNS, "sum | seq", "add the sources' tokens, or put them one after the other";
    "model.collapse", RUNS, "none | mean | max", "reduce a map's channels to one before cutting tokens";
    "model.width", RUNS, "number", "width of a token";
    "model.depth", RUNS, "number", "blocks";
    "model.heads", RUNS, "number", "attention heads";
    "model.mlp_ratio", RUNS, "number", "hidden width of the MLP over the width";
    "model.pool", RUNS, "mean | cls", "how tokens become one vector";
    "model.dropout", RUNS, "0 … 1", "probability of dropping an activation";
    "model.patch_norm", RUNS, "true | false", "bring every token to mean 0 and variance 1";
    "model.equal_lr", RUNS, "true | false", "let layers of all widths learn at the same pace";
    "model.layer_scale", RUNS, "number", "initial gain of each branch, 0 for none";
    "model.qk_norm", RUNS, "true | false", "normalise queries and keys";
    "model.init_gain", RUNS, "number", "scale of the initial weights, 1 keeps the inputs' scale";
    "recipe.name", RUNS, "paper | robust", "where the recipe's other values start from; `recipe=` for short";
    "recipe.optimizer", RUNS, "adam | adamw", "the optimiser";
    "recipe.lr", RUNS, "number", "highest learning rate";
    "recipe.schedule", RUNS, "constant | cosine", "the learning rate after the warm-up";
    "recipe.warmup_steps", RUNS, "number", "steps of linear warm-up";
    "recipe.batch", RUNS, "number", "images per step";
    "recipe.steps", RUNS, "number", "steps in all";
    "recipe.weight_decay", RUNS, "number", "weight decay";
    "recipe.beta1", RUNS, "0 … 1", "decay of the gradient's mean";
    "recipe.beta2", RUNS, "0 … 1", "decay of the squared gradient's mean";
    "recipe.epsilon", RUNS, "number", "added to the root of the squared gradient's mean";
    "recipe.clip_norm", RUNS, "number", "highest gradient norm, 0 for no limit";
    "recipe.label_smoothing", RUNS, "0 … 1", "share of a target spread over all classes";
    "recipe.drop_path", RUNS, "0 … 1", "probability of dropping the last block's branches";
    "loss.weights", RUNS, "none | inverse | effective", "how much an image counts by its class: all alike, or rare classes more";
    "train.precision", RUNS, "f32 | bf16", "what the training step multiplies; bf16 is faster on GPUs, and on processors that multiply bfloat16 at twice f32's rate";
    "train.memory_gib", RUNS, "number", "memory for runs of one seed that learn from the same batches, so that the cache is read once for all; 0 for half of what is free; never changes the weights";
    "train.validate_every", RUNS, "number", "steps between validations; never changes the weights";
    "train.checkpoint_every", RUNS, "number", "steps between checkpoints; never changes the weights";
    "study.combos", RUNS, "list", "the study's combinations";
    "study.seeds", RUNS, "list", "the study's seeds";
    "study.variants", RESULTS, "list", "other configurations of the study, each as overrides: [\"model.collapse=mean\", \"classes=8 loss.weights=inverse\"]";
    "study.paper", RESULTS, "true | false", "set the paper's accuracies beside ours";
    "eval.data", RESULTS, "folder", "another data set to judge the trained runs on, a folder for each class; for eval `data=` for short, unless that data set has runs of its own";
    "eval.class_names", RESULTS, "name=class[,…]", "what its folders' names mean: joy=happiness, or calm=none to leave one out";
    "report.dir", REPORT, "folder", "the report's folder; `report` beside the runs when absent";
    "figure.images", REPORT, "file[,…]", "image files or ids of the data set; one test image of each class when absent";
    "figure.channels", REPORT, "number", "strongest channels of each map shown beside the mean";
    "predict.image", REPORT, "file or folder[,…]", "what to answer about";
};

/// The keys that any of `stages` reads, one per line, for `--help`.
pub fn help(stages: &[Stage]) -> String {
    let mut text =
        String::from("Keys (in study.toml, or as key=value; the last part alone will do where it is unique):\n");
    for key in KEYS.iter().filter(|key| key.stages.iter().any(|stage| stages.contains(stage))) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:<24} {}\n  {:<24}   {}", key.name, key.values, "", key.meaning);
    }
    text
}
