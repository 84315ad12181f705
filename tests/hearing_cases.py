"""A small Whisper of transformers, the twins with its weights, and its generate as a judge."""

import dataclasses

import numpy as np
import torch
from decoding_cases import flax_model, torch_model

from training_recipe.searching.search import Search
from training_recipe.searching.timestamps import Timestamps
from transformer_spec import TransformerConfig

V, END, START, LANGUAGE, TASK, LM, WITHOUT, STAMPS = 97, 60, 61, 62, 65, 66, 69, 70
LENGTH, FRAMES, BINS = 20, 14, 5
SPEECH = TransformerConfig(
    source_vocab_size=0, target_vocab_size=V, hidden_dim=12, inner_dim=20, num_heads=3,
    num_encoder_layers=2, num_decoder_layers=3, max_length=LENGTH, max_source_length=7,
    feature_dim=BINS, norm_position="pre", final_norm=True, activation="gelu",
    encoder_positions="frozen", decoder_positions="learned", sinusoid_layout="concatenated",
    sinusoid_frequency="i/(d/2-1)", embedding_scale=1.0, key_bias=False, output_bias="none",
    tied_embeddings="target_output", pad_id=LM, unk_id=END, bos_id=END, eos_id=END,
    decoder_start_id=START,
)  # fmt: skip
TIMES = Timestamps(first=STAMPS, without=WITHOUT, end=END, latest_first=9)
SUPPRESSED, SUPPRESSED_FIRST = (5, 17, 31, START, 64, TASK, LM, 67, 68), (3, END)
PROMPTS = {
    "start": (START,),
    "language": (START, LANGUAGE, TASK),
    "without timestamps": (START, LANGUAGE, TASK, WITHOUT),
    "previous text": (67, 8, 9, 10, LM, 9, 10, START, LANGUAGE, TASK),
}
GREEDY = Search(rule="generate", suppressed=SUPPRESSED, suppressed_first=SUPPRESSED_FIRST)
BEAM = dataclasses.replace(GREEDY, beam=3, nbest=2)
SEARCHES = {
    "greedy": GREEDY,
    "greedy, timestamps": dataclasses.replace(GREEDY, timestamps=TIMES),
    "beam": BEAM,
    "beam, timestamps": dataclasses.replace(BEAM, timestamps=TIMES, early_stopping=True),
    "beam, settings": dataclasses.replace(
        BEAM, no_repeat_ngram_size=2, repetition_penalty=1.3, min_length=3, max_length=6,
        length_penalty=0.4,
    ),
}  # fmt: skip

OUTSIDE = {
    "embed_tokens": "embedding", "embed_positions": "pos_embedding", "layer_norm": "final_norm",
}  # fmt: skip
LAYER = {
    "self_attn.": "multiheadattention{}.", "self_attn_layer_norm.": "layerNorm1.",
    "encoder_attn.": "multiheadattention2.", "encoder_attn_layer_norm.": "layerNorm2.",
    "fc1.": "ffn.fc1.", "fc2.": "ffn.fc2.",
}  # fmt: skip
PARTS = {"q_proj": "fcQ", "k_proj": "fcK", "v_proj": "fcV", "out_proj": "fcOut"}


def whisper(seed=0):
    """A random Whisper in float64, whose tokens differ from window to window."""
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(seed)
    ids = dict(pad_token_id=END, bos_token_id=END, eos_token_id=END, decoder_start_token_id=START)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=V, d_model=12, num_mel_bins=BINS, encoder_layers=2, decoder_layers=3,
            encoder_attention_heads=3, decoder_attention_heads=3, encoder_ffn_dim=20,
            decoder_ffn_dim=20, max_source_positions=7, max_target_positions=LENGTH, **ids,
        )
    )  # fmt: skip
    model = model.double().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "layer_norm" not in name:
                weight.normal_(0, 0.6)
        model.model.decoder.embed_tokens.weight[END] *= 3
    model.generation_config = GenerationConfig(
        no_timestamps_token_id=WITHOUT, max_initial_timestamp_index=9, max_length=LENGTH, **ids
    )
    return model


def our_name(name):
    """Our name of one of transformers' weights (facts of Whisper's keys)."""
    half, _, rest = name.removeprefix("model.").partition(".")
    if not rest.startswith("layers."):
        for theirs, ours in OUTSIDE.items():
            rest = rest.replace(theirs, ours)
        return f"{half}.{rest}"
    _, number, rest = rest.split(".", 2)
    own, last = ("1", "layerNorm3.") if half == "decoder" else ("", "layerNorm2.")
    for theirs, ours in {**LAYER, "final_layer_norm.": last}.items():
        if rest.startswith(theirs):
            rest = ours.format(own) + rest.removeprefix(theirs)
            break
    for theirs, ours in PARTS.items():
        rest = rest.replace(theirs, ours)
    return f"{half}.{half[:3]}_layers.{number}.{rest}"


def our_weights(model):
    """The weights of a Whisper of transformers by our names."""
    state = model.state_dict()
    return {our_name(n): v.numpy() for n, v in state.items() if n != "proj_out.weight"}


def windows(rows, seed=0):
    """Features (B, W, M) of so many windows."""
    return np.random.default_rng(seed).normal(0, 1.5, (rows, FRAMES, BINS))


def generated(model, features, search):
    """What transformers' generate writes behind the prompt, one list for each output asked for."""
    from transformers.generation import GenerationMixin
    from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

    prompt, config = search.prompt, model.generation_config
    rules = [WhisperTimeStampLogitsProcessor(config, len(prompt))] if search.timestamps else []
    more = None if search.max_length is None else search.max_length
    found = GenerationMixin.generate(
        model, torch.from_numpy(features).transpose(1, 2),
        decoder_input_ids=torch.tensor([prompt] * len(features)), logits_processor=rules,
        num_beams=search.beam, num_return_sequences=search.nbest, do_sample=False,
        suppress_tokens=list(search.suppressed) or None,
        begin_suppress_tokens=list(search.suppressed_first) or None,
        length_penalty=search.length_penalty, early_stopping=search.early_stopping,
        no_repeat_ngram_size=search.no_repeat_ngram_size,
        repetition_penalty=search.repetition_penalty,
        max_length=LENGTH if more is None else len(prompt) + more,
        min_new_tokens=search.min_length or None,
    ).tolist()  # fmt: skip
    rows = [row[len(prompt) :] for row in found]
    return [row[: row.index(END)] if END in row else row for row in rows]


def twins(model):
    """Both twins with the weights of a Whisper of transformers."""
    weights = our_weights(model)
    return torch_model(SPEECH, weights), flax_model(SPEECH, weights)
