//! The annotations of a pod by which its author changes how it is injected: read once, checked, and named in every
//! error. `gauze.dev/mtls` and `gauze.dev/opaque-ports` are only checked here: `translate` reads them live.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use gauze_model::Code;
use gauze_model::access_log::{FormatError, WrittenFormat};
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::quantity::Quantity;
use super::settings::{Amount, InjectionSettings, PRE_STOP_SLEEP_MAX};
use super::{Finding, INJECT, INJECTED, OWN_PORTS, PREFIX};
use crate::logging;
use crate::translate;

/// The annotations that users write, without the prefix.
pub const ANNOTATIONS: [&str; 12] = [
    "inject",
    "skip-inbound-ports",
    "skip-outbound-ports",
    "skip-outbound-cidrs",
    "opaque-ports",
    "mtls",
    "log-level",
    "access-log",
    "cpu",
    "memory",
    "pre-stop-sleep",
    "redirect",
];
/// Entries of one list.
const ENTRIES_MAX: usize = 256;

/// What the pod's author asks of its sidecar; what is `None` is as the operator set it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    pub skip_inbound_ports: Ports,
    pub skip_outbound_ports: Ports,
    pub skip_outbound_cidrs: Vec<IpNet>,
    pub log_level: Option<String>,
    pub access_log: Option<WrittenFormat>,
    pub cpu: Option<Bounds>,
    pub memory: Option<Bounds>,
    /// In seconds.
    pub pre_stop_sleep: Option<u64>,
}

/// `25,9000-9100`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<RangeInclusive<u16>>);

/// `REQUEST` or `REQUEST/LIMIT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub request: Quantity,
    /// Without it the operator's holds.
    pub limit: Option<Quantity>,
}

impl Ports {
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match range.start() == range.end() {
                true => write!(f, "{comma}{}", range.start())?,
                false => write!(f, "{comma}{}-{}", range.start(), range.end())?,
            }
        }
        Ok(())
    }
}

/// Reads what the pod asks for.
///
/// # Errors
/// All that cannot be read, each with its key.
pub fn read(metadata: &ObjectMeta, settings: &InjectionSettings) -> Result<Wishes, Vec<Finding>> {
    let mut reader = Reader { metadata, findings: Vec::new() };
    let cpu = reader.read("cpu", |text| bounds(text, &settings.proxy_cpu_limit, "500m"));
    let memory = reader.read("memory", |text| bounds(text, &settings.proxy_memory_limit, "512Mi"));
    let wishes = Wishes {
        skip_inbound_ports: reader.read("skip-inbound-ports", skipped).unwrap_or_default(),
        skip_outbound_ports: reader.read("skip-outbound-ports", ports).unwrap_or_default(),
        skip_outbound_cidrs: reader.read("skip-outbound-cidrs", networks).unwrap_or_default(),
        log_level: reader.read("log-level", log_level),
        access_log: reader.read("access-log", access_log),
        cpu,
        memory,
        pre_stop_sleep: reader.read("pre-stop-sleep", pre_stop_sleep),
    };
    reader.read("opaque-ports", ports);
    reader.read("mtls", mtls);
    reader.read("redirect", redirect);
    if reader.findings.is_empty() { Ok(wishes) } else { Err(reader.findings) }
}

struct Reader<'m> {
    metadata: &'m ObjectMeta,
    findings: Vec<Finding>,
}

impl Reader<'_> {
    fn read<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let key = format!("{PREFIX}{name}");
        let text = self.metadata.annotations.as_ref()?.get(&key)?;
        let refused = |why| Finding::new(Code::ANNOTATION_INVALID, format!("annotation {key}: {why}"));
        parse(text).map_err(|why| self.findings.push(refused(why))).ok()
    }
}

/// Whether this key under our prefix means nothing.
pub(crate) fn is_unknown(key: &str) -> bool {
    key != INJECTED && key.strip_prefix(PREFIX).is_some_and(|name| !ANNOTATIONS.contains(&name))
}

