"""Whisper as CTranslate2 stores it, written down by hand: every name, what is read and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from convert_cases import fail
from ctranslate2_bytes import model_bin
from messages import says
from speech_tokenizers import write_json

from convert.__main__ import main
from convert.conversion.opening import open_model
from transformer_spec import UserError, weight_shapes

V, D, H, F, M, S, T, E, L = 51864, 6, 2, 10, 3, 7, 11, 1, 2
PARTS = ("fcQ", "fcK", "fcV")
SCALARS = {
    "encoder/num_heads": np.int16(H), "decoder/num_heads": np.int16(H),
    "decoder/pre_norm": np.int8(1), "decoder/activation": np.int8(3), "decoder/alibi": np.int8(0),
    "decoder/scale_embeddings": np.int8(0), "decoder/start_from_zero_embedding": np.int8(0),
    "decoder/alignment_heads": np.int16(1), "decoder/alignment_layer": np.int16(-1),
}  # fmt: skip
CONFIG = {
    "alignment_heads": [[1, 0]], "lang_ids": [50259], "suppress_ids": [1, 2, 50357],
    "suppress_ids_begin": [220, 50256],
}  # fmt: skip
PROJECTION, TABLE = "decoder/projection/weight", "decoder/embeddings/weight"
KEYS = "decoder/layer_0/self_attention/linear_0/bias"
Arrays = dict[str, np.ndarray]


class Written:
    """The arrays of a model under their names, and what each is under ours."""

    def __init__(self, dtype: type = np.float32) -> None:
        self.draw, self.dtype = np.random.default_rng(0), dtype
        self.theirs: Arrays = {}
        self.ours: Arrays = {}
        for name, inputs in (("conv1", M), ("conv2", D)):
            self.one(f"encoder/{name}/weight", f"encoder.{name}.weight", D, inputs, 3)
            self.one(f"encoder/{name}/bias", f"encoder.{name}.bias", D)
        self.one(TABLE, "decoder.embedding.weight", V, D)
        for half, rows, layers in (("encoder", S, E), ("decoder", T, L)):
            table = f"{half}/position_encodings/encodings"
            self.one(table, f"{half}.pos_embedding.weight", rows, D)
            self.norm(f"{half}/layer_norm", f"{half}.final_norm")
            for i in range(layers):
                self.layer(half, f"{half}/layer_{i}", f"{half}.{half[:3]}_layers.{i}")

    def one(self, theirs: str, ours: str, *shape: int) -> None:
        array = self.draw.normal(size=shape).astype(self.dtype)
        self.theirs[theirs] = self.ours[ours] = array

    def norm(self, theirs: str, ours: str) -> None:
        self.one(f"{theirs}/gamma", f"{ours}.weight", D)
        self.one(f"{theirs}/beta", f"{ours}.bias", D)

    def layer(self, half: str, theirs: str, ours: str) -> None:
        own = "multiheadattention" if half == "encoder" else "multiheadattention1"
        self.attention(f"{theirs}/self_attention", f"{ours}.{own}", [PARTS, ("fcOut",)])
        self.norm(f"{theirs}/self_attention/layer_norm", f"{ours}.layerNorm1")
        if half == "decoder":
            fused = [("fcQ",), ("fcK", "fcV"), ("fcOut",)]
            self.attention(f"{theirs}/attention", f"{ours}.multiheadattention2", fused)
            self.norm(f"{theirs}/attention/layer_norm", f"{ours}.layerNorm2")
        last = "layerNorm2" if half == "encoder" else "layerNorm3"
        self.norm(f"{theirs}/ffn/layer_norm", f"{ours}.{last}")
        for number, (rows, columns) in enumerate(((F, D), (D, F))):
            self.linear(
                f"{theirs}/ffn/linear_{number}", [f"{ours}.ffn.fc{number + 1}"], rows, columns
            )

    def attention(self, theirs: str, ours: str, fused: list[tuple[str, ...]]) -> None:
        for number, parts in enumerate(fused):
            self.linear(f"{theirs}/linear_{number}", [f"{ours}.{part}" for part in parts], D, D)

    def linear(self, theirs: str, ours: list[str], rows: int, columns: int) -> None:
        weights, biases = [], []
        for name in ours:
            self.one("", f"{name}.weight", rows, columns)
            weights.append(self.theirs.pop(""))
            self.one("", f"{name}.bias", rows)
            bias = self.theirs.pop("")
            if name.endswith("fcK"):
                del self.ours[f"{name}.bias"]
                bias = np.zeros_like(bias)
            biases.append(bias)
        self.theirs[f"{theirs}/weight"] = np.concatenate(weights)
        self.theirs[f"{theirs}/bias"] = np.concatenate(biases)


def write(
    folder: Path,
    arrays: Arrays,
    aliases: dict[str, str] | None = None,
    config: dict | None = None,
    **scalars,
) -> Path:
    """A folder of CTranslate2's; ``scalars`` are variables of the decoder, of another value."""
    folder.mkdir(exist_ok=True)
    changed = {f"decoder/{name}": value for name, value in scalars.items()}
    named = {PROJECTION: TABLE} if aliases is None else aliases
    content = model_bin(arrays | SCALARS | changed, named)
    (folder / "model.bin").write_bytes(content)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    return folder


