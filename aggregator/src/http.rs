//! `/metrics`, `/livez` and `/readyz` of the aggregator.
