//! A simulated API server and kubelets, the demo, load generators and benchmarks.

pub mod client;
pub mod cluster;
pub mod pki;
mod random;

pub use random::Random;
