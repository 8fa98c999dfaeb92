//! Named volumes on a node's disk.
