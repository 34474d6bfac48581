//! Opens a trunk's pins as the program itself does.

use vlanfast::{pins::Pins, state::name::Name};

/// Opens the pins of a trunk.
pub fn opened(trunk: &str) -> Pins {
    let name = Name::from(trunk);
    let pins = Pins::find(|entry| entry.name == name, |_| true).unwrap();
    pins.into_iter().next().expect("the trunk has pins")
}
