//! Which sidecar is meant, and how it is asked: over its own ports and files in a demo, through the API server in a
//! cluster.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use crate::admin::Endpoint;
use crate::cluster::Cluster;
use crate::demo::PodCard;
use crate::directory::Directory;
use crate::exit::Failure;
use crate::files;
use crate::pod;
use crate::source::{Place, Source};

/// A sidecar that can be asked.
pub(super) struct Sidecar {
    pub(super) namespace: String,
    pub(super) pod: String,
    app: String,
    reach: Reach,
}

enum Reach {
    Demo(Box<PodCard>),
    Cluster(Cluster, Box<Pod>),
}

/// The sidecar of the pod of that name, else of the only pod of that app.
///
/// # Errors
/// There is no such pod, there are several, or they cannot be looked at.
pub(super) async fn find(place: &Place, asked: &str) -> anyhow::Result<Sidecar> {
    let (namespace, name) = files::split_name(asked);
    let namespace = namespace.or(place.namespace.as_deref());
    let sidecars = match place.source().await? {
        Source::Directory(directory) => of_demo(&directory)?,
        Source::Cluster(cluster) => of_cluster(&cluster, namespace).await?,
    };
    Ok(choose(sidecars, namespace, name)?)
}

fn of_demo(directory: &Directory) -> Result<Vec<Sidecar>, Failure> {
    let cards = cards(&directory.state().join("pods"));
    if cards.is_empty() {
        return Err(Failure::Unreachable(format!(
            "no demo runs in {}; start it with `gauze demo`, or name its --directory",
            directory.path.display()
        )));
    }
    Ok(cards.into_iter().map(Sidecar::of_demo).collect())
}

async fn of_cluster(cluster: &Cluster, namespace: Option<&str>) -> Result<Vec<Sidecar>, Failure> {
    let pods = cluster.pods(namespace).await?;
    let meshed = pods.into_iter().filter(pod::has_live_sidecar);
    let sidecars: Vec<Sidecar> = meshed.map(|pod| Sidecar::in_cluster(cluster, pod)).collect();
    if sidecars.is_empty() {
        let place =
            namespace.map_or_else(|| cluster.name.clone(), |namespace| format!("namespace {namespace}"));
        return Err(Failure::Unreachable(format!(
            "no pod of {place} has a sidecar; `gauze check` says which pods should have one"
        )));
    }
    Ok(sidecars)
}

fn cards(directory: &Path) -> Vec<PodCard> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.filter_map(|path| serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()).collect()
}

/// The pod of that name, else the only one of that app.
fn choose(mut sidecars: Vec<Sidecar>, namespace: Option<&str>, name: &str) -> Result<Sidecar, Failure> {
    sidecars.retain(|sidecar| namespace.is_none_or(|namespace| sidecar.namespace == namespace));
    sidecars.sort_by(|one, other| (&one.namespace, &one.pod).cmp(&(&other.namespace, &other.pod)));
    let names: Vec<String> = sidecars.iter().map(Sidecar::name).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let is_it = |sidecar: &Sidecar| sidecar.pod == name;
    let exact = sidecars.iter().any(is_it);
    let mut found =
        sidecars.into_iter().filter(|sidecar| if exact { is_it(sidecar) } else { sidecar.app == name });
    match (found.next(), found.next()) {
        (Some(sidecar), None) => Ok(sidecar),
        (Some(one), Some(other)) => {
            let several: Vec<String> =
                [one, other].into_iter().chain(found).map(|sidecar| sidecar.name()).collect();
            Err(Failure::Usage(format!("{name} has several pods; name one of them: {}", several.join(", "))))
        }
        (None, _) => Err(Failure::Usage(format!("there is no pod {name} with a sidecar; those are {names}"))),
    }
}

impl Sidecar {
    fn of_demo(card: PodCard) -> Sidecar {
        let (namespace, pod, app) = (card.namespace.clone(), card.pod.clone(), card.app.clone());
        Sidecar { namespace, pod, app, reach: Reach::Demo(Box::new(card)) }
    }

    fn in_cluster(cluster: &Cluster, pod: Pod) -> Sidecar {
        let (namespace, app) = (pod::namespace(&pod).to_owned(), pod::app(&pod).to_owned());
        let reach = Reach::Cluster(cluster.clone(), Box::new(pod.clone()));
        Sidecar { namespace, pod: pod::name(&pod).to_owned(), app, reach }
    }

    fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.pod)
    }

    /// Where it is asked.
    pub(super) fn admin(&self) -> Endpoint {
        match &self.reach {
            Reach::Demo(card) => Endpoint::Tcp(card.admin),
            Reach::Cluster(cluster, pod) => cluster.sidecar(pod),
        }
    }

    /// Where it takes orders: only from its own user.
    pub(super) fn orders(&self) -> Endpoint {
        match &self.reach {
            Reach::Demo(card) => Endpoint::socket(&card.admin_socket),
            Reach::Cluster(cluster, pod) => cluster.sidecar(pod),
        }
    }

    /// Its log, or at least its last lines.
    pub(super) async fn log(&self, lines: usize) -> anyhow::Result<String> {
        match &self.reach {
            Reach::Demo(card) => Ok(std::fs::read_to_string(&card.log)?),
            Reach::Cluster(cluster, pod) => Ok(cluster.sidecar_log(pod, lines).await?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sidecar(namespace: &str, pod: &str, app: &str) -> Sidecar {
        let address = "127.0.0.1:1".parse().unwrap();
        Sidecar::of_demo(PodCard {
            namespace: namespace.into(),
            pod: pod.into(),
            app: app.into(),
            version: "v1".into(),
            address,
            app_address: address,
            admin: address,
            admin_socket: "x.sock".into(),
            metrics: address,
            log: "x.log".into(),
            sidecar_pid: 1,
            app_pid: 2,
        })
    }

    #[test]
    fn a_pod_is_found_by_its_name_or_as_the_only_one_of_its_app() {
        let sidecars = || {
            vec![
                sidecar("shop", "web-0", "web"),
                sidecar("shop", "cart-v1-0", "cart"),
                sidecar("shop", "cart-v2-0", "cart"),
                sidecar("blue", "cart-v1-0", "cart"),
            ]
        };
        for (namespace, name, expected) in [
            (None, "web-0", "shop/web-0"),
            (None, "web", "shop/web-0"),
            (Some("shop"), "web", "shop/web-0"),
            (None, "cart-v2-0", "shop/cart-v2-0"),
            (Some("blue"), "cart", "blue/cart-v1-0"),
        ] {
            let found = choose(sidecars(), namespace, name).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(format!("{}/{}", found.namespace, found.pod), expected, "{name}");
        }
        for (namespace, name, expected) in [
            (None, "cart", "several pods; name one of them: blue/cart-v1-0, shop/cart-v1-0, shop/cart-v2-0"),
            (None, "cart-v1-0", "several pods"),
            (None, "wep", "there is no pod wep"),
            (Some("other"), "web", "those are none"),
        ] {
            let error = choose(sidecars(), namespace, name).err().expect(name);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
