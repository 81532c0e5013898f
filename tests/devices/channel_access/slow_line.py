"""A line to an EPICS server on which everything takes its time.

It listens on another address of the loopback than the server, at the same port: then what the server says of its port
is right for the line too, and clients that look at the line's address only do not find the server without it.
"""

import asyncio
import threading

ADDRESS = "127.0.0.2"


class SlowLine:
    """Hands on what comes over UDP and TCP to the same port of 127.0.0.1, and the answers back, later.

    ``delay_s`` is how much later, each way; it may be changed at any time.
    """

    def __init__(self, port, delay_s=0.0):
        self.port = port
        self.delay_s = delay_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10.0), f"{ADDRESS}:{self.port} cannot be listened on"
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join(10.0)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._serving = self._loop.create_task(self._serve())
        try:
            self._loop.run_until_complete(self._serving)
        except asyncio.CancelledError:
            pass
        finally:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0.01))
            self._loop.close()

    async def _serve(self):
        searches, _ = await self._loop.create_datagram_endpoint(
            lambda: _Searches(self), local_addr=(ADDRESS, self.port)
        )
        server = await asyncio.start_server(self._connected, ADDRESS, self.port)
        self._ready.set()
        try:
            await asyncio.Event().wait()
        finally:
            searches.close()
            server.close()

    async def _connected(self, reader, writer):
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.close()
            return
        pumps = [asyncio.ensure_future(self._pump(*pair)) for pair in ((reader, back), (there, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            writer.close()
            back.close()

    async def _pump(self, reader, writer):
        on_the_way = asyncio.Queue()

        async def deliver():
            while True:
                due, content = await on_the_way.get()
                await asyncio.sleep(due - self._loop.time())
                writer.write(content)

        delivering = asyncio.ensure_future(deliver())
        try:
            while content := await reader.read(65536):
                on_the_way.put_nowait((self._loop.time() + self.delay_s, content))
        except OSError:
            pass
        finally:
            delivering.cancel()


class _Searches(asyncio.DatagramProtocol):
    """Asks the server for each client, from a socket of the client's own, so that answers find their way."""

    def __init__(self, line):
        self.line = line
        self.askers = {}

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, content, client):
        asyncio.ensure_future(self._ask(content, client))

    async def _ask(self, content, client):
        await asyncio.sleep(self.line.delay_s)
        if client not in self.askers:
            made = asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Answers(self, client), remote_addr=("127.0.0.1", self.line.port)
            )
            self.askers[client] = asyncio.ensure_future(made)
        asker, _ = await self.askers[client]
        asker.sendto(content)

    def connection_lost(self, _):
        for asker in self.askers.values():
            if asker.done() and not asker.cancelled():
                asker.result()[0].close()


class _Answers(asyncio.DatagramProtocol):
    def __init__(self, searches, client):
        self.searches, self.client = searches, client

    def datagram_received(self, content, _):
        later = asyncio.get_running_loop().call_later
        later(self.searches.line.delay_s, self.searches.transport.sendto, content, self.client)

    def error_received(self, _):
        """Nobody listens: the server is not there."""
