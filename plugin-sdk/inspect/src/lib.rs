//! Reads plugin artifacts without running them.
