//! The promises of the whole, each shown on real processes.

mod arguments;
mod attacks;
mod binary;
mod breakglass;
mod calls;
mod common;
mod demo;
mod impostor;
mod kills;
mod late;
mod levels;
mod logs;
mod mirrors;
mod offline;
mod pages;
mod pushes;
mod refusals;
mod rest;
mod restarts;
mod state;
mod useful;
mod words;
