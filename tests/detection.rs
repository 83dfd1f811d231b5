//! What kind of bytes a connection carries, found out without losing any.
