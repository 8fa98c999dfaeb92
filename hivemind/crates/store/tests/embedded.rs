//! The embedded store: conformance, crashes, failing disks, a model, opening and closing.
// All of this is tests, helpers included.
#![allow(clippy::unwrap_used)]

mod embedded {
    mod conformance;
    mod crash;
    mod disk;
    mod faults;
    mod lifecycle;
    mod model;
}
