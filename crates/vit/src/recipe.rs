use choice::choice;
use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::{
    VitError,
    config::{at_least_one, not_negative, positive, probability, within},
};

choice! {
    /// The recipes that come with the study.
    pub enum RecipeName for "recipe.name" {
        /// The paper's training settings.
        Paper = "paper",
        /// What trains a ViT from nothing in current practice.
        Robust = "robust",
    }
}

choice! {
    /// The rule by which gradients move the weights.
    pub enum Optimizer for "optimizer" {
        /// Kingma & Ba 2015, <https://arxiv.org/abs/1412.6980>; weight decay is added to the gradient.
        Adam = "adam",
        /// Loshchilov & Hutter 2019, <https://arxiv.org/abs/1711.05101>; weight decay shrinks the weights.
        AdamW = "adamw",
    }
}

choice! {
    /// How the learning rate goes on after the warm-up.
    pub enum Schedule for "schedule" {
        /// It stays.
        Constant = "constant",
        /// It falls to 0 along half a cosine (Loshchilov & Hutter 2017, <https://arxiv.org/abs/1608.03983>).
        Cosine = "cosine",
    }
}

/// How a model is trained. The field names are the configuration's keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The recipe that the values started from.
    pub name: RecipeName,
    /// The rule by which gradients move the weights.
    pub optimizer: Optimizer,
    /// Highest learning rate.
    pub lr: f64,
    /// How the learning rate goes on after the warm-up.
    pub schedule: Schedule,
    /// Steps over which the learning rate rises linearly to `lr`; 0 starts at `lr`.
    pub warmup_steps: usize,
    /// Images per step.
    pub batch: usize,
    /// Steps in all.
    pub steps: usize,
    /// Weight decay of tensors with two dimensions or more (weight matrices, position embedding, class
    /// token); biases, gains and other vectors have none.
    pub weight_decay: f64,
    /// Decay of the gradient's running mean.
    pub beta1: f64,
    /// Decay of the squared gradient's running mean.
    pub beta2: f64,
    /// Added to the root of the running squared gradient.
    pub epsilon: f64,
    /// Highest L2 norm of the whole gradient; 0 does not clip.
    pub clip_norm: f64,
    /// Share of the target's probability that is spread evenly over all classes (Szegedy et al. 2016,
    /// section 7, <https://arxiv.org/abs/1512.00567>).
    pub label_smoothing: f64,
    /// Probability with which the last block's branches are dropped for an image; earlier blocks less, in
    /// proportion (Huang et al. 2016, section 3, <https://arxiv.org/abs/1603.09382>).
    pub drop_path: f64,
}

impl Default for Recipe {
    fn default() -> Self {
        Self::paper()
    }
}

