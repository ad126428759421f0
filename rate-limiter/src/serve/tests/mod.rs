//! One suite over both servers: what tonic's does, ours does too.

mod calls;
mod ends;
mod hostile;
mod identity;
mod raw;
mod scene;
