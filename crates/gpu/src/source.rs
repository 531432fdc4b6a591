use crate::{KERNELS, PASS_KERNELS};

/// Kernels that are compiled together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// What they are written in, CUDA C++.
    pub source: &'static str,
    /// What the compiler is told of it.
    pub options: Vec<String>,
    /// Their names, sorted.
    pub kernels: &'static [&'static str],
    /// Whether they multiply, or store, in bfloat16.
    pub bf16: bool,
}

impl Program {
    /// The stem of the backbone's pass, and what stands between its convolutions.
    pub fn pass() -> Self {
        let source = concat!(
            include_str!("cuda/common.cu"),
            include_str!("cuda/finish.cu"),
            include_str!("cuda/stem.cu"),
            include_str!("cuda/pairs.cu"),
        );
        Self { source, options: Vec::new(), kernels: &PASS_KERNELS, bf16: true }
    }

    /// Fails if GPUs of this compute capability cannot run them.
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) const fn check_capability(&self, (major, minor): (i32, i32)) -> Result<(), crate::GpuError> {
        if self.bf16 && major < 8 { Err(crate::GpuError::NoBfloat16 { major, minor }) } else { Ok(()) }
    }
}

/// The training step's kernels, in the order in which they build on each other.
const STEP: &str = concat!(
    include_str!("cuda/common.cu"),
    include_str!("cuda/norm.cu"),
    include_str!("cuda/gelu.cu"),
    include_str!("cuda/tile.cu"),
    include_str!("cuda/matmul.cu"),
    include_str!("cuda/attention.cu"),
    include_str!("cuda/weights.cu"),
    include_str!("cuda/embed.cu"),
    include_str!("cuda/head.cu"),
    include_str!("cuda/adam.cu"),
);

/// Parts in which a gradient is summed at most: as many are read at once.
pub const MOST_PARTS: usize = 8;

/// What is known of a model when its kernels are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Constants {
    /// D.
    pub width: usize,
    /// H, which divides the width.
    pub heads: usize,
    /// N.
    pub tokens: usize,
    /// K.
    pub classes: usize,
    /// Side of the token grid.
    pub grid: usize,
    /// Whether the first token alone is read at the end, instead of the mean of all.
    pub class_token: bool,
    /// Whether products round their factors to bfloat16.
    pub bf16: bool,
}

impl Constants {
    /// Whether a block of each kernel finds room in a processor's shared memory, of which every card has 48 KB: attention puts down 64
    /// rows of two kinds with three numbers each, the head six rows and two numbers for each class.
    pub const fn fits(&self) -> bool {
        const SHARED_BYTES: usize = 48 << 10;
        let Self { width, heads, classes, .. } = *self;
        let (attention, head) = (64 * (2 * (width / heads) + 3), 6 * width + 2 * classes);
        4 * attention <= SHARED_BYTES && 4 * head <= SHARED_BYTES
    }

    /// The kernels of the model's training step.
    pub fn program(&self) -> Program {
        Program { source: STEP, options: self.options(), kernels: &KERNELS, bf16: self.bf16 }
    }

    /// Bytes of a number that products read as a factor.
    pub(crate) const fn factor_bytes(&self) -> usize {
        if self.bf16 { 2 } else { 4 }
    }

    /// As options of a compiler.
    fn options(&self) -> Vec<String> {
        let Self { width, heads, tokens, classes, grid, class_token, bf16 } = *self;
        let numbers = [
            ("WIDTH", width),
            ("HEADS", heads),
            ("TOKENS", tokens),
            ("CLASSES", classes),
            ("GRID", grid),
            ("CLASS_TOKEN", usize::from(class_token)),
            ("BF16", usize::from(bf16)),
            ("MOST_PARTS", MOST_PARTS),
        ];
        numbers.iter().map(|(name, number)| format!("-D{name}={number}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bfloat16_is_refused_where_it_would_not_compile() {
        let model = |bf16| {
            Constants { width: 64, heads: 2, tokens: 49, classes: 6, grid: 7, class_token: false, bf16 }.program()
        };
        for program in [model(true), Program::pass()] {
            let error = program.check_capability((7, 5)).unwrap_err().to_string();
            assert!(error.contains("7.5") && error.contains("f32"), "{error}");
            assert!(program.check_capability((8, 0)).is_ok());
        }
        assert!(model(false).check_capability((7, 5)).is_ok());
    }
}
