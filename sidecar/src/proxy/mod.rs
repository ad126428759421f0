//! The way of a request, in and out.
//!
//! - [`accept`]: a port: connections with their limits, TLS, HTTP/1.1 or HTTP/2, and an orderly end.
//! - [`detect`]: whether HTTP is spoken at all.
//! - [`stack`]: everything that a request passes, in order.
//! - [`route`], [`balance`], [`pool`]: which cluster, which endpoint, which connection.
//! - [`tls`]: who we are to endpoints, and who they have to be.
//! - [`by_route`]: what a cluster keeps of each of its routes; [`meters`], what is counted of them.
//! - [`world`]: what the configuration of the moment has become: clusters with their endpoints, connections and records.
//! - [`message`], [`body`], [`failure`]: what is done about HTTP itself, and what is answered when there is no answer.
//! - [`trace`]: the spans of a request, if anybody is told of them.
//! - [`stall`]: callers that begin something and do not go on.
//! - [`tcp`]: connections of the application that are carried as they are, and the ports to which it makes them.
//! - [`tunnel`]: bytes that are not HTTP, or not any more.

pub mod accept;
pub mod balance;
pub mod body;
pub mod by_route;
pub mod connect;
pub mod detect;
pub mod failure;
pub mod message;
pub mod meters;
pub mod pool;
pub mod route;
pub mod stack;
pub mod stall;
pub mod tcp;
pub mod tls;
pub mod trace;
pub mod tunnel;
pub mod world;

#[cfg(test)]
mod tests;
