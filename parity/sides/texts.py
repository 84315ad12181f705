"""The user's own texts as token ids, by the vocabulary or tokenizer that lies beside a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from convert.checkpoints.folders.location import locate
from parity.forward.ids import UNFIT, Ids, Pair, batches_of, check_pair
from parity.sides.given import local_path
from training_recipe.corpora.text_files import read_lines
from training_recipe.text.model_vocabularies import load_vocabularies
from transformer_spec import Faults, TransformerConfig, UserError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "source.spm", "vocab.json")
Encode = Callable[[str, str], Pair]


def read_texts(path: Path, givens: tuple[str, str], config: TransformerConfig) -> list[Ids]:
    """Lines of a source text, a tab and a target text; every faulty line is named at once.

    ``givens`` are A and B as typed: the first that has a vocabulary encodes the texts.
    """
    encode, faults = encoder(givens, config), Faults()
    lines = read_lines(str(path), faults) or []
    faults.raise_if_any("cannot read the texts")
    pairs = []
    for number, line in enumerate(lines, 1):
        source, tab, target = line.partition("\t")
        if not (tab and source.strip() and target.strip()):
            told = f"line {number}: needs a source text, a tab and a target text"
            faults.add(told, "lines are no source, tab and target")
            continue
        pair = encode(source.strip(), target.strip())
        try:
            pairs.append(check_pair(*pair, config))
        except ValueError as error:
            faults.add(f"line {number}: {error}", UNFIT)
    faults.require(bool(lines), "it is empty")
    faults.raise_if_any(f"{path} holds no texts for this model")
    return batches_of(pairs, config.pad_id)


def encoder(givens: tuple[str, str], config: TransformerConfig) -> Encode:
    """(source, target) -> ids; the target begins with what starts the decoder, both end in eos."""
    for given in givens:
        path = local_path(given)
        found = own_encoder(path, config) or library_encoder(path, config)
        if found is not None:
            return found
    raise UserError(
        "--text needs a vocabulary, and neither A nor B has one: a run has the folder vocabulary, "
        f"a model of transformers one of {', '.join(TOKENIZER_FILES)}; --ids takes token ids"
    )


def own_encoder(path: Path, config: TransformerConfig) -> Encode | None:
    home = locate(path).home if path.exists() else None
    if home is None or not (home / "vocabulary").is_dir():
        return None
    source, target = load_vocabularies(home / "vocabulary", config)
    start = config.decoder_start_id if target.start_id is None else target.start_id

    def encode(one: str, other: str) -> Pair:
        wanted = target.frame.around(target.encode(other))
        return source.frame.around(source.encode(one)), [start, *wanted]

    return encode


def library_encoder(path: Path, config: TransformerConfig) -> Encode | None:
    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        return None
    try:
        import transformers
    except ImportError:
        raise UserError(
            f"{path}: its tokenizer needs transformers: pip install transformers"
        ) from None
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"transformers cannot read the tokenizer of {path}: {error}") from error

    def encode(source: str, target: str) -> Pair:
        wanted = tokenizer(text_target=target).input_ids
        return tokenizer(source).input_ids, [config.decoder_start_id, *wanted]

    return encode
