use std::{fmt, str::FromStr, sync::Once};

use candle_core::Device;
use serde::{Deserialize, Serialize};
use sources::{Combination, ParseCombinationError};

use crate::StudyError;

/// Where tensors live and are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first GPU if the program was built for one and there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl DeviceChoice {
    /// Opens the device. A program that was built for GPUs says once if it has to do without.
    ///
    /// # Errors
    /// If a GPU is asked for by number and cannot be had.
    pub fn open(self) -> Result<Device, StudyError> {
        match self {
            Self::Auto if !candle_core::utils::cuda_is_available() => Ok(Device::Cpu),
            Self::Auto => Ok(Device::new_cuda(0).unwrap_or_else(|error| {
                static SAID: Once = Once::new();
                SAID.call_once(|| tracing::warn!("no GPU can be used ({error}): the CPU computes"));
                Device::Cpu
            })),
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(_) if !candle_core::utils::cuda_is_available() => {
                Err(StudyError::BuiltWithoutCuda { device: self.to_string() })
            }
            Self::Cuda(number) => Device::new_cuda(number)
                .map_err(|error| StudyError::Device { device: self.to_string(), reason: error.to_string() }),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Cpu => f.pad("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let cuda = text.strip_prefix("cuda").map(|rest| rest.strip_prefix(':').unwrap_or(rest));
        match (text, cuda) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            (_, Some("")) => Ok(Self::Cuda(0)),
            (_, Some(number)) if number.parse::<usize>().is_ok() => Ok(Self::Cuda(number.parse().unwrap_or_default())),
            _ => Err(format!("`device` cannot be `{text}`, expected auto, cpu or cuda:N")),
        }
    }
}

/// Which combinations a command works on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CombinationChoice {
    /// Those of `study.combos`.
    #[default]
    Study,
    /// All 31.
    All,
    /// These.
    These(Vec<Combination>),
}

impl fmt::Display for CombinationChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Study => f.pad("study"),
            Self::All => f.pad("all"),
            Self::These(combinations) => {
                let names: Vec<String> = combinations.iter().map(ToString::to_string).collect();
                f.pad(&names.join(","))
            }
        }
    }
}

impl FromStr for CombinationChoice {
    type Err = ParseCombinationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "study" => Ok(Self::Study),
            "all" => Ok(Self::All),
            list => list.split(',').map(str::parse).collect::<Result<_, _>>().map(Self::These),
        }
    }
}

macro_rules! text_in_configuration {
    ($name:ident, $error:ty) => {
        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(choice: $name) -> Self {
                choice.to_string()
            }
        }
    };
}

text_in_configuration!(DeviceChoice, String);
text_in_configuration!(CombinationChoice, ParseCombinationError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        for (text, device) in
            [("auto", DeviceChoice::Auto), ("cpu", DeviceChoice::Cpu), ("cuda:3", DeviceChoice::Cuda(3))]
        {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string(), text);
        }
        assert!("gpu".parse::<DeviceChoice>().unwrap_err().contains("expected auto, cpu or cuda:N"));
    }

    #[test]
    fn combinations() {
        assert_eq!("fm2+fm1,orig".parse::<CombinationChoice>().unwrap().to_string(), "fm1+fm2,orig");
        assert!("fm9".parse::<CombinationChoice>().is_err());
    }
}
