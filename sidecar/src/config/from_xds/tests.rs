//! Messages that are honoured, and those that are refused.
