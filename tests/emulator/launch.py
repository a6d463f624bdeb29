"""Starts the BigQuery emulator for tests, on free ports.

Prints one JSON line with the addresses of its REST and gRPC halves; logs go to stderr. Ends on SIGTERM and,
with --with-parent, when stdin closes, so that it never outlives the test that started it.

Two things of bqemulator 1.4.0 are changed at start. Loading DuckDB's spatial extension would go to the
network: it is skipped. One DuckDB connection serves the event loop, REST worker threads and gRPC threads at
once, which fails or hangs when two meet: here everything runs on the event loop.
"""
import asyncio
import json
import os
import signal
import sys
import threading

# Importing the emulator logs to stdout, which must carry nothing but the address line.
address_line, sys.stdout = sys.stdout, sys.stderr
os.environ.setdefault("BQEMU_ENABLE_FORMAT_EXTENSIONS", "false")

import fastapi.routing  # noqa: E402
from bqemulator.config import Settings  # noqa: E402
from bqemulator.grpc_api.write_servicer import BigQueryWriteHandler  # noqa: E402
from bqemulator.server import EmulatorServer  # noqa: E402
from bqemulator.storage.engine import DuckDBEngine  # noqa: E402


async def call_here(function, *args, **kwargs):
    return function(*args, **kwargs)


def move_to_loop(owner, name, engine_of, loop):
    """Makes owner.name run on the loop, under the engine's write lock, whoever calls it."""
    original = getattr(owner, name)

    def moved(self, *args, **kwargs):
        if threading.current_thread() is threading.main_thread():
            return original(self, *args, **kwargs)

        async def locked():
            async with engine_of(self).write_lock():
                return original(self, *args, **kwargs)

        return asyncio.run_coroutine_threadsafe(locked(), loop).result(60)

    setattr(owner, name, moved)


async def main():
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    DuckDBEngine._load_spatial = lambda self: None
    fastapi.routing.run_in_threadpool = call_here
    move_to_loop(BigQueryWriteHandler, "_flush_to_target", lambda handler: handler._ctx.engine, loop)
    move_to_loop(DuckDBEngine, "fetch_arrow", lambda engine: engine, loop)

    server = EmulatorServer(Settings(rest_port=0, grpc_port=0, log_level="error"))
    await server.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    line = {"rest": server.rest_url, "grpc": server.grpc_endpoint, "pid": os.getpid()}
    print(json.dumps(line), file=address_line, flush=True)
    if "--with-parent" in sys.argv:
        loop.add_reader(0, lambda: None if os.read(0, 4096) else stop.set())
    await stop.wait()
    try:
        await asyncio.wait_for(server.stop(), 3)
    finally:
        os._exit(0)


asyncio.run(main())
