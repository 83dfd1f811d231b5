//! `gauze-proxy ask PATH`: one question to the proxy that runs here, over its admin socket. The image
//! holds neither a shell nor curl: this is what the CLI runs in a pod. `gauze-proxy drain` is the order that
//! kubelet gives when the pod begins to end.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

/// Ask the proxy that runs here, and print the answer.
///
/// The paths are those of the admin port: `/ready`, `/config_dump`, `/clusters`, `/certs`, `/metrics`;
/// orders are posted: `--post '/logging?level=debug'`.
#[derive(Clone, Debug, Parser)]
#[command(max_term_width = 110)]
pub struct AskSettings {
    /// What to ask for, beginning with `/`
    #[arg(value_parser = path)]
    pub path: String,

    /// It is an order
    #[arg(long)]
    pub post: bool,

    /// The socket of the proxy
    #[arg(long, env = "GAUZE_ADMIN_SOCKET", default_value = ADMIN_SOCKET, value_name = "PATH")]
    pub admin_socket: PathBuf,
}

/// Send those who call the app of this pod elsewhere: the pod begins to end.
///
/// It returns at once, and the proxy goes on serving: it is not ready any more, says `Connection: close` and GOAWAY
/// to those who call, and leaves the app's own calls alone. SIGTERM ends it. There is no way back.
#[derive(Clone, Debug, Parser)]
#[command(max_term_width = 110)]
pub struct DrainSettings {
    /// The socket of the proxy
    #[arg(long, env = "GAUZE_ADMIN_SOCKET", default_value = ADMIN_SOCKET, value_name = "PATH")]
    pub admin_socket: PathBuf,
}

/// Nothing that could be printed as an answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no proxy answers at {path}: {problem}", path = .path.display())]
    Silent { path: PathBuf, problem: io::Error },
    #[error("{status}: {text}")]
    Refused { status: String, text: String },
}

/// Where an injected sidecar has its socket.
pub const ADMIN_SOCKET: &str = "/var/run/gauze/admin/admin.sock";

/// Silence of this length ends it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Size of an answer, in bytes.
const ANSWER_MAX: u64 = 64 * 1024 * 1024;

/// Asks, and prints the answer on stdout.
///
/// # Errors
/// Nobody answers, or with another status than 2xx.
pub fn run(settings: &AskSettings) -> Result<(), AskError> {
    let method = if settings.post { "POST" } else { "GET" };
    let silent = |problem| AskError::Silent { path: settings.admin_socket.clone(), problem };
    let answer = exchange(&settings.admin_socket, method, &settings.path).map_err(silent)?;
    let body = body(&answer)?;
    // Whoever closes the pipe has read enough.
    let _ = io::stdout().write_all(body);
    Ok(())
}

/// Orders to drain, and prints the answer.
///
/// # Errors
/// As [`run`].
pub fn order_drain(settings: &DrainSettings) -> Result<(), AskError> {
    let admin_socket = settings.admin_socket.clone();
    run(&AskSettings { path: "/drain".to_owned(), post: true, admin_socket })
}

/// One request of HTTP/1.0: the answer ends with the connection.
fn exchange(socket: &Path, method: &str, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("{method} {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

/// What follows the head of a successful answer.
fn body(answer: &[u8]) -> Result<&[u8], AskError> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(answer.len());
    let (head, body) = answer.split_at(end);
    let body = body.get(4..).unwrap_or_default();
    let head = String::from_utf8_lossy(head);
    let status =
        head.lines().next().and_then(|line| line.split_once(' ')).map_or("no HTTP", |(_, status)| status);
    if status.starts_with('2') {
        return Ok(body);
    }
    Err(AskError::Refused {
        status: status.to_owned(),
        text: String::from_utf8_lossy(body).trim().to_owned(),
    })
}

/// A path that cannot carry anything but itself into the head of a request.
fn path(text: &str) -> Result<String, String> {
    let is_plain = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain { Ok(text.to_owned()) } else { Err("a path begins with `/` and has no spaces".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_printed_and_a_refusal_is_an_error() {
        let refused = |status: &str, text: &str| Err(format!("{status}: {text}"));
        for (answer, expected) in [
            ("HTTP/1.0 200 OK\r\ncontent-length: 6\r\n\r\nready\n", Ok("ready\n")),
            ("HTTP/1.1 204 No Content\r\n\r\n", Ok("")),
            (
                "HTTP/1.0 503 Service Unavailable\r\n\r\nno valid certificate\n",
                refused("503 Service Unavailable", "no valid certificate"),
            ),
            ("HTTP/1.0 404 Not Found\r\n\r\n", refused("404 Not Found", "")),
            ("", refused("no HTTP", "")),
        ] {
            let seen = body(answer.as_bytes()).map(|body| str::from_utf8(body).expect("text"));
            assert_eq!(seen.map_err(|error| error.to_string()), expected, "{answer:?}");
        }
    }

    #[test]
    fn a_path_is_one_word() {
        assert!(path("/logging?level=gauze_proxy=debug,info").is_ok());
        for text in ["ready", "/a b", "/a\r\nx: y", ""] {
            assert!(path(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_question_is_one_request_and_silence_names_the_socket() {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("admin.sock");
        let error = exchange(&socket, "GET", "/ready").expect_err("nobody there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        let proxy = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("asked");
            let mut request = vec![0; 128];
            let length = stream.read(&mut request).expect("a request");
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nyes").expect("answered");
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let answer = exchange(&socket, "POST", "/quitquitquit").expect("an answer");
        assert_eq!(answer, b"HTTP/1.0 200 OK\r\n\r\nyes");
        assert_eq!(
            proxy.join().expect("it answered"),
            "POST /quitquitquit HTTP/1.0\r\nhost: localhost\r\n\r\n"
        );
    }
}
