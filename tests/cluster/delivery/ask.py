"""Asks COUNT times for / of HOST at ADDRESS PORT with each HEADER=VALUE, and prints what came back as a list of
[status, {header: [values]}, the body as JSON or text]."""
import http.client, json, sys

address, port, host, count, *headers = sys.argv[1:]
sent = dict([("Host", host)] + [header.split("=", 1) for header in headers])
connection = http.client.HTTPConnection(address, int(port), timeout=15)
answers = []
for _ in range(int(count)):
    connection.request("GET", "/", headers=sent)
    answer = connection.getresponse()
    body = answer.read().decode()
    received = {}
    for name, value in answer.getheaders():
        received.setdefault(name.lower(), []).append(value)
    answers.append([answer.status, received, json.loads(body) if body.startswith("{") else body])
print(json.dumps(answers))
