//! The `chancery` command: what operators and service owners say to a control plane, and a whole one to try (`dev`).
//!
//! Everything it does to a control plane goes through the REST API. On a terminal it prints tables, elsewhere
//! JSON; what it has to say beside the answer goes to stderr.

mod again;
mod agent;
mod answer;
mod archive;
mod ask;
mod audit;
mod backup;
mod bootstrap;
mod bundle;
pub mod cert;
mod client;
mod command;
mod connection;
mod demo;
pub mod dev;
mod doctor;
mod endpoints;
mod enrol;
mod events;
mod explain;
mod explain_kind;
mod failure;
mod fleet;
mod foreign;
mod health;
mod history;
mod host;
mod kind;
mod limits;
mod load;
mod login;
mod manifest;
pub mod outline;
mod output;
mod plan;
mod progress;
mod proxy_config;
mod quarantine;
mod resources;
mod rollout;
mod schema;
mod seen;
mod sign_in;
mod token;
mod traffic;
mod write;

pub use command::{Cli, run};
