//! The stream to the aggregator: sends batches, takes acknowledgements and assignments, reconnects.
