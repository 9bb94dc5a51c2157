"""report.html in a real browser: what samples say does nothing, clicks and keys show the right thing, nothing is
fetched, and it opens fast."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
from chromium import PROGRAM, Browser
from made_up_page import TRACES, frontier, make_page, many_points, sample_text
from synthetic import figure, frontier_points

from diffq.report.frontier import build_frontier
from diffq.report.tables import ReportTable

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="needs a Chromium: apt-get install chromium"),
]

HOSTILE = {
    (0, 0): "<script>window.hacked = 1</script>",
    (0, 1): "<img src=x onerror='window.hacked = 1'>",
    (0, 2): "</script><script>window.hacked = 1</script><img src=https://example.org/a.png>",
    (1, 0): "<svg onload='window.hacked = 1'><a href='javascript:window.hacked = 1'>x</a>",
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as made:
        yield made


def place(browser: Browser, at: int) -> tuple[float, float]:
    """Where a point of the frontier is in the window, by the plot's own axes."""
    found = browser.js(
        f"""(() => {{
            const plot = document.getElementById('plot'), box = plot.getBoundingClientRect();
            const layout = plot._fullLayout, trace = plot.data.find((t) => (t.customdata ?? []).includes({at}));
            const n = trace.customdata.indexOf({at});
            return [box.x + layout.xaxis._offset + layout.xaxis.d2p(trace.x[n]),
                    box.y + layout.yaxis._offset + layout.yaxis.d2p(trace.y[n])];
        }})()"""
    )
    return found[0], found[1]


def texts(browser: Browser, selector: str) -> list[str]:
    return browser.js(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.innerText.trim())")


def chosen(browser: Browser) -> str:
    """The point of the address."""
    return browser.js("new URLSearchParams(location.hash.slice(1)).get('point')")


def test_hostile_text_does_nothing(browser, tmp_path):
    bad = "<img src=x onerror='window.hacked = 1'>"
    points, nulls = frontier_points()
    table = ReportTable(bad, (bad, "b"), ((bad, bad),), (bad,))
    seen = build_frontier(points, nulls, "self_bleu", "bleu")
    traces = [{**TRACES[0], "asked": bad, "steps": [{"index": 0, "time": 0, "changed": [[0, bad]], "stats": {bad: 1}}]}]
    make_page(tmp_path / "a.html", seen, texts=HOSTILE, tables=[table], notes=[bad], traces=traces)
    browser.open((tmp_path / "a.html").as_uri())
    browser.js("document.getElementById('plot').focus()")
    browser.press("ArrowRight")
    shown = texts(browser, "#panel .entry:first-child li")
    assert shown == [HOSTILE[0, n] for n in range(3)]
    assert browser.js("document.querySelectorAll('#point script, #point img, #tables img, #notes img').length") == 0
    browser.js("document.getElementById('tab-trace').click()")
    assert texts(browser, ".canvas") == [bad]
    assert browser.js("document.querySelectorAll('main img').length") == 0
    assert browser.js("window.hacked === undefined")
    assert browser.complaints() == []
    assert browser.requests() == [(tmp_path / "a.html").as_uri()]


def test_the_policy_holds_where_escaping_would_fail(browser, tmp_path):
    make_page(tmp_path / "a.html")
    browser.open((tmp_path / "a.html").as_uri())
    browser.js("document.body.insertAdjacentHTML('beforeend', `<img src=data: onerror='window.hacked = 1'>`), 1")
    browser.js("{ const s = document.createElement('script'); s.text = 'window.hacked = 1'; document.body.append(s); }")
    browser.js("document.body.insertAdjacentHTML('beforeend', `<img src='https://example.org/x.png'>`), 1")
    asked = "fetch('https://example.org/').then(() => 'fetched', () => 'refused')"
    assert browser.js(asked) == "refused"
    browser.js("new Promise((done) => setTimeout(done, 200))")
    assert browser.js("window.hacked === undefined")
    assert len([c for c in browser.complaints() if "Content Security Policy" in c]) >= 3
    assert not [r for r in browser.requests() if r.startswith("http")]


