"""grpc_client.py THROUGH DIRECT [CASE...]: calls each kind of method THROUGH sidecars; DIRECT is the server itself, which is asked what it saw.
Prints what came of each as JSON. Nothing is timed here but the deadline: what must not be buffered is held back until the other side saw
what came before."""
import asyncio, json, sys
import grpc

OPTIONS = [("grpc.max_receive_message_length", 8 << 20), ("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]
PATIENCE = 60


def method(channel, kind, name):
    return getattr(channel, kind)(f"/test.Shop/{name}")


async def status(call):
    """Code and message of a call that fails."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return [error.code().name, error.details(), dict(error.trailing_metadata())]
    return "it succeeded"


async def unary(through, _):
    call = method(through, "unary_unary", "Echo")(b"hello", metadata=(("x-ask", "asked"),), timeout=PATIENCE)
    answer = (await call).decode()
    first, last = dict(await call.initial_metadata()), dict(await call.trailing_metadata())
    return [answer, first.get("x-first"), last.get("x-last"), last.get("x-raw-bin") == bytes(range(256)), (await call.code()).name]


async def error(through, _):
    code, message, trailers = await status(method(through, "unary_unary", "Fail")("no cart: ñ, 100 %\n".encode(), timeout=PATIENCE))
    return [code, message, trailers.get("x-why")]


async def unknown(through, _):
    return (await status(method(through, "unary_unary", "Nothing")(b"", timeout=PATIENCE)))[:2]


async def client_streams(through, direct):
    """A message is sent only once the one before has reached the server."""
    async def messages():
        for number in range(5):
            yield str(number).encode()
            await method(direct, "unary_unary", "Wait")(f"collected {number}".encode(), timeout=PATIENCE)

    return (await method(through, "stream_unary", "Collect")(messages(), timeout=PATIENCE)).decode()


async def server_streams(through, direct):
    """The server sends a message only once the one before has reached us."""
    tell, got = method(direct, "unary_unary", "Tell"), []
    await tell(b"go 0")
    async for message in method(through, "unary_stream", "Count")(b"5", timeout=PATIENCE):
        got.append(message.decode())
        await tell(f"go {len(got)}".encode())
    return ",".join(got)


async def both_stream(through, _):
    """A message is sent only once the answer to the one before has come."""
    call, got = method(through, "stream_stream", "Chat")(timeout=PATIENCE), []
    for number in range(5):
        await call.write(str(number).encode())
        got.append((await call.read()).decode())
    await call.done_writing()
    end = await call.read() is grpc.aio.EOF
    return [",".join(got), end, (await call.code()).name]


async def large(through, _):
    message = bytes(n % 251 for n in range(4096)) * 1024
    return [len(message), await method(through, "unary_unary", "Echo")(message, timeout=PATIENCE) == message]


async def hundred(through, _):
    async def one(number):
        call = method(through, "stream_stream", "Together")(timeout=PATIENCE)
        await call.write(str(number).encode())
        answer = await call.read()
        await call.done_writing()
        return answer == str(number).encode() and await call.read() is grpc.aio.EOF

    return sum(await asyncio.gather(*[one(number) for number in range(100)]))


async def deadline(through, direct):
    """The server hears of a call's deadline, and of its end."""
    call = method(through, "unary_stream", "Forever")(b"deadline", timeout=2)
    first = await call.read()
    code = (await status(call.read()))[0]
    remaining = json.loads(await method(direct, "unary_unary", "Wait")(b"cancelled deadline", timeout=PATIENCE))
    return [first.decode(), code, 0 < remaining["deadline"] < 3]


async def cancel(through, direct):
    call = method(through, "unary_stream", "Forever")(b"cancel", timeout=PATIENCE)
    first = await call.read()
    call.cancel()
    await method(direct, "unary_unary", "Wait")(b"cancelled cancel", timeout=PATIENCE)
    return [first.decode(), (await call.code()).name]


CASES = [unary, error, unknown, client_streams, server_streams, both_stream, large, hundred, deadline, cancel]


async def main():
    async with grpc.aio.insecure_channel(sys.argv[1], OPTIONS) as through, grpc.aio.insecure_channel(sys.argv[2], OPTIONS) as direct:
        results = {}
        for case in [case for case in CASES if case.__name__ in sys.argv[3:] or len(sys.argv) == 3]:
            try:
                results[case.__name__] = await case(through, direct)
            except Exception as error:
                results[case.__name__] = repr(error)
        print(json.dumps(results))


asyncio.run(main())
