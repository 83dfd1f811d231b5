"""Instructions that processes execute, counted by the processor (Linux `perf`): unlike times they hardly change with what
else the machine does. Where `perf` or its counters are missing, as in many virtual machines, there are none."""
import os
import shutil
import signal
import subprocess

EVENTS = {"instructions:u": "user", "instructions:k": "kernel"}


def are_counted():
    if not shutil.which("perf"):
        return False
    done = subprocess.run(["perf", "stat", "-x,", "-e", ",".join(EVENTS), "true"], capture_output=True, text=True)
    return done.returncode == 0 and len(read(done.stderr)) == len(EVENTS)


class Counting:
    """Counts what the sidecars execute inside a `with`; `by_role` afterwards."""

    def __init__(self, bench, sidecars):
        self.bench, self.by_role = bench, {}
        self.sidecars = sidecars if bench.counts_instructions else {}

    def __enter__(self):
        self.running = {role: self.start(role, sidecar) for role, sidecar in self.sidecars.items()}
        return self

    def start(self, role, sidecar):
        orders, answers = (self.bench.path(f"perf-{role}-{what}") for what in ("orders", "answers"))
        for fifo in (orders, answers):
            if not os.path.exists(fifo):
                os.mkfifo(fifo)
        pids = ",".join(map(str, sidecar.tree()))
        argv = ["perf", "stat", "-x,", "-e", ",".join(EVENTS), "-D", "-1", "--control", f"fifo:{orders},{answers}",
                "-p", pids]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        running = process, open(orders, "w"), open(answers)
        tell(running, "enable")
        return running

    def __exit__(self, *_):
        for role, running in self.running.items():
            tell(running, "disable")
            process, orders, answers = running
            process.send_signal(signal.SIGINT)
            self.by_role[role] = read(process.communicate()[1])
            orders.close()
            answers.close()


def tell(running, order):
    """Returns when perf has done it."""
    _, orders, answers = running
    orders.write(order + "\n")
    orders.flush()
    answers.readline()


def read(lines):
    """Of `perf stat -x,`."""
    fields = [line.split(",") for line in lines.splitlines()]
    return {EVENTS[field[2]]: int(field[0]) for field in fields
            if len(field) > 2 and field[2] in EVENTS and field[0].isdigit()}
