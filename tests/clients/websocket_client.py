"""websocket_client.py THROUGH DIRECT [GO]: what each kind of use of a WebSocket THROUGH sidecars comes to, as JSON; DIRECT is the server
itself, which is asked how connections ended. With GO it opens one connection, uses it, says so, and uses it again once the file GO is there."""
import asyncio, json, os, sys
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

FLOOD = [bytes([n % 256]) * 16384 for n in range(256)]


def dial(address, path):
    return connect(f"ws://{address}{path}", proxy=None, max_size=None, ping_interval=None, open_timeout=60, close_timeout=60, compression=None, subprotocols=["shop.v1"])


async def messages(through, _):
    async with dial(through, "/echo") as socket:
        sent = ["ñ, text", "", bytes(range(256)), b"", bytes(n % 251 for n in range(1 << 20)), "x" * (1 << 20)]
        got = []
        for message in sent:
            await socket.send(message)
            got.append(await socket.recv() == message)
        await socket.send(["in ", "several ", "frames"])
        return [socket.response.status_code, socket.subprotocol, got, await socket.recv()]


async def pings(through, _):
    async with dial(through, "/ping") as socket:
        await (await socket.ping(b"from the client"))
        await socket.send("your turn")
        return await socket.recv()


async def both_ways_at_once(through, _):
    async def send():
        for message in FLOOD:
            await socket.send(message)

    async def take():
        return [await socket.recv() for _ in FLOOD]

    async with dial(through, "/flood") as socket:
        _, got = await asyncio.gather(send(), take())
        return [got == FLOOD, json.loads(await socket.recv())]


async def ended(direct, name):
    async with dial(direct, f"/ended?{name}") as socket:
        return json.loads(await socket.recv())


async def client_closes(through, direct):
    name = f"client-{os.getpid()}"
    async with dial(through, f"/echo?{name}") as socket:
        await socket.close(4001, "bye")
    return await ended(direct, name)


async def client_vanishes(through, direct):
    """Without a word in WebSocket: the server's connection ends too."""
    name = f"vanished-{os.getpid()}"
    socket = await dial(through, f"/echo?{name}")
    socket.transport.abort()
    return await ended(direct, name)


async def server_closes(through, _):
    async with dial(through, "/close") as socket:
        try:
            await socket.recv()
        except ConnectionClosed as closed:
            return [closed.rcvd.code, closed.rcvd.reason]


async def refused(through, _):
    try:
        await dial(through, "/private")
    except InvalidStatus as error:
        return [error.response.status_code, error.response.headers["x-why"], error.response.body.decode()]


async def waits(through, go):
    async with dial(through, "/echo") as socket:
        await socket.send("before")
        print(json.dumps({"listening": await socket.recv()}), flush=True)
        while not os.path.exists(go):
            await asyncio.sleep(0.01)
        await socket.send("after")
        print(await socket.recv(), flush=True)


async def main():
    if len(sys.argv) > 3:
        return await waits(sys.argv[1], sys.argv[3])
    results = {}
    for case in [messages, pings, both_ways_at_once, client_closes, client_vanishes, server_closes, refused]:
        try:
            results[case.__name__] = await case(sys.argv[1], sys.argv[2])
        except Exception as error:
            results[case.__name__] = repr(error)
    print(json.dumps(results))


asyncio.run(main())
