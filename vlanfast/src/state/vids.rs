//! The argument of a flag that selects VLANs.

use std::{collections::BTreeSet, fmt, str::FromStr};

use vlanfast_common::Vid;

/// A selection of VLANs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Vids {
    #[default]
    Off,
    /// Every VLAN that the host has a device for, and untagged traffic.
    All,
    Only(BTreeSet<Vid>),
}

impl Vids {
    pub fn contains(&self, vid: Vid) -> bool {
        match self {
            Self::Off => false,
            Self::All => true,
            Self::Only(vids) => vids.contains(&vid),
        }
    }
}

impl FromStr for Vids {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => return Ok(Self::Off),
            "all" => return Ok(Self::All),
            _ => {}
        }
        let vid = |text| {
            number(text).ok_or_else(|| {
                format!("'{text}' is no VLAN: expected off, all, or numbers {NUMBERS} like 10,20")
            })
        };
        text.split(',')
            .map(vid)
            .collect::<Result<_, _>>()
            .map(Self::Only)
    }
}

const NUMBERS: &str = "from 0 (untagged) to 4094";

fn number(text: &str) -> Option<Vid> {
    match text.parse() {
        Ok(number @ 0..=4094) => Some(Vid::new(number)),
        _ => None,
    }
}

impl fmt::Display for Vids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.pad("off"),
            Self::All => f.pad("all"),
            Self::Only(vids) => {
                let vids: Vec<_> = vids.iter().map(Vid::to_string).collect();
                f.pad(&vids.join(","))
            }
        }
    }
}

/// An unordered pair of VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VidPair(pub Vid, pub Vid);

impl FromStr for VidPair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pair = text.split_once(':');
        let pair = pair.and_then(|(one, other)| Some(Self(number(one)?, number(other)?)));
        match pair {
            Some(Self(one, other)) if one != other && ![one, other].contains(&Vid::UNTAGGED) => {
                Ok(Self(one, other))
            }
            _ => Err(format!(
                "'{text}' is no pair of VLANs: expected two numbers from 1 to 4094 like 10:20"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_are_named_by_their_numbers() {
        for text in ["off", "all", "10", "0,10,4094"] {
            assert_eq!(text.parse::<Vids>().unwrap().to_string(), text);
        }
        for text in ["", "10,", "4095", "-1", "ten", "eth0.10"] {
            let error = text.parse::<Vids>().unwrap_err();
            assert!(error.contains("is no VLAN"), "{error}");
        }
        let some: Vids = "20,10".parse().unwrap();
        assert!(some.contains(Vid::new(10)) && !some.contains(Vid::new(30)));
        assert!(Vids::All.contains(Vid::UNTAGGED) && !Vids::Off.contains(Vid::UNTAGGED));
    }

    #[test]
    fn pairs_are_of_two_vlans() {
        let pair = VidPair(Vid::new(10), Vid::new(4094));
        assert_eq!("10:4094".parse(), Ok(pair));
        for text in [
            "", "10", "10:", "10:0", "10:10", "10:4095", "10:20:30", "10-20",
        ] {
            let error = text.parse::<VidPair>().unwrap_err();
            assert!(error.contains("is no pair of VLANs"), "{error}");
        }
    }
}
