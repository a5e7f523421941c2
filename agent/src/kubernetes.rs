//! The client of the API server, shared by what watches events and what taps the node.
