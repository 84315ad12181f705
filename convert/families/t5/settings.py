"""config.json of T5, mT5 and UMT5 <-> TransformerConfig.

A key that is absent has its class's default, as in the library; a key that nobody declared is a
fault.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from convert.core.tensors import Held
from convert.families.base import Reading, Settings, Source
from convert.families.huggingface.keys import ACTIVATIONS, FIXED, HARMLESS, OURS, UNREAD
from convert.families.huggingface.library_class import (
    LibraryClass,
    changed_settings,
    require_one_of,
)
from convert.families.huggingface.settings import check_second_name, one_id
from convert.families.t5.output import (
    ASK,
    HALVES,
    OUTPUT_TABLE,
    OVERWRITTEN,
    PLAIN,
    PLAIN_BY_NEW,
    SCALE,
    SCALED,
    TIE,
    WRITTEN,
    WRONG_IN_NEW,
    Said,
    Tables,
    Written,
    is_new,
    tables_in,
    verdict_on,
)
from convert.families.usual_parts import check_text_parts
from transformer_spec import DROPOUTS, Faults, TransformerConfig, UserError

SIZES = {
    "hidden_dim": "d_model",
    "inner_dim": "d_ff",
    "num_heads": "num_heads",
    "head_dim": "d_kv",
    "num_encoder_layers": "num_layers",
}
NUMBERS = {
    "relative_buckets": ("relative_attention_num_buckets", 32),
    "relative_max_distance": ("relative_attention_max_distance", 128),
    "norm_epsilon": ("layer_norm_epsilon", 1e-6),
}
SECOND_NAMES = {
    "hidden_size": "d_model",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "head_dim": "d_kv",
}
SILENT = ("initializer_factor", "scalable_attention", "decoder_layers")
# What every class computes.
FIELDS: dict[str, Any] = {
    "norm_position": "pre",
    "norm": "rms",
    "final_norm": True,
    "embedding_norm": False,
    "encoder_positions": "relative",
    "decoder_positions": "relative",
    "position_offset": 0,
    "positions_skip_padding": False,
    "embedding_scale": 1.0,
    "attention_scale": 1.0,
    "attention_bias": False,
    "attention_output_bias": False,
    "ffn_bias": False,
    "output_bias": "none",
}
# Classes of the library that are no encoder-decoder with an output of words.
OTHER_HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
ENCODER_ALONE = "EncoderModel"
USUAL_LENGTH = 512
NO_LIMIT = "max_length is {}: the class has no limit, and --max-length gives another"
NO_START = "decoder_start_token_id is not set: decoding starts from pad_token_id {}"
GATED_GELU = "gelu_new"  # what "gated-gelu" means to every version


class T5Settings(LibraryClass):
    """One class's settings."""

    per_layer: ClassVar[bool] = False
    feed_forward: ClassVar[str] = "relu"
    tie: ClassVar[bool] = True
    start_id: ClassVar[int | None] = None
    unk_id: ClassVar[int] = 2  # not in config.json: it belongs to the tokenizer

    @property
    def fields(self) -> dict[str, Any]:
        return FIELDS | {"relative_per_layer": self.per_layer}

    def read_config(self, source: Source) -> Reading:
        return self.reading(source, tables_in(source.tensors) if source.tensors else None)

    def reading(self, source: Source, tables: Tables | None) -> Reading:
        """The config of a source with these tables of words; None where there is no tensor."""
        settings, config = self._read(source, tables)
        settings.finish(f"{self.name} settings")
        assert config is not None
        return Reading(config, settings.notes)

    def _read(
        self, source: Source, tables: Tables | None
    ) -> tuple[Settings, TransformerConfig | None]:
        """The settings looked at, faults not raised; no config where there are faults."""
        if source.settings is None:
            raise source.lacks_settings(self.name)
        self._check_class(source)
        settings, derived = Settings(source.settings, source.ignored), dict[str, Any]()
        values = self._values(settings, derived)
        derived["max_length"] = self._length(settings, source.flags)
        self._check_tensors(settings, values, source)
        values |= self._output(settings, values, tables, source.flags, derived)
        self._check_keys(settings)
        return settings, self.make_config(values, derived, source.flags, settings.faults)

    def _check_class(self, source: Source) -> None:
        """One sentence about what is no encoder-decoder; its other faults would say nothing."""
        named = [str(name) for name in (source.settings or {}).get("architectures") or ()]
        alone = any(name.endswith(ENCODER_ALONE) for name in named)
        halves = {name.partition(".")[0] for name in source.tensors}
        if alone or ("encoder" in halves and "decoder" not in halves):
            raise UserError(
                f"{source.tensors.label} is an encoder without a decoder"
                f"{f' ({named[0]})' if named else ''}: it turns text into vectors and writes none, "
                "and only encoder-decoders are read"
            )
        other = [name for name in named if name.endswith(OTHER_HEADS)]
        if other:
            raise UserError(
                f"{source.tensors.label} is of {other[0]}, which puts labels on texts: only "
                f"{self.architecture}, which writes text, is read"
            )

    def _values(self, settings: Settings, derived: dict[str, Any]) -> dict[str, Any]:
        for second, first in SECOND_NAMES.items():
            check_second_name(settings, second, first)
        values = self.fields | {ours: settings.need(key) for ours, key in SIZES.items()}
        layers = settings.get("num_decoder_layers")
        values["num_decoder_layers"] = values["num_encoder_layers"] if layers is None else layers
        values |= {ours: _number(settings, *given) for ours, given in NUMBERS.items()}
        values |= dict.fromkeys(DROPOUTS, _number(settings, "dropout_rate", 0.1))
        size = settings.need("vocab_size")
        values |= {"source_vocab_size": size, "target_vocab_size": size}
        values |= self._feed_forward(settings) | self._tokens(settings, derived)
        return values

    def _length(self, settings: Settings, flags: Mapping[str, Any]) -> Any:
        """Positions are relative, and no sequence is too long for them."""
        length = settings.get("n_positions")
        if length is None and "max_length" not in flags:
            settings.notes.append(NO_LIMIT.format(USUAL_LENGTH))
        return USUAL_LENGTH if length is None else length

    def _feed_forward(self, settings: Settings) -> dict[str, Any]:
        """``dense_act_fn`` and ``is_gated_act``, where they are there, win over the one before."""
        given = settings.get("feed_forward_proj")
        name = self.feed_forward if given is None else str(given)
        before, _, act = name.rpartition("-")
        if before not in ("", "gated"):
            settings.faults.add(f"feed_forward_proj is {name!r}; it must be ACT or gated-ACT")
        act = GATED_GELU if name == "gated-gelu" else act
        said = settings.get("dense_act_fn"), settings.get("is_gated_act")
        act, gated = (
            x if y is None else y for x, y in zip((act, before == "gated"), said, strict=True)
        )
        if act not in OURS:
            wanted = " or ".join(map(repr, OURS))
            settings.faults.add(f"dense_act_fn is {act!r}; only {wanted} can be expressed")
        return {"activation": OURS.get(str(act), "relu"), "gated_ffn": gated}

    def _tokens(self, settings: Settings, derived: dict[str, Any]) -> dict[str, Any]:
        pad = _number(settings, "pad_token_id", 0)
        start = settings.get("decoder_start_token_id")
        eos = 1 if "eos_token_id" not in settings.values else one_id(settings, derived)
        if start is None:
            start = derived["decoder_start_id"] = pad if self.start_id is None else self.start_id
            if self.start_id is None:
                settings.notes.append(NO_START.format(pad))
        bos = settings.get("bos_token_id")
        derived["bos_id"] = start if bos is None else bos
        unknown = settings.get("unk_token_id")
        derived["unk_id"] = self._unknown_id(pad, eos) if unknown is None else unknown
        return {"pad_id": pad, "eos_id": eos, "decoder_start_id": start}

    def _unknown_id(self, pad: Any, eos: Any) -> int:
        """The class's; where that number ends texts, the first that nothing else has."""
        if self.unk_id != eos:
            return self.unk_id
        return 0 if pad != 0 else 3

    def _check_tensors(self, settings: Settings, values: Mapping[str, Any], source: Source) -> None:
        """What tables of words and of positions say against the settings."""
        size, tensors = values["source_vocab_size"], source.tensors
        rows = self.table_rows(source)
        if isinstance(size, int) and any(count != size for count in rows.values()):
            counts = ", ".join(f"{count} in {name}" for name, count in rows.items())
            settings.faults.add(
                f"vocab_size is {size}, and the tables of words have other rows ({counts}): the "
                "vocabulary was changed after config.json was written; "
                + (
                    "give vocab_size its number there"
                    if len(set(rows.values())) == 1
                    else "all of them must have one number of rows, and vocab_size be that"
                )
            )
        blocks = [name for name in tensors if ".SelfAttention.relative_attention_bias." in name]
        if not self.per_layer and any(".block.0." not in name for name in blocks):
            settings.faults.add(
                f"relative_attention_bias is in {len(blocks)} blocks; {self.name} has one for each "
                "half, and umt5 one in every block: write model_type umt5 where it is of that class"
            )

    def table_rows(self, source: Source) -> dict[str, int]:
        """Rows of each table of words that is there."""
        names = [name for name in (*HALVES, OUTPUT_TABLE) if name in source.tensors]
        return {name: source.tensors[name].shape[0] for name in names if source.tensors[name].shape}

    def _output(
        self,
        settings: Settings,
        values: Mapping[str, Any],
        tables: Tables | None,
        flags: Mapping[str, Any],
        derived: dict[str, Any],
    ) -> dict[str, Any]:
        """Ties and the factor on the output, by what the tables are and the settings say."""
        tie = settings.only(TIE, True, False, None)
        tie = self.tie if tie is None else bool(tie)
        scale = settings.only(SCALE, True, False, None)
        if self.name != "t5":
            settings.unread(SCALE, who=self.architecture)
        new = is_new(settings.values)
        tables = tables or Tables("all" if tie else "source_target", not tie)
        _check_tables(settings, tables, tie, new)
        scaled = None if scale is None else bool(scale)
        verdict = verdict_on(Said(self.model_type, tables.own_output, tie, scaled, new))
        D = values["hidden_dim"]
        by_root = D**-0.5 if isinstance(D, int) and D > 0 else 1.0
        given = flags.get("output_scale")
        factor = {SCALED: by_root, PLAIN: 1.0, PLAIN_BY_NEW: 1.0}.get(verdict, given)
        if verdict == OVERWRITTEN:
            settings.faults.add(OVERWRITES.format(OUTPUT_TABLE))
        elif verdict == ASK and given not in (by_root, 1.0):
            settings.faults.add(f"{ASKED}: give --output-scale {by_root!r}, or --output-scale 1")
        elif verdict == PLAIN_BY_NEW and given is None:
            settings.notes.append(f"{NOT_BY_NEW} --output-scale {by_root!r}")
        if verdict in (ASK, PLAIN_BY_NEW):
            derived["output_scale"] = factor
        return {"tied_embeddings": tables.ties, "output_scale": 1.0 if factor is None else factor}

    def _check_keys(self, settings: Settings) -> None:
        """Keys that are not mapped: what they may say, and what is to be said of them."""
        for key, allowed in FIXED.items():
            settings.only(key, *allowed)
        settings.ignore((*SILENT, *HARMLESS))
        for key in UNREAD.keys() - settings.seen:
            settings.unread(key, *UNREAD[key], who=self.architecture)

    def write_settings(
        self, config: TransformerConfig, original: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Own models get what the class needs; imported ones their file, changed where they were.

        ``unk_id`` has no place in config.json; it is written with the vocabulary.
        """
        self.check_expressible(config)
        now = self.expressed(config)
        if original is None or original.get("model_type") != self.model_type:
            return self._heading(config) | now
        flags = {"output_scale": config.output_scale}
        tables = Tables(config.tied_embeddings, True)
        settings, imported = self._read(Source(Held({}), original, flags), tables)
        if imported is None:
            settings.faults.raise_if_any("the config.json that it came with cannot be written")
        assert imported is not None
        return changed_settings(original, self.expressed(imported), now, SECOND_NAMES)

    def _heading(self, config: TransformerConfig) -> dict[str, Any]:
        named = {"model_type": self.model_type, "architectures": [self.architecture]}
        bos = {} if config.bos_id == config.decoder_start_id else {"bos_token_id": config.bos_id}
        return named | {"is_encoder_decoder": True, "n_positions": config.max_length} | bos

    def expressed(self, config: TransformerConfig) -> dict[str, Any]:
        """Every setting of the class that says what the model is."""
        name = ACTIVATIONS[config.activation][0]
        short = "gelu" if config.gated_ffn and name == GATED_GELU else name
        written = self.written_output(config)
        return {
            **{key: getattr(config, ours) for ours, key in SIZES.items()},
            **{key: getattr(config, ours) for ours, (key, _) in NUMBERS.items()},
            "num_decoder_layers": config.num_decoder_layers,
            "vocab_size": config.source_vocab_size,
            "feed_forward_proj": f"gated-{short}" if config.gated_ffn else name,
            "dense_act_fn": name,
            "is_gated_act": config.gated_ffn,
            "dropout_rate": config.dropout,
            "pad_token_id": config.pad_id,
            "eos_token_id": config.eos_id,
            "decoder_start_token_id": config.decoder_start_id,
            **(written.settings if written else {}),
        }

    def _output_case(self, config: TransformerConfig) -> tuple[str, str, str]:
        plain = config.output_scale == 1.0
        return self.model_type, config.tied_embeddings, PLAIN if plain else SCALED

    def written_output(self, config: TransformerConfig) -> Written | None:
        """What is written of tables and factor; None where the class cannot have them."""
        scaled = math.isclose(config.output_scale, config.hidden_dim**-0.5, rel_tol=1e-12)
        if not scaled and config.output_scale != 1.0:
            return None
        return WRITTEN.get(self._output_case(config))

    def adapted(self, config: TransformerConfig) -> tuple[TransformerConfig, list[str]]:
        """The same config; where version 5 of the library computes another function, a note."""
        wrong = WRONG_IN_NEW.get(self._output_case(config))
        told = f"transformers 5 computes {self.name} {wrong}, whatever its files say; 4 as it is"
        return config, [told] if wrong and self.written_output(config) else []

    def check_expressible(self, config: TransformerConfig) -> None:
        """Raise one UserError that names every setting that the class does not have."""
        faults = Faults()
        require_one_of(config, {k: (v,) for k, v in self.fields.items()}, self.name, faults)
        check_text_parts(config, self.name, faults)
        for half in ("encoder", "decoder"):
            layers = f"num_{half}_layers"
            faults.require(getattr(config, layers) > 0, f"{layers} is 0; it must be at least 1")
        rates = {name: getattr(config, name) for name in DROPOUTS}
        told = ", ".join(f"{name} {rate}" for name, rate in rates.items())
        faults.require(len(set(rates.values())) == 1, f"{told}: {self.name} has one rate for all")
        source, target = config.source_vocab_size, config.target_vocab_size
        message = f"source_vocab_size {source} and target_vocab_size {target} differ; {self.name}"
        faults.require(source == target, f"{message} has one vocabulary")
        if self.written_output(config) is None:
            faults.add(
                f"tied_embeddings is {config.tied_embeddings!r} with output_scale "
                f"{config.output_scale!r}; {self.name} has {self._possible_outputs()}"
            )
        self.check(config, faults)
        faults.raise_if_any(f"{self.architecture} cannot hold this model")

    def _possible_outputs(self) -> str:
        pairs = [(ties, factor) for kind, ties, factor in WRITTEN if kind == self.model_type]
        return " or ".join(f"{ties!r} with {factor}" for ties, factor in pairs)


ASKED = (
    "what the output is multiplied by cannot be known: versions 4 and 5 of transformers compute "
    "these settings and tables differently; the first T5 was trained with 1/sqrt(D), T5 1.1, mT5, "
    "UMT5 and what was made of them with 1"
)
OVERWRITES = (
    "tie_word_embeddings is true, and {} is not the table of words: version 4 of transformers, "
    "which wrote these settings, computes with the table in its place; leave it out with --drop "
    "lm_head.weight where that is meant, or write tie_word_embeddings false where it is the output"
)
NOT_BY_NEW = (
    "version 5 of transformers, which wrote these settings, multiplies the output of mt5 by "
    "nothing; a model that was trained with version 4 and one table for all is read with"
)


def _number(settings: Settings, key: str, default: Any) -> Any:
    """A key that may be absent, but not null."""
    value = settings.get(key, default)
    settings.faults.require(value is not None, f"{key} is None; it must be a number")
    return value


def _check_tables(settings: Settings, tables: Tables, tie: bool, new: bool) -> None:
    """An output table that is missing, and tables of halves that a version overwrites."""
    if not tables.has_output and not tie:
        settings.faults.add(
            f"{OUTPUT_TABLE} is missing, and tie_word_embeddings false says that the output has a "
            "table of its own"
        )
    if tables.ties == "none" and not (new and tables.has_output):
        settings.faults.add(
            "the tables of words of encoder and decoder differ: only version 5 of transformers "
            f"computes with both, in a file with an {OUTPUT_TABLE} of its own"
        )
