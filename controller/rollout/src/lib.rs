//! The rollout planner: pure, told the time, always says why it waits.
