"""Knocks, in plaintext, at each ADDRESS PORT PATH of the command line, and prints what came back as a list of texts."""
import json, socket, sys


def knock(address, port, path):
    try:
        connection = socket.create_connection((address, int(port)), timeout=5)
        connection.settimeout(5)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: exposure\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while len(answer) < 4096:
            read = connection.recv(4096)
            if not read:
                break
            answer += read
        return answer.decode("latin-1") or "closed"
    except ConnectionRefusedError:
        return "refused"
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "silent"


doors = [sys.argv[at : at + 3] for at in range(1, len(sys.argv), 3)]
print(json.dumps([knock(*door) for door in doors]))
