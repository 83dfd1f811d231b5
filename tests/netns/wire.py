"""A packet socket on every interface of the node: looks for each marker of the command line in every frame that passes, and keeps
`FRAMES FOUND...` in the file that is its first argument."""
import json, os, socket, sys

path, markers = sys.argv[1], [marker.encode() for marker in sys.argv[2:]]
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
print(json.dumps({"listening": {"wire": ["all"]}}))
frames, found = 0, [0] * len(markers)
while True:
    frame = wire.recv(65536)
    frames += 1
    for index, marker in enumerate(markers):
        found[index] += marker in frame
    with open(path + ".draft", "w") as report:
        report.write(" ".join(map(str, [frames, *found])))
    os.replace(path + ".draft", path)
