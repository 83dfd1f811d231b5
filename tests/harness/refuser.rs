//! A proxy that subscribes to one resource and refuses whatever comes: real ones refuse nothing of this release.
//! It speaks Envoy's incremental ADS by hand.

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::mpsc;

use super::client::grpc_message;
use super::enrolment::{ADS, Outcome, TlsPort, bearer, status, varint};
use super::eventually::eventually;

const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

/// The user's object and field that it complains about.
pub(crate) struct Complaint<'a> {
    /// Kind, namespace, name, uid, generation and path.
    pub origin: [&'a str; 6],
    pub problem: &'a str,
}

/// Lives until it is dropped; then its stream ends.
pub(crate) struct Refuser {
    requests: mpsc::UnboundedSender<Bytes>,
}

impl Refuser {
    /// Enrols as a pod (`namespace/name`) with this token, and refuses the routes of this name.
    pub(crate) async fn start(
        port: &TlsPort,
        pod: &str,
        token: &str,
        name: &str,
        complaint: &Complaint<'_>,
    ) -> Refuser {
        let key = KeyPair::generate().expect("a key");
        let csr = CertificateParams::default().serialize_request(&key).and_then(|csr| csr.pem());
        let csr = csr.expect("well-formed");
        let chain =
            eventually("a certificate", async || match port.create(bearer(token), csr.as_bytes(), 0).await {
                Outcome { status: status::OK, chain, .. } => Ok(chain),
                other => Err(other),
            })
            .await;
        let stream = port.connect(Some((chain.as_slice(), &key))).await.expect("the port answers");
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("it speaks h2");
        tokio::spawn(connection);
        let (requests, queue) = mpsc::unbounded_channel();
        let frames = futures_util::stream::unfold(queue, |mut queue: mpsc::UnboundedReceiver<Bytes>| async {
            let message = queue.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(Frame::data(message)), queue))
        });
        let request = Request::post(format!("https://gauze-control-plane{ADS}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(StreamBody::new(Box::pin(frames)))
            .expect("well-formed");
        let refuser = Refuser { requests };
        refuser.send(&[
            field(1, &field(1, pod.as_bytes())),
            field(2, ROUTES.as_bytes()),
            field(3, name.as_bytes()),
        ]);
        let answer = sender.send_request(request).await.expect("it answers");
        tokio::spawn(refuse(answer.into_body(), refuser.requests.clone(), detail(name, complaint)));
        refuser
    }

    fn send(&self, fields: &[Vec<u8>]) {
        let _ = self.requests.send(grpc_message(&fields.concat()));
    }
}

/// Refuses each response; the sender also keeps the stream open.
async fn refuse(mut body: Incoming, requests: mpsc::UnboundedSender<Bytes>, detail: Vec<u8>) {
    let mut unread = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        unread.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
        while let Some(message) = take_message(&mut unread) {
            let [nonce, kind] = [5, 4].map(|number| value_of(&message, number).unwrap_or_default());
            let nack = [field(2, kind), field(6, nonce), field(7, &detail)].concat();
            if requests.send(grpc_message(&nack)).is_err() {
                return;
            }
        }
    }
}

fn take_message(unread: &mut BytesMut) -> Option<BytesMut> {
    let length = u32::from_be_bytes(unread.get(1..5)?.try_into().ok()?) as usize;
    (unread.len() >= 5 + length).then(|| unread.split_to(5 + length).split_off(5))
}

/// `google.rpc.Status` with an `envoy.service.discovery.v3.ResourceError`.
fn detail(name: &str, complaint: &Complaint<'_>) -> Vec<u8> {
    let violation =
        [field(1, complaint.origin[5].as_bytes()), field(2, complaint.problem.as_bytes())].concat();
    let parts = complaint.origin.map(|part| field(1, &field(3, part.as_bytes()))).concat();
    let details =
        [any("google.rpc.BadRequest", &field(1, &violation)), any("google.protobuf.ListValue", &parts)];
    let details = details.map(|detail| field(3, &detail)).concat();
    let error = [field(1, &field(1, name.as_bytes())), field(2, &[code(), details].concat())].concat();
    let error = any("envoy.service.discovery.v3.ResourceError", &error);
    [code(), field(2, complaint.problem.as_bytes()), field(3, &error)].concat()
}

/// `code: INVALID_ARGUMENT`.
fn code() -> Vec<u8> {
    vec![0x08, 3]
}

fn any(name: &str, value: &[u8]) -> Vec<u8> {
    [field(1, format!("type.googleapis.com/{name}").as_bytes()), field(2, value)].concat()
}

/// A field of bytes.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [vec![number << 3 | 2], varint(value.len() as u64), value.to_vec()].concat()
}

/// The last value of a field of bytes, in a message that has only such.
fn value_of(message: &[u8], number: u8) -> Option<&[u8]> {
    let (mut rest, mut found) = (message, None);
    while let [tag, after @ ..] = rest {
        let digits = after.iter().position(|byte| byte & 0x80 == 0)? + 1;
        let length =
            after[..digits].iter().rev().fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f));
        let value = after.get(digits..digits + length)?;
        if tag >> 3 == number {
            found = Some(value);
        }
        rest = &after[digits + length..];
    }
    found
}
