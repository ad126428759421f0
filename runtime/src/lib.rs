//! What every Chancery program needs, and none of them owns: settings, telemetry, TLS with hot
//! reload, admin endpoints, and a graceful end.
//!
//! Nothing here knows a resource, a store or a proxy; the programs import this, never the reverse.

pub mod admin;
mod bell;
pub mod drain;
pub mod fetch;
pub mod file;
pub mod listen;
pub mod metrics;
pub mod running;
pub mod saved;
pub mod secret;
pub mod settings;
pub mod telemetry;
pub mod tls;
pub mod traces;

pub use bell::Bell;
pub use drain::Shutdown;
pub use running::Running;
pub use secret::{Secret, SecretString};
