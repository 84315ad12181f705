"""The models of ``marian_cases`` in the classes of transformers, in float64."""

import numpy as np
import torch
import transformers
from marian_cases import TOP, Case
from torch import nn


def marian_positions(rows: int, width: int) -> np.ndarray:
    """As Marian's SinusoidalPositionEmbeddings computes, in float64."""
    scales = width // 2
    step = np.log(10000.0) / (scales - 1)
    angles = np.arange(rows)[:, None] * np.exp(-step * np.arange(scales))
    return np.concatenate([np.sin(angles), np.cos(angles)], 1)


def hugging_face_positions(rows: int, width: int) -> np.ndarray:
    """As MarianSinusoidalPositionalEmbedding computes, in float64."""
    angles = np.arange(rows)[:, None] / 10000.0 ** (2 * np.arange(width // 2) / width)
    return np.concatenate([np.sin(angles), np.cos(angles)], 1)


LAYER = {
    "self_Wq": "self_attn.q_proj.weight", "self_bq": "self_attn.q_proj.bias",
    "self_Wk": "self_attn.k_proj.weight", "self_bk": "self_attn.k_proj.bias",
    "self_Wv": "self_attn.v_proj.weight", "self_bv": "self_attn.v_proj.bias",
    "self_Wo": "self_attn.out_proj.weight", "self_bo": "self_attn.out_proj.bias",
    "self_Wo_ln_scale": "self_attn_layer_norm.weight",
    "self_Wo_ln_bias": "self_attn_layer_norm.bias",
    "context_Wq": "encoder_attn.q_proj.weight", "context_bq": "encoder_attn.q_proj.bias",
    "context_Wk": "encoder_attn.k_proj.weight", "context_bk": "encoder_attn.k_proj.bias",
    "context_Wv": "encoder_attn.v_proj.weight", "context_bv": "encoder_attn.v_proj.bias",
    "context_Wo": "encoder_attn.out_proj.weight", "context_bo": "encoder_attn.out_proj.bias",
    "context_Wo_ln_scale": "encoder_attn_layer_norm.weight",
    "context_Wo_ln_bias": "encoder_attn_layer_norm.bias",
    "ffn_W1": "fc1.weight", "ffn_b1": "fc1.bias",
    "ffn_W2": "fc2.weight", "ffn_b2": "fc2.bias",
    "ffn_ffn_ln_scale": "final_layer_norm.weight", "ffn_ffn_ln_bias": "final_layer_norm.bias",
}  # fmt: skip


def hugging_face_state(case: Case) -> dict:
    """The arrays as transformers' conversion of OPUS-MT models lays them out.

    Everything but embeddings is transposed and squeezed; a zero embedding and a zero bias are added
    for the padding token, and zeros for words that one vocabulary has less than the other.
    """
    arrays = case.arrays()

    def table(name: str) -> np.ndarray:
        return np.pad(arrays[name], [(0, case.token + 1 - len(arrays[name])), (0, 0)])

    state = {}
    for half in ("encoder", "decoder"):
        name = "Wemb" if case.shared else f"{half}_Wemb"
        state[f"model.{half}.embed_tokens.weight"] = table(name)
        for norm, ours in (("emb", "layernorm_embedding"), ("top", "layer_norm")):
            suffix = "_pre" if norm == "emb" else ""
            if f"{half}_{norm}_ln_scale{suffix}" in arrays:
                scale, bias = (arrays[f"{half}_{norm}_ln_{x}{suffix}"] for x in ("scale", "bias"))
                state[f"model.{half}.{ours}.weight"] = scale.squeeze()
                state[f"model.{half}.{ours}.bias"] = bias.squeeze()
        for i in range(case.encoder if half == "encoder" else case.decoder):
            for theirs, ours in LAYER.items():
                array = arrays.get(f"{half}_l{i + 1}_{theirs}")
                if array is None:
                    array = arrays.get(f"{half}_l{i + 1}_{theirs}_pre")
                if array is not None:
                    state[f"model.{half}.layers.{i}.{ours}"] = array.T.squeeze()
    if case.own_output:
        output = arrays[f"decoder_ff_logit_out_{case.output}"]
        output = output if case.output == "Wt" else output.T
        state["lm_head.weight"] = np.pad(output, [(0, case.token + 1 - len(output)), (0, 0)])
    else:
        state["lm_head.weight"] = state["model.decoder.embed_tokens.weight"]
    bias = arrays.get("decoder_ff_logit_out_b", np.zeros((1, case.targets)))
    added = case.token + 1 - case.targets
    state["final_logits_bias"] = np.pad(bias, [(0, 0), (0, added)])
    return {name: torch.tensor(np.asarray(array, np.float64)) for name, array in state.items()}


def sizes(case: Case) -> dict:
    return {
        "vocab_size": case.token + 1,
        "d_model": case.width,
        "encoder_ffn_dim": case.inner,
        "decoder_ffn_dim": case.inner,
        "encoder_attention_heads": case.heads,
        "decoder_attention_heads": case.heads,
        "encoder_layers": case.encoder,
        "decoder_layers": case.decoder,
        "activation_function": {"swish": "silu", "gelu": "quick_gelu"}.get(case.activation, "relu"),
        "max_position_embeddings": TOP["max_length"],
        "pad_token_id": case.token,
        "eos_token_id": 0,
        "bos_token_id": 0,
        "forced_eos_token_id": 0,
        "decoder_start_token_id": case.token,
        "scale_embedding": True,
        "tie_word_embeddings": False,
        "attn_implementation": "eager",
    }


def marian_mt(case: Case, positions: np.ndarray, epsilon: float):
    """MarianMTModel, which has post-norm alone."""
    config = transformers.MarianConfig(**sizes(case), share_encoder_decoder_embeddings=False)
    model = transformers.MarianMTModel(config)
    return filled(model, case, positions, epsilon)


def mbart(case: Case, positions: np.ndarray, epsilon: float):
    """MBart has pre-norm and both further norms; what the case lacks is taken out."""
    model = transformers.MBartForConditionalGeneration(transformers.MBartConfig(**sizes(case)))
    for half in (model.model.encoder, model.model.decoder):
        if "n" not in case.emb:
            half.layernorm_embedding = nn.Identity()
        if not case.top:
            half.layer_norm = nn.Identity()
    return filled(model, case, np.pad(positions, [(2, 0), (0, 0)]), epsilon)


class Normed(nn.Module):
    """A norm after another module."""

    def __init__(self, module: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.module, self.norm = module, norm

    def forward(self, *args, **kwargs):
        output = self.module(*args, **kwargs)
        return (
            (self.norm(output[0]), *output[1:]) if isinstance(output, tuple) else self.norm(output)
        )


def bart(case: Case, positions: np.ndarray, epsilon: float):
    """BART has post-norm and a norm of embeddings; the final norm follows its last layer."""
    model = transformers.BartForConditionalGeneration(transformers.BartConfig(**sizes(case)))
    norms = {}
    for name in ("encoder", "decoder"):
        norms[name] = nn.LayerNorm(case.width)
        norms[name].load_state_dict({
            key.rpartition(".")[2]: value
            for key, value in hugging_face_state(case).items()
            if key.startswith(f"model.{name}.layer_norm.")
        })  # fmt: skip
    state = {k: v for k, v in hugging_face_state(case).items() if ".layer_norm." not in k}
    model = filled(model, case, np.pad(positions, [(2, 0), (0, 0)]), epsilon, state)
    for name, half in (("encoder", model.model.encoder), ("decoder", model.model.decoder)):
        half.layers[-1] = Normed(half.layers[-1], norms[name].double().eval())
        norms[name].eps = epsilon
    return model


def filled(model, case: Case, positions: np.ndarray, epsilon: float, state: dict | None = None):
    model = model.double().eval()
    state = hugging_face_state(case) if state is None else state
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    leftover = [n for n in missing if not n.endswith(("embed_positions.weight", "shared.weight"))]
    assert not leftover
    for half in (model.model.encoder, model.model.decoder):
        half.embed_positions.weight.data[:] = torch.from_numpy(positions)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = epsilon
    return model
