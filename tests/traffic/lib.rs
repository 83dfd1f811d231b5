//! Traffic with a ledger, without any knowledge of the product: clients, loads, and apps that know what reached them.
//! The tests use it in their own process; `gauze-test-pod` is the program of it that runs in pods of a cluster.

pub mod app; // an app in the test's own process
pub mod client; // one connection, whole answers
pub mod lines; // the opaque protocol of these tests
pub mod load; // many requests, and what their callers were told
pub mod record; // what became of one, as a line of a file
pub mod server; // an app as a process, whose ledger is a file

pub use app::App;
