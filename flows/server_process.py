"""Run a Prefect API server on a free loopback port until standard input closes: `python -m flows.server_process`."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import time

import uvicorn
from prefect.server.api.server import create_app

_GRACE_SECONDS = 5


def main() -> None:
    """Serve; print the API address on standard output as soon as the server answers."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))  # the kernel picks a free port, so two runs never compete for one
    server = uvicorn.Server(uvicorn.Config(create_app(ephemeral=True), log_level="error", lifespan="on"))
    threading.Thread(target=_end_with_driver, args=(server,), daemon=True).start()
    asyncio.run(_serve(server, listener))


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not (server.started or serving.done()):
        await asyncio.sleep(0.02)
    if server.started:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/api", flush=True)
    await serving


def _end_with_driver(server: uvicorn.Server) -> None:
    """Shut down when the driver closes the pipe or dies. The database's journal makes an abrupt end safe too."""
    sys.stdin.buffer.read()
    server.should_exit = True
    time.sleep(_GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
