//! Example plugin: clock 1.3.0.
