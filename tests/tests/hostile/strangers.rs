//! Root never follows a stranger: names, directories, links, locks.
