//! The cluster's loops: apps, services, garbage.