/// Keys under our prefix that mean nothing: slips of the pen.
pub fn unknown_keys(metadata: &ObjectMeta) -> Vec<Finding> {
    let annotations = metadata.annotations.iter().flat_map(|all| all.keys());
    let annotations = annotations
        .filter(|key| is_unknown(key))
        .map(|key| format!("gauze knows no annotation `{key}`; it knows {}", ANNOTATIONS.join(", ")));
    let labels = metadata.labels.iter().flat_map(|all| all.keys());
    let labels = labels
        .filter(|key| key.starts_with(PREFIX) && *key != INJECT)
        .map(|key| format!("gauze knows no label `{key}`, only `{INJECT}`; other keys are annotations"));
    annotations.chain(labels).map(|message| Finding::new(Code::UNKNOWN_FIELD, message)).collect()
}

fn list<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let entries: Vec<&str> = text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
    if entries.len() > ENTRIES_MAX {
        return Err(format!("{} entries are more than {ENTRIES_MAX}", entries.len()));
    }
    entries.into_iter().map(parse).collect()
}

fn ports(text: &str) -> Result<Ports, String> {
    list(text, |entry| {
        let refused = || format!("`{entry}` is no port; write ports and ranges as in 25,9000-9100");
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port != 0);
        let (first, last) = port(first).zip(port(last)).ok_or_else(refused)?;
        if first <= last { Ok(first..=last) } else { Err(refused()) }
    })
    .map(Ports)
}

fn skipped(text: &str) -> Result<Ports, String> {
    let ports = ports(text)?;
    match OWN_PORTS.into_iter().find(|port| ports.contains(*port)) {
        Some(port) => Err(format!("{port} is a port of the proxy itself and cannot be skipped")),
        None => Ok(ports),
    }
}

fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    list(text, |entry| {
        let refused =
            |_| format!("`{entry}` is no network; write for example 192.168.1.0/24, or 192.168.1.7/32");
        IpNet::from_str(entry).map_err(refused)
    })
}

fn bounds(text: &str, operators: &Amount, example: &str) -> Result<Bounds, String> {
    let (request, limit) = match text.split_once('/') {
        Some((request, limit)) => (request, Some(quantity(limit)?)),
        None => (text, None),
    };
    let request = quantity(request)?;
    if let Some(limit) = limit.as_ref().or(operators.as_ref()).filter(|limit| **limit < request) {
        return Err(format!(
            "`{text}` reserves more than the limit of {limit}; write request and limit, as in {example}/{example}"
        ));
    }
    Ok(Bounds { request, limit })
}

fn quantity(text: &str) -> Result<Quantity, String> {
    text.trim().parse().map_err(|error: super::quantity::NotAQuantity| error.to_string())
}

fn log_level(text: &str) -> Result<String, String> {
    logging::level(text)
}

fn access_log(text: &str) -> Result<WrittenFormat, String> {
    text.parse().map_err(|error: FormatError| error.to_string())
}

fn pre_stop_sleep(text: &str) -> Result<u64, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds <= PRE_STOP_SLEEP_MAX);
    seconds.ok_or_else(|| {
        format!("`{text}` is no number of seconds up to {PRE_STOP_SLEEP_MAX}; write 5, or 0 for none")
    })
}

fn mtls(text: &str) -> Result<(), String> {
    match translate::is_strictness(text) {
        true => Ok(()),
        false => Err(format!(
            "`{text}` is not understood; write strict or permissive, and exceptions as in strict;9090=permissive"
        )),
    }
}

