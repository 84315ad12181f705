"""Whether the encoder still tells the tokens of a sentence apart.

With LayerNorm after each residual sum and plain first weights, high learning rates can make every
position of a sentence the same vector: the decoder is left with one vector for each sentence, and
training goes on, slowly, with a loss that falls. DeepNet (Wang et al. 2022, figure 2) makes the
first weights of the residual branches smaller, which ``--init-gain`` does.
"""

from __future__ import annotations

import numpy as np

COLLAPSED = 0.1  # sound models were seen at 0.84 to 0.96, collapsed ones at 0.03 to 0.096


def token_spread(states: np.ndarray, real: np.ndarray) -> float:
    """How much of the encoder's variety is between the tokens of one sentence, from 0 to 1.

    The standard deviation of ``states`` (B, S, D) around the mean of their sentence, divided by
    that around the mean of all; ``real`` (B, S) bool says which are tokens, not padding. 1 where
    there is nothing to compare: one sentence, sentences of one token, or equal states alone.
    """
    real = real[..., None]
    tokens = real.sum(1, keepdims=True)
    if tokens.max(initial=0) < 2:
        return 1.0
    states = np.where(real, states, 0).astype(np.float64)
    of_sentence = states.sum(1, keepdims=True) / np.maximum(tokens, 1)
    of_all = states.sum((0, 1)) / tokens.sum()
    within, total = (
        float(np.square(states - mean, where=real, out=np.zeros_like(states)).sum())
        for mean in (of_sentence, of_all)
    )
    return (within / total) ** 0.5 if total > 0 else 1.0


def collapse_notes(spread: float | None) -> list[str]:
    """What the log says of an encoder that has collapsed; nothing of one that has not."""
    if spread is None or spread >= COLLAPSED:
        return []
    return [
        f"warning: the encoder writes nearly the same for every token of a sentence (spread "
        f"{spread:.2f} of 1), so word order and most words are lost; start again with --init-gain "
        "0.5, a lower --peak-lr or --norm-position pre"
    ]
