"""An asyncio server that inherits its socket as descriptor 3 and drains without losing a request.

One thread accepts and answers without ever blocking, so it stands still if
anyone sets the shared socket to blocking. BOOT=SECONDS makes it slow to start.
It says nothing: that it is ready must be seen.
"""

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time

IDLE = 1.0  # seconds that an unused connection may hold up a drain

stop = asyncio.Event()
tasks = set()  # one for each connection
unused = set()  # connections without a request


async def serve(reader, writer):
    tasks.add(asyncio.current_task())
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        last = False
        while not last:
            unused.add(writer)
            head = await reader.readuntil(b"\r\n\r\n")
            unused.discard(writer)
            last = stop.is_set() or b"\r\nconnection: close" in head.lower()
            close = "Connection: close\r\n" if last else ""
            body = f"generation {os.environ.get('HOTWRAP_GENERATION')} pid {os.getpid()}\n"
            writer.write(f"HTTP/1.1 200 OK\r\n{close}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            await writer.drain()
    unused.discard(writer)
    writer.close()
    tasks.discard(asyncio.current_task())


async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    sock = socket.socket(fileno=3)
    server = await asyncio.start_server(serve, sock=sock, backlog=4096)
    await stop.wait()
    # What was accepted becomes a task some turns of the loop later, and a server
    # that is closed before that drops it. So: accept no more, wait, close.
    loop.remove_reader(sock)
    for _ in range(5):
        await asyncio.sleep(0)
    server.close()
    if tasks:
        await asyncio.wait(tasks, timeout=IDLE)
    for writer in list(unused):  # a request that has arrived is still read, and answered
        with contextlib.suppress(OSError):
            writer.get_extra_info("socket").shutdown(socket.SHUT_RD)
    if tasks:
        await asyncio.wait(tasks)


def lifeline(path):
    """End with the test that started this: it holds the other end of the fifo."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(fd, True)

    def wait():
        while os.read(fd, 4096):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if path := os.environ.get("TESTAPP_LIFELINE"):
    lifeline(path)
time.sleep(float(os.environ.get("BOOT", 0)))
asyncio.run(main())
