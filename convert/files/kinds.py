"""What a file beside weights is by its name, and why some are not carried."""

from __future__ import annotations

import re

CONFIG = "config.json"
GENERATION = "generation_config.json"
WEIGHTS = re.compile(
    r".*\.(safetensors|bin|pt|pth|ckpt|chkpt|msgpack|npz|npy|h5|hdf5|keras|ot|onnx|onnx_data|gguf"
    r"|ggml|tflite|pb|mlmodel|engine|distcp)(\.index\.json)?",
    re.IGNORECASE,
)
TRAINING = re.compile(
    r"(optimizer|optim|scheduler|scaler|rng_state|random_states)(\W|_\d).*|trainer_state\.json"
    r"|training_args\.bin|.*_optim_states\.pt|events\.out\.tfevents\..*|latest|zero_to_fp32\.py"
)
BOOKKEEPING = re.compile(
    r"\.DS_Store|Thumbs\.db|desktop\.ini|.*~|.*\.(lock|incomplete|partial|tmp|swp)|\..*\.partial-.*"
)
DOCUMENTS = re.compile(
    r"(readme|model_?card|licen[cs]e|copying|notice|citation|authors|use_?policy)([\W_].*)?",
    re.IGNORECASE,
)
RECORDS = ("conversion.json", "tensors.json")


def why_left(name: str) -> str | None:
    """Why a file of another library's folder is not carried, by its name; None where it is."""
    if TRAINING.fullmatch(name):
        return "the state or a log of another training loop"
    if WEIGHTS.fullmatch(name):
        return "named as weights, and not a file that was read"
    if BOOKKEEPING.fullmatch(name):
        return "what a download, an editor or a system has left"
    if name in RECORDS:
        return "what an earlier conversion said; conversion.json is written anew"
    return None


def is_document(name: str) -> bool:
    """Whether a file is about the model and no program's: its card, its licence."""
    return DOCUMENTS.fullmatch(name) is not None
