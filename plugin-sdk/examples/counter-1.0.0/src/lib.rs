//! Example plugin: counter 1.0.0.
