//! The probes and hooks of a pod as the injector hands them over: Kubernetes' own handlers (`v1.Probe`,
//! `v1.LifecycleHandler`) with ports as numbers. Read strictly: what is not understood is refused at the
//! start, not asked wrongly for ever.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;

/// What kubelet asks of the containers of this pod.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Probes")]
pub struct ProbeSettings {
    /// Asked of the app when `/probe/CONTAINER/KIND` is asked of us; KIND is live, ready or startup.
    /// JSON: a handler of Kubernetes (httpGet, tcpSocket, grpc) with its port as a number, and timeoutSeconds
    #[arg(long = "probe", value_name = "CONTAINER/KIND=JSON")]
    pub probes: Vec<Probe>,

    /// Asked of the app when `/hook/CONTAINER/KIND/WORD` is asked of us; KIND is post-start or pre-stop, JSON as for
    /// `--probe` (httpGet only). A hook acts, and this port answers anybody: WORD must be random
    #[arg(long = "hook", value_name = "CONTAINER/KIND/WORD=JSON")]
    pub hooks: Vec<Hook>,
}

/// A probe of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub container: String,
    pub kind: ProbeKind,
    pub check: Check,
    /// From the question to the verdict (`v1.Probe.timeoutSeconds`).
    pub timeout: Duration,
}

/// When kubelet asks (`v1.Container.livenessProbe` and its siblings).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    Live,
    Ready,
    Startup,
}

/// A hook of one container (`v1.Lifecycle`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub container: String,
    pub kind: HookKind,
    /// Known to kubelet and us only.
    pub word: String,
    pub get: HttpGet,
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    PostStart,
    PreStop,
}

/// How the app is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    Http(HttpGet),
    Tcp { port: u16 },
    Grpc { port: u16, service: String },
}

/// A request of the app (`v1.HTTPGetAction`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGet {
    pub port: u16,
    pub is_tls: bool,
    pub target: PathAndQuery,
    /// The `Host` header, where one is declared.
    pub host: Option<HeaderValue>,
    pub headers: HeaderMap,
}

/// Number of probes, and of hooks, of a pod.
const DECLARED_MAX: usize = 256;

/// Length of a hook's word. The injector draws more; less could be guessed.
const WORD_LENGTH_MIN: usize = 16;

/// Kubernetes sets no limit to a hook; kubelet's grace period ends the pod long before this.
const HOOK_TIMEOUT: Duration = Duration::from_secs(3600);

/// `v1.Probe.timeoutSeconds` where it is not said.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

impl ProbeSettings {
    /// What no single flag can know.
    ///
    /// # Errors
    /// Something is declared twice, leads to the sidecar itself, or there is no address to ask.
    pub(crate) fn check(&self, pod_ips: &[IpAddr], own_ports: &[u16]) -> Result<(), String> {
        let probes = self.probes.iter().map(|probe| (probe.to_string(), probe.check.port()));
        let hooks = self.hooks.iter().map(|hook| (hook.to_string(), hook.get.port));
        let all: Vec<(String, u16)> = probes.chain(hooks).collect();
        if self.probes.len().max(self.hooks.len()) > DECLARED_MAX {
            return Err(format!("at most {DECLARED_MAX} probes and as many hooks can be declared"));
        }
        if pod_ips.is_empty() && !all.is_empty() {
            return Err("--probe and --hook need the pod's addresses: add --pod-ip IP".to_owned());
        }
        for (index, (name, port)) in all.iter().enumerate() {
            if own_ports.contains(port) {
                return Err(format!("{name}: port {port} is the sidecar's own"));
            }
            if all[..index].iter().any(|(other, _)| other == name) {
                return Err(format!("{name} is declared twice"));
            }
        }
        Ok(())
    }
}

impl Check {
    pub(crate) fn port(&self) -> u16 {
        match self {
            Check::Http(get) => get.port,
            Check::Tcp { port } | Check::Grpc { port, .. } => *port,
        }
    }
}

/// As the flag begins: what people read in messages, logs and metrics.
impl Display for Probe {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "--probe {}/{}", self.container, self.kind)
    }
}

/// Without the word, which is nobody's business.
impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "--hook {}/{}", self.container, self.kind)
    }
}

impl Display for ProbeKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProbeKind::Live => "live",
            ProbeKind::Ready => "ready",
            ProbeKind::Startup => "startup",
        })
    }
}

impl Display for HookKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HookKind::PostStart => "post-start",
            HookKind::PreStop => "pre-stop",
        })
    }
}

impl FromStr for Probe {
    type Err = String;

    fn from_str(text: &str) -> Result<Probe, String> {
        const FORM: &str = "expected CONTAINER/live=JSON, CONTAINER/ready=JSON or CONTAINER/startup=JSON";
        let (path, json) = text.split_once('=').ok_or(FORM)?;
        let (container, kind) = path.split_once('/').ok_or(FORM)?;
        let kind = match kind {
            "live" => ProbeKind::Live,
            "ready" => ProbeKind::Ready,
            "startup" => ProbeKind::Startup,
            _ => return Err(FORM.to_owned()),
        };
        let handler = Handler::read(json)?;
        let timeout = handler.timeout().unwrap_or(PROBE_TIMEOUT);
        Ok(Probe { container: container_name(container)?, kind, timeout, check: handler.check()? })
    }
}

