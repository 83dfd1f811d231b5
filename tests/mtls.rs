//! Who may speak to whom, and that nobody else can listen.
