"""A client: `get ADDRESS PORT PATH`, `listen ADDRESS PORT` (what a server says first), `late ADDRESS PORT PATH` (three silent
seconds first), `bytes ADDRESS PORT` (sends a line, prints what comes), `connect ADDRESS PORT` (`connected`). Prints one line; `closed` if the connection yields nothing."""
import socket, sys, time

verb, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])


def read(connection):
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
            if verb == "listen" and b"\n" in data:
                break
    except OSError:
        pass
    return data


try:
    connection = socket.create_connection((address, port), timeout=8)
    if verb == "late":
        time.sleep(3)
    if verb in ("get", "late"):
        request = f"GET {sys.argv[4]} HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n"
        connection.sendall(request.encode())
    if verb == "bytes":
        connection.sendall(b"GET /bytes HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n")
    answer = b"connected" if verb == "connect" else read(connection)
except OSError:
    answer = b""
print(answer.decode(errors="replace").replace("\r\n", "|").replace("\n", "|") or "closed")
