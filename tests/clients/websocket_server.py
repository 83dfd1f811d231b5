"""A WebSocket server that does what each path says, and tells at /ended how each connection ended that had a name."""
import asyncio, json
from websockets.asyncio.server import serve
from websockets.http11 import Headers, Response

ended = {}
changed = asyncio.Condition()
FLOOD = [bytes([n % 256]) * 16384 for n in range(256)]


async def handle(socket):
    path, _, name = socket.request.path.partition("?")
    try:
        if path == "/ping":
            async for _ in socket:
                await (await socket.ping(b"from the server"))
                await socket.send("ponged")
        elif path == "/flood":
            # Sends 4 MiB while it takes as much.
            _, got = await asyncio.gather(send_all(socket), take_all(socket))
            await socket.send(json.dumps(got == FLOOD))
        elif path == "/close":
            await socket.close(4002, "enough")
        elif path == "/ended":
            async with changed:
                await changed.wait_for(lambda: name in ended)
            await socket.send(json.dumps(ended[name]))
        else:
            async for message in socket:
                await socket.send(message)
    finally:
        await socket.wait_closed()
        async with changed:
            ended[name] = [socket.close_code, socket.close_reason]
            changed.notify_all()


async def refuse(_, request):
    if request.path == "/private":
        return Response(401, "Unauthorized", Headers({"content-length": "8", "x-why": "private"}), b"go away\n")


async def send_all(socket):
    for message in FLOOD:
        await socket.send(message)


async def take_all(socket):
    return [await socket.recv() for _ in FLOOD]


async def main():
    server = await serve(handle, "127.0.0.1", 0, process_request=refuse, subprotocols=["shop.v1"], max_size=None, ping_interval=None)
    host, port = next(iter(server.sockets)).getsockname()
    print(json.dumps({"listening": {"app": f"{host}:{port}"}}), flush=True)
    await server.serve_forever()


asyncio.run(main())
