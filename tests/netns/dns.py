"""A cluster's DNS: `ADDRESS NAME ANSWER`. It knows one name (IPv4), and that there are no others."""
import json, socket, struct, sys

address, known, answer = sys.argv[1:4]
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((address, 53))
print(json.dumps({"listening": {"dns": [address]}}))

NO_ERROR, NO_SUCH_NAME, A = 0x8580, 0x8583, 1


def name_of(query):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    return ".".join(labels), at + 1


while True:
    query, client = server.recvfrom(512)
    name, end = name_of(query)
    is_known = name == known
    is_answered = is_known and struct.unpack("!H", query[end : end + 2])[0] == A
    flags = NO_ERROR if is_known else NO_SUCH_NAME
    reply = query[:2] + struct.pack("!HHHHH", flags, 1, is_answered, 0, 0) + query[12 : end + 4]
    if is_answered:
        reply += b"\xc0\x0c" + struct.pack("!HHIH", A, 1, 5, 4) + socket.inet_aton(answer)
    server.sendto(reply, client)
