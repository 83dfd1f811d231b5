//! Every edge of HTTP between two sidecars, byte by byte: a client and a server that say what a row of a table has them
//! say, and hear what the page `docs/protocols.md` promises.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::harness::eventually::PATIENCE;
use crate::harness::mesh::{Mesh, Sidecar, SidecarOptions, free_address};
use crate::harness::process::NEVER;

mod connect; // CONNECT, of HTTP/1.1 and of HTTP/2
mod edges; // messages of HTTP/1
mod http2; // messages of HTTP/2
mod interim; // responses before the response
mod upgrade; // what follows 101

/// `web` calls `cart`, whose app is the test itself.
struct Ends {
    mesh: Mesh,
    web: Sidecar,
    cart: Sidecar,
    app: TcpListener,
}

/// One end of a connection.
struct End(TcpStream);

impl Ends {
    async fn start() -> Ends {
        Ends::start_with(&[]).await
    }

    /// With arguments for both sidecars.
    async fn start_with(arguments: &[&str]) -> Ends {
        let mesh = Mesh::start().await;
        let app = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (service, address) = (mesh.service_address(), free_address());
        let inbound = format!("{address}={}", app.local_addr().expect("bound"));
        let of_cart = [&["--inbound", inbound.as_str(), "--access-log", "json"], arguments].concat();
        let options = SidecarOptions { arguments: &of_cart, ..Default::default() };
        let cart = mesh.pod_at(address, "cart-0", "cart", options).await;
        mesh.service("cart", service, "http", &[&cart]);
        let of_web = [&["--access-log", "json"], arguments].concat();
        let options = SidecarOptions { dials: &[service], arguments: &of_web, ..Default::default() };
        let web = mesh.pod("web-0", "web", None, options).await;
        cart.ready().await;
        web.ready().await;
        Ends { mesh, web, cart, app }
    }

    /// Where the client dials.
    fn dial(&self) -> SocketAddr {
        self.web.outbound[0]
    }

    async fn client(&self) -> End {
        End::new(TcpStream::connect(self.dial()).await.expect("a connection"))
    }

    /// The next connection that comes to the app.
    async fn app(&self) -> End {
        let accepted = timeout(PATIENCE, self.app.accept()).await.expect("a connection to the app");
        End::new(accepted.expect("accepted").0)
    }

    /// What both sidecars log of the next request, by these keys: the caller's, the app's.
    async fn logged(&self, keys: &[&str]) -> [String; 2] {
        [line(&self.web, keys).await, line(&self.cart, keys).await]
    }
}

async fn line(sidecar: &Sidecar, keys: &[&str]) -> String {
    let line = crate::harness::eventually("a line in the access log", async || {
        sidecar.process.new_lines().pop().ok_or("no line yet")
    });
    let line: serde_json::Value = serde_json::from_str(&line.await).expect("JSON");
    keys.iter().map(|key| line[key].to_string().trim_matches('"').to_owned()).collect::<Vec<_>>().join(" ")
}

impl End {
    fn new(stream: TcpStream) -> End {
        stream.set_nodelay(true).expect("open");
        End(stream)
    }

    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("open");
    }

    /// Exactly this comes next.
    async fn hears(&mut self, text: &str) {
        let mut heard = vec![0; text.len()];
        let read = timeout(PATIENCE, self.0.read_exact(&mut heard)).await;
        read.unwrap_or_else(|_| panic!("no `{text}` in time")).expect("open");
        assert_eq!(String::from_utf8_lossy(&heard), text);
    }

    /// A head: its first line, and these fields of it, `name: value`, in lower case; sorted.
    async fn head(&mut self) -> (String, Vec<String>) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push(char::from(self.byte().await));
        }
        let mut lines = head.trim_end().split("\r\n").map(str::to_owned);
        let first = lines.next().expect("a line");
        let mut fields: Vec<_> = lines.map(|field| field.to_lowercase()).collect();
        fields.retain(|field| !field.starts_with("x-request-id:"));
        fields.sort();
        (first, fields)
    }

    async fn byte(&mut self) -> u8 {
        timeout(PATIENCE, self.0.read_u8()).await.expect("in time").expect("open")
    }

    /// Nothing comes; the connection stays open.
    async fn hears_nothing(&mut self) {
        let mut byte = [0];
        let heard = timeout(NEVER, self.0.read(&mut byte)).await;
        assert!(heard.is_err(), "heard {heard:?} {byte:?}");
    }

    /// Whatever comes until the other side ends.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("an end");
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Ends our direction.
    async fn end(&mut self) {
        self.0.shutdown().await.expect("open");
    }
}

fn fields(fields: &[&str]) -> Vec<String> {
    fields.iter().map(ToString::to_string).collect()
}
