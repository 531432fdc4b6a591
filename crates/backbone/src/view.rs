use choice::choice;

use crate::preprocess::IMAGE_SIDE;

choice! {
    /// How an image is looked at.
    #[derive(Default)]
    pub enum View for "view" {
        /// As it is.
        #[default]
        Plain = "plain",
        /// Mirrored, left to right: a face has the same expression.
        Flip = "flip",
    }
}

choice! {
    /// The views of an image that the study knows.
    #[derive(Default)]
    pub enum Views for "extract.views" {
        /// The image as it is.
        #[default]
        Plain = "plain",
        /// And its mirror image: training draws one of the two each time, evaluation averages their logits.
        PlainAndFlip = "plain+flip",
    }
}

impl Views {
    /// Each of them.
    pub const fn each(self) -> &'static [View] {
        match self {
            Self::Plain => &[View::Plain],
            Self::PlainAndFlip => &[View::Plain, View::Flip],
        }
    }
}

impl View {
    /// An image (224, 224, channels) in this view.
    pub fn of(self, mut resized: Vec<f32>) -> Vec<f32> {
        if self == Self::Flip {
            let channels = resized.len() / (IMAGE_SIDE * IMAGE_SIDE);
            for row in resized.chunks_exact_mut(IMAGE_SIDE * channels) {
                // All values backwards, and then the channels of each pixel forwards again.
                row.reverse();
                row.chunks_exact_mut(channels).for_each(<[f32]>::reverse);
            }
        }
        resized
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_swaps_left_and_right_and_nothing_else() {
        for channels in [1, 3] {
            let image: Vec<f32> = (0..IMAGE_SIDE * IMAGE_SIDE * channels).map(|i| i as f32).collect();
            let flipped = View::Flip.of(image.clone());
            let at = |image: &[f32], x: usize| image[(5 * IMAGE_SIDE + x) * channels..][..channels].to_vec();
            assert_eq!(at(&flipped, 2), at(&image, IMAGE_SIDE - 3));
            assert_eq!(View::Flip.of(flipped), image, "twice is nothing");
            assert_eq!(View::Plain.of(image.clone()), image);
        }
    }
}
