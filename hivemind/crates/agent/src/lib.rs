//! One node: desired replicas in, a running node out.
