"""Features encoded once and searched as often as wanted, the twin of flax_transformer/hearing.py.

Letters: B rows of features, W frames, M feature_dim, P tokens of a prompt, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from torch_transformer.decoding import check_decoding, found, make_task
from torch_transformer.decoding_state import DecodingState, for_outputs, listened, next_logits
from torch_transformer.model import Transformer
from training_recipe.searching.search import (
    Hypothesis,
    Search,
    check_heard,
    check_rows_heard,
    check_search,
    hypotheses,
    prompt_of,
)


@torch.inference_mode()
def hear(model: Transformer, features: np.ndarray) -> "Heard":
    """What a model hears in features (B, W, M); what is no features is a UserError."""
    check_heard(features, model.config)
    model.check_numbers(torch.empty(0))
    return Heard(model, features, listened(model, model.as_source(features)))


class Heard:
    """What the decoder's layers keep of the encoder's output, on the model's device."""

    def __init__(self, model: Transformer, features: np.ndarray, state: DecodingState) -> None:
        self.model, self.features, self.state = model, features, state

    @torch.inference_mode()
    def logits(self, prompt: tuple[int, ...]) -> np.ndarray:
        """The logits (B, P, V) of the token after each of a prompt, in float32 at least."""
        search = Search(prompt=tuple(prompt))
        check_search(search, self.model.config)
        tokens = torch.tensor(prompt_of(search, self.model.config), device=self.device)
        state = for_outputs(self.state, len(tokens))
        tokens = tokens.expand(len(self.features), -1)
        found, _ = next_logits(self.model, tokens, state, whole=True)
        return found.to(torch.promote_types(found.dtype, torch.float32)).cpu().numpy()

    @torch.inference_mode()
    def decode(self, search: Search, rows: Sequence[int] | None = None) -> list[list[Hypothesis]]:
        """The n best outputs of each of the ``rows``, of all by default, best first.

        They are those of ``decode`` of the same features.
        """
        model, wanted = self.model, check_rows_heard(rows, len(self.features))
        features = self.features if rows is None else self.features[wanted]
        check_decoding(model, features, search)
        if not wanted:
            return []
        state = self.state if rows is None else of_rows(self.state, wanted)
        outputs = found(model, make_task(model, features, search, state), search)
        tokens, sums, lengths = (array.cpu().numpy() for array in outputs)
        return hypotheses(tokens, sums, lengths, model.config, search)

    @property
    def device(self) -> torch.device:
        return self.model.target_table.device


def of_rows(state: DecodingState, rows: list[int]) -> DecodingState:
    """The state of some of the sources, of which nothing is written."""

    def chosen(array: Tensor) -> Tensor:
        return array[torch.tensor(rows, device=array.device)]

    memory = [(chosen(keys), chosen(values)) for keys, values in state.memory]
    keys_values = [(chosen(keys), chosen(values)) for keys, values in state.keys_values]
    return DecodingState(
        memory, chosen(state.memory_mask), keys_values, chosen(state.seen), state.columns
    )