class TestWeights:
    @pytest.mark.parametrize("dtype", [np.float32, np.float16])
    def test_every_name(self, tmp_path, dtype):
        written = Written(dtype)
        model = open_model(write(tmp_path / "in", written.theirs))
        found = model.weights()
        assert found.keys() == written.ours.keys() == weight_shapes(model.config).keys()
        for name, array in written.ours.items():
            assert found[name].dtype == dtype and np.array_equal(found[name], array), name

    def test_an_output_of_its_own(self, tmp_path):
        written = Written()
        output = np.random.default_rng(1).normal(size=(V, D)).astype(np.float32)
        model = open_model(write(tmp_path / "in", written.theirs | {PROJECTION: output}, {}))
        assert model.config.tied_embeddings == "none"
        assert np.array_equal(model.weights()["decoder.finalFc.weight"], output)

    def test_equal_arrays_are_resolved_by_the_list(self, tmp_path):
        written = Written()
        first, second = (f"decoder/layer_{i}/ffn/linear_0/bias" for i in (0, 1))
        arrays = {name: array for name, array in written.theirs.items() if name != second}
        model = open_model(write(tmp_path / "in", arrays, {PROJECTION: TABLE, second: first}))
        found = model.weights()
        one, other = (f"decoder.dec_layers.{i}.ffn.fc1.bias" for i in (0, 1))
        assert np.array_equal(found[one], written.ours[one])
        assert np.array_equal(found[other], written.ours[one])

    def test_int8_is_read_as_float32_and_said(self, tmp_path, capsys):
        written = Written()
        name = "encoder/layer_0/self_attention/linear_0/weight"
        scale = 127 / np.abs(written.theirs[name]).max(1)
        whole = np.rint(written.theirs[name] * scale[:, None]).astype(np.int8)
        arrays = written.theirs | {name: whole, f"{name}_scale": scale.astype(np.float32)}
        place = write(tmp_path / "in", arrays)
        weights = open_model(place).weights()
        for part in PARTS:
            ours = f"encoder.enc_layers.0.multiheadattention.{part}.weight"
            error = np.abs(weights[ours] - written.ours[ours])
            largest = np.abs(written.ours[ours]).max(1, keepdims=True)
            assert 0 < (error / largest).max() <= 1 / 254 + 1e-6
        assert main([str(place), str(tmp_path / "out"), "--to", "torch"]) == 0
        assert "tensors are int8 with scales, read as float32" in capsys.readouterr().out

    @pytest.mark.parametrize("place", [D, 2 * D - 1])
    def test_keys_have_no_bias(self, tmp_path, capsys, place):
        written = Written()
        written.theirs[KEYS][place] = 1e-6
        source = write(tmp_path / "in", written.theirs)
        error = fail(capsys, source, tmp_path / "out", "--to", "torch")
        says(error, KEYS, "bias of the keys", "not zero")
        with pytest.raises(UserError, match="bias of the keys"):
            open_model(source).weights()

    def test_what_is_not_there_is_named(self, tmp_path, capsys):
        arrays = Written().theirs
        del arrays[KEYS]
        arrays["decoder/more"] = np.zeros(2, np.float32)
        error = fail(capsys, write(tmp_path / "in", arrays), tmp_path / "out", "--to", "torch")
        says(error, "missing", KEYS)
        says(error, "extra", "decoder/more")


class TestSettings:
    def test_sizes_are_those_of_the_arrays(self, tmp_path):
        config = open_model(write(tmp_path / "in", Written().theirs)).config
        found = (config.target_vocab_size, config.hidden_dim, config.num_heads, config.inner_dim)
        assert found == (V, D, H, F) and config.source_vocab_size == 0
        found = (config.feature_dim, config.max_source_length, config.max_length)
        assert found == (M, S, T)
        assert (config.num_encoder_layers, config.num_decoder_layers) == (E, L)
        assert (config.encoder_positions, config.key_bias) == ("frozen", False)
        assert (config.activation, config.tied_embeddings) == ("gelu", "target_output")
        assert (config.eos_id, config.decoder_start_id, config.pad_id) == (50256, 50257, 50359)
        assert config.norm_epsilon == 1e-5 and not config.drops_out

    def test_dropout_may_be_given(self, tmp_path):
        source, folder = write(tmp_path / "in", Written().theirs), tmp_path / "out"
        assert main([str(source), str(folder), "--to", "torch", "--dropout", "0.25"]) == 0
        assert json.loads((folder / "config.json").read_text())["model"]["dropout"] == 0.25

    def test_all_that_is_otherwise_is_named_at_once(self, tmp_path, capsys):
        source = write(
            tmp_path / "in", Written().theirs, config=CONFIG | {"new_setting": 3},
            num_heads=np.int16(3), activation=np.int8(1), queries_scale=np.float32(0.5),
        )  # fmt: skip
        error = fail(capsys, source, tmp_path / "out", "--to", "torch")
        says(error, "encoder/num_heads", H, "decoder/num_heads", 3)
        says(error, "decoder/activation", 1, "only 3")
        says(error, "decoder/queries_scale", 0.5, "not known")
        says(error, "new_setting", "not known")

    def test_arrays_that_say_sizes(self, tmp_path, capsys):
        arrays = Written().theirs
        arrays["encoder/conv1/weight"] = arrays["encoder/conv1/weight"][0]
        del arrays["decoder/position_encodings/encodings"]
        error = fail(capsys, write(tmp_path / "in", arrays), tmp_path / "out", "--to", "torch")
        says(error, "encoder/conv1/weight", [M, 3], "feature_dim")
        says(error, "decoder/position_encodings/encodings", "missing", "max_length")

    def test_another_vocabulary_needs_ids(self, tmp_path, capsys):
        arrays = Written().theirs
        arrays[TABLE] = arrays[TABLE][:97]
        source = write(tmp_path / "in", arrays)
        error = fail(capsys, source, tmp_path / "out", "--to", "torch")
        says(error, "eos_id", "vocabulary 97", "--eos-id")
        given = ("--eos-id", "90", "--decoder-start-id", "91")
        assert main([str(source), str(tmp_path / "out"), "--to", "torch", *given]) == 0

    def test_another_revision(self, tmp_path, capsys):
        source = write(tmp_path / "in", Written().theirs)
        content = model_bin(Written().theirs | SCALARS, {PROJECTION: TABLE}, revision=2)
        (source / "model.bin").write_bytes(content)
        says(fail(capsys, source, tmp_path / "out", "--to", "torch"), "revision is 2", "only 3")


