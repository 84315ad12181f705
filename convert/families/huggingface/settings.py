"""config.json of the Hugging Face encoder-decoders <-> TransformerConfig, what they share.

A key that is absent has its class's default, as in the library; a key that nobody declared is a
fault.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from convert.core.tensors import Held
from convert.families.base import Reading, Settings, Source
from convert.families.huggingface.keys import ACTIVATIONS, DEFAULTS, FIXED, HARMLESS, OURS, UNREAD
from convert.families.huggingface.library_class import (
    LibraryClass,
    changed_settings,
    require_one_of,
)
from convert.families.usual_parts import check_usual_parts
from transformer_spec import Faults, TransformerConfig

PLAIN = {
    "hidden_dim": "d_model",
    "num_encoder_layers": "encoder_layers",
    "num_decoder_layers": "decoder_layers",
    "max_length": "max_position_embeddings",
}
BOTH_HALVES = {"num_heads": "attention_heads", "inner_dim": "ffn_dim"}
OUTPUT_BIAS = "final_logits_bias"
VOCABULARIES = ("source_vocab_size", "target_vocab_size")
DROPOUTS = ("dropout", "attention_dropout", "activation_dropout")
SECOND_NAMES = {"hidden_size": "d_model", "num_attention_heads": "encoder_attention_heads"}


class HuggingFaceSettings(LibraryClass):
    """One model class's settings; what a subclass declares is what its class does."""

    fields: ClassVar[Mapping[str, Any]]  # our fields that the class has in one value only
    sizes: ClassVar[Mapping[str, str]] = PLAIN
    defaults: ClassVar[Mapping[str, Any]] = DEFAULTS
    older: ClassVar[Mapping[str, Any]]  # keys of older versions -> what the class does
    silent: ClassVar[tuple[str, ...]] = ()  # keys of older versions that say nothing at all
    ties: ClassVar[tuple[str, ...]] = ("all", "none")
    unk_id: ClassVar[int] = 3  # not in config.json: it belongs to the tokenizer
    output_bias: ClassVar[bool] = True
    start_is_optional: ClassVar[bool] = False
    vocabulary_keys: ClassVar[Mapping[str, str]] = dict.fromkeys(VOCABULARIES, "vocab_size")
    forces_eos: ClassVar[bool] = True  # whether the class has a default for forced_eos_token_id

    def read_config(self, source: Source) -> Reading:
        settings, config = self._read(source)
        settings.finish(f"{self.name} settings")
        assert config is not None
        return Reading(config, settings.notes)

    def _read(self, source: Source) -> tuple[Settings, TransformerConfig | None]:
        """The settings looked at, faults not raised; no config where there are faults."""
        if source.settings is None:
            raise source.lacks_settings(self.name)
        settings = Settings(source.settings, source.ignored)
        derived = {"unk_id": self._unknown_id(settings)}
        values = self._fields(settings, derived) | {"output_bias": self.bias_of(source)}
        self._check_rows(settings, values, self.table_rows(source))
        self._check_fixed(settings)
        settings.ignore(HARMLESS)
        return settings, self.make_config(values, derived, source.flags, settings.faults)

    def _unknown_id(self, settings: Settings) -> Any:
        """The tokenizer's, which some configs name too."""
        given = settings.get("unk_token_id")
        return self.unk_id if given is None else given

    def table_rows(self, source: Source) -> dict[str, int]:
        """Rows of the tables that are there, by the field of ours that counts them."""
        return {}

    def _check_rows(
        self, settings: Settings, values: Mapping[str, Any], found: Mapping[str, int]
    ) -> None:
        names = VOCABULARIES[:1] if values["tied_embeddings"] == "all" else VOCABULARIES
        for name in (name for name in names if name in found):
            key, said, rows = self.vocabulary_keys[name], values[name], found[name]
            if isinstance(said, int) and said != rows:
                settings.faults.add(
                    f"{key} is {said}, and the table of words has {rows} rows: the vocabulary was "
                    f"changed after config.json was written; give {key} its number there"
                )

    def bias_of(self, source: Source) -> str:
        """``final_logits_bias`` is a buffer; where a file lacks it, it is zero."""
        return "frozen" if self.output_bias and OUTPUT_BIAS in source.tensors else "none"

    def number(self, settings: Settings, key: str) -> Any:
        """A key that may be absent, but not null."""
        value = settings.get(key, self.defaults[key])
        settings.faults.require(value is not None, f"{key} is None; it must be a number")
        return value

    def position_offset(self, pad_id: int) -> int:
        """Position of the first token; the rows before it are not used."""
        return 0

    def vocabularies(self, settings: Settings) -> dict[str, Any]:
        """One vocabulary, one table for all three uses or three tables."""
        size = settings.need("vocab_size")
        settings.unread("share_encoder_decoder_embeddings", True, who=self.architecture)
        tied = "all" if self.is_tied(settings) else "none"
        return {"source_vocab_size": size, "target_vocab_size": size, "tied_embeddings": tied}

    def is_tied(self, settings: Settings) -> bool:
        return settings.only("tie_word_embeddings", True, False, default=True)

    def _fields(self, settings: Settings, derived: dict[str, Any]) -> dict[str, Any]:
        for second, first in SECOND_NAMES.items():
            check_second_name(settings, second, first)
        values = {ours: settings.need(theirs) for ours, theirs in self.sizes.items()}
        values |= {ours: _both_halves(settings, key) for ours, key in BOTH_HALVES.items()}
        values |= self.vocabularies(settings) | self._tokens(settings, derived)
        values |= {name: self.number(settings, name) for name in DROPOUTS}
        values["activation"] = self._activation(settings)
        values["embedding_scale"] = self._embedding_scale(settings, values["hidden_dim"])
        pad = values["pad_id"]
        values["position_offset"] = self.position_offset(pad) if isinstance(pad, int) else 0
        _note_training(settings)
        return dict(self.fields) | values

    def _activation(self, settings: Settings) -> str:
        default = self.defaults["activation_function"]
        name = settings.only("activation_function", *OURS, default=default)
        return OURS.get(name, "relu") if isinstance(name, str) else "relu"

    def _embedding_scale(self, settings: Settings, D: Any) -> float:
        default = self.defaults["scale_embedding"]
        scaled = settings.only("scale_embedding", True, False, None, default=default)
        return math.sqrt(D) if scaled and isinstance(D, int) and D > 0 else 1.0

    def _tokens(self, settings: Settings, derived: dict[str, Any]) -> dict[str, Any]:
        tokens = {"pad_id": settings.need("pad_token_id"), "eos_id": one_id(settings, derived)}
        usual = self.defaults.get("decoder_start_token_id")
        start = settings.get("decoder_start_token_id", usual)
        bos = settings.get("bos_token_id", self.defaults["bos_token_id"])
        if start is None and not self.start_is_optional:
            settings.need("decoder_start_token_id")
        elif start is None:
            start = derived["decoder_start_id"] = tokens["eos_id"]
            settings.notes.append(
                "decoder_start_token_id is not set: the first token is the target language's and "
                f"is chosen when translating; until then decoder_start_id is eos_id {start}"
            )
        if bos is None:
            bos = derived["bos_id"] = start
        return tokens | {"decoder_start_id": start, "bos_id": bos}

    def _check_fixed(self, settings: Settings) -> None:
        for key, allowed in FIXED.items():
            settings.only(key, *allowed)
        settings.ignore(self.silent)
        unread = UNREAD | {key: (value,) for key, value in self.older.items()}
        for key in unread.keys() - set(self.silent):
            settings.unread(key, *unread[key], who=self.architecture)

    def write_settings(
        self, config: TransformerConfig, original: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Own models get what the class needs; imported ones their file, changed where they were.

        ``unk_id`` has no place in config.json; it is written with the vocabulary.
        """
        self.check_expressible(config)
        ours = self.expressed(config)
        if original is None or original.get("model_type") != self.model_type:
            return self._heading(config) | ours
        _, imported = self._read(Source(Held({}), original))
        assert imported is not None
        return changed_settings(original, self.expressed(imported), ours, SECOND_NAMES)

    def _heading(self, config: TransformerConfig) -> dict[str, Any]:
        names = {"model_type": self.model_type, "architectures": [self.architecture]}
        forced = {"forced_eos_token_id": config.eos_id} if self.forces_eos else {}
        return names | {"is_encoder_decoder": True} | forced

    def expressed(self, config: TransformerConfig) -> dict[str, Any]:
        """Every setting of the class that says what the model is."""
        found = {theirs: getattr(config, ours) for ours, theirs in self.sizes.items()}
        for ours, key in BOTH_HALVES.items():
            found |= {f"{half}_{key}": getattr(config, ours) for half in ("encoder", "decoder")}
        return found | {
            "vocab_size": config.source_vocab_size,
            "tie_word_embeddings": config.tied_embeddings != "none",
            "activation_function": ACTIVATIONS[config.activation][0],
            "scale_embedding": config.embedding_scale != 1.0,
            "dropout": config.dropout,
            "attention_dropout": config.attention_dropout,
            "activation_dropout": config.activation_dropout,
            "pad_token_id": config.pad_id,
            "bos_token_id": config.bos_id,
            "eos_token_id": config.eos_id,
            "decoder_start_token_id": config.decoder_start_id,
        }

    def check_expressible(self, config: TransformerConfig) -> None:
        """Raise one UserError that names every setting that the class does not have."""
        faults = Faults()
        require_one_of(config, self.allowed(config), self.name, faults)
        self.check_parts(config, faults)
        given, wanted = config.attention_scale, 1 / math.sqrt(config.head_dim)
        same = math.isclose(given, wanted, rel_tol=1e-12)
        faults.require(same, f"attention_scale is {given}; {self.name} has {wanted} only")
        self.check_vocabularies(config, faults)
        self.check(config, faults)
        faults.raise_if_any(f"{self.architecture} cannot hold this model")

    def allowed(self, config: TransformerConfig) -> dict[str, tuple[Any, ...]]:
        """Our fields that the class has in few values only, and those."""
        fixed = dict(self.fields) | {"position_offset": self.position_offset(config.pad_id)}
        fixed |= {"norm_epsilon": 1e-5, "attention_bias": True, "ffn_bias": True}
        found: dict[str, tuple[Any, ...]] = {name: (value,) for name, value in fixed.items()}
        scales = (1.0, math.sqrt(config.hidden_dim))
        found |= {"embedding_scale": scales, "tied_embeddings": self.ties}
        return found | ({} if self.output_bias else {"output_bias": ("none",)})

    def check_parts(self, config: TransformerConfig, faults: Faults) -> None:
        """Add a fault for each part of other families' that the class lacks."""
        check_usual_parts(config, self.name, faults)

    def check_vocabularies(self, config: TransformerConfig, faults: Faults) -> None:
        source, target = config.source_vocab_size, config.target_vocab_size
        message = f"source_vocab_size {source} and target_vocab_size {target} differ; {self.name}"
        faults.require(source == target, f"{message} has one vocabulary")


def check_second_name(settings: Settings, second: str, first: str) -> None:
    """The library lets some keys be given under a second name, which wins there."""
    value = settings.get(second)
    if value is not None and value != settings.get(first):
        settings.faults.add(f"{second} is {value!r} but {first} is {settings.get(first)!r}")


def _both_halves(settings: Settings, key: str) -> Any:
    one, other = settings.need(f"encoder_{key}"), settings.need(f"decoder_{key}")
    if one != other:
        settings.faults.add(
            f"encoder_{key} {one!r} and decoder_{key} {other!r} differ; both halves must be alike"
        )
    return one


def one_id(settings: Settings, derived: dict[str, Any]) -> Any:
    """eos_token_id; of a list the first, which a flag may replace."""
    value = settings.need("eos_token_id")
    if not isinstance(value, list):
        return value
    if not value:
        settings.faults.add("eos_token_id is []; one id is needed")
        return None
    if len(value) > 1:
        derived["eos_id"] = value[0]
        settings.notes.append(
            f"eos_token_id is {value!r}: a model has one eos_id here, the first unless --eos-id "
            "says another; text ends at that one alone"
        )
    return value[0]


def _note_training(settings: Settings) -> None:
    settings.training_only("encoder_layerdrop", 0.0)
    settings.training_only("decoder_layerdrop", 0.0)
    given, used = settings.get("num_hidden_layers"), settings.get("encoder_layers")
    if given is not None and given != used:
        settings.notes.append(
            f"num_hidden_layers is {given!r} and encoder_layers {used!r}, which is what is read"
        )
