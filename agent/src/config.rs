//! The agent's settings: flags and environment, checked as a whole before anything is opened.