fn redirect(text: &str) -> Result<(), String> {
    match text {
        "init" => Ok(()),
        _ => Err(format!(
            "`{text}` does not exist in this version; the only redirect is `init`, by an init container with NET_ADMIN"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::inject::settings;

    fn metadata(annotations: &[(&str, &str)]) -> ObjectMeta {
        let annotations: BTreeMap<_, _> =
            annotations.iter().map(|(name, text)| (format!("{PREFIX}{name}"), (*text).to_owned())).collect();
        ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() }
    }

    fn read_one(name: &str, text: &str) -> Result<Wishes, String> {
        read(&metadata(&[(name, text)]), &settings::defaults())
            .map_err(|findings| findings[0].message.clone())
    }

    #[test]
    fn each_annotation_is_read() {
        let all = metadata(&[
            ("skip-inbound-ports", "25, 9000-9100"),
            ("skip-outbound-ports", "3306,"),
            ("skip-outbound-cidrs", "192.168.0.0/16,fd00::/8"),
            ("opaque-ports", "5432"),
            ("mtls", "strict;9090=permissive"),
            ("log-level", "debug"),
            ("access-log", "json"),
            ("cpu", "100m"),
            ("memory", "64Mi/1Gi"),
            ("pre-stop-sleep", "5"),
            ("redirect", "init"),
        ]);
        let bounds = |request: &str, limit: Option<&str>| {
            Some(Bounds {
                request: request.parse().unwrap(),
                limit: limit.map(|limit| limit.parse().unwrap()),
            })
        };
        let expected = Wishes {
            skip_inbound_ports: Ports(vec![25..=25, 9000..=9100]),
            skip_outbound_ports: Ports(vec![3306..=3306]),
            skip_outbound_cidrs: vec!["192.168.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
            log_level: Some("debug".to_owned()),
            access_log: Some("json".parse().expect("a format")),
            cpu: bounds("100m", None),
            memory: bounds("64Mi", Some("1Gi")),
            pre_stop_sleep: Some(5),
        };
        assert_eq!(expected.skip_inbound_ports.to_string(), "25,9000-9100");
        assert_eq!(read(&all, &settings::defaults()), Ok(expected));
    }

    #[test]
    fn a_value_that_cannot_be_read_is_refused_with_its_key_and_what_to_write() {
        for (name, text, says) in [
            ("skip-inbound-ports", "http", "25,9000-9100"),
            ("skip-inbound-ports", "0", "25,9000-9100"),
            ("skip-inbound-ports", "70000", "25,9000-9100"),
            ("skip-inbound-ports", "20-10", "25,9000-9100"),
            ("skip-inbound-ports", "15000-16000", "15000 is a port of the proxy"),
            ("skip-outbound-ports", "1;2", "25,9000-9100"),
            ("skip-outbound-cidrs", "192.168.1.7", "192.168.1.7/32"),
            ("opaque-ports", "mysql", "25,9000-9100"),
            ("mtls", "off", "strict or permissive"),
            ("log-level", "info=loud", "error, warn, info"),
            ("log-level", "loud", "`loud` is no level"),
            ("access-log", "xml", "`xml` is no format: write off, json, text"),
            ("access-log", "%REQ(:METHOD)% %FOO%", "at byte 15: %FOO% is no operator"),
            ("cpu", "ten", "100m"),
            ("memory", "64Mi/", "64Mi"),
            ("memory", "512Mi", "limit of 256Mi"),
            ("memory", "2Gi/1Gi", "limit of 1Gi"),
            ("pre-stop-sleep", "2s", "number of seconds"),
            ("pre-stop-sleep", "61", "up to 60"),
            ("redirect", "cni", "`init`"),
        ] {
            let refused = read_one(name, text).expect_err(text);
            assert!(refused.starts_with(&format!("annotation gauze.dev/{name}: ")), "{refused}");
            assert!(refused.contains(says), "{refused}");
        }
    }

    #[test]
    fn all_that_cannot_be_read_is_said_at_once() {
        let found = read(&metadata(&[("cpu", "x"), ("mtls", "x")]), &settings::defaults()).unwrap_err();
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_list_has_a_limit() {
        let many = vec!["1"; ENTRIES_MAX + 1].join(",");
        assert!(read_one("skip-outbound-ports", &many).unwrap_err().contains("more than 256"));
    }

    #[test]
    fn keys_that_mean_nothing_are_reported() {
        let mut metadata = metadata(&[("skip-inbound-port", "25"), ("injected", "x"), ("mtls", "strict")]);
        metadata.labels = Some(
            [("gauze.dev/inject", "enabled"), ("gauze.dev/mtls", "strict"), ("app", "a")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        );
        let found: Vec<_> = unknown_keys(&metadata).into_iter().map(|finding| finding.message).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("`gauze.dev/skip-inbound-port`") && found[1].contains("`gauze.dev/mtls`"));
    }
}
