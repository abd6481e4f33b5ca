//! Queries over loopback, without any privilege.