class TestFolders:
    def test_a_translation_model_gets_one_line(self, tmp_path, capsys):
        source = tmp_path / "in"
        source.mkdir()
        content = model_bin({"encoder/a": np.zeros(2, np.float32)}, specification="TransformerSpec")
        (source / "model.bin").write_bytes(content)
        (source / "config.json").write_text('{"bos_token": "<s>", "add_source_bos": false}')
        for arguments in ([source, tmp_path / "out", "--to", "torch"], ["inspect", source]):
            error = fail(capsys, *arguments)
            assert error.count("\n") == 1
            says(error, "CTranslate2 (TransformerSpec)", "WhisperSpec", "alone are read back")

    def test_it_is_inspected(self, tmp_path, capsys):
        assert main(["inspect", str(write(tmp_path / "in", Written().theirs))]) == 0
        said = capsys.readouterr().out
        says(said, "family", "whisper-ctranslate2")
        says(said, "tied", f"{TABLE} = {PROJECTION}")
        says(said, KEYS, "float32", 3 * D)

    def test_what_it_never_writes_goes_to_transformers(self, tmp_path):
        source = write_json(write(tmp_path / "in", Written().theirs), V)
        assert main([str(source), str(tmp_path / "ours"), "--to", "torch"]) == 0
        for place in (source, tmp_path / "ours"):
            folder = tmp_path / f"of {place.name}"
            assert main([str(place), str(folder), "--to", "whisper"]) == 0
            found = json.loads((folder / "generation_config.json").read_text())
            assert found["suppress_tokens"] == CONFIG["suppress_ids"]
            assert found["begin_suppress_tokens"] == CONFIG["suppress_ids_begin"]
            assert found["alignment_heads"] == CONFIG["alignment_heads"]
            assert (folder / "tokenizer.json").read_bytes() == (
                source / "tokenizer.json"
            ).read_bytes()
            assert "suppress_ids" not in (folder / "config.json").read_text()

    def test_files_are_carried_as_they_came(self, tmp_path):
        """The vocabulary with its empty line too."""
        source = write_json(write(tmp_path / "in", Written().theirs), V)
        (source / "vocabulary.txt").write_text("a\n\nb\n")
        (source / "preprocessor_config.json").write_text("{}")
        assert main([str(source), str(tmp_path / "ours"), "--to", "torch"]) == 0
        for name in ("vocabulary.txt", "config.json", "preprocessor_config.json"):
            found = tmp_path / "ours" / "original" / name
            assert found.read_bytes() == (source / name).read_bytes()
        assert (tmp_path / "ours" / "vocabulary" / "tokenizer.json").is_file()

    @pytest.mark.parametrize("config", [None, "{}", '{"bos_token": "<s>"}', "{"])
    def test_an_older_config_says_nothing(self, tmp_path, config):
        source = write(tmp_path / "in", Written().theirs)
        (source / "config.json").unlink()
        if config is not None:
            (source / "config.json").write_text(config)
        given = [] if config != '{"bos_token": "<s>"}' else ["--ignore-setting", "bos_token"]
        for number, place in enumerate((source, source / "model.bin")):
            folder = tmp_path / f"out {number}"
            assert main([str(place), str(folder), "--to", "torch", *given]) == 0

    def test_a_key_picks_nothing(self, tmp_path, capsys):
        source = write(tmp_path / "in", Written().theirs)
        error = fail(capsys, source, tmp_path / "out", "--to", "torch", "--key", "encoder")
        says(error, "--key", "CTranslate2's")
