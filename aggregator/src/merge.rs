//! Tells duplicates from news, and how often something happened since it was last seen.
