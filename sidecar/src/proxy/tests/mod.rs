//! The whole way of a request, with real servers and clients on the loopback interface.

mod authority;
mod carried;
mod hedge;
mod hostile;
mod inbound;
mod outbound;
mod pool;
mod spans;
mod support;
mod tcp;
mod tls;
mod trace;
