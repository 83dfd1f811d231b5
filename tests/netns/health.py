"""A gRPC server that says SERVING to whatever it is asked on PORT: HTTP/2 by hand, for kubelet's health protocol."""
import json, socket, struct, sys, threading

DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind, flags, stream, payload=b""):
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def literal(name, value):
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def read(connection, length):
    data = b""
    while len(data) < length:
        chunk = connection.recv(length - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data


def serve(connection):
    read(connection, 24)  # the preface
    connection.sendall(frame(SETTINGS, 0, 0))
    while True:
        head = read(connection, 9)
        kind, flags, stream = struct.unpack("!BBI", head[3:])
        payload = read(connection, int.from_bytes(head[:3], "big"))
        if kind == SETTINGS and not flags & ACK:
            connection.sendall(frame(SETTINGS, ACK, 0))
        if kind == PING and not flags & ACK:
            connection.sendall(frame(PING, ACK, 0, payload))
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            fields = b"\x88" + literal(b"content-type", b"application/grpc")
            connection.sendall(
                frame(HEADERS, END_HEADERS, stream, fields)
                + frame(DATA, 0, stream, b"\x00\x00\x00\x00\x02\x08\x01")
                + frame(HEADERS, END_HEADERS | END_STREAM, stream, literal(b"grpc-status", b"0"))
            )


def carry(connection):
    try:
        serve(connection)
    except (EOFError, OSError):
        connection.close()


port = int(sys.argv[1])
listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
print(json.dumps({"listening": {"grpc": [str(port)]}}))
while True:
    threading.Thread(target=carry, args=(listener.accept()[0],), daemon=True).start()
