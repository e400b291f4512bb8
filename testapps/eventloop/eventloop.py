"""An asyncio server that inherits its socket as descriptor 3 and drains without losing a request.

One thread accepts and answers without ever blocking, so it stands still if
anyone sets the shared socket to blocking. BOOT=SECONDS makes it slow to start.
"""

import asyncio
import contextlib
import os
import signal
import socket
import time

IDLE = 1.0  # seconds that an unused keep-alive connection stays open while draining

tasks = set()  # one for each open connection
quiet = set()  # connections without a request
stop = asyncio.Event()


async def serve(reader, writer):
    tasks.add(asyncio.current_task())
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        last = False
        while not last:
            quiet.add(writer)
            head = await reader.readuntil(b"\r\n\r\n")
            quiet.discard(writer)
            last = stop.is_set() or b"\r\nconnection: close" in head.lower()
            body = f"generation {os.environ.get('HOTWRAP_GENERATION')} pid {os.getpid()}\n"
            close = "Connection: close\r\n" if last else ""
            writer.write(f"HTTP/1.1 200 OK\r\n{close}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            await writer.drain()
    quiet.discard(writer)
    writer.close()
    tasks.discard(asyncio.current_task())


async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    sock = socket.socket(fileno=3)
    server = await asyncio.start_server(serve, sock=sock, backlog=4096)
    await stop.wait()
    # close() makes asyncio drop what it accepted in this turn of its loop:
    # stop accepting first, let that turn end, then close.
    loop.remove_reader(sock)
    await asyncio.sleep(0)
    server.close()
    await asyncio.sleep(0)
    if tasks:
        await asyncio.wait(tasks, timeout=IDLE)
    for writer in quiet:  # a request that has arrived is still read, and answered
        with contextlib.suppress(OSError):
            writer.get_extra_info("socket").shutdown(socket.SHUT_RD)
    if tasks:
        await asyncio.wait(tasks)


time.sleep(float(os.environ.get("BOOT", 0)))
asyncio.run(main())
