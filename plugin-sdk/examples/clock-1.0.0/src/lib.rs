//! Example plugin: clock 1.0.0.
