//! The life of one plugin on one host, as a pure state machine.
