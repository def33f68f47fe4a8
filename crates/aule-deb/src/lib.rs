//! Debian packages: where they come from and who vouches for it, which ones are needed, what they hold, and the database in
//! which dpkg writes down what is installed.
//!
//! Everything here takes bytes and gives values: nothing is fetched, run or written.

pub mod archive;
pub mod control;
pub mod index;
pub mod relation;
pub mod release;
pub mod resolve;
pub mod sources;
pub mod version;
