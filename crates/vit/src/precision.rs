use choice::choice;

choice! {
    /// What the training step multiplies. Sums, weights, moments, norms and softmax are 32-bit floats in any case.
    ///
    /// A model is validated and evaluated in 32-bit floats, so that its accuracy does not depend on the machine.
    #[derive(Default)]
    pub enum Precision for "train.precision" {
        /// 32-bit floats.
        #[default]
        F32 = "f32",
        /// bfloat16.
        Bf16 = "bf16",
    }
}

impl From<Precision> for kernels::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
        }
    }
}
