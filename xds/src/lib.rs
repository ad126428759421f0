//! The xDS transport protocol: how configuration gets to a fleet of proxies, and how they answer.
//!
//! A [`Cache`] holds what a group of clients is to have, encoded once. An [`XdsServer`]
//! serves it over gRPC, incremental and state-of-the-world, aggregated and one type at a time, to the
//! clients that your [`Admit`] lets in. What a resource means is not its business.
//!
//! The other end is [`client`]: it stays subscribed, and hands over what comes.
//!
//! The decisions (`subscription`, `session`, `order`, and all of the client but its stream) are pure and can be read
//! without the rest.
//!
//! # Use outside Chancery
//!
//! Nothing here knows Chancery: the only other crate of it that is needed, `chancery-proto`, gives names to Envoy's
//! messages. `examples/static_snapshot.rs` is a whole server. Four things are yours:
//!
//! 1. **Resources.** Encode a message, name it, and put it into an [`Update`]. Equal messages must have equal
//!    bytes, wherever they are made: the bytes are the version, and a client that comes from another
//!    replica is sent nothing that it has. (Sort what a map holds.)
//! 2. **Sequence.** [`Cache::apply`] takes the changes of one step together, under a number that only grows: a
//!    revision, say; it panics if one that changes something does not. What refers to each other belongs into one
//!    step. What has not changed may be in it.
//! 3. **Admission.** [`Admit`] is asked once per stream, with the node and what the transport knows of the
//!    client, and answers with its cache. Limits on connections and on their age are the transport's.
//! 4. **Status.** The [`StreamStatus`] that you gave to a stream says what was sent, acknowledged and
//!    rejected; [`StreamStatus::settled_at`] waits until a sequence has arrived.
//!
//! ```
//! use std::sync::Arc;
//! use chancery_xds::{Admission, Admit, Cache, Hello, Resource, StreamSettings, Update, XdsServer};
//!
//! struct Everyone(Arc<Cache>);
//!
//! impl Admit for Everyone {
//!     fn admit(&self, _: Hello<'_>) -> Result<Admission, tonic::Status> {
//!         Ok(Admission {
//!             cache: self.0.clone(),
//!             status: Default::default(),
//!             ended: Default::default(),
//!             guard: Box::new(()),
//!         })
//!     }
//! }
//!
//! let cache = Arc::new(Cache::new());
//! let mut update = Update::default();
//! update.upsert("type.example/Greeting", Resource::new("type.example/Greeting", "hello", b"world"));
//! cache.apply(1, update);
//!
//! let server = XdsServer::new(
//!     Arc::new(Everyone(cache)), StreamSettings::default(), Default::default(), Default::default(),
//! );
//! let routes = server.into_routes(); // for `tonic::transport::Server::builder().add_routes(…)`
//! # let _ = routes;
//! ```
//!
//! # What a client can count on
//!
//! - *Make before break.* Clusters and endpoints come before the listeners and routes that refer to them, and go
//!   after these are applied. A client that does not answer is waited for as long as
//!   [`StreamSettings::order_timeout`], no longer.
//! - *One response at a time per type.* What changes before it is answered is one response afterwards. A client
//!   that does not read costs one response per type.
//! - *One state at a time.* A listener or route goes out in the state whose clusters were acknowledged, however fast
//!   newer states come; it waits for two answers about clusters at most.
//! - *A rejection breaks nothing.* What the client then still uses is not removed until it has taken another; a
//!   listener, route or virtual host that names a cluster which it rejected, and has no other of, is kept back until it
//!   takes it. Neither ends with the order timeout, and neither holds up anything else. (A state-of-the-world response of
//!   listeners has all of them, so there nothing is kept back.)
//! - *A cluster that a client asked for by name* (gRPC does) stays until it gives up the name, or for as long as
//!   [`StreamSettings::order_timeout`]: such a client acknowledges a route first, and then asks where it leads.
//! - *No response without a change* or a question. A rejected resource is not sent again until it changes.
//! - *Endpoints after every change of their cluster*, asked for or not: Envoy waits for them and does not ask.
//!
//! What it deliberately does not do: time-to-live (a resource that vanishes with its control plane would take traffic
//! along; there is nothing here that a client should not keep), and with it the wrapped resources of
//! state-of-the-world clients that exist for it; a timer against bursts (one response is outstanding per type, so a burst is
//! one response afterwards, and a single edit waits for nothing); the REST variant; glob subscriptions of `xdstp://` names,
//! which are names like any other.

pub mod cache;
pub mod client;
mod codec;
mod inspection;
pub mod metrics;
mod names;
mod order;
mod rejection;
pub mod resource;
pub mod server;
mod session;
pub mod status;
pub mod subscription;

pub use cache::{Cache, Update};
pub use inspection::Inspection;
pub use resource::{Name, Resource, TypeUrl, Version};
pub use server::{Admission, Admit, Call, Hello, Protocol, Retire, RunStream, StreamSettings, XdsServer};
pub use status::{Observe, Rejection, SharedStatus, Stamp, StreamEvent, StreamStatus, TypeStatus};
