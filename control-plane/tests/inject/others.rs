//! What other webhooks do to a pod after ours, and the API server's own plugins: the reasons why it asks us again.

use serde_json::{Value, json};

type Change = fn(&mut Value);

pub(crate) const CHANGES: [(&str, Change); 7] = [
    ("a container with probes is added", add_container),
    ("a restartable init container is put first", put_init_container_first),
    ("init containers are put in the order of their names", sort_init_containers),
    ("volumes are put in the opposite order", |pod| reverse(&mut pod["spec"]["volumes"])),
    ("all images come from a mirror", use_mirror),
    ("the API token is mounted everywhere", mount_api_token),
    ("the API server fills in defaults", fill_in_defaults),
];

/// The sidecar stays first, the other's changes stay, and what was added is asked through us.
pub(crate) fn check(changed: &Value, again: &Value, what: &str) {
    let names = |pod: &Value| -> Vec<String> {
        let init = pod["spec"]["initContainers"].as_array().into_iter().flatten();
        let apps = pod["spec"]["containers"].as_array().into_iter().flatten();
        init.chain(apps).map(|container| container["name"].to_string()).collect()
    };
    let (mut before, mut after) = (names(changed), names(again));
    assert_eq!(after[..2], ["\"gauze-redirect\"", "\"gauze-proxy\""], "{what}");
    before.sort();
    after.sort();
    assert_eq!(before, after, "{what}: no container is lost or doubled");
    for path in ["/spec/volumes", "/metadata"] {
        assert_eq!(changed.pointer(path), again.pointer(path), "{what}: {path}");
    }
    let ours = &again["spec"]["initContainers"].as_array().expect("an injected pod has it")[..2];
    assert!(
        ours.iter().all(|container| !container.to_string().contains("kubernetes.io/serviceaccount")),
        "{what}"
    );
    let images = |pod: &Value| pod.to_string().matches("mirror.test/").count();
    assert_eq!(images(changed), images(again), "{what}: images");
    let text = again["spec"].to_string();
    assert!(!text.contains("\"port\":7777,\"scheme\""), "{what}: a probe is asked past the sidecar");
    let asked = changed.to_string().contains("7777");
    assert_eq!(text.contains("--probe=added/live="), asked, "{what}: the added probe");
}

fn list<'a>(pod: &'a mut Value, field: &str) -> &'a mut Vec<Value> {
    pod["spec"][field].as_array_mut().expect("an injected pod has it")
}

fn add_container(pod: &mut Value) {
    let probe = json!({ "httpGet": { "path": "/", "port": 7777, "scheme": "HTTP" } });
    list(pod, "containers").push(json!({ "name": "added", "image": "a", "livenessProbe": probe }));
}

fn put_init_container_first(pod: &mut Value) {
    list(pod, "initContainers")
        .insert(0, json!({ "name": "first", "image": "a", "restartPolicy": "Always" }));
}

fn sort_init_containers(pod: &mut Value) {
    list(pod, "initContainers").sort_by_key(|container| container["name"].to_string());
}

fn reverse(list: &mut Value) {
    list.as_array_mut().expect("a list").reverse();
}

fn containers(pod: &mut Value) -> Vec<&mut Value> {
    let spec = pod["spec"].as_object_mut().expect("a spec");
    let lists =
        spec.iter_mut().filter(|(field, _)| ["initContainers", "containers"].contains(&field.as_str()));
    lists.flat_map(|(_, list)| list.as_array_mut().expect("a list")).collect()
}

fn use_mirror(pod: &mut Value) {
    for container in containers(pod) {
        container["image"] =
            format!("mirror.test/{}", container["image"].as_str().unwrap_or_default()).into();
    }
}

fn mount_api_token(pod: &mut Value) {
    list(pod, "volumes").push(json!({ "name": "kube-api-access-x", "projected": { "sources": [] } }));
    let mount = json!({
        "name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true,
    });
    for container in containers(pod) {
        let mut mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
        mounts.push(mount.clone());
        container["volumeMounts"] = mounts.into();
    }
}

fn fill_in_defaults(pod: &mut Value) {
    for container in containers(pod) {
        container["terminationMessagePath"] = "/dev/termination-log".into();
        for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
            if let Some(probe) = container.get_mut(field) {
                probe["successThreshold"] = 1.into();
            }
        }
    }
}
