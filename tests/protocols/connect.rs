//! CONNECT: of HTTP/1.1, of HTTP/2, and for another protocol over HTTP/2 (RFC 8441).

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Request, Response, StatusCode};
use tokio::time::timeout;

use super::{End, Ends, fields};
use crate::harness::eventually::PATIENCE;

/// One end of a stream of HTTP/2 that is no HTTP any more.
struct Stream {
    sending: SendStream<Bytes>,
    receiving: RecvStream,
}

impl Stream {
    fn say(&mut self, text: &'static str) {
        self.sending.send_data(Bytes::from_static(text.as_bytes()), false).expect("open");
    }

    async fn hears(&mut self, text: &str) {
        let mut heard = Vec::new();
        while heard.len() < text.len() {
            let data = timeout(PATIENCE, self.receiving.data()).await.expect("in time");
            let data = data.unwrap_or_else(|| panic!("ended behind {heard:?}")).expect("open");
            self.receiving.flow_control().release_capacity(data.len()).expect("ours");
            heard.extend_from_slice(&data);
        }
        assert_eq!(String::from_utf8_lossy(&heard), text);
    }

    fn end(&mut self) {
        self.sending.send_data(Bytes::new(), true).expect("open");
    }

    async fn hears_the_end(&mut self) {
        let next = timeout(PATIENCE, self.receiving.data()).await.expect("in time");
        assert!(!matches!(&next, Some(Ok(data)) if !data.is_empty()), "{next:?}");
    }
}

/// A client of HTTP/2 that asks for a tunnel, and what it is answered.
async fn ask(ends: &Ends, request: Request<()>) -> Result<(Response<()>, Stream), h2::Error> {
    let (mut sender, connection) = h2::client::handshake(ends.client().await.0).await?;
    tokio::spawn(connection);
    if request.extensions().get::<Protocol>().is_some() {
        crate::harness::eventually("the proxy offers extended CONNECT", async || {
            sender.is_extended_connect_protocol_enabled().then_some(()).ok_or("not yet")
        })
        .await;
    }
    sender = sender.ready().await?;
    let (response, mut sending) = sender.send_request(request, false)?;
    sending.send_data(Bytes::from_static(b"early"), false)?;
    let (head, receiving) = timeout(PATIENCE, response).await.expect("an answer")?.into_parts();
    Ok((Response::from_parts(head, ()), Stream { sending, receiving }))
}

/// A server of HTTP/2 that takes one request, and answers with `status`.
async fn answer(app: End, extended: bool, status: StatusCode) -> (Request<()>, Stream) {
    let mut builder = h2::server::Builder::new();
    if extended {
        builder.enable_connect_protocol();
    }
    let mut connection = builder.handshake::<_, Bytes>(app.0).await.expect("HTTP/2");
    let next = timeout(PATIENCE, connection.accept()).await.expect("a request").expect("a request");
    let (request, mut respond) = next.expect("a request");
    let response = Response::builder().status(status).header("x-app", "cart").body(()).expect("well-formed");
    let sending = respond.send_response(response, false).expect("open");
    connection.graceful_shutdown(); // the next request comes on a connection of its own
    tokio::spawn(async move { while connection.accept().await.is_some() {} });
    let (head, receiving) = request.into_parts();
    (Request::from_parts(head, ()), Stream { sending, receiving })
}

fn connect(protocol: Option<&'static str>) -> Request<()> {
    let uri = if protocol.is_some() { "http://cart/chat" } else { "elsewhere:443" };
    let mut request = Request::connect(uri).body(()).expect("well-formed");
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(Protocol::from_static(protocol));
    }
    request
}

