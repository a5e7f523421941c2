//! The aggregator's metric families, with a bound on every label.
