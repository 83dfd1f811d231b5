//! The cluster itself can do what the other tests rely on.

use crate::harness::cluster::Cluster;

/// A pod with a native sidecar, and a Service of both families for it.
const POD: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: smoke}
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: smoke}
spec:
  selector: {app: app}
  ipFamilyPolicy: RequireDualStack
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: app, namespace: smoke, labels: {app: app}}
spec:
  initContainers:
  - {name: sidecar, image: gauze.test/pause:dev, restartPolicy: Always}
  containers:
  - name: app
    image: gauze.test/gauze:dev
    imagePullPolicy: Never
    args: [demo-app, --help]
";

#[tokio::test]
async fn a_pod_with_a_native_sidecar_becomes_ready() {
    let Some(cluster) = Cluster::shared().await else { return };
    cluster.apply(POD).await;
    println!("{:?}", cluster.kubectl(&["get", "pods", "-A", "-o", "wide"]).await);
    println!("{:?}", cluster.run(&["ip", "addr"]).await);
    println!("{:?}", cluster.helm(&["ls", "-A"]).await);
    println!("{:?}", cluster.gauze(&["--version"]).await);
    assert!(cluster.restart("kube-scheduler").await);
}