def test_a_click_shows_exactly_the_samples_of_the_point(browser, tmp_path):
    seen = frontier(many_points(40))
    data = make_page(tmp_path / "a.html", seen, sources=12)
    browser.open((tmp_path / "a.html").as_uri())
    last = [line["strands"][-1][-1] - 1 for line in data["lines"]]
    for at in (0, *last):
        browser.click(*place(browser, at))
        browser.wait(f"new URLSearchParams(location.hash.slice(1)).get('point') === '{data['points'][at]['id']}'", 5)
        key = data["points"][at]["parts"][0]["key"]
        shown = texts(browser, "#panel .entry li")
        browser.js("document.querySelector('#panel .pager button:last-child').click()")
        shown += texts(browser, "#panel .entry li")
        assert shown == [sample_text(key, source, n) for source in range(12) for n in range(3)]
        assert texts(browser, "#panel .entry:first-child .source") == ["source 8what is source 8"]
        assert texts(browser, "#panel .entry:first-child .reference") == ["referencethis is source 8"]


def test_differences_are_marked_against_reference_or_source(browser, tmp_path):
    make_page(tmp_path / "a.html", texts={(0, 0): "this is really source 0", (0, 1): "what is source 0"})
    browser.open((tmp_path / "a.html").as_uri())
    browser.js("document.getElementById('plot').focus()")
    browser.press("Home")
    first = "#panel .entry:first-child li:nth-child({n}) {tag}"
    assert texts(browser, first.format(n=1, tag="ins")) == ["really"]
    assert texts(browser, first.format(n=2, tag="ins")) == ["what"]
    choose = "{ const s = document.getElementById('against'); s.value = '%s'; s.dispatchEvent(new Event('change')); }"
    browser.js(choose % "source")
    assert texts(browser, first.format(n=1, tag="ins")) == ["this", "really"]
    assert texts(browser, first.format(n=2, tag="ins")) == []
    browser.js("document.getElementById('missing').click()")
    assert texts(browser, first.format(n=1, tag="del")) == ["what"]


def test_samples_are_searched(browser, tmp_path):
    make_page(tmp_path / "a.html", texts={(7, 1): "a heron by the lake"})
    browser.open((tmp_path / "a.html").as_uri())
    browser.js("document.getElementById('plot').focus()")
    browser.press("Home", "/", *"Heron")
    assert texts(browser, "#panel .source") == ["source 7what is source 7"]
    assert texts(browser, "#panel .pager span") == ["1–1 of 1 sources"]


def test_keys_move_the_choice_and_escape_lets_go(browser, tmp_path):
    data = make_page(tmp_path / "a.html")
    ids = [p["id"] for p in data["points"]]
    browser.open((tmp_path / "a.html").as_uri())
    browser.js("document.getElementById('plot').focus()")
    browser.press("ArrowRight")
    assert chosen(browser) == ids[0]
    browser.press("ArrowRight", "ArrowRight", "ArrowLeft")
    assert chosen(browser) == ids[1]
    assert data["lines"][0]["label"] in browser.js("document.getElementById('said').textContent")
    browser.press("ArrowDown")
    there = next(p for p in data["points"] if p["id"] == chosen(browser))
    assert there["line"] == 1
    browser.press("Enter")
    assert browser.js("document.activeElement.id") == "point"
    browser.press("Escape")
    assert chosen(browser) is None
    assert browser.js("document.activeElement.id") == "plot"
    browser.press("i", "n")
    assert browser.js("[state => state][0] && document.getElementById('show-intervals').checked") is False
    assert browser.js("document.getElementById('show-nulls').checked") is False


