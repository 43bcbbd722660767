//! Runs a plugin in a sandboxed worker process.
