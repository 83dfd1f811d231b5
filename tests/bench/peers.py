"""The peers: how Envoy and haproxy are configured as a pair of sidecars, and the backend behind them.

A peer is a class with `name`, `find`, `version` and `command(bench, role, path)`, which writes a configuration and
returns the command line; its instance stands in `ALL`. Role is `outbound` (in the client's pod) or `inbound`. Path:

  http    client -> outbound -> mutual TLS 1.3, HTTP/2 -> inbound -> server
  opaque  client -> outbound -> mutual TLS 1.3, bytes  -> inbound -> server
"""
import os
import shutil
import subprocess

from pods import PORTS, SERVER_IP

CACHE = os.environ.get("GAUZE_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "gauze")
NAMES = {"outbound": "client.bench.mesh.local", "inbound": "web.bench.mesh.local"}
UNLIMITED = 1 << 30


class Peer:
    name = ""
    outbound = {"http1": 15001, "http2": 15002}
    inbound = {"http1": 15006, "http2": 15007}

    def find(self):
        """The program, or `None`."""

    def version(self):
        done = subprocess.run([self.find(), *self.ask_version], capture_output=True, text=True, timeout=20)
        return " ".join((done.stdout + done.stderr).split())[:120]

    ask_version = ("--version",)

    def size(self):
        """Of the program, in bytes."""
        return os.path.getsize(os.path.realpath(self.find()))

    def prepare(self, bench, path):
        """Starts what all sidecars of a pair need; returns the processes."""
        return []

    def command(self, bench, role, path):
        raise NotImplementedError


class Envoy(Peer):
    """Bare: router filter only; no statistics filters, no access log, no RBAC."""
    name = "envoy"

    def find(self):
        return os.environ.get("ENVOY_BIN") or shutil.which("envoy") or existing(f"{CACHE}/python/bin/envoy")

    def version(self):
        return super().version().rsplit("version:", 1)[-1].strip()

    def command(self, bench, role, path):
        tls = envoy_tls(certificates(bench, role), path)
        configuration = {
            "node": {"id": role, "cluster": "bench"},
            "static_resources": {
                "listeners": [self.listener(role, path, protocol, tls) for protocol in PORTS],
                "clusters": [self.cluster(role, path, protocol, tls) for protocol in PORTS]}}
        file = bench.write_json(f"envoy-{role}.json", configuration)
        return [self.find(), "-c", file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]

    def listener(self, role, path, protocol, tls):
        if path == "opaque":
            network_filter = {"name": "tcp", "typed_config": {
                "@type": extension("filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": protocol, "cluster": protocol}}
        else:
            router = {"name": "router", "typed_config": {"@type": extension("filters.http.router.v3.Router")}}
            route = {"match": {"prefix": "/"}, "route": {"cluster": protocol}}
            network_filter = {"name": "http", "typed_config": {
                "@type": extension("filters.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": protocol, "codec_type": "AUTO", "http_filters": [router],
                "route_config": {"name": protocol, "virtual_hosts": [
                    {"name": "all", "domains": ["*"], "routes": [route]}]}}}
        chain = {"filters": [network_filter]}
        if role == "inbound":
            chain["transport_socket"] = {"name": "tls", "typed_config": {
                "@type": extension("transport_sockets.tls.v3.DownstreamTlsContext"),
                "require_client_certificate": True, "common_tls_context": tls}}
        return {"name": protocol, "per_connection_buffer_limit_bytes": 32768, "filter_chains": [chain],
                "address": socket_address("0.0.0.0", getattr(self, role)[protocol])}

    def cluster(self, role, path, protocol, tls):
        endpoint = {"endpoint": {"address": socket_address(SERVER_IP, PORTS[protocol])}}
        limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), UNLIMITED)
        cluster = {
            "name": protocol, "connect_timeout": "5s", "per_connection_buffer_limit_bytes": 32768, "type": "STATIC",
            "load_assignment": {"cluster_name": protocol, "endpoints": [{"lb_endpoints": [endpoint]}]},
            "circuit_breakers": {"thresholds": [limits]}}
        if path == "http":
            is_http2 = protocol == "http2" or role == "outbound"
            options = "http2_protocol_options" if is_http2 else "http_protocol_options"
            cluster["typed_extension_protocol_options"] = {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": extension("upstreams.http.v3.HttpProtocolOptions"),
                    "explicit_http_config": {options: {}}}}
        if role == "outbound":
            cluster["transport_socket"] = {"name": "tls", "typed_config": {
                "@type": extension("transport_sockets.tls.v3.UpstreamTlsContext"),
                "sni": NAMES["inbound"], "common_tls_context": tls}}
        return cluster


