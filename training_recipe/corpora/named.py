"""Corpora that have a name: where their files are published, how they are read, on which terms."""

from __future__ import annotations

from dataclasses import dataclass

CMUDICT = "cmudict"  # built in, and read by its own code

# Commits, not branches: what they hold can never change. The hashes are those of the files there.
MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/{commit}/data/task1/{folder}/"
CHATBOT = (
    "https://raw.githubusercontent.com/songys/Chatbot_data/"
    "157bfbd9c354191bb4c546a8938e3862638ca7a3/ChatbotData%20.csv"
)
MULTI30K_TERMS = "captions of Flickr30k, for research and education, non-commercial"


@dataclass(frozen=True)
class PublishedFile:
    """Where a file is published, and the SHA-256 of it in hexadecimal."""

    url: str
    sha256: str


@dataclass(frozen=True)
class NamedCorpus:
    """Files by the names they get in the corpus's folder, and which of them is what.

    ``train``, ``valid`` and ``test`` are prefixes of parallel files, which need ``languages``, or
    tables, which need ``columns``; a part that is None is held out of train.
    """

    name: str
    about: str
    files: dict[str, PublishedFile]
    train: str
    valid: str | None = None
    test: str | None = None
    languages: tuple[str | None, str | None] = (None, None)
    columns: tuple[str, str] | None = None


def _multi30k(
    name: str, what: str, place: tuple[str, str], suffix: str, hashes: dict[str, str]
) -> NamedCorpus:
    url = MULTI30K.format(commit=place[0], folder=place[1])
    return NamedCorpus(
        name,
        f"Multi30k (Elliott et al. 2016), English to German, {what}; {MULTI30K_TERMS}",
        {file: PublishedFile(url + file, digest) for file, digest in hashes.items()},
        *(part + suffix for part in ("train", "val", "test_2016_flickr")),
        languages=("en", "de"),
    )


_ALL = (
    _multi30k(
        "multi30k-en-de",
        "lower-cased, normalised and tokenised by Moses",
        ("7bee46bc74186b4b6254603143610f730d40bf66", "tok"),
        ".lc.norm.tok",
        {
            "train.lc.norm.tok.en": (
                "08925f8e0572bcd5a006702fc5fe20e2d77c6917d4eebd576fc20de6693c2119"
            ),
            "train.lc.norm.tok.de": (
                "cb5a23529b65ec2061f1dc446192a9c37382b63cc75f81a0be59d34894b3a505"
            ),
            "val.lc.norm.tok.en": (
                "46573ce391ae227f1c72f873392436a20ef18e0a6d518098cfbd70b77c8572ec"
            ),
            "val.lc.norm.tok.de": (
                "97232bd273eceb7207f689527386a97e4be2616b18ada47576bdaf96c8ae1f00"
            ),
            "test_2016_flickr.lc.norm.tok.en": (
                "5b7f32627cf99eced828311b955dae9800bb52bc8b91cf8b6526829e605b29d2"
            ),
            "test_2016_flickr.lc.norm.tok.de": (
                "c6a33d39d48f9f510de147651316cd9d918e09ad0219df734a2f16b6baccacc4"
            ),
        },
    ),
    _multi30k(
        "multi30k-en-de-raw",
        "as written",
        ("c9be912dc05a3ebf9ae5bb5f7f58c1791cda43ab", "raw"),
        "",
        {
            "train.en.gz": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
            "train.de.gz": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
            "val.en.gz": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
            "val.de.gz": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
            "test_2016_flickr.en.gz": (
                "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9"
            ),
            "test_2016_flickr.de.gz": (
                "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8"
            ),
        },
    ),
    NamedCorpus(
        "korean-chatbot",
        "Chatbot_data_for_Korean v1.0 (songys), questions and answers; MIT licence",
        {
            "ChatbotData.csv": PublishedFile(
                CHATBOT, "287eb129695b577321c80ad397bb3c2279164d4ca577874d129fd3db5b30afe2"
            )
        },
        train="ChatbotData.csv",
        columns=("Q", "A"),
    ),
)
NAMED_CORPORA: dict[str, NamedCorpus] = {corpus.name: corpus for corpus in _ALL}
