//! Containers and images through containerd.
