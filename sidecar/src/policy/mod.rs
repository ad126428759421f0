//! The policies, as pure state machines.
