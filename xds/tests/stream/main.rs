//! What a server does on a real connection. One binary, because linking Envoy's messages takes longer than all of it.

mod admission;
mod client;
mod exchange;
mod order;
mod rules;
mod services;
mod support;