def test_rows_of_the_table_can_be_walked(browser, tmp_path):
    data = make_page(tmp_path / "a.html")
    browser.open((tmp_path / "a.html").as_uri())
    browser.js("document.querySelector('#table tbody tr[tabindex=\"0\"]').focus()")
    browser.press("ArrowDown", "ArrowDown")
    assert chosen(browser) == data["points"][2]["id"]
    assert texts(browser, "#table tr[aria-selected=true] td:first-child")[0].startswith(data["points"][2]["sampler"])


def column(browser: Browser, head: str) -> list[float]:
    at = texts(browser, "#table thead th").index(head)
    cells = texts(browser, f"#table tbody tr:not(.null) td:nth-child({at + 1})")
    return [float(cell.split()[0]) for cell in cells]


def test_the_table_sorts_and_copies_what_it_shows(browser, tmp_path):
    data = make_page(tmp_path / "a.html")
    browser.open((tmp_path / "a.html").as_uri())
    click = "[...document.querySelectorAll('#table th button')].find((b) => b.textContent.startsWith('%s')).click()"
    before = column(browser, "BLEU-4")
    browser.js(click % "BLEU-4")
    assert column(browser, "BLEU-4 ↓") == sorted(before, reverse=True)
    browser.js(click % "self-BLEU")  # of which less is better
    values = column(browser, "self-BLEU ↑")
    assert values == sorted(values) != before
    allowed = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    browser.call("Browser.grantPermissions", permissions=allowed, browserContextId=browser.profile)
    order = browser.js("[...document.querySelectorAll('#table tbody tr')].map((row) => Number(row.dataset.at))")
    for format in ("csv", "markdown", "latex"):
        browser.js(f"document.querySelector('[data-copy={format}]').click()")
        browser.wait(f"document.querySelector('[data-copy={format}]').textContent === 'copied'", 5)
        held = data["exports"][format]
        wanted = held["before"] + "".join(held["rows"][n] for n in order) + held["after"]
        assert browser.js("navigator.clipboard.readText()") == wanted


def test_axes_filters_and_front(browser, tmp_path):
    data = make_page(tmp_path / "a.html")
    address = (tmp_path / "a.html").as_uri()
    browser.open(f"{address}#x=rouge_l&point={data['points'][3]['id']}")
    assert browser.js("document.getElementById('plot').layout.xaxis.title.text").startswith("ROUGE-L")
    assert chosen(browser) == data["points"][3]["id"]
    browser.open(address)
    stars = len(texts(browser, "#table .star"))
    assert stars == sum(p["front"] for p in data["points"])
    # Every sampler but the first hidden: the front is its own.
    browser.js("document.querySelector('.chip').dispatchEvent(new MouseEvent('click', {shiftKey: true}))")
    shown = browser.js("document.getElementById('plot').data.flatMap((t) => t.customdata ?? [])")
    first, behind = data["lines"][0]["strands"][0]
    assert shown == list(range(first, behind))
    assert {
        int(n) for n in browser.js("[...document.querySelectorAll('#table tr[data-at]')].map((r) => r.dataset.at)")
    } == set(shown)


