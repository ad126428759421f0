//! `chancery-rate-limiter`: parses settings, runs until told to stop, drains.

fn main() {}