impl FromStr for Hook {
    type Err = String;

    fn from_str(text: &str) -> Result<Hook, String> {
        const FORM: &str = "expected CONTAINER/post-start/WORD=JSON or CONTAINER/pre-stop/WORD=JSON";
        let (path, json) = text.split_once('=').ok_or(FORM)?;
        let [container, kind, word] =
            path.split('/').collect::<Vec<_>>().try_into().map_err(|_| FORM.to_owned())?;
        let kind = match kind {
            "post-start" => HookKind::PostStart,
            "pre-stop" => HookKind::PreStop,
            _ => return Err(FORM.to_owned()),
        };
        if word.len() < WORD_LENGTH_MIN || !word.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(format!(
                "a hook's word is {WORD_LENGTH_MIN} or more letters and digits, drawn at random"
            ));
        }
        let handler = Handler::read(json)?;
        let timeout = handler.timeout().unwrap_or(HOOK_TIMEOUT);
        let Check::Http(get) = handler.check()? else {
            return Err("a hook is an httpGet; kubelet runs the others itself".to_owned());
        };
        Ok(Hook { container: container_name(container)?, kind, word: word.to_owned(), get, timeout })
    }
}

/// RFC 1123 label, as Kubernetes names containers.
fn container_name(text: &str) -> Result<String, String> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = (1..=63).contains(&text.len())
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if is_label { Ok(text.to_owned()) } else { Err(format!("`{text}` is not the name of a container")) }
}

// What is written, field by field as in Kubernetes.

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Handler {
    http_get: Option<HttpGetAction>,
    tcp_socket: Option<TcpSocketAction>,
    grpc: Option<GrpcAction>,
    timeout_seconds: Option<NonZeroU32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HttpGetAction {
    #[serde(default)]
    path: String,
    port: NonZeroU16,
    #[serde(default)]
    host: String,
    #[serde(default)]
    scheme: Scheme,
    #[serde(default)]
    http_headers: Vec<HttpHeader>,
}

#[derive(Default, Deserialize)]
enum Scheme {
    #[default]
    #[serde(rename = "HTTP", alias = "")]
    Http,
    #[serde(rename = "HTTPS")]
    Https,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpHeader {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TcpSocketAction {
    port: NonZeroU16,
    #[serde(default)]
    host: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrpcAction {
    port: NonZeroU16,
    service: Option<String>,
}

impl Handler {
    fn read(json: &str) -> Result<Handler, String> {
        serde_json::from_str(json)
            .map_err(|problem| format!("not a handler with its port as a number: {problem}"))
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout_seconds.map(|seconds| Duration::from_secs(seconds.get().into()))
    }

    fn check(self) -> Result<Check, String> {
        match (self.http_get, self.tcp_socket, self.grpc) {
            (Some(get), None, None) => Ok(Check::Http(get.read()?)),
            (None, Some(tcp), None) => {
                own_host(&tcp.host, "tcpSocket.host")?;
                Ok(Check::Tcp { port: tcp.port.get() })
            }
            (None, None, Some(grpc)) => {
                Ok(Check::Grpc { port: grpc.port.get(), service: grpc.service.unwrap_or_default() })
            }
            _ => Err("expected exactly one of httpGet, tcpSocket and grpc".to_owned()),
        }
    }
}

impl HttpGetAction {
    fn read(self) -> Result<HttpGet, String> {
        own_host(&self.host, "httpGet.host")?;
        let mut headers = HeaderMap::new();
        for (index, HttpHeader { name, value }) in self.http_headers.iter().enumerate() {
            let at = |problem: &dyn Display| format!("httpGet.httpHeaders[{index}]: {problem}");
            let name = HeaderName::from_str(name).map_err(|problem| at(&problem))?;
            headers.append(name, HeaderValue::from_str(value).map_err(|problem| at(&problem))?);
        }
        let host = headers.remove(header::HOST).filter(|host| !host.is_empty());
        let is_tls = matches!(self.scheme, Scheme::Https);
        Ok(HttpGet { port: self.port.get(), is_tls, target: target(&self.path)?, host, headers })
    }
}

/// We ask our own pod and nobody else. kubelet needs no help to ask another host: its question does not
/// pass through this pod.
fn own_host(host: &str, field: &str) -> Result<(), String> {
    match host {
        "" => Ok(()),
        _ => Err(format!("{field} is `{host}`: a probe of another host stays kubelet's")),
    }
}

/// As Go's `net/url` would send it: without fragment, the rest escaped where it must be.
fn target(path: &str) -> Result<PathAndQuery, String> {
    let path = path.split('#').next().unwrap_or_default();
    let mut target = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        target.push('/');
    }
    for byte in path.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                target += &format!("%{byte:02X}")
            }
            _ if byte.is_ascii_graphic() => target.push(byte.into()),
            _ => target += &format!("%{byte:02X}"),
        }
    }
    PathAndQuery::from_str(&target).map_err(|problem| format!("httpGet.path `{path}`: {problem}"))
}

#[cfg(test)]
mod tests;
