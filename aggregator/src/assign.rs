//! Which agent watches what; epochs and checkpoints.