impl Recipe {
    /// The keys, as in the configuration.
    pub const KEYS: &'static [&'static str] = &[
        "name",
        "optimizer",
        "lr",
        "schedule",
        "warmup_steps",
        "batch",
        "steps",
        "weight_decay",
        "beta1",
        "beta2",
        "epsilon",
        "clip_norm",
        "label_smoothing",
        "drop_path",
    ];

    /// The recipe of that name.
    pub const fn named(name: RecipeName) -> Self {
        match name {
            RecipeName::Paper => Self::paper(),
            RecipeName::Robust => Self::robust(),
        }
    }

    /// The training settings of Oh & Yoo 2023: Adam at 0.005, constant, batches of 64, 10,000 steps. What the
    /// paper leaves open has the defaults of Kingma & Ba 2015, algorithm 1.
    pub const fn paper() -> Self {
        Self {
            name: RecipeName::Paper,
            optimizer: Optimizer::Adam,
            lr: 0.005,
            schedule: Schedule::Constant,
            warmup_steps: 0,
            batch: 64,
            steps: 10_000,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            clip_norm: 0.0,
            label_smoothing: 0.0,
            drop_path: 0.0,
        }
    }

    /// What trains a ViT from nothing in current practice: values near those of DeiT (Touvron et al. 2021,
    /// table 9, <https://arxiv.org/abs/2012.12877>) with clipping as in ViT (Dosovitskiy et al. 2021,
    /// table 3), at the paper's batch size and length.
    pub const fn robust() -> Self {
        Self {
            name: RecipeName::Robust,
            optimizer: Optimizer::AdamW,
            lr: 0.001,
            schedule: Schedule::Cosine,
            warmup_steps: 500,
            weight_decay: 0.05,
            clip_norm: 1.0,
            label_smoothing: 0.1,
            drop_path: 0.1,
            ..Self::paper()
        }
    }

    /// Fails with the first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), VitError> {
        within("recipe.batch", self.batch, 65_536)?;
        at_least_one("recipe.steps", self.steps)?;
        positive("recipe.lr", self.lr)?;
        positive("recipe.epsilon", self.epsilon)?;
        not_negative("recipe.weight_decay", self.weight_decay)?;
        not_negative("recipe.clip_norm", self.clip_norm)?;
        probability("recipe.beta1", self.beta1)?;
        probability("recipe.beta2", self.beta2)?;
        probability("recipe.label_smoothing", self.label_smoothing)?;
        probability("recipe.drop_path", self.drop_path)?;
        if self.warmup_steps > self.steps {
            let expected = format!("at most `recipe.steps` = {}", self.steps);
            return Err(VitError::key("recipe.warmup_steps", self.warmup_steps, expected));
        }
        Ok(())
    }

    /// Learning rate of `step`, counted from 1. The warm-up reaches `lr` at step `warmup_steps`; the cosine
    /// would reach 0 one step after the last, so that no step is idle.
    pub fn lr_at(&self, step: usize) -> f64 {
        if step <= self.warmup_steps {
            return self.lr * step as f64 / self.warmup_steps as f64;
        }
        match self.schedule {
            Schedule::Constant => self.lr,
            Schedule::Cosine => {
                let done = (step - 1).saturating_sub(self.warmup_steps) as f64;
                let total = (self.steps - self.warmup_steps) as f64;
                self.lr * 0.5 * (1.0 + (PI * (done / total).min(1.0)).cos())
            }
        }
    }

    /// What a gradient of L2 norm `norm` is multiplied by: 1 unless it is longer than `clip_norm` (Pascanu
    /// et al. 2013, algorithm 1, <https://arxiv.org/abs/1211.5063>).
    pub fn clip_factor(&self, norm: f64) -> f64 {
        if self.clip_norm > 0.0 && norm > self.clip_norm { self.clip_norm / norm } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_fields() {
        let json = serde_json::to_value(Recipe::robust()).unwrap();
        let fields: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(fields, Recipe::KEYS);
        assert_eq!(serde_json::from_value::<Recipe>(json).unwrap(), Recipe::robust());
    }

    #[test]
    fn both_recipes_are_valid_and_wrong_values_are_named() {
        Recipe::paper().validate().unwrap();
        Recipe::robust().validate().unwrap();
        let wrong = Recipe { warmup_steps: 20, steps: 10, ..Recipe::paper() };
        let expected = "`recipe.warmup_steps` cannot be 20, expected at most `recipe.steps` = 10";
        assert_eq!(wrong.validate().unwrap_err().to_string(), expected);
        let wrong = Recipe { lr: -1.0, ..Recipe::paper() };
        assert_eq!(wrong.validate().unwrap_err().to_string(), "`recipe.lr` cannot be -1, expected a number above 0");
    }

    #[test]
    fn the_learning_rate_rises_and_falls() {
        let recipe = Recipe { steps: 1000, warmup_steps: 100, ..Recipe::robust() };
        assert!((recipe.lr_at(1) - recipe.lr / 100.0).abs() < 1e-12);
        assert_eq!(recipe.lr_at(100), recipe.lr);
        assert_eq!(recipe.lr_at(101), recipe.lr);
        assert!((recipe.lr_at(551) - recipe.lr / 2.0).abs() < 1e-12);
        assert!(recipe.lr_at(1000) > 0.0 && recipe.lr_at(1000) < recipe.lr * 1e-4);
        assert_eq!(Recipe::paper().lr_at(1), 0.005);
        assert_eq!(Recipe::paper().lr_at(10_000), 0.005);
    }
}