def envoy_tls(files, path):
    tls = {"tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
           "tls_certificates": [{"certificate_chain": {"filename": files["certificate"]},
                                 "private_key": {"filename": files["key"]}}],
           "validation_context": {"trusted_ca": {"filename": files["root"]}, "match_typed_subject_alt_names": [
               {"san_type": "DNS", "matcher": {"exact": files["other"]}}]}}
    return tls if path == "opaque" else {**tls, "alpn_protocols": ["h2"]}


def extension(name):
    return f"type.googleapis.com/envoy.extensions.{name}"


def socket_address(address, port):
    return {"socket_address": {"address": address, "port_value": port}}


class Haproxy(Peer):
    """No identity-based policy, no metrics by route: the floor of what carrying costs."""
    name = "haproxy"
    ask_version = ("-v",)

    def find(self):
        return os.environ.get("HAPROXY_BIN") or shutil.which("haproxy") or existing("/usr/sbin/haproxy")

    def version(self):
        return super().version().split(" ")[2]

    def command(self, bench, role, path):
        files = certificates(bench, role)
        mode = "tcp" if path == "opaque" else "http"
        lines = ["global", " nbthread 1", " maxconn 9000", "defaults", f" mode {mode}", " timeout client 1h",
                 " timeout server 1h", " timeout connect 5s"]
        if mode == "http":
            lines += [" timeout http-keep-alive 1h", " http-reuse always"]
        tls = f"ssl ssl-min-ver TLSv1.3 ca-file {files['root']} crt {files['both']} verify required"
        tls += " alpn h2" if mode == "http" else ""
        for protocol, port in PORTS.items():
            app = " proto h2" if mode == "http" and protocol == "http2" else ""
            if role == "inbound":
                bind, server = f" {tls}", app
            else:
                bind, server = app, f" {tls} sni str({files['other']}) verifyhost {files['other']}"
            lines += [f"frontend {protocol}_in", f" bind 0.0.0.0:{getattr(self, role)[protocol]}{bind}",
                      f" default_backend {protocol}", f"backend {protocol}", f" server s {SERVER_IP}:{port}{server}"]
        return [self.find(), "-db", "-f", bench.write(f"haproxy-{role}.cfg", "\n".join(lines) + "\n")]


def existing(path):
    return path if os.path.exists(path) else None


def certificates(bench, role):
    """An ECDSA P-256 root and a leaf for each side, made once per run; the files of this side."""
    folder = bench.path("certificates")
    if not os.path.exists(folder):
        make_certificates(folder)
    name, other = NAMES[role], NAMES["inbound" if role == "outbound" else "outbound"]
    return {"certificate": f"{folder}/{name}.pem", "key": f"{folder}/{name}.key", "both": f"{folder}/{name}.both",
            "root": f"{folder}/root.pem", "other": other}


def make_certificates(folder):
    os.makedirs(folder)

    def openssl(*argv):
        subprocess.run(["openssl", *argv], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl("req", "-x509", *curve, "-keyout", "root.key", "-out", "root.pem", "-subj", "/CN=bench root",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    for name in NAMES.values():
        openssl("req", "-x509", *curve, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}",
                "-CA", "root.pem", "-CAkey", "root.key", "-addext", f"subjectAltName=DNS:{name}",
                "-addext", "basicConstraints=critical,CA:FALSE",
                "-addext", "extendedKeyUsage=serverAuth,clientAuth")
        with open(f"{folder}/{name}.both", "w") as both:
            for part in ("pem", "key"):
                with open(f"{folder}/{name}.{part}") as file:
                    both.write(file.read())


def backend(bench):
    """The command line of the server: one nginx worker that answers 1 KiB from memory."""
    program = os.environ.get("NGINX_BIN") or shutil.which("nginx") or "/usr/sbin/nginx"
    answer = "location / { return 200 '%s'; }" % ("x" * 1024)
    folders = "".join(f" {kind}_temp_path {bench.folder}/{kind};"
                      for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    file = bench.write("nginx.conf", f"""
daemon off; user root; worker_processes 1; pid {bench.folder}/nginx.pid; error_log {bench.folder}/nginx.log warn;
worker_rlimit_nofile 19000;
events {{ worker_connections 18000; }}
http {{ access_log off; keepalive_timeout 3600s; keepalive_requests 1000000000; {folders}
 server {{ listen 0.0.0.0:8080 backlog=8192; {answer} }}
 server {{ listen 0.0.0.0:8081 http2 backlog=8192; http2_max_concurrent_streams 1024; {answer} }}
}}""")
    return [program, "-p", bench.folder, "-c", file]
