//! The services over a real connection, with a fleet that only remembers what it was asked.

mod fake;
mod publishing;
mod requests;
mod streams;
mod transfer;
mod world;
