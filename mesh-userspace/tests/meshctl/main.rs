//! `meshctl` as its users meet it: the binary, its output and its exit statuses.

mod offline;
mod online;
mod support;
mod usage;
