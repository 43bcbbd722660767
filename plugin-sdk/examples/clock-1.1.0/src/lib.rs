//! Example plugin: clock 1.1.0.
