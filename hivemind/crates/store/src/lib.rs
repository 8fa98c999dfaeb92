//! The store: revisions, transactions, leases and watches over redb.
