#!/usr/bin/env python3
"""What the bench runs inside a pod: `inside.py answers|listens|idle ARGUMENT..`. Times are of the monotonic clock,
which all processes of a machine share."""
import resource
import socket
import sys
import time


# Seconds; machines that build at the same time are slow.
PATIENCE = 60


def read_answer(connection):
    """One HTTP/1.1 answer with a Content-Length; its status."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += read_some(connection)
    head, body = received.split(b"\r\n\r\n", 1)
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(fields[b"content-length"]):
        body += read_some(connection)
    return int(head.split()[1])


def read_some(connection):
    data = connection.recv(65536)
    if not data:
        raise OSError("closed")
    return data


def call(host, port, timeout):
    """Opens a connection, sends one request; (connection, status)."""
    connection = socket.create_connection((host, port), timeout)
    connection.settimeout(timeout)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode())
    return connection, read_answer(connection)


def poll(is_done, pause):
    """Prints when it was done, or `timeout`."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if is_done():
                print(time.monotonic(), flush=True)
                return
        except OSError:
            pass
        time.sleep(pause)
    print("timeout", flush=True)


def answers(host, port):
    """When the first 200 comes back."""

    def is_done():
        connection, status = call(host, port, 1)
        connection.close()
        return status == 200

    poll(is_done, 0.001)


def listens(host, port):
    """When a connection can be opened."""
    poll(lambda: socket.create_connection((host, port), 1).close() is None, 0.002)


def idle(host, port, *counts):
    """Opens so many connections, one request on each, keeps them; waits for a line of input at each count."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    connections = []
    for count in map(int, counts):
        while len(connections) < count:
            connections.append(call(host, port, 5)[0])
        print(count, flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    what, host, port, *more = sys.argv[1:]
    {"answers": answers, "listens": listens, "idle": idle}[what](host, int(port), *more)
