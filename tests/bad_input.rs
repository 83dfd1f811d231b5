//! What nobody should send, and somebody does. Each case is a row: what is sent, and what is promised for it: an answer
//! with its code, the same code in log and metric, nothing of it at the app, nothing else disturbed, no panic. Whatever
//! is let through reaches the app as the very messages that the proxy saw: the app's side here reads raw bytes.

mod configuration; // objects that cannot be
mod http1; // requests, on both ports
mod http2; // frames, and requests of HTTP/2
mod identity; // who says that it is somebody else
mod stage; // a mesh before a server of raw bytes, and a client that is well beside it
mod tls; // peers without a sound certificate
mod upstream; // answers of servers
