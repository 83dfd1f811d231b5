"""Two network namespaces, joined by a veth pair, that play the client's and the server's pod, and processes in them.

Nothing leaves the machine, and everything is gone when `Pods.remove` was called.
"""
import os
import signal
import subprocess
import time

CLIENT_IP, SERVER_IP, CONTROL_IP = "10.77.0.1", "10.77.0.2", "10.77.0.3"
SERVICE_IP = "10.96.0.10"
# Where the application listens. HTTP/2 without TLS, by prior knowledge.
PORTS = {"http1": 8080, "http2": 8081}
TICKS = os.sysconf("SC_CLK_TCK")


def shell(*argv, check=True):
    return subprocess.run(argv, check=check, capture_output=True, text=True)


class Pods:
    """The two pods. Traffic to the service goes to the outbound sidecar, traffic to the server's pod to the inbound
    one, by the same redirect rules for every peer: all get the same kernel path, whoever reads the original
    destination."""

    def __init__(self):
        tag = f"gauze-bench-{os.getpid()}"
        self.client, self.server = f"{tag}-c", f"{tag}-s"
        for pod in (self.client, self.server):
            shell("ip", "netns", "add", pod)
            shell("ip", "-n", pod, "link", "set", "lo", "up")
        shell("ip", "-n", self.client, "link", "add", "e0", "type", "veth", "peer", "name", "e0",
              "netns", self.server)
        for pod, addresses in ((self.client, [CLIENT_IP]), (self.server, [SERVER_IP, CONTROL_IP])):
            for address in addresses:
                shell("ip", "-n", pod, "addr", "add", f"{address}/24", "dev", "e0")
            shell("ip", "-n", pod, "link", "set", "e0", "up")
            # Where our sidecar asks whether it is redirected.
            shell("ip", "-n", pod, "route", "add", "192.0.2.1/32", "dev", "e0")
            for setting in ("net.ipv4.ip_local_port_range=10240 64000", "net.core.somaxconn=8192",
                            "net.ipv4.ip_local_reserved_ports=15000-15100", "net.ipv4.tcp_tw_reuse=1"):
                shell("ip", "netns", "exec", pod, "sysctl", "-qw", setting, check=False)
        shell("ip", "-n", self.client, "route", "add", f"{SERVICE_IP}/32", "dev", "e0")

    def redirect(self, peer):
        """`None`: no redirect, but rules nevertheless, so that connections are tracked all the same."""
        for pod in (self.client, self.server):
            self.rule(pod, "-F")
            self.rule(pod, "-A", "OUTPUT", "-p", "tcp", "-d", "192.0.2.1", "--dport", "15002",
                      "-j", "REDIRECT", "--to-ports", "15001")
        if peer is None:
            return
        for protocol, port in PORTS.items():
            self.rule(self.client, "-A", "OUTPUT", "-p", "tcp", "-d", SERVICE_IP, "--dport", str(port),
                      "-j", "REDIRECT", "--to-ports", str(peer.outbound[protocol]))
            self.rule(self.server, "-A", "PREROUTING", "-i", "e0", "-p", "tcp", "--dport", str(port),
                      "-j", "REDIRECT", "--to-ports", str(peer.inbound[protocol]))

    @staticmethod
    def rule(pod, *arguments):
        shell("ip", "netns", "exec", pod, "iptables", "-t", "nat", *arguments)

    def of(self, role):
        return self.client if role == "outbound" else self.server

    def remove(self):
        for pod in (self.client, self.server):
            shell("ip", "netns", "del", pod, check=False)


class Process:
    """A process in a pod, on one CPU, and all that it starts."""

    def __init__(self, bench, pod, argv, cpu, log, environment=None):
        full = ["ip", "netns", "exec", pod, *bench.priority, "taskset", "-c", str(cpu), *argv]
        self.log = open(bench.path(f"{log}.log"), "ab")
        variables = {"PATH": os.environ["PATH"], "HOME": bench.folder, **(environment or {})}
        self.started = time.monotonic()
        self.process = subprocess.Popen(full, env=variables, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log)

    def tree(self):
        """The process and its descendants."""
        todo, found = [self.process.pid], []
        while todo:
            pid = todo.pop()
            found.append(pid)
            try:
                for thread in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{thread}/children") as children:
                        todo += [int(child) for child in children.read().split()]
            except OSError:
                pass  # it ended meanwhile
        return found

    def cpu(self):
        """Seconds of CPU so far: (user, system)."""
        user = system = 0
        for pid in self.tree():
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    fields = stat.read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            user += int(fields[11])
            system += int(fields[12])
        return user / TICKS, system / TICKS

    def memory(self):
        """KiB: resident, and how much of it belongs to no file."""
        resident = anonymous = 0
        for pid in self.tree():
            try:
                with open(f"/proc/{pid}/status") as status:
                    lines = dict(line.split(":", 1) for line in status)
            except OSError:
                continue
            resident += int(lines["VmRSS"].split()[0])
            anonymous += int(lines["RssAnon"].split()[0])
        return {"resident": resident, "anonymous": anonymous}

    def stop(self):
        pids = self.tree()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                pass
        for pid in reversed(pids):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        self.process.wait()
        self.log.close()
