//! Errors that gather their field path on the way up.
