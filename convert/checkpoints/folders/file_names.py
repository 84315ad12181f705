"""Names of the files that hold weights and what belongs to them, ours and other libraries'."""

from convert.formats.ctranslate2 import MODEL_BIN

MODEL = "model.safetensors"
MODEL_INDEX = "model.safetensors.index.json"
MODEL_PICKLE = "model.pt"
MODEL_MSGPACK = "flax_model.msgpack"
OPTIMIZER = "optimizer.safetensors"
OPTIMIZER_PICKLE = "optimizer.pt"
OPTIMIZER_PICKLES = (OPTIMIZER_PICKLE, "optimizer.bin")  # the second is Accelerate's
KEPT_ASIDE = "kept_aside.safetensors"
ORBAX_FOLDER = "orbax"
CONTAINER_OF = {
    ".safetensors": "safetensors",
    ".pt": "pt",
    ".pth": "pt",
    ".bin": "pt",
    ".msgpack": "msgpack",
    ".npz": "npz",
}
CONTAINERS = tuple(dict.fromkeys(CONTAINER_OF.values()))
HUB_FILES = (
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    MODEL_MSGPACK,
    "flax_model.msgpack.index.json",
    MODEL_BIN,
)
# In the order in which they are looked for.
MODELS = (MODEL, MODEL_INDEX, MODEL_PICKLE, *HUB_FILES, ORBAX_FOLDER)
