//! The eight expressions, in FERPlus's column order.

/// A facial expression; `as usize` is its column in FERPlus's vote table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expression {
    /// No expression.
    Neutral,
    /// A smile that reaches the eyes.
    Happiness,
    /// Raised brows, wide eyes, dropped jaw.
    Surprise,
    /// Oblique brows, lowered mouth corners.
    Sadness,
    /// Lowered brows, glaring eyes, tightened lips.
    Anger,
    /// Wrinkled nose, lowered lower lip.
    Disgust,
    /// Raised and drawn brows, wide eyes, stretched mouth.
    Fear,
    /// One mouth corner tightened and raised.
    Contempt,
}

impl Expression {
    /// All eight, in FERPlus's order.
    pub const ALL: [Self; 8] = [
        Self::Neutral,
        Self::Happiness,
        Self::Surprise,
        Self::Sadness,
        Self::Anger,
        Self::Disgust,
        Self::Fear,
        Self::Contempt,
    ];
}
