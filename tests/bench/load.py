"""Load by h2load, and what its log of single requests says."""
import os
import subprocess

# At a fixed rate h2load's timers tick in steps of 1 ms.
TICK = 0.001


class Load:
    """How the client calls: a closed loop, or (`rate`) so many requests per second."""

    def __init__(self, protocol, url, seconds, warm=1, rate=0, connections=64):
        self.protocol, self.url, self.rate = protocol, url, rate
        self.seconds, self.warm = seconds, warm
        # HTTP/2 in closed loop: 8 streams on each of 8 connections. At a fixed rate connections are for the timing.
        self.streams = 1 if protocol == "http1" else 8
        self.connections = connections if protocol == "http1" or rate else connections // self.streams

    def arguments(self, log):
        argv = ["h2load", "-t1", "-c", str(self.connections), "-m", str(self.streams), "--log-file", log]
        if self.protocol == "http1":
            argv.append("--h1")
        if not self.rate:
            return argv + ["-D", str(self.seconds), "--warm-up-time", f"{self.warm}s", self.url]
        # Connections start staggered, so that their sending times are spread over the sending period.
        step = self.stagger()
        requests = int(self.rate * (self.seconds + self.starting()))
        return argv + ["--rps", f"{self.rate / self.connections:.6g}", "-n", str(requests), "-r", "1",
                       "--rate-period", f"{round(step / TICK)}ms", self.url]

    def stagger(self):
        """Seconds between the starts of two connections."""
        return max(TICK, round(1 / self.rate / TICK) * TICK)

    def starting(self):
        """Seconds until all connections are sending."""
        return self.warm + self.stagger() * self.connections

    def run(self, bench, pod):
        """Requests, failures, rate, and percentiles of the latency in microseconds."""
        log = bench.path("load.log")
        if os.path.exists(log):
            os.unlink(log)
        argv = ["ip", "netns", "exec", pod, *bench.priority, "taskset", "-c", bench.load_cpu, *self.arguments(log)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=self.seconds * 6 + 60)
        if done.returncode:
            raise RuntimeError("h2load: " + (done.stdout + done.stderr)[-400:])
        with open(log) as lines:
            return self.read([tuple(map(int, line.split("\t")[:3])) for line in lines])

    def read(self, rows):
        """From (start, status, duration), in microseconds."""
        if not rows:
            raise RuntimeError(f"no request came through to {self.url}")
        rows.sort()
        # h2load logs 0 for a whole HTTP/1.1 answer without a reason phrase; haproxy makes such from HTTP/2.
        good = (200, 0) if self.protocol == "http1" else (200,)
        begin = rows[0][0] + self.starting() * 1e6 if self.rate else 0
        end = begin + self.seconds * 1e6 if self.rate else float("inf")
        times = sorted(row[2] for row in rows if begin <= row[0] <= end and row[1] in good)
        span = (rows[-1][0] - rows[0][0]) / 1e6 or 1
        # What a closed loop gives up at its end is no failure.
        last = max(start + duration for start, _, duration in rows) - 1e5
        failed = sum(status not in good and start + duration < last for start, status, duration in rows)
        return {"requests": len(rows), "failed": failed, "rate": len(rows) / span,
                **{name: percentile(times, part) for name, part in (("p50", .5), ("p99", .99), ("p999", .999))}}


def percentile(sorted_times, part):
    return sorted_times[min(len(sorted_times) - 1, int(len(sorted_times) * part))] if sorted_times else None
