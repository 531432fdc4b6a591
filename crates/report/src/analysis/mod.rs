//! What the runs say about the paper's conclusions.

mod agreement;
mod claims;
mod comparison;
mod effects;
mod spread;

pub use agreement::{Agreement, Variant, VariantFigures, agreement};
pub(crate) use claims::p_value;
pub use claims::{Analysis, Claim, Verdict};
pub use comparison::{Comparison, Discordant};
pub use effects::{Effect, weakest_input};
pub use spread::Spread;

/// Differences with a smaller adjusted p are told apart.
pub const ALPHA: f64 = 0.05;
