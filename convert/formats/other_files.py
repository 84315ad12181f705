"""Files that are no weights, known by their first bytes, and what to do about each."""

from __future__ import annotations

import re
from pathlib import Path

from convert.formats.arrays import file_size, read_bytes
from convert.formats.ctranslate2 import SPEECH, specification_in
from transformer_spec import UserError

START = 512
ARCHIVES = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z",
            b"\x28\xb5\x2f\xfd": "zstandard", b"Rar!": "rar"}  # fmt: skip
UNPACK = "unpack it and name what is inside"
TENSORFLOW = (
    "checkpoints of TensorFlow, as Mesh TensorFlow left the first T5 models: take the model as T5X "
    "or transformers publish it, or make it a transformers folder with load_tf_weights_in_t5 of "
    "transformers 4"
)
# What TensorFlow's Saver calls the parts of a checkpoint.
SAVER = re.compile(r".*\.ckpt(-\d+)?\.(index|meta|data-\d+-of-\d+)")
OTHERS = {
    b"version https://git-lfs": "a pointer of git-lfs, not the weights: run git lfs pull there, or "
    "download the file itself",
    b"\x89HDF": "an HDF5 file of TensorFlow; load it there with from_tf=True of transformers 4 and "
    "save_pretrained it as safetensors",
    b"model_checkpoint_path": f"the list of a folder of {TENSORFLOW}",
    b"GGUF": "a GGUF file of llama.cpp, whose weights are of no encoder-decoder here",
}
# Vocabularies may begin with a "<" too, that of <unk> or <pad>.
PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*<(\?xml|!doctype|!--|(html|head|body|title|meta|script|error)[\s>])", re.I
)
A_PAGE = (
    "a page in HTML or XML, which a server gives in place of a file that needs a login or is not "
    "there: download it again"
)


def first_bytes(path: Path) -> bytes:
    """How a file begins; a UserError where it is empty or known to hold something else."""
    size = file_size(path)
    if size == 0:
        raise UserError(f"{path} is empty: it was not written to its end; get it again")
    start = read_bytes(path, 0, min(size, START))
    _refuse_others(path, start)
    return start


def _refuse_others(path: Path, start: bytes) -> None:
    archive = next((kind for magic, kind in ARCHIVES.items() if start.startswith(magic)), None)
    if archive or start[257:262] == b"ustar":
        raise UserError(f"{path} is an archive ({archive or 'tar'}); {UNPACK}")
    for magic, what in OTHERS.items():
        if start.lstrip()[: len(magic)] == magic:
            raise UserError(f"{path} is {what}")
    if PAGE.match(start):
        raise UserError(f"{path} is {A_PAGE}")
    specification = specification_in(start)
    if specification not in (None, SPEECH):
        raise UserError(
            f"{path} is a model of CTranslate2 ({specification}); of its models those of Whisper "
            f"({SPEECH}) alone are read back, so give the checkpoint that it was made from"
        )
    if SAVER.fullmatch(path.name):
        raise UserError(f"{path} is a part of {TENSORFLOW}")
    if path.suffix == ".onnx":
        raise UserError(
            f"{path} is an ONNX program, which keeps no names of a model's parts; give the weights "
            "that it was exported from"
        )
