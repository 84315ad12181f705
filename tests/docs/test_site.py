"""The site: built without a warning, whole, and the same on a telephone and on a desk.

MkDocs checks the links of Markdown; what is checked here is what was built, raw HTML and notebooks
included, and how a browser shows it.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from page_blocks import DOCS, ROOT

from transformer_spec.config import DECLARATIONS
from transformer_spec.declarations import REQUIRED, Declaration

WIDTHS = (375, 1280)
LOOKED_AT = (
    "index.html", "checkpoints.html", "reported-inputs.html", "decisions.html",
    "reference/transformer_spec.html", "reference/flax_transformer.html",
    "notebooks/wrong-conversions.html",
)  # fmt: skip
# What a page loads by itself; everything else that has an address is followed by readers.
LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href"}
PACKAGES = ("twinformer", "transformer_spec", "torch_transformer", "flax_transformer", "convert")
# What a browser says of a page itself, not of a shape or a colour.
BAD = ("error", "warning")


@dataclass
class Page(HTMLParser):
    """What a page links to, what it loads, and which places of it can be linked to."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    places: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if LOADED.get(tag, "") in given:
            self.loaded.append(given[LOADED[tag]])


def read_pages(site: Path) -> dict[Path, Page]:
    """Every page but that of addresses that are nowhere, whose own are those of a server's root."""
    pages = {}
    for path in sorted(site.rglob("*.html")):
        if path.name != "404.html":
            page = pages[path] = Page()
            page.feed(path.read_text(encoding="utf-8"))
    return pages


def faults_of(pages: dict[Path, Page]) -> Iterator[str]:
    """Links and pictures that lead nowhere, and what is loaded from elsewhere."""
    for path, page in pages.items():
        for address in (*page.links, *page.loaded):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.loaded and parts.scheme != "data":
                    yield f"{path.name} loads {address}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = pages.get(target)
            if not target.is_file():
                yield f"{path.name}: {address} is not there"
            elif parts.fragment and there and unquote(parts.fragment) not in there.places:
                yield f"{path.name}: {address} has no such place"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site as ``make docs`` builds it."""
    for name in ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter"):
        pytest.importorskip(name, reason=f"{name} is not installed; the extra docs has it")
    folder = tmp_path_factory.mktemp("site")
    command = "-m mkdocs build --strict --config-file".split()
    done = subprocess.run(
        [sys.executable, *command, ROOT / "mkdocs.yml", "--site-dir", folder / "site"],
        cwd=folder, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    assert (done.returncode, done.stdout, said) == (0, "", []), done.stderr
    return folder / "site"


def in_navigation(entry: Any) -> Iterator[str]:
    """The pages of mkdocs.yml's ``nav``."""
    if isinstance(entry, str):
        yield entry
    for part in entry if isinstance(entry, list) else ():
        yield from in_navigation(part)
    for part in entry.values() if isinstance(entry, dict) else ():
        yield from in_navigation(part)


def navigation() -> list[str]:
    content = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    return list(in_navigation(content["nav"]))


def test_every_page_is_in_the_navigation_once_and_the_reverse() -> None:
    there = [p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.*")]
    assert sorted(navigation()) == sorted(n for n in there if n.endswith((".md", ".ipynb")))


def test_what_leads_nowhere_is_found(tmp_path) -> None:
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="#here">1</a><a href="b.html#there">2</a><a href="c.html">3</a>'
        '<a href="https://example.org">4</a><img src="d.png"><img src="data:,"></p>'
        '<script src="https://example.org/e.js"></script>'
    )
    (tmp_path / "b.html").write_text('<a id="th"></a><a href="a.html#here">5</a>')
    assert list(faults_of(read_pages(tmp_path))) == [
        "a.html: b.html#there has no such place",
        "a.html: c.html is not there",
        "a.html: d.png is not there",
        "a.html loads https://example.org/e.js",
    ]


@pytest.mark.slow
def test_no_built_page_leads_nowhere_or_loads_from_elsewhere(site) -> None:
    pages = read_pages(site)
    assert len(pages) == len(navigation())
    assert not list(faults_of(pages))


def public_names(package: str) -> list[str]:
    """``__all__`` of a package, which is not imported."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    given = {ast.unparse(n.targets[0]): n.value for n in tree.body if isinstance(n, ast.Assign)}
    return ast.literal_eval(given["__all__"])


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_has_every_public_name(package) -> None:
    page = (DOCS / f"reference/{package}.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"\b[a-z_]+\.\w+", page))
    assert not [n for n in public_names(package) if f"{package}.{n}" not in documented]


def field_row(field: Declaration) -> str:
    """A config field as the reference's table has it."""
    kind = ", ".join(f"`{choice}`" for choice in field.choices) or field.type.__name__
    default = "derived" if field.default is None else f"`{field.default}`"
    shown = "" if field.default is REQUIRED else default
    return f"| `{field.name}` | {field.help} | {shown} | {kind} |"


def test_the_reference_has_every_field_of_the_config_as_it_is_declared() -> None:
    page = (DOCS / "reference/transformer_spec.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| `[a-z_]+`", line)]
    assert rows == [field_row(declared) for declared in DECLARATIONS.values()]


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Where a server of this process shows a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def seen(browser: Any, folder: Path, names: Sequence[str], width: int) -> list[str]:
    """What is wrong with pages in a window of a width; nothing is asked of another host."""
    faults: list[str] = []
    with served(folder) as address, browser.new_context(
        viewport={"width": width, "height": 800}
    ) as context:  # fmt: skip
        context.route(lambda url: not url.startswith(address), lambda route: route.abort())
        page = context.new_page()
        page.on("request", lambda r: r.url.startswith((address, "data:")) or faults.append(r.url))
        page.on("console", lambda said: said.type in BAD and faults.append(said.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("response", lambda r: r.status < 400 or faults.append(f"{r.status} {r.url}"))
        for name in names:
            page.goto(address + name, wait_until="networkidle")
            wide = page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                faults.append(f"{name} is {wide} wide in a window of {width}")
    return faults


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_pages_from_this_site_alone_and_none_wider_than_it(
    width, site, browser
) -> None:
    assert not seen(browser, site, LOOKED_AT, width)


@pytest.mark.slow
def test_what_a_browser_finds_is_told(browser, tmp_path) -> None:
    (tmp_path / "bad.html").write_text(
        '<link rel="icon" href="data:,"><div style="width: 500px">wide</div>'
        '<script>console.warn("said"); nothing()</script><img src="none.png">'
        '<script src="https://example.org/far.js"></script>'
    )
    faults = seen(browser, tmp_path, ["bad.html"], 375)
    wanted = ("said", "nothing is not defined", "404", "https://example.org/far.js", "508 wide")
    assert not [words for words in wanted if not any(words in fault for fault in faults)], faults
