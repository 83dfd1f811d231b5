//! `gauze inject --explain POD`: which rule decides about a pod of a cluster, and whether that was done.

use gauze_control_plane::admin::views::settings_in;
use gauze_control_plane::inject::{Action, Asked, INJECTED, Injector, decide};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use serde_json::{Value, json};

use super::{Arguments, Decided};
use crate::cluster::Cluster;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};
use crate::source::Place;
use crate::{files, pod};

pub(super) async fn explain(arguments: Arguments, place: &Place) -> anyhow::Result<Exit> {
    let cluster = place.cluster().await?;
    let (namespace, name) = files::split_name(&arguments.file);
    let pods = cluster.pods(namespace).await?;
    let pods = choose(pods, name);
    if pods.is_empty() {
        let asked = &arguments.file;
        let text = format!("there is neither a file {asked}, nor a pod or app {asked} in {}", cluster.name);
        return Err(Failure::Usage(text).into());
    }
    let injector = injector(&cluster, &arguments).await;
    let mut decided = Vec::new();
    for pod in &pods {
        decided.push(decide_one(&cluster, pod, &injector).await?);
    }
    let done: Vec<String> = pods.iter().zip(&decided).map(|(pod, decided)| done(pod, decided)).collect();
    print(arguments.output.format, &decided, &done)?;
    let refused = decided.iter().any(|decided| matches!(decided.decision.action, Action::Refuse(_)));
    Ok(if refused { Exit::Problems } else { Exit::Fine })
}

/// The pods of that name, else those of that app.
fn choose(pods: Vec<Pod>, name: &str) -> Vec<Pod> {
    let exact = pods.iter().any(|pod| pod::name(pod) == name);
    let is_it = |pod: &Pod| if exact { pod::name(pod) == name } else { pod::app(pod) == name };
    pods.into_iter().filter(is_it).collect()
}

/// As the control plane has it; one that cannot be asked leaves the flags of this command. No rule depends on it.
async fn injector(cluster: &Cluster, arguments: &Arguments) -> Injector {
    let about = match cluster.control_plane().await {
        Ok(control_plane) => control_plane.get_json("/about").await.unwrap_or_default(),
        Err(_) => Value::Null,
    };
    let mesh = settings_in(&about);
    Injector {
        settings: arguments.injection.clone(),
        trust_domain: mesh.trust_domain,
        system_namespace: cluster.system_namespace.clone(),
        mesh_networks: mesh.mesh_networks,
    }
}

async fn decide_one(cluster: &Cluster, pod: &Pod, injector: &Injector) -> Result<Decided, Failure> {
    let name = pod::namespace(pod);
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = cluster.ask("read namespaces", namespaces.get(name)).await?;
    let decision = decide(pod, &Asked::by(&namespace), injector);
    Ok(Decided { object: format!("Pod {name}/{}", pod::name(pod)), decision })
}

/// What was done when the pod was created, where it can be told, and what that means.
fn done(pod: &Pod, Decided { decision, .. }: &Decided) -> String {
    let annotations = pod.metadata.annotations.as_ref();
    let annotation = annotations.and_then(|annotations| annotations.get(INJECTED));
    let sidecar = gauze_control_plane::translate::is_meshed(pod);
    match (sidecar, decision.injects(), annotation) {
        (true, _, Some(said)) => format!("it has the sidecar ({said})"),
        (true, _, None) => "it has the sidecar".to_owned(),
        (false, true, _) => {
            "it has none: it is older than the rule, or injection was not in force; a new pod gets one"
                .to_owned()
        }
        (false, false, _) => "it has none".to_owned(),
    }
}

fn print(format: Format, decided: &[Decided], done: &[String]) -> anyhow::Result<()> {
    if format == Format::Table {
        super::show(format, decided)?;
        for (Decided { object, .. }, done) in decided.iter().zip(done) {
            println!("{object}: {done}");
        }
        return Ok(());
    }
    let values = decided.iter().zip(done).map(|(decided, done)| {
        let mut value = super::value(decided);
        value["done"] = json!(done);
        value
    });
    output::print_value(format, &Value::Array(values.collect()))
}

#[cfg(test)]
mod tests {
    use gauze_control_plane::inject::{Decision, Rule};

    use super::*;
    use crate::check::facts::example::{injected, object, pod};

    #[test]
    fn what_was_done_is_told_from_what_would_be() {
        let inject = || Action::Inject(Box::default());
        for (what, pod, action, expected) in [
            (
                "asked for and there",
                injected("shop/web", "0.1.0"),
                inject(),
                "it has the sidecar (namespace-label: the namespace asks, by gauze 0.1.0)",
            ),
            ("asked for and not there", pod("shop/web"), inject(), "a new pod gets one"),
            ("not asked for", pod("shop/web"), Action::Leave, "it has none"),
            ("no longer asked for", injected("shop/web", "0.1.0"), Action::Leave, "it has the sidecar"),
        ] {
            let decision = Decision { action, rule: Rule::NamespaceLabel, warnings: Vec::new() };
            let said = done(&object(pod), &Decided { object: String::new(), decision });
            assert!(said.contains(expected), "{what}: {said}");
        }
    }

    #[test]
    fn a_name_is_a_pod_and_else_an_app() {
        let pods = || vec![object(pod("shop/web")), object(pod("shop/web-1")), object(pod("blog/web-2"))];
        let names =
            |name: &str| choose(pods(), name).iter().map(|pod| pod::name(pod).to_owned()).collect::<Vec<_>>();
        assert_eq!(names("web-1"), ["web-1"]);
        assert_eq!(names("web"), ["web"]);
        assert_eq!(names("wep"), Vec::<String>::new());
    }
}
