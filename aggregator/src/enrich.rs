//! Labels, annotations and owners of the object that a record is about.
