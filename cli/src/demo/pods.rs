//! The pods that the demo plays the kubelet for, read from the user's own YAML: addresses, names and
//! ServiceAccounts stand there and nowhere else.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::exit::Failure;
use crate::files;

/// The objects of a directory, as they stand in its files.
pub(crate) struct Objects(Vec<Value>);

/// One pod of the shop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) app: String,
    pub(crate) version: String,
    pub(crate) service_account: String,
    /// Where callers reach it: its sidecar listens here.
    pub(crate) address: SocketAddr,
    /// Whom its app calls.
    pub(crate) upstreams: Vec<Upstream>,
}

/// A Service that an app calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upstream {
    pub(crate) service: String,
    /// The address that the app would dial in a cluster.
    pub(crate) cluster_address: SocketAddr,
    /// Where the sidecar listens for it here: the pod's address plus one.
    pub(crate) listen: SocketAddr,
}

/// Who calls whom in the shop.
const CALLS: [(&str, &str); 2] = [("web", "cart"), ("cart", "payments")];

impl Objects {
    /// Reads all YAML files of `directory`; what is no YAML is the control plane's to report.
    pub(crate) fn read(directory: &Path) -> anyhow::Result<Objects> {
        let files = files::read(directory)?;
        Ok(Objects(files.iter().flat_map(|file| file.objects().unwrap_or_default()).collect()))
    }

    /// The object of this kind and name.
    pub(crate) fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.of(kind).find(|object| object["metadata"]["name"] == name)
    }

    fn of(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    /// The pods, in the order of their addresses.
    pub(crate) fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        let mut pods = self.of("Pod").map(|object| self.pod(object)).collect::<anyhow::Result<Vec<Pod>>>()?;
        pods.sort_by_key(|pod| pod.address);
        for app in ["web", "cart", "payments"] {
            if !pods.iter().any(|pod| pod.app == app) {
                bail!(Failure::Usage(format!(
                    "the shop needs a Pod with the label `app: {app}`; `gauze demo --reset` writes all objects anew"
                )));
            }
        }
        Ok(pods)
    }

    fn pod(&self, object: &Value) -> anyhow::Result<Pod> {
        let name = text(object, &["metadata", "name"])?;
        let pod = || -> anyhow::Result<Pod> {
            let ip: IpAddr =
                text(object, &["status", "podIP"])?.parse().context("status.podIP is no address")?;
            let port = object["spec"]["containers"][0]["ports"][0]["containerPort"].as_u64();
            let port = port.and_then(|port| u16::try_from(port).ok());
            let port = port.context("spec.containers[0].ports[0].containerPort is missing")?;
            let app = text(object, &["metadata", "labels", "app"])?;
            Ok(Pod {
                namespace: text(object, &["metadata", "namespace"])?,
                version: text(object, &["metadata", "labels", "version"])?,
                service_account: text(object, &["spec", "serviceAccountName"])?,
                address: SocketAddr::new(ip, port),
                upstreams: self.upstreams(&app, ip, port)?,
                name: name.clone(),
                app,
            })
        };
        pod().with_context(|| format!("Pod {name}"))
    }

    fn upstreams(&self, app: &str, pod: IpAddr, port: u16) -> anyhow::Result<Vec<Upstream>> {
        let mut listen = pod;
        let mut upstreams = Vec::new();
        for (_, service) in CALLS.iter().filter(|(caller, _)| *caller == app) {
            listen = next(listen);
            upstreams.push(Upstream {
                service: (*service).to_owned(),
                cluster_address: self.cluster_address(service)?,
                listen: SocketAddr::new(listen, port),
            });
        }
        Ok(upstreams)
    }

    fn cluster_address(&self, service: &str) -> anyhow::Result<SocketAddr> {
        let object = self.find("Service", service);
        let object = object.with_context(|| format!("there is no Service {service} in the directory"))?;
        let ip: IpAddr = text(object, &["spec", "clusterIP"])?.parse()?;
        let port = object["spec"]["ports"][0]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        Ok(SocketAddr::new(ip, port.with_context(|| format!("Service {service}: spec.ports[0].port"))?))
    }

    /// The shares of a TrafficSplit by Service, as they are wanted: percent of the sum of the weights.
    pub(crate) fn wanted_split(&self, name: &str) -> Vec<(String, f64)> {
        let backends = self.find("TrafficSplit", name).map(|split| &split["spec"]["backends"]);
        let backends = backends.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let weight = |backend: &Value| backend["weight"].as_f64().unwrap_or(0.0);
        let sum: f64 = backends.iter().map(weight).sum();
        let share = |backend: &Value| if sum > 0.0 { 100.0 * weight(backend) / sum } else { 0.0 };
        let name = |backend: &Value| backend["service"].as_str().unwrap_or_default().to_owned();
        backends.iter().map(|backend| (name(backend), share(backend))).collect()
    }
}

/// A field that must be a text.
fn text(object: &Value, path: &[&str]) -> anyhow::Result<String> {
    let mut value = object;
    for field in path {
        value = &value[*field];
    }
    value.as_str().map(str::to_owned).with_context(|| format!("{} is missing", path.join(".")))
}

/// The address that follows.
fn next(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4(u32::from(address).wrapping_add(1).into()),
        IpAddr::V6(address) => IpAddr::V6(u128::from(address).wrapping_add(1).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::objects;

    fn shop() -> Objects {
        let directory = tempfile::tempdir().unwrap();
        objects::write(directory.path(), objects::ADDRESS_BASE, false).unwrap();
        Objects::read(directory.path()).unwrap()
    }

    #[test]
    fn the_pods_stand_in_the_objects() {
        let pods = shop().pods().unwrap();
        let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
        assert_eq!(names, ["web-0", "cart-v1-0", "cart-v2-0", "payments-0"]);
        let web = Pod {
            namespace: "shop".into(),
            name: "web-0".into(),
            app: "web".into(),
            version: "v1".into(),
            service_account: "web".into(),
            address: "127.1.1.1:8080".parse().unwrap(),
            upstreams: vec![Upstream {
                service: "cart".into(),
                cluster_address: "10.96.0.12:80".parse().unwrap(),
                listen: "127.1.1.2:8080".parse().unwrap(),
            }],
        };
        assert_eq!(pods[0], web);
    }

    #[test]
    fn the_split_says_what_is_wanted() {
        let wanted = shop().wanted_split("cart");
        assert_eq!(wanted, [("cart-v1".to_owned(), 90.0), ("cart-v2".to_owned(), 10.0)]);
        assert_eq!(shop().wanted_split("nowhere"), []);
    }

    #[test]
    fn a_directory_without_the_shop_says_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let error = Objects::read(directory.path()).unwrap().pods().unwrap_err();
        assert!(error.to_string().contains("app: web"), "{error}");
    }
}
