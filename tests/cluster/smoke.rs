//! The cluster itself can do what the other tests rely on.

use serde_json::Value;

use crate::harness::cluster::{Cluster, demo_app};
use crate::harness::eventually;
use crate::harness::objects;

/// The Service of both families that all call.
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: app, namespace: smoke}
spec:
  selector: {app: app}
  ipFamilyPolicy: PreferDualStack
  ports: [{port: 80, targetPort: 8080}]
";

#[tokio::test]
async fn a_pod_with_a_native_sidecar_is_reached_by_name_and_by_each_address_of_its_service() {
    let Some(cluster) = Cluster::shared().await else { return };
    cluster.apply(&objects::namespace("smoke", &[])).await;
    cluster.restart("kube-scheduler").await;
    cluster.apply(SERVICE).await;
    let addresses = ["get", "service", "app", "--namespace=smoke", "--output=jsonpath={.spec.clusterIPs[*]}"];
    let addresses = cluster.kubectl(&addresses).await.expect("the Service has them");
    let hosts: Vec<String> = addresses
        .split(' ')
        .map(|address| if address.contains(':') { format!("[{address}]") } else { address.to_owned() })
        .chain(["app".to_owned(), "app.smoke.svc.cluster.local".to_owned()])
        .collect();
    // A native sidecar: the app starts when its startup probe has succeeded.
    let sidecar = "\n  initContainers: [{name: sidecar, image: gauze.test/pause:dev, imagePullPolicy: Never, restartPolicy: Always}]";
    let mut pods = demo_app("smoke", "app", &[]).replace("\nspec:", &format!("\nspec:{sidecar}"));
    for (index, host) in hosts.iter().enumerate() {
        pods += &demo_app("smoke", &format!("caller-{index}"), &[&format!("--calls=app={host}:80")]);
    }
    cluster.apply(&pods).await;
    cluster.pods_ready("smoke").await;
    for (index, host) in hosts.iter().enumerate() {
        let caller = format!("caller-{index}");
        let said =
            eventually(&format!("{host} answers"), async || cluster.get("smoke", &caller, 8080, "/").await)
                .await;
        let answer: Value = serde_json::from_str(&said).expect("the app answers JSON");
        assert_eq!(answer["calls"][0]["pod"], "app", "{host}: {answer}");
    }
    cluster.leave("smoke").await;
}
