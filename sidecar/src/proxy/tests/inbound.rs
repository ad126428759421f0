//! What reaches the application.
