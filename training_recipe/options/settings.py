"""Every setting of a training run, once: type, default, meaning, allowed values."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from training_recipe.corpora.named import CMUDICT, NAMED_CORPORA
from training_recipe.options.declarations import (
    Declaration,
    declarations,
    declared,
    range_fault,
    read_value,
)
from training_recipe.options.schedule import SCHEDULES
from training_recipe.options.usual_names import meant
from training_recipe.text.vocabulary import (
    DEFAULT_SENTENCEPIECE_SIZE,
    SENTENCEPIECE_ALGORITHMS,
    VOCABULARY_KINDS,
)
from transformer_spec.errors import Faults

USUAL_SIZE = f"none: all, {DEFAULT_SENTENCEPIECE_SIZE} for sentencepiece"


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained; a fault in any value is a UserError that names them all."""

    data: str = declared(
        f"cmudict (built in), {', '.join(NAMED_CORPORA)} (downloaded once), the PREFIX of "
        "parallel files, or a .tsv or .csv file",
        "data",
        CMUDICT,
        resumable=True,
    )
    source_lang: str | None = declared("source is read from PREFIX.SOURCE_LANG", "data", None)
    target_lang: str | None = declared("target is read from PREFIX.TARGET_LANG", "data", None)
    columns: tuple[str, ...] | None = declared(
        "source and target column of a table, by name or number, as in Q,A", "data", None
    )
    valid: str | None = declared(
        "validation data, as --data; none: the data's own or a share", "data", None, resumable=True
    )
    test: str | None = declared(
        "test data, as --data; none: the data's own or a share", "data", None, resumable=True
    )
    extra_data: tuple[str, ...] | None = declared(
        "more pairs to train on, as --data, between commas; diversify.py makes such",
        "data",
        None,
        resumable=True,
    )
    source_vocabulary: str | None = declared(
        "what a source token is; none: characters for cmudict, sentencepiece for other data",
        "data",
        None,
        choices=VOCABULARY_KINDS,
    )
    target_vocabulary: str | None = declared(
        "what a target token is; none: whitespace for cmudict, sentencepiece for other data",
        "data",
        None,
        choices=VOCABULARY_KINDS,
    )
    source_vocab_size: int | None = declared(
        f"source tokens: most kept, exact for sentencepiece; {USUAL_SIZE}", "data", None, least=5
    )
    target_vocab_size: int | None = declared(
        f"target tokens: most kept, exact for sentencepiece; {USUAL_SIZE}", "data", None, least=5
    )
    shared_vocabulary: bool = declared("one vocabulary for both sides", "data", False)
    sentencepiece_algorithm: str = declared(
        "how sentencepiece finds its pieces", "data", "unigram", choices=SENTENCEPIECE_ALGORITHMS
    )

    bpe_dropout: float = declared(
        "cut the words anew in every epoch, each merge left out with this probability; 0: never",
        "data",
        0.0,
        least=0,
        below=1,
    )

    steps: int = declared("optimizer steps in all", "optimisation", 3000, least=1, resumable=True)
    batch_tokens: int = declared(
        "most tokens of a batch on its longer side, padding counted", "optimisation", 4096, least=1
    )
    batch_shapes: int = declared(
        "most different shapes of batches, each of which XLA compiles once",
        "optimisation",
        12,
        least=1,
    )
    accumulate: int = declared(
        "batches of an optimizer step; its gradient is the mean over all their tokens",
        "optimisation",
        1,
        least=1,
    )
    peak_lr: float = declared("highest learning rate", "optimisation", 2e-3, above=0)
    warmup_steps: int = declared(
        "steps until the highest learning rate", "optimisation", 400, least=0
    )
    schedule: str = declared(
        "course of the learning rate after warm-up",
        "optimisation",
        "inverse_sqrt",
        choices=tuple(SCHEDULES),
    )
    init_gain: float = declared(
        "factor on the first weights of fcV, fcOut and the feed-forward; 0.5 keeps the encoder's "
        "positions apart where post-norm meets high learning rates",
        "optimisation",
        1.0,
        above=0,
    )
    label_smoothing: float = declared(
        "probability spread evenly over the vocabulary", "optimisation", 0.1, least=0, below=1
    )
    clip_norm: float = declared(
        "largest global norm of the gradient; 0: no clipping", "optimisation", 1.0, least=0
    )
    weight_decay: float = declared(
        "decoupled weight decay of the matrices (AdamW)", "optimisation", 0.01, least=0
    )
    adam_beta1: float = declared("decay of the first moment", "optimisation", 0.9, least=0, below=1)
    adam_beta2: float = declared(
        "decay of the second moment", "optimisation", 0.98, least=0, below=1
    )
    adam_eps: float = declared(
        "added to the root of the second moment", "optimisation", 1e-9, above=0
    )
    ema_decay: float = declared(
        "decay of the moving average of the weights, by which the model is validated, tested and "
        "used; 0: the weights themselves",
        "optimisation",
        0.0,
        least=0,
        below=1,
    )
    dropout_rng: str = declared(
        "masks of dropout; portable: the same in both frameworks, native: the framework's own",
        "optimisation",
        "portable",
        choices=("portable", "native"),
    )

    evaluate_every: int = declared(
        "steps between validations", "evaluation", 500, least=1, resumable=True
    )
    valid_examples: int = declared(
        "validation examples that are decoded and scored; 0: judge by the loss alone",
        "evaluation",
        500,
        least=0,
        resumable=True,
    )
    patience: int = declared(
        "validations in a row without improvement after which training stops; 0: never",
        "evaluation",
        0,
        least=0,
        resumable=True,
    )
    average: int = declared(
        "test and use the mean of this many last checkpoints; 0: the best checkpoint",
        "evaluation",
        0,
        least=0,
        resumable=True,
    )
    test_examples: int | None = declared(
        "test examples scored at the end; none: all", "evaluation", None, least=0, resumable=True
    )
    bleu_tokenize: str = declared(
        "tokenization for BLEU, a name that sacrebleu knows", "evaluation", "13a", resumable=True
    )
    samples: int = declared(
        "outputs shown beside their references", "evaluation", 3, least=0, resumable=True
    )
    beam: int = declared(
        "beam of the final test; validation is greedy", "evaluation", 1, least=1, resumable=True
    )
    length_penalty: float = declared(
        "exponent of the length that divides a beam's score", "evaluation", 1.0, resumable=True
    )

    seed: int = declared("of weights, batch order and dropout", "run", 1, least=0)
    dtype: str = declared(
        "number format of weights and arithmetic; bfloat16: of matrix products in training alone",
        "run",
        "float32",
        choices=("float32", "float64", "bfloat16"),
    )
    device: str = declared(
        "where to compute; auto: an accelerator if there is one",
        "run",
        "auto",
        choices=("auto", "cpu", "gpu", "tpu"),
        resumable=True,
    )
    log_every: int = declared("steps between log lines", "run", 50, least=1, resumable=True)
    save_every: int = declared("steps between checkpoints", "run", 500, least=1, resumable=True)
    save_minutes: float = declared(
        "a checkpoint is saved as well where the last one is so many minutes old; 0: never",
        "run",
        10.0,
        least=0,
        resumable=True,
    )
    keep: int = declared(
        "newest checkpoints kept, beside the best and those of --average",
        "run",
        2,
        least=1,
        resumable=True,
    )

    def __post_init__(self) -> None:
        faults = Faults()
        for name, declaration in SETTINGS.items():
            try:
                value = read_value(declaration, getattr(self, name))
                object.__setattr__(self, name, value)
                fault = range_fault(declaration, value)
            except ValueError as error:
                fault = str(error)
            faults.require(fault is None, f"{name}: {fault}")
        for fault in combination_faults(dataclasses.asdict(self)):
            faults.add(fault)
        faults.raise_if_any("invalid training settings")

    def to_dict(self) -> dict[str, Any]:
        """Every setting, in plain JSON types."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingSettings:
        """The settings of a mapping; unknown keys are all named in one UserError."""
        faults = Faults()
        for name in values.keys() - SETTINGS.keys():
            faults.add(f"unknown setting {name!r}{meant(name, SETTINGS)}")
        faults.raise_if_any("invalid training settings")
        return cls(**values)

    @property
    def weight_dtype(self) -> str:
        """The number format of weights, moments and checkpoints."""
        return "float32" if self.dtype == "bfloat16" else self.dtype

    def anchored(self) -> TrainingSettings:
        """The same with absolute paths of files, which are found from every folder."""

        def absolute(file: str | None) -> str | None:
            return file and str(Path(file).absolute())

        return dataclasses.replace(
            self,
            data=self.data if self.data in (CMUDICT, *NAMED_CORPORA) else absolute(self.data),
            valid=absolute(self.valid),
            test=absolute(self.test),
            extra_data=self.extra_data and tuple(map(absolute, self.extra_data)),
        )

    def vocabulary_kinds(self) -> tuple[str, str]:
        """The kinds of the source's and the target's vocabulary, defaults resolved."""
        return resolved_kinds(dataclasses.asdict(self))


SETTINGS: dict[str, Declaration] = declarations(TrainingSettings)


def resolved_kinds(values: dict[str, Any]) -> tuple[str, str]:
    """The kinds of the two vocabularies, those not chosen being the data's usual ones."""
    usual = ("characters", "whitespace") if values["data"] == CMUDICT else ("sentencepiece",) * 2
    return values["source_vocabulary"] or usual[0], values["target_vocabulary"] or usual[1]


