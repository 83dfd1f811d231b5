//! What stands in each kind of certificate that the authority makes.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use gauze_model::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber,
};

/// How long before its signing a certificate is valid already: clocks of two machines differ.
pub(super) const BACKDATED: Duration = Duration::from_secs(60);
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Whom a leaf is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A member of the mesh, as client and as server: its SPIFFE id is the only name.
    Workload(SpiffeId),
    /// A server for clients outside the mesh, by DNS names. Without a SPIFFE id it is nobody in the mesh.
    Server(Vec<String>),
}

impl From<SpiffeId> for Subject {
    fn from(id: SpiffeId) -> Subject {
        Subject::Workload(id)
    }
}

pub(super) fn root(trust_domain: &str, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut root = dated(now, now + ROOT_LIFE)?;
    // A common name holds 64 characters at most (X.520 ub-common-name).
    let name: String = format!("gauze root of {trust_domain}").chars().take(64).collect();
    root.distinguished_name.push(DnType::CommonName, name);
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(root)
}

/// SPIFFE X509-SVID for a workload: one URI SAN, critical since the subject is empty; no CA.
pub(super) fn leaf(
    subject: &Subject,
    now: SystemTime,
    expires: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut leaf = dated(now, expires)?;
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.use_authority_key_identifier_extension = true;
    match subject {
        Subject::Workload(id) => {
            leaf.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
            leaf.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        }
        Subject::Server(names) => {
            let names = names.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
            leaf.subject_alt_names = names.collect::<Result<_, rcgen::Error>>()?;
            leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }
    }
    Ok(leaf)
}

/// Without a subject; with a serial number drawn at random, since the same key may be signed twice.
fn dated(now: SystemTime, expires: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    serial[0] = serial[0] & 0x7f | 0x40; // positive, and never shorter
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut certificate = CertificateParams::default();
    certificate.distinguished_name = DistinguishedName::new();
    certificate.serial_number = Some(SerialNumber::from_slice(&serial));
    certificate.not_before = epoch + super::since_epoch(now).saturating_sub(BACKDATED);
    certificate.not_after = epoch + super::since_epoch(expires);
    Ok(certificate)
}
