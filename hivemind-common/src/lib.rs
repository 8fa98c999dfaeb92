//! Keys and values of every eBPF map.
#![no_std]
