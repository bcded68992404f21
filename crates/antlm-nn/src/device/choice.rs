//! Which device a user asks for, and whether it is there.

use std::path::Path;
use std::str::FromStr;

use super::Device;
use super::cuda;
use crate::{Error, Result};

/// Where NVIDIA's driver for Linux says its version.
const DRIVER: &str = "/proc/driver/nvidia/version";

/// What to tell who has a card, and a build that knows none.
fn unused_card(driver: &Path) -> Option<String> {
    let words = "on the CPU: NVIDIA's driver is here, but this build of antlm knows no NVIDIA cards; build it with \
                 --features cuda, or say --device cpu";
    driver.exists().then(|| words.into())
}

/// What stands behind `--device`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first NVIDIA card, if there is one; otherwise the CPU.
    #[default]
    Auto,
    /// This machine's processor.
    Cpu,
    /// The NVIDIA card of this number, from 0 on.
    Cuda(usize),
}

impl FromStr for Choice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Choice> {
        let number = |text: &str| text.parse().ok().map(Choice::Cuda);
        match text {
            "auto" => Some(Choice::Auto),
            "cpu" => Some(Choice::Cpu),
            "cuda" => Some(Choice::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(number),
        }
        .ok_or_else(|| cuda::error(format!("there is no device {text:?}; say auto, cpu, cuda or cuda:N")))
    }
}

impl Choice {
    /// Opens it. `auto` never fails: where no card can be used, it is the CPU, and the text says why (in a build without
    /// cards: if there is a driver).
    ///
    /// ```
    /// use antlm_nn::device::Choice;
    /// let choice: Choice = "cpu".parse()?;
    /// assert_eq!(choice.open()?.0.to_string(), "cpu");
    /// assert!("gpu".parse::<Choice>().is_err());
    /// # Ok::<(), antlm_nn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Card`] for a card that is not there or cannot be used, with what to do.
    pub fn open(self) -> Result<(Device, Option<String>)> {
        match self {
            Choice::Cpu => Ok((Device::Cpu, None)),
            Choice::Cuda(number) => Ok((Device::Cuda(cuda::open(number)?.into()), None)),
            Choice::Auto if !cuda::BUILT => Ok((Device::Cpu, unused_card(Path::new(DRIVER)))),
            Choice::Auto => Ok(match cuda::open(0) {
                Ok(card) => (Device::Cuda(card.into()), None),
                Err(why) => (Device::Cpu, Some(format!("on the CPU, for no NVIDIA card can be used: {why}"))),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_this_build_does_not_know_is_said() {
        let here = unused_card(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(here.contains("--features cuda") && here.contains("--device cpu"), "{here}");
        assert_eq!(unused_card(&Path::new(env!("CARGO_MANIFEST_DIR")).join("nothing")), None);
    }
}
