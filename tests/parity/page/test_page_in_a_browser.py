"""A page in a browser: it sorts and filters, fits a phone, asks nobody for anything.

Needs Debian's chromium and playwright's Python package, and is skipped without.
"""

import math
from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("jax")

from pages_read import FAILING, made_up, not_finite  # noqa: E402

from parity.comparison.report import Cause  # noqa: E402
from parity.comparison.text import shown  # noqa: E402

PHONE, DESK = {"width": 375, "height": 812}, {"width": 1280, "height": 900}
# Every element that shows text of its own, its colour, and what is behind it.
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const over = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((part) => part / 255)
    .map((x) => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4)
    .reduce((sum, x, k) => sum + x * [.2126, .7152, .0722][k], 0);
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, script")) continue;
    const behind = [];
    for (let part = element; part; part = part.parentElement) {
      behind.unshift(getComputedStyle(part).backgroundColor);
    }
    const back = light(over(behind));
    const front = light(over([...behind, getComputedStyle(element).color]));
    const [low, high] = [Math.min(back, front), Math.max(back, front)];
    found.push([(high + .05) / (low + .05), element.textContent.slice(0, 30)]);
  }
  return found;
}"""


@pytest.fixture
def show(browser, tmp_path):
    """A function: the page of a report in a window; what it complains of or asks for fails."""
    contexts, wrong = [], []

    def opened(report, **context):
        path = report.save_html(tmp_path / "it.html")
        contexts.append(browser.new_context(**{"viewport": DESK, "offline": True} | context))
        page = contexts[-1].new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        own = path.as_uri()
        page.on("request", lambda asked: asked.url.startswith(own) or wrong.append(asked.url))
        page.goto(own)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def column(page, title: str) -> list[str]:
    """What stands in the column of the rows that are shown."""
    return page.locator(f"#rows tbody tr:visible [data-label='{title}']").all_inner_texts()


def names(page) -> list[str]:
    return page.locator("#rows tbody tr:visible th > span:first-child").all_inner_texts()


def click(page, title: str) -> str | None:
    """Click on a column; how it says that it is sorted, and no other is."""
    head = page.locator("#rows thead th").filter(has=page.get_by_role("button", name=title))
    head.get_by_role("button").click()
    sorted_ = page.locator("#rows thead th:not([aria-sort='none'])")
    assert sorted_.count() == 1
    assert sorted_.inner_text().startswith(title)
    return head.get_attribute("aria-sort")


class TestSorting:
    def test_by_a_number_in_both_directions(self, show):
        report = made_up()
        page = show(report)
        errors = sorted((row.float64 for row in report.rows), reverse=True)
        assert click(page, "float64") == "descending"
        assert [float(text) for text in column(page, "float64")] == pytest.approx(errors, rel=1e-3)
        assert click(page, "float64") == "ascending"
        assert [float(t) for t in column(page, "float64")] == pytest.approx(errors[::-1], rel=1e-3)

    def test_what_was_not_measured_is_last_and_what_is_no_number_first(self, show):
        page = show(not_finite())
        click(page, "float16")
        assert column(page, "float16") == ["inf", "NaN", "1.0e-03", ""]
        click(page, "float16")
        assert column(page, "float16") == ["1.0e-03", "inf", "NaN", ""]

    def test_by_name_verdict_and_back(self, show):
        report = made_up()
        page = show(report)
        before = names(page)
        assert before == [shown(row.part) for row in report.rows]
        assert click(page, "name") == "ascending"
        assert names(page) != before and set(names(page)) == set(before)
        click(page, "verdict")
        failed = sum(not row.passed for row in report.rows)
        assert column(page, "verdict")[: failed + 1] == ["FAIL"] * failed + ["PASS"]
        assert click(page, "#") == "ascending" and names(page) == before


class TestFiltering:
    def test_by_name_in_either_spelling(self, show):
        page = show(made_up())
        for words in ("layer 1, ffn.fc2", "ENC_LAYERS.0 ffn.fc2"):
            page.get_by_label("name").fill(words)
            assert shown(FAILING) in names(page)
            assert all("ffn.fc2" in name for name in names(page))
        assert len(names(page)) == 2
        assert page.get_by_role("status").inner_text().startswith("2 of ")
        page.get_by_label("name").fill("nothing of that name")
        assert names(page) == []

    def test_only_what_differs(self, show):
        report = made_up()
        page = show(report)
        page.get_by_label("only what differs").check()
        assert names(page) == [shown(row.part) for row in report.rows if not row.passed]
        click(page, "float64")
        assert len(names(page)) == sum(not row.passed for row in report.rows)

    def test_a_link_shows_the_row_that_is_filtered_out(self, show):
        page = show(made_up())
        page.get_by_label("name").fill("decoder")
        row = page.locator("#rows tr.first")
        assert not row.is_visible()
        page.get_by_role("link", name=shown(FAILING)).click()
        assert row.is_visible() and page.get_by_label("name").input_value() == ""
        top = "document.querySelector('tr.first').getBoundingClientRect().top"
        page.wait_for_function(f"() => {top} < innerHeight")


class TestCurves:
    def test_a_pointer_reads_names_and_numbers(self, show):
        report = made_up()
        page = show(report)
        plot = page.locator("[data-plot]").first
        box = plot.bounding_box()
        plot.hover(position={"x": 3, "y": 20})
        reading = page.locator("[data-reading]").first
        assert reading.inner_text().startswith("encoder embed\nfloat64 3.000e-16")
        plot.hover(position={"x": box["width"] - 3, "y": 20})
        assert reading.inner_text().startswith("logits") and "FAIL" in reading.inner_text()

    def test_a_finger_does(self, show):
        page = show(made_up(), viewport=PHONE, has_touch=True)
        page.locator("[data-plot]").first.tap(position={"x": 3, "y": 20})
        assert "encoder embed" in page.locator("[data-reading]").first.inner_text()

    def test_arrow_keys_do(self, show):
        report = made_up()
        page = show(report)
        page.locator("[data-plot]").first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        second = page.locator("[data-reading]").first.inner_text()
        assert second.startswith(shown(report.rows[1].part))


LONG = "runs/" + "a-very-long-name-of-a-folder" * 9


class TestScreens:
    @pytest.mark.parametrize("width", [320, 375, 500, 768, 1280])
    def test_nothing_scrolls_sideways(self, show, width):
        report = made_up(a=replace(made_up().a, given=LONG), notes=(LONG,),
                         causes=(Cause("slip", LONG),))  # fmt: skip
        page = show(report, viewport={"width": width, "height": 812})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        outside = page.evaluate(
            "() => [...document.querySelectorAll('main *')].filter(e => !e.closest('svg') && "
            "e.getBoundingClientRect().right > innerWidth + .5).map(e => e.outerHTML.slice(0, 90))"
        )
        assert outside == []

    def test_a_phone_sorts_and_has_names_of_numbers(self, show):
        page = show(made_up(), viewport=PHONE)
        assert click(page, "float32") == "descending"
        first = page.locator("#rows tbody tr").first
        label = "e => getComputedStyle(e, '::before').content"
        assert first.locator("[data-label='float32']").evaluate(label) == '"float32"'
        assert page.get_by_role("row").count() > 10
        assert page.get_by_role("rowheader", name=shown(FAILING)).count() == 1

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
    @pytest.mark.parametrize("same", [True, False], ids=["pass", "fail"])
    def test_contrast(self, show, scheme, viewport, same):
        report = made_up()
        if same:
            rows = tuple(replace(row, float64=0.0) for row in report.rows)
            report = replace(report, rows=rows, first=None, causes=None)
        page = show(report, color_scheme=scheme, viewport=viewport)
        found = page.evaluate(CONTRASTS)
        assert len(found) > 100
        assert [entry for entry in found if entry[0] < 4.5] == []

    def test_dark_and_light(self, show):
        page = show(made_up(), color_scheme="dark")
        back = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(back)
        page.get_by_role("button", name="light").click()
        light = page.evaluate(back)
        assert light != dark
        page.get_by_role("button", name="dark").click()
        assert page.evaluate(back) == dark

    def test_printed(self, show):
        """In dark ink, with every row and nothing to click."""
        page = show(made_up(), color_scheme="dark", viewport={"width": 690, "height": 1000})
        page.emulate_media(media="print")
        card = "getComputedStyle(document.querySelector('header')).backgroundColor"
        assert page.evaluate(card) == "rgb(255, 255, 255)"
        assert not page.locator("#controls").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 690
        assert page.locator("#rows tbody tr").first.evaluate(
            "e => getComputedStyle(e).display"
        ) == ("table-row")
        assert len(names(page)) == len(made_up().rows)


def test_without_scripts_all_can_be_read(show):
    report = made_up()
    page = show(report, java_script_enabled=False)
    assert page.locator("#rows tbody tr:visible").count() == len(report.rows)
    assert not page.locator("#controls").is_visible()
    assert page.locator("button").count() == 0
    assert page.locator("tr.first").is_visible()


def test_text_of_users_runs_nothing(show):
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>\"' onmouseover=alert(3) x='"
    report = made_up(
        a=replace(made_up().a, given=hostile), notes=(hostile,), causes=(Cause("slip", hostile),),
        different_settings={hostile: (hostile, 1)},
    )  # fmt: skip
    page = show(report)
    assert page.locator(".given").first.inner_text() == hostile
    page.locator("[data-plot]").first.hover()
    page.get_by_label("name").fill(hostile)
    assert page.locator("img").count() == 0 and page.locator("script").count() == 1


def test_a_report_of_nothing_that_is_a_number(show):
    page = show(not_finite())
    assert math.isnan(float(column(page, "float64")[2]))
    assert page.locator("figure").count() == 1
