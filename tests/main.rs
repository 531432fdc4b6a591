//! Tests of the binaries, run as a user runs them.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod browser;
mod copies;
mod damage;
mod dependencies;
mod layouts;
mod messages;
mod precision;
mod real_data;
mod report;
mod resume;
mod stages;
mod together;
mod views;
