use std::{fmt, str::FromStr};

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// AVX-512F: 16 lanes, 32 registers.
    Avx512,
    /// AVX2 with FMA and F16C: 8 lanes, 16 registers.
    Avx2,
    /// Plain Rust, 4 lanes, which compilers turn into SSE2 or NEON.
    Portable,
}

/// A wish for an instruction set that cannot be fulfilled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnavailableIsa {
    /// No such name.
    #[error("FMSTUDY_ISA: unknown instruction set `{0}`, expected avx512, avx2 or portable")]
    Unknown(String),
    /// The processor lacks it.
    #[error("FMSTUDY_ISA: this processor has no {0}; available: {1}")]
    Missing(Isa, String),
}

impl Isa {
    /// All of them, fastest first.
    pub const ALL: [Self; 3] = [Self::Avx512, Self::Avx2, Self::Portable];

    /// The one that `FMSTUDY_ISA` forces, else the fastest that this processor has.
    pub fn choose() -> Result<Self, UnavailableIsa> {
        let Ok(wish) = std::env::var("FMSTUDY_ISA") else {
            return Ok(Self::ALL.into_iter().find(|isa| isa.is_available()).unwrap_or(Self::Portable));
        };
        let isa: Self = wish.parse()?;
        if isa.is_available() {
            return Ok(isa);
        }
        let available: Vec<String> = Self::available().map(|isa| isa.to_string()).collect();
        Err(UnavailableIsa::Missing(isa, available.join(", ")))
    }

    /// Those that this processor has, fastest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// Panics if this processor does not have it: using it would then be undefined.
    pub(crate) fn assert_available(self) {
        assert!(self.is_available(), "this processor has no {self}");
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        match self {
            Self::Avx512 => is_x86_feature_detected!("avx512f"),
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            Self::Portable => true,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_available(self) -> bool {
        self == Self::Portable
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        })
    }
}

impl FromStr for Isa {
    type Err = UnavailableIsa;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnavailableIsa::Unknown(text.to_owned()))
    }
}