def luminance(colour: str) -> float:
    parts = [float(c) / 255 for c in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("dark", [False, True])
def test_themes_can_be_read(browser, tmp_path, dark):
    make_page(tmp_path / "a.html", texts={(0, 0): "this is really source 0"}, traces=TRACES)
    browser.open((tmp_path / "a.html").as_uri(), dark=dark)
    browser.js("document.getElementById('plot').focus()")
    browser.press("Home")
    pairs = {"#panel li": ".card", "#panel ins": "ins", ".quiet": ".card", "h1": "body", "#table td": ".card"}
    for text, behind in pairs.items():
        style = "getComputedStyle(document.querySelector('{}')).{}"
        ink, paper = browser.js(style.format(text, "color")), browser.js(style.format(behind, "backgroundColor"))
        a, b = sorted((luminance(ink), luminance(paper)))
        assert (b + 0.05) / (a + 0.05) >= 4.5, (text, ink, paper)
        if text == "h1":
            assert (luminance(paper) < 0.1) == dark
    browser.js("document.getElementById('theme-button').click()")
    paper = browser.js("getComputedStyle(document.body).backgroundColor")
    assert (luminance(paper) < 0.1) == (not dark)
    browser.forget()  # which theme was chosen


@pytest.mark.parametrize("width", [1440, 760, 390])
def test_nothing_sticks_out_of_the_window(browser, tmp_path, width):
    wide = ReportTable("t", [f"column {n}" for n in range(14)], [[f"{n}.123 [1, 2]" for n in range(14)]] * 3)
    make_page(tmp_path / "a.html", tables=[wide], traces=TRACES)
    browser.open((tmp_path / "a.html").as_uri(), width=width)
    browser.js("document.getElementById('plot').focus()")
    browser.press("Home")
    assert browser.js("document.documentElement.scrollWidth") <= width


def test_traces_are_played_step_by_step(browser, tmp_path):
    make_page(tmp_path / "a.html", traces=TRACES)
    browser.open((tmp_path / "a.html").as_uri())
    browser.js("document.getElementById('plot').focus()")
    browser.press("Home")
    browser.js("document.getElementById('tab-trace').click()")
    assert texts(browser, "#panel .source") == ["source 3how <b>do</b> we"]
    assert texts(browser, ".canvas") == ["a b ▁"]
    assert "acceptance 0.50" in texts(browser, ".entry .quiet")[0]
    browser.press(".")
    assert texts(browser, ".canvas") == ["a <i>c</i> ▁"]
    assert texts(browser, ".word.changed") == ["<i>c</i>"]
    browser.press(",")
    assert texts(browser, ".where") == ["step 1 of 3"]
    browser.js("document.getElementById('play').click()")
    browser.wait("document.querySelector('.where').textContent === 'step 3 of 3'", 10)
    assert texts(browser, ".canvas") == ["a <i>c</i>d"]
    browser.wait("document.getElementById('play').textContent.includes('play')", 5)


def test_two_hundred_points_open_within_two_seconds(browser, tmp_path):
    seen = frontier(many_points(200))
    data = make_page(tmp_path / "a.html", seen, sources=300)
    assert len(data["points"]) == 200
    times = [browser.open((tmp_path / "a.html").as_uri()) for _ in range(3)]
    print(f"opened in {', '.join(f'{t:.2f}' for t in times)} s; {(tmp_path / 'a.html').stat().st_size / 1e6:.1f} MB")
    assert min(times) <= 2.0
    browser.click(*place(browser, 150))
    browser.wait("document.querySelectorAll('#panel .entry li').length > 0", 5)
    assert chosen(browser) == data["points"][150]["id"]


def test_it_prints_on_white_and_comes_back(browser, tmp_path):
    make_page(tmp_path / "a.html")
    browser.open((tmp_path / "a.html").as_uri(), dark=True)
    browser.paper(tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert browser.js("document.documentElement.dataset.theme") == "dark"
    assert browser.complaints() == []


def test_perplexities_far_apart_stand_on_a_logarithmic_axis(browser, tmp_path):
    name = "gen_ppl_by_a_judge"
    points, _ = frontier_points()
    figures = (figure(name, 10.0 * 1.1**n, 1.0, "lower", n) for n in range(len(points)))
    far = [replace(p, figures=p.figures | {name: made}) for p, made in zip(points, figures, strict=True)]
    make_page(tmp_path / "a.html", build_frontier(far, [], "self_bleu", name))
    browser.open((tmp_path / "a.html").as_uri())
    kinds = "[document.getElementById('plot').layout.xaxis.type, document.getElementById('plot').layout.yaxis.type]"
    assert browser.js(kinds) == ["linear", "log"]
    bottom, top = browser.js("document.getElementById('plot').layout.yaxis.range")
    assert bottom > math.log10(10.0 * 1.1 ** (len(points) - 1)) > 1 > top
    browser.js("document.getElementById('plot').focus()")
    browser.press("ArrowRight")
    browser.press("ArrowUp")
    assert chosen(browser) is not None
    assert browser.complaints() == []
