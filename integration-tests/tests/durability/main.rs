//! Nothing that was promised is lost: failpoints at every durable step, reboots, stops and kills, and full disks.
//!
//! The agents here are `agent-failpoints`, the same program with failpoints, until they fail; then the shipped one goes
//! on from what they left.

mod agent;
mod common;
mod controller;
mod cuts;
mod full;
mod operator;
mod retention;
mod rows;
mod shipped;
mod sources;
mod starts;
mod states;
