"""One peer, measured once: start, idle memory, closed loop, fixed rates, idle connections, end."""
import json
import os
import subprocess
import sys
import tempfile
import time

import instructions
import peers
from instructions import Counting
from load import Load
from pods import PORTS, SERVER_IP, SERVICE_IP, Pods, Process

INSIDE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inside.py")
# What a peer is left alone for before its memory is read, in seconds.
SETTLE = 1


class Bench:
    """The pods, the backend, a folder for files, and what every run shares."""

    def __init__(self, options):
        self.options = options
        self.priority = ["chrt", "-r", "1"] if options.rt else []
        self.load_cpu, self.proxy_cpu = "0", "1" if os.cpu_count() > 1 else "0"
        self.counts_instructions = instructions.are_counted()
        self.folder = tempfile.mkdtemp(prefix="gauze-bench.")
        self.pods = Pods()
        self.backend = Process(self, self.pods.server, peers.backend(self), self.load_cpu, "nginx")
        self.ask("server", "listens", SERVER_IP, PORTS["http1"])

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)
        return self.path(name)

    def write_json(self, name, value):
        return self.write(name, json.dumps(value, indent=1))

    def inside(self, pod, *arguments, **options):
        argv = ["ip", "netns", "exec", getattr(self.pods, pod), *self.priority, "taskset", "-c", self.load_cpu,
                sys.executable, INSIDE, *map(str, arguments)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **options)

    def ask(self, pod, *arguments):
        return self.answer_of(self.inside(pod, *arguments))

    def answer_of(self, process):
        said = process.communicate()[0].strip()
        if said in ("", "timeout"):
            raise RuntimeError(f"no answer; logs are in {self.folder} (keep them with --keep)")
        return float(said)

    def close(self):
        self.backend.stop()
        self.pods.remove()


class Pair:
    """Both sidecars of a peer, running."""

    def __init__(self, bench, peer, path):
        self.bench, self.sidecars, self.beside = bench, {}, []
        bench.pods.redirect(peer)
        try:
            self.beside = peer.prepare(bench, path)
            self.start(peer, path, "inbound")
            bench.ask("client", "listens", SERVER_IP, PORTS["http1"])
            # The interpreter that asks must be up before the clock starts.
            first = bench.inside("client", "answers", SERVICE_IP, PORTS["http1"])
            time.sleep(0.3)
            self.start(peer, path, "outbound")
            self.ready = bench.answer_of(first) - self.sidecars["outbound"].started
        except BaseException:
            self.stop()
            raise

    def start(self, peer, path, role):
        argv = peer.command(self.bench, role, path)
        log = f"{peer.name}-{path}-{role}"
        self.sidecars[role] = Process(self.bench, self.bench.pods.of(role), argv, self.bench.proxy_cpu, log)

    def memory(self):
        time.sleep(SETTLE)
        return {role: sidecar.memory() for role, sidecar in self.sidecars.items()}

    def cpu(self):
        return {role: sidecar.cpu() for role, sidecar in self.sidecars.items()}

    def stop(self):
        for process in [*self.sidecars.values(), *self.beside]:
            process.stop()


class NoPair:
    """The client calls the server itself: the limit of load generator and backend."""
    ready = None
    sidecars = {}

    def memory(self):
        return {}

    def cpu(self):
        return {}

    def stop(self):
        pass


def measure(bench, peer, path, protocols, with_idle):
    """All numbers of one peer (`None`: no proxy) in one round."""
    options = bench.options
    if peer is None:
        bench.pods.redirect(None)
    pair = Pair(bench, peer, path) if peer else NoPair()
    host = SERVICE_IP if peer else SERVER_IP
    run = {"peer": peer.name if peer else "direct", "path": path, "ready_s": pair.ready}
    try:
        run["idle"] = pair.memory()
        for protocol in protocols:
            url = f"http://{host}:{PORTS[protocol]}/"
            Load(protocol, url, 1, warm=0).run(bench, bench.pods.client)
            run[protocol] = {"max": under_load(bench, pair, Load(protocol, url, options.seconds))}
            for rate in options.rates:
                run[protocol][str(rate)] = under_load(bench, pair, Load(protocol, url, options.seconds, rate=rate))
        run["loaded"] = pair.memory()
    finally:
        pair.stop()
    if peer and with_idle and options.idle:
        run["idle_connections"] = idle_connections(bench, peer, path)
    return run


def under_load(bench, pair, load):
    """What h2load saw, CPU seconds of each sidecar for 100,000 requests, and its instructions for one."""
    with Counting(bench, pair.sidecars) as counting:
        before = pair.cpu()
        seen = load.run(bench, bench.pods.client)
        spent = {role: [late - early for early, late in zip(before[role], now)] for role, now in pair.cpu().items()}
    for_100k = 1e5 / seen["requests"]
    seen["cpu"] = {role: sum(seconds) * for_100k for role, seconds in spent.items()}
    seen["cpu_system"] = {role: seconds[1] * for_100k for role, seconds in spent.items()}
    for part in ("user", "kernel"):
        seen[f"instructions_{part}"] = {role: counted[part] / seen["requests"]
                                        for role, counted in counting.by_role.items()}
    seen["instructions"] = {role: sum(counted.values()) / seen["requests"]
                            for role, counted in counting.by_role.items()}
    return seen


def idle_connections(bench, peer, path):
    """Memory of a fresh pair with so many open HTTP/1.1 connections, each of which has carried one request."""
    pair = Pair(bench, peer, path)
    try:
        client = bench.inside("client", "idle", SERVICE_IP, PORTS["http1"], *bench.options.idle, stdin=subprocess.PIPE)
        memory = {}
        for count in bench.options.idle:
            if not client.stdout.readline():
                raise RuntimeError(f"{peer.name} did not open {count} connections")
            memory[str(count)] = pair.memory()
            client.stdin.write("\n")
            client.stdin.flush()
        client.stdin.close()
        client.wait()
        return memory
    finally:
        pair.stop()
