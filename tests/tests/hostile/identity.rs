//! A trunk is a device of a namespace, whatever was typed.
