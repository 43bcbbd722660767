//! Example plugin: clock 1.2.0.
