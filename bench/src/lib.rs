//! A simulated API server and kubelets, the demo, load generators and benchmarks.
