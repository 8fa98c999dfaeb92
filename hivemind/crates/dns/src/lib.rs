//! The DNS server for services, forwarding and caching the rest.
