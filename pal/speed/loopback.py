"""A server on the loopback that gives every chat completion the same answer after a fixed time.

``python -m pal.speed.loopback SECONDS`` prints its port and serves until it is ended.
"""

import asyncio
import json
import sys

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
COMPLETION = {
    "id": "0", "object": "chat.completion", "created": 0, "model": "loopback",
    "choices": [
        {
            "index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": '{"answer": 3}'},
        }
    ],
    "usage": {"prompt_tokens": 300, "completion_tokens": 6, "total_tokens": 306},
}  # fmt: skip


async def answer_forever(seconds: float) -> None:
    """Serve on a free port, which is printed first.

    Args:
        seconds: time from the last byte of a request to its answer, in seconds.
    """
    body = json.dumps(COMPLETION).encode()
    reply = HEAD.format(len(body)).encode() + body

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
                await reader.readexactly(int(length))
                await asyncio.sleep(seconds)
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(answer_forever(float(sys.argv[1])))
