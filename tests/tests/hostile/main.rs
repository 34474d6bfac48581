//! Level `netns`: hostile environments. They include unreadable names, files of other users in root's way, ambiguous
//! names, tools that share a hook, a process that hangs, and generated input.

mod doubles;
mod filters;
mod hooks;
mod http;
mod identity;
mod input;
mod netlink;
mod noise;
mod owners;
mod path;
#[path = "../shared/pins.rs"]
mod pins;
mod receivers;
mod signals;
mod strangers;
mod watchdog;
mod wire;
