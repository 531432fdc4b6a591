use choice::choice;
use serde::{Deserialize, Serialize};

use crate::VitError;

choice! {
    /// How the tokens of several sources come together.
    pub enum Fuse for "fuse" {
        /// Added where they cover the same place of the grid: as many tokens however many sources.
        Sum = "sum",
        /// One after the other: one grid of tokens per source.
        Seq = "seq",
    }
}

choice! {
    /// What becomes of a feature map's channels before its tokens are cut.
    ///
    /// The paper's Figure 3 shows single-channel maps and does not say which it fed.
    pub enum Collapse for "collapse" {
        /// All channels are kept.
        None = "none",
        /// Their mean at every pixel.
        Mean = "mean",
        /// Their maximum at every pixel.
        Max = "max",
    }
}

choice! {
    /// How the last block's tokens become one vector.
    pub enum Pool for "pool" {
        /// Their mean.
        Mean = "mean",
        /// A learned class token is put in front of them and read at the end.
        Cls = "cls",
    }
}

/// The open details of the ViT. The field names are the configuration's keys.
///
/// The paper (Oh & Yoo 2023) says nothing of width, depth, heads or initialisation; the defaults are a small
/// model that learns at the paper's learning rate from every source, pixels too. What was tried is in
/// `docs/open-details.md`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Side of the token grid, 7 or 14: every source is cut into `grid` × `grid` tokens.
    pub grid: usize,
    /// How several sources come together.
    pub fuse: Fuse,
    /// What becomes of the channels before the tokens are cut. The loader does it; the model sees the
    /// tokens' width only.
    pub collapse: Collapse,
    /// Width of a token inside the model (D).
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads (H); divides the width.
    pub heads: usize,
    /// Width of the MLP's hidden layer over the model's width.
    pub mlp_ratio: usize,
    /// How the tokens become one vector.
    pub pool: Pool,
    /// Probability with which an activation is dropped after the embedding, attention and MLP.
    pub dropout: f64,
    /// Whether every token is brought to mean 0 and variance 1 before its projection (Kumar et al. 2023, *Dual
    /// PatchNorm*, <https://arxiv.org/abs/2302.01327>; its first norm, whose gain and offset the projection can
    /// do without). Neighbouring pixels are alike, so that the sum over a patch of 1,024 of them drowns what
    /// differs between them. Feature maps whose channels are collapsed are left as they are: a token of FM4 is
    /// then a single number. The loader does it.
    pub patch_norm: bool,
    /// Whether the weights of linear layers are kept at unit scale and divided by √inputs where they are used
    /// (equalised learning rate; Karras et al. 2018, section 4.1, <https://arxiv.org/abs/1710.10196>). Adam's
    /// steps have the size of the learning rate whatever the gradient; so layers of all widths, from 64 to
    /// 4,096 inputs, move at the same pace relative to their weights.
    pub equal_lr: bool,
    /// Initial value of the learned gain on each branch (Touvron et al. 2021, section 3,
    /// <https://arxiv.org/abs/2103.17239>); 0 leaves the gain out.
    pub layer_scale: f64,
    /// Whether queries and keys are normalised (Dehghani et al. 2023, section 2,
    /// <https://arxiv.org/abs/2302.05442>).
    pub qk_norm: bool,
    /// Standard deviation of a linear layer's initial weights times √inputs (LeCun et al. 1998, section 4.6: 1
    /// hands the inputs' scale on), of a normal distribution cut at two deviations.
    pub init_gain: f64,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            grid: 7,
            fuse: Fuse::Sum,
            collapse: Collapse::None,
            width: 64,
            depth: 4,
            heads: 2,
            mlp_ratio: 4,
            pool: Pool::Mean,
            dropout: 0.0,
            patch_norm: true,
            equal_lr: true,
            layer_scale: 0.0,
            qk_norm: false,
            init_gain: 1.0,
        }
    }
}

impl ModelConfig {
    /// The keys, as in the configuration.
    pub const KEYS: &'static [&'static str] = &[
        "grid",
        "fuse",
        "collapse",
        "width",
        "depth",
        "heads",
        "mlp_ratio",
        "pool",
        "dropout",
        "patch_norm",
        "equal_lr",
        "layer_scale",
        "qk_norm",
        "init_gain",
    ];

    /// Fails with the first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), VitError> {
        if ![7, 14].contains(&self.grid) {
            return Err(VitError::key("grid", self.grid, "7 or 14"));
        }
        within("width", self.width, 8192)?;
        within("depth", self.depth, 256)?;
        within("heads", self.heads, 8192)?;
        within("mlp_ratio", self.mlp_ratio, 64)?;
        if !self.width.is_multiple_of(self.heads) {
            return Err(VitError::key("heads", self.heads, format!("a divisor of `width` = {}", self.width)));
        }
        probability("dropout", self.dropout)?;
        not_negative("layer_scale", self.layer_scale)?;
        positive("init_gain", self.init_gain)
    }

    /// Tokens that a source is cut into.
    pub const fn tokens_per_source(&self) -> usize {
        self.grid * self.grid
    }
}

pub(crate) fn at_least_one(key: &'static str, value: usize) -> Result<(), VitError> {
    if value >= 1 { Ok(()) } else { Err(VitError::key(key, value, "at least 1")) }
}

/// Fails unless `value` is from 1 to `limit`, which lies beyond all sense: a slip of the finger shall not fill the memory.
pub(crate) fn within(key: &'static str, value: usize, limit: usize) -> Result<(), VitError> {
    if (1..=limit).contains(&value) { Ok(()) } else { Err(VitError::key(key, value, format!("1 to {limit}"))) }
}

pub(crate) fn positive(key: &'static str, value: f64) -> Result<(), VitError> {
    if value.is_finite() && value > 0.0 { Ok(()) } else { Err(VitError::key(key, value, "a number above 0")) }
}

pub(crate) fn not_negative(key: &'static str, value: f64) -> Result<(), VitError> {
    if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(VitError::key(key, value, "0 or a number above")) }
}

pub(crate) fn probability(key: &'static str, value: f64) -> Result<(), VitError> {
    if (0.0..1.0).contains(&value) { Ok(()) } else { Err(VitError::key(key, value, "0 or more and less than 1")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_makes_no_sense_is_named_with_its_key() {
        let wrong = |change: fn(&mut ModelConfig)| {
            let mut config = ModelConfig::default();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert_eq!(wrong(|config| config.grid = 8), "`grid` cannot be 8, expected 7 or 14");
        assert_eq!(wrong(|config| config.heads = 3), "`heads` cannot be 3, expected a divisor of `width` = 64");
        assert_eq!(wrong(|config| config.heads = 0), "`heads` cannot be 0, expected 1 to 8192");
        assert_eq!(wrong(|config| config.dropout = 1.0), "`dropout` cannot be 1, expected 0 or more and less than 1");
        assert_eq!(wrong(|config| config.init_gain = f64::NAN), "`init_gain` cannot be NaN, expected a number above 0");
        ModelConfig::default().validate().unwrap();
    }

    #[test]
    fn keys_are_the_fields_and_others_are_refused() {
        let json = serde_json::to_value(ModelConfig::default()).unwrap();
        let fields: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(fields, ModelConfig::KEYS);
        let error = serde_json::from_str::<ModelConfig>(r#"{"widht": 64}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `widht`"), "{error}");
    }
}
