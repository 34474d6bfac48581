//! Level `netns`: unfriendly ground. What can't be read, strangers in root's way, names that mean
//! another device, tools that share a hook, a process that hangs, and any input at all.

mod hooks;
mod identity;
mod input;
mod netlink;
mod strangers;
mod watchdog;
