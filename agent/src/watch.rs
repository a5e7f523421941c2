//! The event watches that this agent holds: list, watch, resume.
