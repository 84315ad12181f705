"""TensorBoard event files, scalars only, written directly.

TensorBoard's own EventFileWriter needs neither PyTorch nor TensorFlow, but 88 MB beside NumPy
(gRPC, a web server) and half a second at every start. A file is a row of records: length, its
checksum, an Event message in protocol buffer encoding, its checksum (TensorFlow's record format).
"""

from __future__ import annotations

import math
import struct
import time
from pathlib import Path

CASTAGNOLI = 0x82F63B78
MASK = 0xA282EAD8
LARGEST = 3.4e38  # of float32
# Protocol buffer keys: field number << 3 | encoding (0 varint, 1 64 bits, 2 bytes, 5 32 bits).
EVENT_TIME, EVENT_STEP = 1 << 3 | 1, 2 << 3
EVENT_FILE_VERSION, EVENT_SUMMARY = 3 << 3 | 2, 5 << 3 | 2
SUMMARY_VALUE, VALUE_TAG, VALUE_NUMBER = 1 << 3 | 2, 1 << 3 | 2, 2 << 3 | 5


class EventFile:
    """One events file in an existing folder."""

    def __init__(self, folder: Path) -> None:
        began = time.time()
        self._file = (folder / f"events.out.tfevents.{int(began)}.training").open("wb")
        self._write(_number(EVENT_TIME, "<d", began) + _bytes(EVENT_FILE_VERSION, b"brain.Event:2"))

    def add(self, name: str, value: float, step: int, when: float) -> None:
        """Append one scalar; ``when`` is in seconds since 1970."""
        shown = value if abs(value) < LARGEST else math.copysign(math.inf, value)
        scalar = _bytes(VALUE_TAG, name.encode(errors="replace"))
        scalar += _number(VALUE_NUMBER, "<f", shown)
        summary = _bytes(EVENT_SUMMARY, _bytes(SUMMARY_VALUE, scalar))
        self._write(_number(EVENT_TIME, "<d", when) + _varints(EVENT_STEP, step) + summary)

    def flush(self) -> None:
        """Hand everything to the system."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, event: bytes) -> None:
        length = struct.pack("<Q", len(event))
        self._file.write(length + masked_crc(length) + event + masked_crc(event))


def _varints(*numbers: int) -> bytes:
    """Each number in base 128, low digits first, the high bit of a byte saying that more follow."""
    encoded = bytearray()
    for number in numbers:
        while number > 0x7F:
            encoded.append(number & 0x7F | 0x80)
            number >>= 7
        encoded.append(number)
    return bytes(encoded)


def _bytes(key: int, content: bytes) -> bytes:
    return _varints(key, len(content)) + content


def _number(key: int, form: str, value: float) -> bytes:
    return _varints(key) + struct.pack(form, value)


def masked_crc(content: bytes) -> bytes:
    """CRC-32C, rotated and shifted as the record format wants it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = CRC_OF_BYTE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF)


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ CASTAGNOLI * (byte & 1)
    return byte


CRC_OF_BYTE = [_crc_of_byte(byte) for byte in range(256)]