#[tokio::test]
async fn connect_over_http11_leads_where_the_client_dialled_whatever_it_names() {
    let ends = Ends::start().await;
    let mut client = ends.client().await;
    client.say("CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere:443\r\n\r\nearly").await;
    let mut app = ends.app().await;
    let (request, head) = app.head().await;
    assert_eq!(
        (request.as_str(), head),
        ("CONNECT elsewhere:443 HTTP/1.1", fields(&["host: elsewhere:443"]))
    );
    app.hears_nothing().await;
    app.say("HTTP/1.1 200 Fine\r\ncontent-length: 5\r\nx-app: cart\r\n\r\nbehind").await;
    assert_eq!(client.head().await, ("HTTP/1.1 200 OK".to_owned(), fields(&["x-app: cart"])));
    client.hears("behind").await;
    app.hears("early").await;
    client.end().await;
    assert_eq!(app.rest().await, "");
    app.say("last").await;
    drop(app);
    assert_eq!(client.rest().await, "last");
    let told = "CONNECT http/1.1 200 5 10 null";
    assert_eq!(
        ends.logged(&["method", "protocol", "status", "received", "sent", "error"]).await,
        [told, told]
    );

    let mut client = ends.client().await;
    client
        .say("CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere:443\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let mut app = ends.app().await;
    app.head().await;
    app.say("HTTP/1.1 407 No\r\ncontent-length: 2\r\n\r\nno").await;
    let (status, head) = client.head().await;
    assert_eq!(status, "HTTP/1.1 407 Proxy Authentication Required");
    assert_eq!(head, fields(&["connection: close", "content-length: 2"]));
    assert_eq!(client.rest().await, "no", "what was for the tunnel is no request");

    for body in ["content-length: 3\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"] {
        let mut client = ends.client().await;
        client.say(&format!("CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere:443\r\n{body}")).await;
        let (status, head) = client.head().await;
        assert_eq!(status, "HTTP/1.1 400 Bad Request", "{body:?}");
        assert!(head.contains(&"gauze-error: m3102".to_owned()), "{head:?}");
    }
}

#[tokio::test]
async fn connect_over_http2_becomes_a_tunnel_with_an_end_in_each_direction() {
    let ends = Ends::start().await;
    for protocol in [None, Some("websocket")] {
        let serve = async { answer(ends.app().await, true, StatusCode::OK).await };
        let (asked, served) = tokio::join!(ask(&ends, connect(protocol)), serve);
        let ((response, mut client), (request, mut app)) = (asked.expect("an answer"), served);
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-app"]),
            (200, &"cart".parse().unwrap())
        );
        let arrived = request.extensions().get::<Protocol>().map(Protocol::as_str);
        assert_eq!((request.method().as_str(), arrived), ("CONNECT", protocol));
        assert_eq!(request.uri(), connect(protocol).uri());
        app.hears("early").await;
        app.say("pong");
        client.hears("pong").await;
        client.end();
        app.hears_the_end().await;
        app.say("last");
        client.hears("last").await;
        app.end();
        client.hears_the_end().await;
        let told = "CONNECT http/2 200 5 8 null";
        assert_eq!(
            ends.logged(&["method", "protocol", "status", "received", "sent", "error"]).await,
            [told, told],
            "{protocol:?}"
        );
    }
}

#[tokio::test]
async fn a_connect_over_http2_that_is_not_taken_up_is_an_ordinary_response() {
    let ends = Ends::start().await;
    let serve = async { answer(ends.app().await, true, StatusCode::FORBIDDEN).await };
    let (asked, (_, mut app)) = tokio::join!(ask(&ends, connect(Some("websocket"))), serve);
    let (response, mut client) = asked.expect("an answer");
    assert_eq!(response.status(), 403);
    app.say("no");
    client.hears("no").await;
    app.end();
    client.hears_the_end().await;
}

#[tokio::test]
async fn an_app_that_does_not_offer_extended_connect_is_not_asked_and_the_client_told() {
    let ends = Ends::start().await;
    let serve = async {
        let app = ends.app().await;
        let mut connection = h2::server::handshake(app.0).await.expect("HTTP/2");
        let next: Option<Result<(Request<RecvStream>, h2::server::SendResponse<Bytes>), _>> =
            connection.accept().await;
        panic!("the app was asked: {next:?}");
    };
    let (response, _) = tokio::select! {
        asked = ask(&ends, connect(Some("websocket"))) => asked.expect("an answer"),
        never = serve => never,
    };
    let code = response.headers().get("gauze-error").map(|code| code.to_str().expect("text"));
    assert_eq!((response.status().as_u16(), code), (501, Some("M3022")));
}
