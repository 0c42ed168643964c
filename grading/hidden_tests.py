"""LiveCodeBench's hidden tests: text in a pickle, compressed, in base64. Read without trusting any of it.

    base64 -> zlib -> pickle -> a JSON text: [{"input": …, "output": …, "testtype": "stdin" | "functional"}, …]

A pickle may call any function when it is loaded. The loader here finds none by name, so there is nothing that it could
call; and what is unpacked has a limit.
"""

import base64
import io
import pickle
import zlib

from errors import UserError

LARGEST = 1 << 30  # bytes of one problem's tests, unpacked


class _Strings(pickle._Unpickler):
    """The standard library's loader, the one written in Python, without its opcode of byte arrays: that allocates
    whatever size it is told, as the loader written in C does for whatever index of its memo."""

    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]}  # noqa: RUF012

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def load_strings(encoded: str, where: str, largest: int | None = None) -> str | list | dict:
    """Return what a base64 text of a compressed pickle holds: strings, lists, dicts, numbers. Raises UserError for
    anything else, or for more than `largest` bytes (LARGEST)."""
    try:
        return _Strings(io.BytesIO(_unpack(encoded, largest or LARGEST))).load()
    except Exception as error:  # whatever a hostile or damaged file provokes
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    raise UserError(f"{where}: private_test_cases cannot be read ({reason}); download the file again")


def begin(encoded: str) -> bytes:
    """Return the first 200 bytes behind base64 and zlib, without unpacking the rest. Raises ValueError or
    zlib.error."""
    head = base64.b64decode(encoded[:1024], validate=True)
    return zlib.decompressobj().decompress(head, 200)


def _unpack(encoded, largest):
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(base64.b64decode(encoded, validate=True), largest)
    if not unpacker.eof:
        raise ValueError(f"more than {largest} bytes" if unpacker.unconsumed_tail else "it is cut off")
    return data
