"""gauze as a peer: the complete sidecar (identity by its own enrolment, configuration on demand, authorization,
metrics, peak-EWMA, retries, outlier detection) fed by the real control plane over a directory of objects."""
import os
import time

from peers import Peer, UNLIMITED, existing
from pods import CLIENT_IP, CONTROL_IP, PORTS, SERVER_IP, SERVICE_IP, Process

CONTROL_PORT = 15010


class Gauze(Peer):
    name = "gauze"
    # One port for every protocol: the sidecar learns from the socket where the application wanted to go.
    outbound = {"http1": 15001, "http2": 15001}
    inbound = {"http1": 15006, "http2": 15006}

    def __init__(self, programs, arguments=()):
        self.programs, self.arguments = programs, list(arguments)

    def find(self):
        return existing(os.path.join(self.programs, "gauze-proxy"))

    def version(self):
        return super().version().split(" ")[-1]

    def prepare(self, bench, path):
        folder = bench.path(f"objects-{path}")
        os.makedirs(folder, exist_ok=True)
        bench.write(f"objects-{path}/mesh.yaml", objects(path))
        argv = [os.path.join(self.programs, "gauze-control-plane"), "--directory", folder,
                "--listen", f"{CONTROL_IP}:{CONTROL_PORT}", "--metrics-listen", "127.0.0.1:0"]
        control_plane = Process(bench, bench.pods.server, argv, bench.load_cpu, "gauze-control-plane")
        wait_for(self.token(bench, "web", path))
        return [control_plane]

    @staticmethod
    def token(bench, pod, path):
        return bench.path(f"objects-{path}", ".gauze", "tokens", f"bench.{pod}")

    def command(self, bench, role, path):
        pod, address = ("client", CLIENT_IP) if role == "outbound" else ("web", SERVER_IP)
        return [self.find(), "--control-plane", f"{CONTROL_IP}:{CONTROL_PORT}",
                "--trust-roots", bench.path(f"objects-{path}", ".gauze", "trust.pem"),
                "--token", self.token(bench, pod, path), "--namespace", "bench", "--pod", pod,
                "--service-account", pod, "--pod-ip", address, "--app", pod, "--log-level", "warn",
                "--outbound-listen", "127.0.0.1:15001", "--inbound-listen", "0.0.0.0:15006",
                *self.arguments]


def wait_for(file):
    end = time.monotonic() + 60
    while not os.path.exists(file):
        if time.monotonic() > end:
            raise RuntimeError(f"the control plane wrote no {file}")
        time.sleep(0.01)


def objects(path):
    """A namespace with two meshed pods, one of them behind a Service, and limits as high as those of the peers."""
    names = {"http1": "http", "http2": "h2c"} if path == "http" else {"http1": "tcp-a", "http2": "tcp-b"}
    ports = [f"{{name: {names[protocol]}, port: {port}, protocol: TCP}}" for protocol, port in PORTS.items()]
    limits = ", ".join(f"{what}: {UNLIMITED}" for what in ("connections", "pending", "requests"))
    return "---".join([
        "\napiVersion: v1\nkind: Namespace\nmetadata: {name: bench}\n",
        *map(account, ("client", "web")), pod("client", CLIENT_IP), pod("web", SERVER_IP),
        f"""
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: bench}}
spec:
  type: ClusterIP
  clusterIP: {SERVICE_IP}
  clusterIPs: [{SERVICE_IP}]
  selector: {{app: web}}
  ports: [{", ".join(ports)}]
""", f"""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-0, namespace: bench, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{", ".join(ports)}]
endpoints:
- addresses: [{SERVER_IP}]
  conditions: {{ready: true, serving: true, terminating: false}}
  targetRef: {{kind: Pod, name: web, namespace: bench}}
""", f"""
apiVersion: gauze.dev/v1alpha1
kind: TrafficPolicy
metadata: {{name: web, namespace: bench}}
spec:
  targetRefs: [{{group: '', kind: Service, name: web}}]
  limits: {{{limits}}}
"""])


def account(name):
    return f"\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: bench}}\n"


def pod(name, address):
    ports = ", ".join(f"{{containerPort: {port}}}" for port in PORTS.values())
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: bench, uid: uid-of-{name}, labels: {{app: {name}}}}}
spec:
  serviceAccountName: {name}
  initContainers: [{{name: gauze-proxy, image: gauze-proxy, restartPolicy: Always}}]
  containers: [{{name: app, image: app, ports: [{ports}]}}]
status:
  phase: Running
  podIP: {address}
  podIPs: [{{ip: {address}}}]
  conditions: [{{type: Ready, status: "True"}}]
"""
