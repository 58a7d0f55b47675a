"""Serves a simulation on a TCP port. All wiring is here; ``SimulatedApi`` decides."""

import asyncio
from collections.abc import Callable

from producer.simulator.api import SimulatedApi
from producer.simulator.protocol import Connection
from producer.simulator.settings import SimulatorSettings

BACKLOG = 4096  # hundreds of clients may connect in one moment


async def serve(
    settings: SimulatorSettings,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until cancelled; connections are then dropped, whatever they wait for.

    ``on_ready`` gets the base URL that clients are to be given, ending in ``/v1``.

    Raises:
        OSError: the port is taken, or the host is not this machine's.
    """
    api = SimulatedApi(settings)
    connections: set[Connection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(api, connections=connections), host, port, backlog=BACKLOG
    )
    try:
        bound_port = server.sockets[0].getsockname()[1]
        on_ready(f"http://{f'[{host}]' if ':' in host else host}:{bound_port}/v1")
        await loop.create_future()
    finally:
        server.close()
        for connection in list(connections):
            connection.abort()
        await server.wait_closed()
