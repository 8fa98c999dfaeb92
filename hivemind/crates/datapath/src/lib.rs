//! Loads the eBPF programs and owns their maps, links, addresses and host rules.
