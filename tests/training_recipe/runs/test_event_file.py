"""Event files, read back by the code of another program."""

import struct

import pytest

from training_recipe.runs.event_file import EventFile, masked_crc

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")


def records(path):
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        assert content[8:12] == masked_crc(content[:8])
        event, crc = content[12 : 12 + length], content[12 + length : 16 + length]
        assert crc == masked_crc(event)
        yield event_pb2.Event.FromString(event)
        content = content[16 + length :]


def test_scalars_come_back(tmp_path):
    written = [("train/loss", 2.5, 7, 1000.25), ("evaluation/WER", -0.125, 123456, 2e9)]
    file = EventFile(tmp_path)
    for scalar in written:
        file.add(*scalar)
    file.close()
    (path,) = tmp_path.iterdir()
    assert "tfevents" in path.name
    first, *events = records(path)
    assert first.file_version == "brain.Event:2"
    found = [(v.tag, v.simple_value, e.step, e.wall_time) for e in events for v in e.summary.value]
    assert found == written


def test_checksum_is_that_of_the_record_format():
    from tensorboardX.crc32c import crc32c

    for content in (b"", b"123456789", bytes(range(256))):
        crc = crc32c(content)
        rotated = ((crc >> 15) | (crc << 17)) & 0xFFFFFFFF
        assert masked_crc(content) == struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)
    assert crc32c(b"123456789") == 0xE3069283  # the published check value of CRC-32C
