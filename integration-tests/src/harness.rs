//! A fleet on this machine: one controller and some agents as real processes in a folder of their own.

mod binaries;
mod caller;
mod command;
mod conductor;
mod fleet;
mod held;
mod kept_open;
mod process;
mod surroundings;

pub use binaries::{
    Binaries, FAILPOINTS_BUILD, Plugin, build_c_examples, build_workspace, compile_c, repository,
};
pub use caller::{CallError, Caller, Reply};
pub use command::Outcome;
pub use conductor::{Conductor, Order};
pub use fleet::{Agent, Fleet, FleetOptions, eventually};
pub use held::HeldSockets;
pub use kept_open::KeptOpen;
pub use process::{Process, signal};
