"""The page of a co-design study in headless Chromium: what is there, hover, click, keys, no errors, no requests."""

import os

import pytest

from codesign.report.page import page
from codesign.report.study import read_study
from codesign.report.summary import si
from tests.support.browser import REQUIRED, Browser, chromium
from tests.support.codesign_study import DESIGNS, make_study, read_result, write_result

HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked=1">'
SHOWN = "document.querySelectorAll('.point').length"
SELECTED = "[...document.querySelectorAll('.point[aria-pressed=true]')].map(node => node.dataset.id)"
# Texts of a drawing that overlap another one, or leave their card.
OVERLAPS = """
[...document.querySelectorAll('main svg')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')].filter(node => !node.hasAttribute('transform'))
    .map(node => [node.textContent, node.getBoundingClientRect()]);
  const card = (svg.closest('.card') || document.body).getBoundingClientRect(), found = [];
  boxes.forEach(([text, a], k) => {
    if (!svg.closest('.scroll') && (a.left < card.left - 1 || a.right > card.right + 1)) found.push([text, 'leaves']);
    for (const [other, b] of boxes.slice(k + 1)) {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      if (wide > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1) found.push([text, other]);
    }
  });
  return found;
})
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if chromium() is None:
        if os.environ.get(REQUIRED):
            pytest.fail(f"{REQUIRED} is set, but there is no chromium")
        pytest.skip("chromium is not installed")
    with Browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    make_study(folder)
    return folder


@pytest.fixture
def opened(browser, study, tmp_path):
    """The page of the study, open at 1280 pixels in light colours; at the end it has made no errors and no requests."""
    yield open_page(browser, study, tmp_path)
    assert browser.errors == []
    assert [address for address in browser.requests if not address.startswith(("file:", "data:,"))] == []


def open_page(browser, study, folder, width=1280, dark=False):
    file = folder / "report.html"
    file.write_text(page(read_study(study)), encoding="utf-8")
    browser.errors.clear()
    browser.requests.clear()
    browser.show(width, 900, dark)
    browser.open(file)
    return browser


def point(name):
    return f".point[data-id='{name}']"


def text(browser, selector):
    return browser.run(f"document.querySelector({selector!r}).innerText")


def test_everything_is_there(opened, study):
    stored = read_result(study)
    assert opened.run(SHOWN) == len(stored["designs"]) == len(DESIGNS)
    assert opened.run("document.title") == "glyph_hybrid_narrow, edp: co-design of glyph_hybrid_narrow"
    assert "“m2vit ×1, w4a8”" in text(opened, "#summary")
    assert opened.run("document.querySelectorAll('.figure').length") == 6
    assert opened.run("document.querySelectorAll('#missing li').length") == 0
    for place in (
        "#plan",
        "#gantt",
        "#waits",
        "#energy",
        "#progress-hypervolume",
        "#progress-least",
        "#table-error",
    ):
        assert opened.run(f"document.querySelectorAll('{place} svg').length") >= 1, place
    assert opened.run("document.querySelectorAll('#comparison tbody tr').length") == len(stored["comparison"])
    assert opened.run("document.querySelectorAll('#families tbody tr').length") == len(stored["families"]) == 1
    assert "schemes" in text(opened, "#families tbody tr")
    assert opened.run("document.querySelectorAll('#bounds tbody tr').length") == len(stored["bounds"])
    assert opened.run("document.querySelectorAll('#progress-hypervolume .series').length") == len(stored["history"])
    assert opened.run("document.querySelectorAll('#table-error .dot').length") == 2 * len(stored["table_error"])
    assert stored["findings"][0] in text(opened, "#findings")
    assert stored["penalties"]["fingerprint"] in text(opened, "#provenance")
    assert text(opened, "#spec").strip() == stored["spec_text"].strip()
    assert opened.run(SELECTED) == ["cd-0"]
    hollow = [one["id"] for one in stored["designs"] if (one["validation"] or {}).get("non_inferior") is False]
    found = opened.run("[...document.querySelectorAll('.point:has(.hollow)')].map(node => node.dataset.id)")
    assert sorted(found) == sorted(hollow) != []


def test_hover_shows_the_design(opened, study):
    (m2,) = (one for one in read_result(study)["designs"] if one["id"] == "m2")
    edp = si(m2["edp_pj_s"] * 1e-12, "J·s")
    assert opened.run("document.querySelector('#tooltip').hidden")
    opened.hover(point("m2"))
    said = text(opened, "#tooltip")
    for words in ("m2vit ×1, m2q", "M²-ViT rule", "EDP", edp, "93.90 %", "mult.pixel_groups", "u4 ", "apot8 "):
        assert words in said
    x, y = opened.centre("h1")
    opened.move(x, y)
    assert opened.run("document.querySelector('#tooltip').hidden")


def test_the_tooltip_stays_inside(opened):
    opened.show(800, 600, False)
    opened.settle()
    for name, *_ in DESIGNS:
        opened.hover(point(name))
        found = opened.run("document.querySelector('#tooltip').getBoundingClientRect().toJSON()")
        box = [found[side] for side in ("left", "top", "right", "bottom")]
        assert 0 <= box[0] < box[2] <= 800
        assert 0 <= box[1] < box[3] <= 600
        assert 200 < box[2] - box[0] < 350
        assert box[3] - box[1] < 400


def test_click_shows_another_design(opened, study):
    (m2,) = (one for one in read_result(study)["designs"] if one["id"] == "m2")
    before = {
        place: opened.run(f"document.querySelector('{place}').innerHTML")
        for place in ("#plan", "#gantt", "#waits", "#energy")
    }
    opened.click(point("m2"))
    assert opened.run(SELECTED) == ["m2"]
    assert opened.run("document.querySelector('#design-picker').value") == "m2"
    assert "m2vit ×1, m2q" in text(opened, "#card")
    assert f"{m2['cycles']:,}" in text(opened, "#card")
    for place, old in before.items():
        assert opened.run(f"document.querySelector('{place}').innerHTML") != old, place
    assert "apot8: 8-bit sum of powers of two" in text(opened, "#design")
    opened.click("#to-best")
    assert opened.run(SELECTED) == ["cd-0"]
    assert opened.run("document.querySelector('#plan').innerHTML") == before["#plan"]


def test_keys_reach_and_select_points(opened):
    kinds = "document.querySelectorAll('.point[tabindex=\"0\"][role=button][aria-label]').length"
    assert opened.run(kinds) == len(DESIGNS)
    opened.run("document.querySelector('#cloud').focus()")
    opened.press("Tab")
    first = opened.run("document.activeElement.dataset.id")
    assert first == "u4"  # the leftmost
    assert "m2vit ×1, uniform4" in text(opened, "#tooltip")
    opened.press("ArrowRight")
    second = opened.run("document.activeElement.dataset.id")
    assert second == "cd-2"
    opened.press("Enter")
    assert opened.run(SELECTED) == ["cd-2"]
    opened.press("Tab")
    opened.press(" ")
    assert opened.run(SELECTED) == ["ws"]  # the next to the right
    opened.press("Escape")
    assert opened.run("document.querySelector('#tooltip').hidden")


def test_axes_switch(opened):
    titles = "[...document.querySelectorAll('#front .axis-title')].map(node => node.textContent)"
    assert opened.run(titles) == ["EDP per image [pJ·s]", "measured loss of top-1 [points]"]
    assert opened.run("document.querySelectorAll('#front .cloud path').length") == 0
    places = []
    for x in ("edp", "latency", "energy"):
        for y in ("measured", "predicted", "area"):
            opened.run(f"document.querySelector('input[name=x][value={x}]').click()")
            opened.run(f"document.querySelector('input[name=y][value={y}]').click()")
            opened.settle()
            assert opened.run(SHOWN) == len(DESIGNS)
            dots = opened.run(
                "[...document.querySelectorAll('#front .cloud path')].map(node => node.getAttribute('d'))"
            )
            assert len(dots) in (0, 2 * len({one[1] for one in DESIGNS}))
            assert sum(d.count("M") for d in dots) == (0 if y == "measured" else 400)
            places.append(opened.run(f"document.querySelector(\"{point('seq')}\").getAttribute('transform')"))
            assert opened.run(OVERLAPS) == []
    assert len(set(places)) == 9
    assert opened.run(titles) == ["energy per image [µJ]", "area [mm²]"]


def test_dots_of_the_search_have_tooltips(opened):
    opened.run("document.querySelector('input[name=y][value=area]').click()")
    opened.settle()
    opened.centre("#front")
    d = opened.run("document.querySelector('#front .cloud path').getAttribute('d')")
    box = opened.run("(b => [b.left, b.top])(document.querySelector('#front svg').getBoundingClientRect())")
    found = 0
    for dot in d.split("M")[1:12]:
        x, y = (float(part) for part in dot.removesuffix("h0").split(","))
        opened.move(box[0] + x, box[1] + y)
        said = "" if opened.run("document.querySelector('#tooltip').hidden") else text(opened, "#tooltip")
        found += "looked at: " in said and "lanes" in said
    assert found > 5


def test_units_over_time(opened):
    opened.hover("#gantt .segment")
    said = text(opened, "#tooltip")
    assert "cycles" in said
    assert "100 %" in said
    rects = opened.run("document.querySelectorAll('#gantt rect').length")
    assert 50 < rects <= 2000
    width = "document.querySelector('#gantt svg').getBoundingClientRect().width"
    narrow = opened.run(width)
    opened.run("document.querySelector('input[name=zoom][value=\"4\"]').click()")
    opened.settle()
    assert opened.run(width) == pytest.approx(4 * narrow, rel=0.01)
    assert opened.run("document.documentElement.scrollWidth") == 1280
    opened.run("document.querySelector('input[name=zoom][value=\"1\"]').click()")


def test_search_over_seconds(opened):
    old = opened.run("document.querySelector('#progress-hypervolume').innerHTML")
    opened.run("document.querySelector('input[name=progress][value=elapsed_s]').click()")
    opened.settle()
    new = opened.run("document.querySelector('#progress-hypervolume').innerHTML")
    assert old != new
    assert "time [s]" in new


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 800])
def test_nothing_overlaps(browser, study, tmp_path, width, dark):
    open_page(browser, study, tmp_path, width, dark)
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run("document.querySelectorAll('main svg text').length") > 60
    assert browser.run(OVERLAPS) == []
    page_colour, text_colour = (
        browser.run(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color")
    )
    light = [sum(int(part) for part in colour[4:-1].split(",")) for colour in (page_colour, text_colour)]
    assert (light[0] < light[1]) == dark
    assert browser.errors == []


def test_hostile_texts_do_not_run(browser, study, tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "designs").symlink_to(study / "designs")
    stored = read_result(study) | {
        "name": HOSTILE,
        "model": HOSTILE,
        "findings": [HOSTILE],
        "spec_text": HOSTILE,
        "seconds": {HOSTILE: HOSTILE},
    }
    stored["designs"][0] |= {"label": HOSTILE, "values": {HOSTILE: HOSTILE}, "mapper": HOSTILE, "origin": HOSTILE}
    stored["cloud"][0]["values"] = {HOSTILE: HOSTILE}
    stored["history"][0]["search"] = stored["comparison"][0]["baseline"] = stored["bounds"][0]["design"] = HOSTILE
    stored["families"][0]["family"] = HOSTILE
    write_result(folder, stored)
    open_page(browser, folder, tmp_path)
    browser.hover(point("cd-0"))
    browser.click(point("cd-0"))
    assert browser.run("window.hacked") is None
    assert text(browser, "h1") == HOSTILE
    assert HOSTILE in text(browser, "#tooltip")
    assert HOSTILE in text(browser, "#card")
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert browser.errors == []


def test_a_bare_study_has_a_page(browser, tmp_path):
    design = {"id": "a", "origin": "codesign", "latency_s": 1e-3, "energy_pj": 2e6, "edp_pj_s": 2e3, "area_mm2": 1.0}
    folder = tmp_path / "study"
    folder.mkdir()
    write_result(folder, {"format": "codesign.result/1", "name": "bare", "model": "m", "designs": [design]})
    open_page(browser, folder, tmp_path)
    assert browser.run(SHOWN) == 1
    assert browser.run("document.querySelectorAll('#missing li').length") == 7
    assert "has no files in the study" in text(browser, "#design-note")
    assert browser.run("[...document.querySelectorAll('h2')].map(node => node.textContent)") == [
        "Designs",
        "Selected design",
        "Provenance",
    ]
    assert browser.run("document.querySelector('input[name=y]:checked').value") == "area"
    assert browser.errors == []


def test_another_run_is_warned_of(browser, study, tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "designs").symlink_to(study / "designs")
    stored = read_result(study)
    stored["designs"][0]["cycles"] += 1
    write_result(folder, stored)
    open_page(browser, folder, tmp_path)
    assert "which is not what the study says" in text(browser, "#design-note")
    browser.click(point("cd-1"))
    assert text(browser, "#design-note") == ""
    assert browser.errors == []
