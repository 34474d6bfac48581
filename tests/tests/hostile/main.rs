//! Level `netns`: unfriendly ground. What can't be read, strangers in root's way, names that mean
//! another device, tools that share a hook, a process that hangs, and any input at all.

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
