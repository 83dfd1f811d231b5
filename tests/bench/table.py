"""Medians and ratios of the runs, as Markdown."""
import statistics


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def number(value, digits=2):
    return "-" if value is None else f"{value:.{digits}f}"


class Results:
    """All runs of one command, asked by peer and path."""

    def __init__(self, runs):
        self.runs = runs

    def peers(self, path):
        return list(dict.fromkeys(run["peer"] for run in self.runs if run["path"] == path))

    def values(self, path, peer, *keys):
        """One value per round; of both sidecars together where it is told of each."""
        return [both(dig(run, keys)) for run in self.runs if run["path"] == path and run["peer"] == peer]

    def median(self, path, peer, *keys):
        return median(self.values(path, peer, *keys))

    def ratio(self, path, peer, other, *keys):
        """The median of the rounds' ratios: what disturbs one round disturbs both."""
        pairs = zip(self.values(path, peer, *keys), self.values(path, other, *keys))
        return median([mine / others for mine, others in pairs if mine and others])

    def added(self, path, peer, *keys):
        """What the peer adds to the call without a proxy."""
        through, direct = self.median(path, peer, *keys), self.median(path, "direct", *keys)
        return None if through is None or direct is None else through - direct

    def per_idle_connection(self, path, peer, role):
        """KiB, between the smaller and the larger number of connections."""
        memory = next((run["idle_connections"] for run in self.runs if run["path"] == path and run["peer"] == peer
                       and run.get("idle_connections")), None)
        if not memory or len(memory) < 2:
            return None
        few, many = sorted(map(int, memory))[0], sorted(map(int, memory))[-1]
        grown = memory[str(many)][role]["resident"] - memory[str(few)][role]["resident"]
        return grown / (many - few)


def dig(value, keys):
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def both(value):
    return (sum(value.values()) or None) if isinstance(value, dict) else value


def markdown(results, options):
    lines = ratios(results, options)
    for path in options.paths:
        for protocol in options.protocols_of(path):
            lines += ["", f"### {path}, {protocol}", "", *load(results, options, path, protocol)]
        lines += ["", f"### {path}, memory and start", "", *memory(results, options, path)]
    return "\n".join(lines)


def ratios(results, options):
    """What is promised: gauze beside each peer, smaller is better."""
    rows = []
    for path in options.paths:
        others = [peer for peer in results.peers(path) if peer not in ("gauze", "direct")]
        for protocol in options.protocols_of(path):
            what = [("CPU per request, closed loop", "max", "cpu"),
                    ("instructions per request, closed loop", "max", "instructions")]
            what += [(f"CPU per request at {rate}/s", str(rate), "cpu") for rate in options.rates]
            rows += [(f"{path}, {protocol}: {name}", [results.ratio(path, "gauze", peer, protocol, *keys)
                                                      for peer in others]) for name, *keys in what]
            rows += [(f"{path}, {protocol}: added p99 at {rate}/s", [added_ratio(results, path, protocol, rate, peer)
                                                                     for peer in others]) for rate in options.rates]
        rows.append((f"{path}: resident memory idle, both sidecars", [
            quotient(resident(results, path, "gauze"), resident(results, path, peer)) for peer in others]))
    names = list(dict.fromkeys(peer for path in options.paths for peer in results.peers(path)
                               if peer not in ("gauze", "direct")))
    lines = ["### gauze divided by", "", row(["", *names]), row(["---"] * (len(names) + 1))]
    return lines + [row([name, *[number(value) for value in values]]) for name, values in rows]


def added_ratio(results, path, protocol, rate, peer):
    keys = (path, protocol, str(rate))
    mine, others = (results.added(keys[0], name, *keys[1:], "p99") for name in ("gauze", peer))
    return quotient(mine, others)


def quotient(mine, others):
    return mine / others if mine and others else None


def resident(results, path, peer):
    return sum(results.median(path, peer, "idle", role, "resident") or 0 for role in ("outbound", "inbound"))


def load(results, options, path, protocol):
    heads = ["", "max req/s", "CPU s/100k (of it kernel)", "thousand instructions per request (of it kernel)"]
    for rate in options.rates:
        heads += [f"p50 / p99 / p99.9 µs at {rate}/s", f"CPU s/100k at {rate}/s"]
    lines = [row(heads), row(["---"] * len(heads))]
    for peer in results.peers(path):
        ask = lambda *keys: results.median(path, peer, protocol, *keys)
        cells = [peer, number(ask("max", "rate"), 0),
                 f"{number(ask('max', 'cpu'))} ({number(ask('max', 'cpu_system'))})",
                 f"{thousands(ask('max', 'instructions'))} ({thousands(ask('max', 'instructions_kernel'))})"]
        for rate in map(str, options.rates):
            cells += [" / ".join(number(ask(rate, part), 0) for part in ("p50", "p99", "p999")),
                      number(ask(rate, "cpu"))]
        lines.append(row(cells))
    return lines


def memory(results, options, path):
    heads = ["", "sidecar", "first 200 after, ms", "RSS idle MiB (anonymous)", "after load",
             "KiB per idle connection"]
    lines = [row(heads), row(["---"] * len(heads))]
    for peer in results.peers(path):
        if peer == "direct":
            continue
        for role in ("outbound", "inbound"):
            ready = results.median(path, peer, "ready_s")
            lines.append(row([
                peer, role, number(ready and ready * 1000, 0) if role == "outbound" else "",
                *[mebibytes(results, path, peer, when, role) for when in ("idle", "loaded")],
                number(results.per_idle_connection(path, peer, role), 1)]))
    return lines


def mebibytes(results, path, peer, when, role):
    resident, anonymous = (results.median(path, peer, when, role, kind) for kind in ("resident", "anonymous"))
    return "-" if resident is None else f"{resident / 1024:.1f} ({anonymous / 1024:.1f})"


def thousands(value):
    return number(value and value / 1000, 0)


def row(cells):
    return "| " + " | ".join(cells) + " |"
