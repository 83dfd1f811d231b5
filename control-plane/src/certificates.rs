//! Istio's `CreateCertificate`: a token says who asks, the world says whether that pod exists, and the
//! authority signs the public key of the request for that identity.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gauze_model::{Code, SpiffeId};
use gauze_xds::certificate::{CertificateRequest, CertificateResponse};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use crate::authority::{Authority, RequestError};
use crate::metrics::Metrics;
use crate::port::door::Peer;
use crate::push::Push;
use crate::tokens::{TokenCheck, TokenError};
use crate::workload::Workload;

/// Issues certificates.
#[derive(Clone)]
pub struct Certificates {
    pub authority: Arc<Authority>,
    pub tokens: TokenCheck,
    pub push: Arc<Push>,
    pub metrics: Arc<Metrics>,
    /// Who this control plane is: signed for itself only.
    pub own: SpiffeId,
}

/// Why no certificate is issued.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("there is no `authorization: Bearer TOKEN`, or more than one, in the call's metadata")]
    TokenMissing,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("no pod {0} of ServiceAccount {sa} is known", sa = .0.service_account)]
    PodUnknown(Workload),
    #[error("pod {0} has no sidecar of gauze, so it is not in the mesh")]
    NotMeshed(Workload),
    #[error("{0} is the control plane's own identity, which no pod gets")]
    Reserved(SpiffeId),
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl Certificates {
    /// Answers one call.
    ///
    /// # Errors
    /// The token, its pod or the signing request is refused.
    pub async fn create(
        self,
        request: Request<CertificateRequest>,
    ) -> Result<Response<CertificateResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let client = extensions.get::<Peer>().map(|peer| peer.address.ip());
        // Every connection has one; without, all share one turn.
        let client = client.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        match self.issue(&metadata, &request, client).await {
            Ok(cert_chain) => {
                self.metrics.certificates_issued.inc();
                Ok(Response::new(CertificateResponse { cert_chain }))
            }
            Err(refused) => {
                let code = refused.code().to_string();
                self.metrics.certificates_refused.with_label_values(&[&code]).inc();
                warn!(code, "refused a certificate: {refused}");
                Err(refused.into())
            }
        }
    }

    async fn issue(
        &self,
        metadata: &MetadataMap,
        request: &CertificateRequest,
        client: IpAddr,
    ) -> Result<Vec<String>, Refused> {
        let workload = self.tokens.verify(bearer(metadata)?, client).await?;
        let id = self.admit(&workload)?;
        let life = u64::try_from(request.validity_duration).ok().filter(|seconds| *seconds > 0);
        let life = life.map(Duration::from_secs);
        let chain = self.authority.sign(&request.csr, &id, life, SystemTime::now())?;
        info!(%id, pod = %workload, "issued a certificate");
        Ok(chain)
    }

    /// Who the holder of a good token is in the mesh.
    fn admit(&self, workload: &Workload) -> Result<SpiffeId, Refused> {
        let world = self.push.world();
        if !workload.exists_in(&world) {
            return Err(Refused::PodUnknown(workload.clone()));
        }
        let id = workload.identity(&self.own.trust_domain);
        if id == self.own {
            return Err(Refused::Reserved(id));
        }
        if !workload.is_meshed_in(&world) {
            return Err(Refused::NotMeshed(workload.clone()));
        }
        Ok(id)
    }
}

/// The one token of the call; of two, nobody can say which is meant.
fn bearer(metadata: &MetadataMap) -> Result<&str, Refused> {
    let mut values = metadata.get_all("authorization").iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(Refused::TokenMissing) };
    let value = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
    value.ok_or(Refused::TokenMissing)
}

impl Refused {
    fn code(&self) -> Code {
        match self {
            Refused::TokenMissing => Code::TOKEN_MISSING,
            Refused::Token(TokenError::NotReviewed(_)) => Code::TOKEN_NOT_REVIEWED,
            Refused::Token(_) | Refused::Reserved(_) => Code::TOKEN_REFUSED,
            Refused::NotMeshed(_) => Code::TOKEN_POD_NOT_MESHED,
            Refused::PodUnknown(_) => Code::TOKEN_POD_UNKNOWN,
            Refused::Request(RequestError::Signing(_)) => Code::AUTHORITY_UNAVAILABLE,
            Refused::Request(_) => Code::REQUEST_FOR_CERTIFICATE_REFUSED,
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Status {
        let status = match &refused {
            Refused::Token(TokenError::NotReviewed(_)) => tonic::Code::Unavailable,
            Refused::Token(TokenError::TooMany) => tonic::Code::ResourceExhausted,
            Refused::TokenMissing | Refused::Token(_) => tonic::Code::Unauthenticated,
            Refused::PodUnknown(_) | Refused::NotMeshed(_) | Refused::Reserved(_) => {
                tonic::Code::PermissionDenied
            }
            Refused::Request(RequestError::Signing(_)) => tonic::Code::Internal,
            Refused::Request(_) => tonic::Code::InvalidArgument,
        };
        Status::new(status, format!("{}: {refused}", refused.code()))
    }
}
