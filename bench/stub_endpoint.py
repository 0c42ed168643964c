"""A chat-completions server that costs next to nothing, in its own process: what the client benchmarks talk to.

    python -m bench.stub_endpoint --latency 0.05 --answer-bytes 2048

Prints its URL. Every answer comes `latency` seconds after its request, however many there are at once. With --crv it
plays CRV's agents, as a function of the request alone. GET /stats tells how many questions it got and how many at once.
"""

import argparse
import asyncio
import json
import re
import zlib

HEADER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
SECTIONS = re.compile(rb"Problem:\\n(.+?)\\n\\nAnswer:\\n(.+?)\\n\\nReasoning process:", re.DOTALL)
STATS = {"requests": 0, "in_flight": 0, "peak": 0}


def packed(answer):
    """The bytes of a response with a JSON-able body."""
    body = json.dumps(answer).encode()
    return HEADER % len(body) + body


def completion(text):
    message = {"role": "assistant", "content": text}
    return packed(
        {
            "id": "stub",
            "object": "chat.completion",
            "created": 0,
            "model": "stub",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 500, "completion_tokens": len(text) // 4, "total_tokens": 500 + len(text) // 4},
        }
    )


def play(body, padding):
    """What an agent of CRV would answer: levels of all three kinds, a verdict that fails now and then."""
    dice = zlib.crc32(body)
    if b"capable evaluator" in body:
        return ("easy", "medium", "medium", "hard")[dice % 4]
    if b"capable Verifier" in body:
        return "NO" if dice % 10 == 0 else "YES"
    answer = int(SECTIONS.search(body).group(2))
    wrong = b"converting correct" in body
    return f"{padding} {dice:08x} so the answer is \\boxed{{{answer + wrong}}}"


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, one request at a time; only as much of it as these benchmarks need."""

    latency, answer, padding = 0.0, b"", None

    def connection_made(self, transport):
        self.transport, self.buffer, self.need = transport, bytearray(), 0

    def data_received(self, data):
        self.buffer += data
        if not self.need:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            length = LENGTH.search(self.buffer, 0, end)
            self.body, self.need = end + 4, end + 4 + (int(length.group(1)) if length else 0)
        if len(self.buffer) >= self.need:
            asked = bytes(self.buffer[: self.need])
            del self.buffer[: self.need]
            self.need = 0
            self.respond(asked)

    def respond(self, asked):
        if asked.startswith(b"GET /stats"):
            self.transport.write(packed(STATS))
        elif asked.startswith(b"GET"):
            self.transport.write(packed({"object": "list", "data": [{"id": "stub", "max_model_len": 1 << 20}]}))
        else:
            STATS["requests"] += 1
            STATS["in_flight"] += 1
            STATS["peak"] = max(STATS["peak"], STATS["in_flight"])
            answer = self.answer if self.padding is None else completion(play(asked[self.body :], self.padding))
            if self.latency:
                asyncio.get_running_loop().call_later(self.latency, self.finish, answer)
            else:
                self.finish(answer)

    def finish(self, answer):
        STATS["in_flight"] -= 1
        self.transport.write(answer)


async def serve(args):
    Connection.latency = args.latency
    Connection.answer = completion("x" * args.answer_bytes)
    Connection.padding = "step " * (args.answer_bytes // 5) if args.crv else None
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", args.port, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--answer-bytes", type=int, default=2048)
    parser.add_argument("--crv", action="store_true", help="play the agents of CRV")
    asyncio.run(serve(parser.parse_args()))
