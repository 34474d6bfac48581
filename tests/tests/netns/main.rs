//! Level `netns`: live trunks on veth pairs in namespaces of their own, on the running kernel. No
//! 8021q is needed: frames come with their tags from packet sockets.

mod access;
mod adopt;
mod deliver;
mod exactness;
mod hardship;
mod life;
mod listeners;
mod offloads;
mod refusals;
mod service;
mod storm;
mod sync;
mod tables;
