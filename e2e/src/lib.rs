//! What tests and benchmarks with the real thing are made of: programs as processes, a real Envoy, upstreams
//! that say what reached them, clients that count what they lost.
//!
//! Nothing here knows what a test is about. Ports are chosen by the system where a program lets
//! it; every wait is [`wait::until`], which has a deadline and says what it last saw.

pub mod api;
pub mod bootstrap;
pub mod certificates;
pub mod client;
pub mod clock;
pub mod collector;
pub mod command;
pub mod compose;
pub mod control_plane;
pub mod demo;
pub mod dev;
pub mod document;
pub mod door;
pub mod envoy;
pub mod estate;
pub mod faults;
pub mod frames;
pub mod guide;
pub mod issuer;
pub mod limited;
pub mod limiter;
pub mod link;
pub mod load;
pub mod log_service;
pub mod malformed;
pub mod names;
pub mod peer;
pub mod port;
pub mod postgres;
pub mod process;
pub mod raw;
pub mod redis;
pub mod required;
pub mod scene;
pub mod scripted;
pub mod sealed;
pub mod sidecar;
pub mod sidecar_scene;
pub mod speaker;
pub mod story;
pub mod tunnel;
pub mod upstream;
pub mod usage;
pub mod wait;
