//! The gRPC health protocol (`grpc.health.v1.Health/Check`) as kubelet speaks it: plaintext HTTP/2, one call,
//! and nothing but SERVING is healthy.

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::{App, Failure};

/// `HealthCheckRequest`: an empty service is the whole server.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub(super) service: String,
}

/// `HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

pub(super) const CHECK: &str = "/grpc.health.v1.Health/Check";

/// `HealthCheckResponse.ServingStatus.SERVING`.
pub(super) const SERVING: i32 = 1;

/// Size of an answer, in bytes.
const ANSWER_MAX: usize = 10 * 1024;

/// Asks whether the service is healthy.
///
/// # Errors
/// No connection, no such service, or anything but SERVING.
pub(super) async fn check(app: &App, port: u16, service: &str) -> Result<(), Failure> {
    let broken = |problem: String| Failure::Broken { port, problem };
    let channel = open(app, port).await?;
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(ANSWER_MAX);
    client.ready().await.map_err(|error| broken(error.to_string()))?;
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let answer = client.unary(request, PathAndQuery::from_static(CHECK), codec).await;
    let answer = answer.map_err(|status| broken(format!("{}: {}", status.code(), status.message())))?;
    match answer.into_inner().status {
        SERVING => Ok(()),
        status => Err(Failure::Unhealthy(name(status))),
    }
}

async fn open(app: &App, port: u16) -> Result<Channel, Failure> {
    let broken = |problem: tonic::transport::Error| Failure::Broken { port, problem: problem.to_string() };
    let mut once = Some(TokioIo::new(app.connect(port).await?));
    let connector = tower::service_fn(move |_| {
        let stream = once.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected));
        std::future::ready(stream)
    });
    let endpoint = Endpoint::from_shared(format!("http://{}", std::net::SocketAddr::new(app.ip, port)));
    let endpoint = endpoint.and_then(|endpoint| endpoint.user_agent("kube-probe/gauze")).map_err(broken)?;
    endpoint.connect_with_connector(connector).await.map_err(broken)
}

fn name(status: i32) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => format!("status {other}"),
    }
}
