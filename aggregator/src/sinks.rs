//! One folder a sink, and one delivery loop for all.
