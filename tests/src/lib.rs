//! The harness that makes nodes out of network namespaces, and the end-to-end tests.
