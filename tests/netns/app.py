"""An app: HTTP on PORT at all addresses, echoing who asked; with `loopback` also a port that only the pod itself may reach."""
import http.server, json, socket, sys, threading

port, name = int(sys.argv[1]), sys.argv[2]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{name} {self.path}".encode()
        self.send_response(200)
        self.send_header("x-app", name)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def greet(listener):
    """Speaks first, then echoes."""
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"greetings from " + name.encode() + b"\n")
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


def echo(connection):
    while data := connection.recv(4096):
        connection.sendall(data)


for address, offset in (("127.0.0.1", 1), ("::", 2)):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port + offset), family=family, dualstack_ipv6=family == socket.AF_INET6)
    threading.Thread(target=greet, args=(listener,), daemon=True).start()

server = Server(("::", port), Handler)
print(json.dumps({"listening": {"http": [str(port)]}}))
server.serve_forever()
