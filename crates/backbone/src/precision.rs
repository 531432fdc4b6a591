use choice::choice;

choice! {
    /// The numbers that convolutions multiply; sums are wider. The native engine's stem is always in f32.
    #[derive(Default)]
    pub enum Precision for "extract.precision" {
        /// 32-bit floats.
        #[default]
        F32 = "f32",
        /// bfloat16, with sums in f32.
        Bf16 = "bf16",
        /// 8-bit integers, which stand for what a [`Calibration`](crate::Calibration) says.
        Int8 = "int8",
    }
}
