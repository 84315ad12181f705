"""Small pickles that would become too much for the machine that reads them."""

import time
import tracemalloc

import pytest
from pickle_cases import tensor_pickle, write_zip

from convert.formats.content import unread
from convert.formats.torch_file import modules
from convert.formats.torch_file.reader import open_torch_file, open_torch_pickle
from transformer_spec import UserError

torch = pytest.importorskip("torch", reason="the pickles name torch's functions")

WORD = 1 << 16


class TestBombs:
    def check(self, path, content, match, seconds=20):
        """Refused soon, with memory of the order of the file."""
        write_zip(path / "m.pt", content)
        start = time.process_time()
        tracemalloc.start()
        try:
            with pytest.raises(UserError, match=match):
                open_torch_file(path / "m.pt")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 400 * len(content) + 2**21
        assert time.process_time() - start < seconds

    def test_lists_of_lists_of_lists(self, tmp_path):
        """Each list holds the one before ten times: 10**30 parts in a few hundred bytes."""
        layers = b"".join(b"q%c0](" % i + b"h%c" % i * 10 + b"e" for i in range(30))
        self.check(tmp_path, b"\x80\x02]" + layers + b".", "repeats its parts")

    def test_a_long_text_many_times(self, tmp_path):
        text = b"X" + WORD.to_bytes(4, "little") + b"a" * WORD + b"q\x000"
        content = b"\x80\x02" + text + b"](" + b"h\x00" * WORD + b"e."
        self.check(tmp_path, content, "repeats its parts")

    def test_results_that_grow_with_each_call(self, tmp_path):
        """A path of itself twice, 40 times over, would have 10**16 characters."""
        path = b"cpathlib\nPurePosixPath\n(X\x04\x00\x00\x00abcdtR"
        twice = b"q\x000cpathlib\nPurePosixPath\n(h\x00h\x00tR"
        self.check(tmp_path, b"\x80\x02" + path + twice * 40 + b".", "repeats its parts")

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(
        "copy",
        [
            b"ccollections\nOrderedDict\n(h\x00tR", b"c__builtin__\nset\n(h\x01tR",
            b"ctorch\nSize\n(h\x01tR", b"cargparse\nNamespace\n)\x81h\x00b",
            b"c_codecs\nencode\n(h\x02X\x06\x00\x00\x00latin1tR",
            b"ctypes\nSimpleNamespace\n)Rh\x00b",
        ],
    )  # fmt: skip
    def test_many_copies_of_a_large_part(self, tmp_path, copy):
        items = b"".join(b"X\x04\x00\x00\x00%04dK\x01" % i for i in range(5000))
        numbers = b"".join(b"J" + i.to_bytes(4, "little") for i in range(5000))
        text = b"X" + (20_000).to_bytes(4, "little") + b"a" * 20_000
        parts = b"}(" + items + b"uq\x00](" + numbers + b"eq\x01" + text + b"q\x02"
        self.check(tmp_path, b"\x80\x02(" + parts + copy * 9000 + b"l.", "repeats its parts")

    def test_a_namespace_whose_copies_are_merged_many_times(self, tmp_path):
        items = b"".join(b"X\x04\x00\x00\x00%04dK\x01" % i for i in range(5000))
        parts = b"cargparse\nNamespace\n)\x81}(" + items + b"uq\x00b" + b"h\x00b" * 9000
        self.check(tmp_path, b"\x80\x02" + parts + b".", "sets the attributes of")

    def test_messages_are_short(self, tmp_path):
        for content in (b"F" + b"\x1b[1m" * 9999 + b"\n.", b"ca\n" + b"b\r" * 9999 + b"\n."):
            with pytest.raises(UserError) as caught:
                open_torch_pickle(write_zip(tmp_path / "m.pt", content))
            message = str(caught.value)
            assert len(message) < 900 and message.isprintable()

    def test_something_that_contains_itself(self, tmp_path):
        self.check(tmp_path, b"\x80\x02]q\x00h\x00a.", "contains itself")
        self.check(tmp_path, b"\x80\x02}q\x00K\x01h\x00s.", "contains itself")
        content = b"\x80\x02cargparse\nNamespace\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb."
        self.check(tmp_path, content, "contains itself")

    @pytest.mark.parametrize(
        "deep", [b")" + b"\x85" * WORD, b"]" * WORD + b"a" * (WORD - 1)], ids=["tuples", "lists"]
    )
    def test_deep_nesting(self, tmp_path, deep):
        self.check(tmp_path, b"\x80\x02" + deep + b".", "nested more than 100 deep")

    def test_calls_of_calls_of_calls(self, tmp_path):
        """Each is an argument of the next, tens of thousands deep."""
        deep = b")" + b"\x85q\x010ctorch\nSize\nh\x01R" * WORD
        self.check(tmp_path, b"\x80\x02" + deep + b".", "nested more than 100 deep")

    def test_a_tuple_of_itself_twice_as_a_key(self, tmp_path):
        """Hashing it would take 2**60 steps."""
        self.check(tmp_path, b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.", "has the key a tuple")

    def test_a_part_filed_under_a_large_number(self, tmp_path):
        path = write_zip(tmp_path / "m.pt", b"\x80\x02]r\xff\xff\xff\x7f.")
        tracemalloc.start()
        assert open_torch_file(path).content == []
        assert tracemalloc.get_traced_memory()[1] < 2**21
        tracemalloc.stop()

    def test_deep_tuples_as_keys(self, tmp_path):
        """Python would hash such a key by going down into it without end."""
        deep = b")" + b"\x85" * WORD
        self.check(tmp_path, b"\x80\x02}" + deep + b"K\x01s.", "has the key a tuple")
        self.check(tmp_path, b"\x80\x04\x8f(" + deep + b"\x90.", "has the key a tuple")

    @pytest.mark.parametrize("key", [b"]", b"}", b"\x8a\x1f" + b"\x7f" * 31])
    def test_keys_that_are_not_plain(self, tmp_path, key):
        self.check(tmp_path, b"\x80\x02}" + key + b"K\x01s.", "has the key a")

    def test_objects_of_objects_of_objects(self, tmp_path):
        """Each holds the one before ten times, by every way that there is."""
        layers = b"".join(
            b"q%c0ca\nB\n(" % i + b"h%c" % i * 4 + b"tR](" + b"h%c" % i * 4 + b"eb"
            for i in range(60)
        )
        path = write_zip(tmp_path / "m.pt", b"\x80\x02]" + layers + b".")
        tracemalloc.start()
        file = open_torch_file(path)
        assert file.dicts() == {} and next(unread(file.content)).name == "a.B"
        assert tracemalloc.get_traced_memory()[1] < 2**21
        tracemalloc.stop()

    def test_a_long_chain_of_objects(self, tmp_path):
        """Each is the state of the next, tens of thousands deep."""
        deep = b"ca\nB\n)R" + b"q\x000ca\nB\n)R}X\x01\x00\x00\x00ah\x00sb" * (WORD // 2)
        file = open_torch_file(write_zip(tmp_path / "m.pt", b"\x80\x02" + deep + b"."))
        assert file.dicts() == {} and file.at("a.a.a").name == "a.B"

    def test_modules_that_hold_each_other_many_times(self, tmp_path, monkeypatch):
        """Fifty modules, each twice in the next: 2**50 names."""
        monkeypatch.setattr(modules, "MOST", 1000)
        text = b"".join(
            b"X%s%s" % (len(name).to_bytes(4, "little"), name) + b"q%c0" % (200 + i)
            for i, name in enumerate((b"_parameters", b"_buffers", b"_modules"))
        )
        first = b"ca\nB\n)R}(h\xc8}h\xc9}h\xca}ub"
        again = b"q%c0ca\nB\n)R}(h\xc8}h\xc9}h\xca}(K\x00h%cK\x01h%cuub"
        layers = b"".join(again % (i, i, i) for i in range(50))
        write_zip(tmp_path / "m.pt", b"\x80\x02" + text + first + layers + b".")
        with pytest.raises(UserError, match="holds more than 1000 parts"):
            open_torch_pickle(tmp_path / "m.pt")

    def test_numbers_of_many_digits(self, tmp_path):
        size = 1 << 12
        long = b"\x8b" + size.to_bytes(4, "little") + b"\x7f" * size
        self.check(tmp_path, b"\x80\x02" + long + b".", "a number of 32767 bits")
        self.check(tmp_path, b"I" + b"9" * (1 << 20) + b"\n.", "m.pt is not read")

    @pytest.mark.parametrize("code", [b"X", b"B", b"T", b"\x8b", b"\x8d", b"\x8e", b"\x96"])
    def test_announced_and_not_there(self, tmp_path, code):
        for legacy in (False, True):
            content = b"\x80\x02" + code + b"\xff\xff\xff\x7f\x00\x00\x00\x00"
            if not legacy:
                self.check(tmp_path, content, "m.pt is not read")
                continue
            torch.save(0, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
            start = (tmp_path / "old.pt").read_bytes()[:-8]
            (tmp_path / "old.pt").write_bytes(start[: start.rindex(b"\x80\x02")] + content)
            with pytest.raises(UserError, match="old.pt is not read"):
                open_torch_file(tmp_path / "old.pt")

    def test_a_small_storage_seen_as_a_large_tensor(self, tmp_path):
        content = tensor_pickle(shape=(2**40,), strides=(0,))
        path = write_zip(tmp_path / "m.pt", content, _0=bytes(8))
        with pytest.raises(UserError, match="'x' needs 4398046511104 bytes, repeated"):
            open_torch_pickle(path)

    def test_a_long_tuple_as_a_key(self, tmp_path):
        self.check(tmp_path, b"\x80\x02}(" + b"K\x01" * 17 + b"tK\x01s.", "the key a tuple")
        path = write_zip(tmp_path / "m.pt", b"\x80\x02}(" + b"K\x01" * 16 + b"tK\x01s.")
        assert open_torch_file(path).content == {(1,) * 16: 1}
