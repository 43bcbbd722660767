//! Example plugin: counter 2.0.0.
