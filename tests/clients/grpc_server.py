"""A gRPC server without protoc: messages are bytes. It keeps a ledger, which its own method `Ledger` tells."""
import asyncio, collections, json
import grpc

ledger = collections.Counter()
remaining = {}
changed = asyncio.Condition()
OPEN = 100  # calls that must be open at once before one of them goes on


async def note(what):
    async with changed:
        ledger[what] += 1
        changed.notify_all()


async def noted(what, times=1):
    async with changed:
        await changed.wait_for(lambda: ledger[what] >= times)


async def echo(request, context):
    metadata = dict(context.invocation_metadata())
    await context.send_initial_metadata((("x-first", metadata.get("x-ask", "")),))
    context.set_trailing_metadata((("x-last", "yes"), ("x-raw-bin", bytes(range(256)))))
    return request


async def fail(request, context):
    context.set_trailing_metadata((("x-why", "test"),))
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode())


async def collect(requests, context):
    """Client streaming: tells of each message as it comes."""
    got = []
    async for message in requests:
        got.append(message.decode())
        await note("collected " + message.decode())
    return ",".join(got).encode()


async def count(request, context):
    """Server streaming: the next message only once somebody has told us that the last one came."""
    for number in range(int(request)):
        await noted(f"go {number}")
        yield str(number).encode()


async def chat(requests, context):
    async for message in requests:
        yield b"re: " + message


async def together(requests, context):
    """Answers only once so many calls are open at the same time."""
    async for message in requests:
        await note("together")
        await noted("together", OPEN)
        yield message


async def forever(request, context):
    """Sends one message, and then waits for the caller to give up."""
    name = request.decode()
    remaining[name] = context.time_remaining()
    await note("began " + name)
    try:
        yield b"begun"
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await note("cancelled " + name)
        raise


async def told(request, context):
    await note(request.decode())
    return b""


async def wait(request, context):
    await noted(request.decode())
    return json.dumps(remaining).encode()


METHODS = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Together": grpc.stream_stream_rpc_method_handler(together),
    "Forever": grpc.unary_stream_rpc_method_handler(forever),
    "Tell": grpc.unary_unary_rpc_method_handler(told),
    "Wait": grpc.unary_unary_rpc_method_handler(wait),
}


async def main():
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 8 << 20)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Shop", METHODS),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"listening": {"app": f"127.0.0.1:{port}"}}), flush=True)
    await server.wait_for_termination()


asyncio.run(main())
