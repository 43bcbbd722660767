//! Write a Fleetswap plugin.
