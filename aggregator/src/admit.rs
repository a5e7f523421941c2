//! Who may connect, and what it may say.