def combination_faults(values: dict[str, Any]) -> list[str]:
    """Values that are fine alone and wrong together."""
    faults = []
    kinds = resolved_kinds(values)
    sizes = values["source_vocab_size"], values["target_vocab_size"]
    if values["shared_vocabulary"] and kinds[0] != kinds[1]:
        both = " and ".join(kinds)
        faults.append(f"shared_vocabulary needs one kind of vocabulary, not {both}")
    if values["shared_vocabulary"] and None not in sizes and sizes[0] != sizes[1]:
        faults.append(f"shared_vocabulary has one size, not {sizes[0]} and {sizes[1]}")
    if values["columns"] is not None and len(values["columns"]) != 2:
        given = ",".join(values["columns"])
        faults.append(f"columns: {given!r} must name two columns, source and target")
    if values["bpe_dropout"] and "sentencepiece" not in kinds:
        faults.append(f"bpe_dropout needs sentencepiece, not {' and '.join(kinds)}")
    elif values["bpe_dropout"] and values["sentencepiece_algorithm"] != "bpe":
        given = values["sentencepiece_algorithm"]
        faults.append(f"bpe_dropout needs sentencepiece_algorithm bpe, not {given}")
    return faults + _averaging_faults(values["average"], values["steps"], values["save_every"])


def _averaging_faults(wanted: int, steps: int, every: int) -> list[str]:
    if not all(isinstance(value, int) for value in (wanted, steps, every)) or every < 1:
        return []  # named already
    made = -(-steps // every)
    if wanted <= made:
        return []
    return [
        f"average {wanted} needs as many checkpoints, and {steps} steps saved every {every} make "
        f"{made}; lower save_every"
    ]
