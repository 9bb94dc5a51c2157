"""A rating page in a real browser: rate by keys and taps, leave, come back, save, and have the ratings read."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from chromium import PROGRAM, Browser
from made_up_store import make_store
from mos_answers import page_data, ratings

from diffq.cli import main
from diffq.report.rating_page import build_rating_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="needs a Chromium: apt-get install chromium"),
]

BAD = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as made:
        yield made


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which it is served.

    Of a page from a disk Chromium 156 on a busy machine now and then keeps nothing, or does not find what it has kept,
    and says so to nobody: with eight busy loops beside it in 20 of 120 tries, where over HTTP it was in 0 of 120.
    """
    folder = tmp_path_factory.mktemp("site")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def data(items: int = 6, study: str = "abc", **changes: object) -> dict:
    texts = [{"id": f"{n:02d}", "source": f"source {n}", "text": f"text {n}"} for n in range(items)]
    words = {"1": "bad", "2": "poor", "3": "fair", "4": "good", "5": "excellent"}
    made = {"study": study, "page": 1, "pages": 1, "question": "How good is it?", "scale": [1, 5], "words": words}
    return made | {"items": texts} | changes


@pytest.fixture
def page(browser: Browser, site: tuple[Path, str]) -> Callable[..., str]:
    """Opens a page of such data, in a browser that keeps nothing yet where `fresh`; returns its address."""
    folder, address = site

    def opened(made: dict, fresh: bool = True, **window: object) -> str:
        name = f"{made['study']}-{made['page']}.html"
        (folder / name).write_text(build_rating_page(made))
        if fresh:
            browser.forget()
        browser.open(f"{address}/{name}", **window)
        return f"{address}/{name}"

    return opened


def begin(browser: Browser, name: str = "Ann") -> None:
    browser.js(f"document.getElementById('name').value = {json.dumps(name)}; document.getElementById('begin').click()")


def shown(browser: Browser, which: str) -> str:
    return browser.js(f"document.getElementById({json.dumps(which)}).innerText.trim()")


def rate(browser: Browser, key: str) -> None:
    """Presses a key and waits until the next text, or the end, is there."""
    before = shown(browser, "place")
    browser.press(key)
    gone = "!document.getElementById('end').hidden"
    browser.wait(f"document.getElementById('place').innerText !== {json.dumps(before)} || {gone}", 5)


def kept(browser: Browser) -> dict:
    """The ratings that the browser keeps, by the name of the page."""
    text = "JSON.stringify(Object.fromEntries(Object.entries(localStorage)))"
    return {name: json.loads(held) for name, held in json.loads(browser.js(text)).items()}


def test_rating_by_keys_going_back_and_coming_back(browser, page):
    made = data()
    address = page(made)
    assert "6 texts" in shown(browser, "what")
    browser.js("document.getElementById('begin').click()")
    assert browser.js("document.getElementById('rating').hidden"), "a name is asked for first"
    begin(browser)
    assert (shown(browser, "source"), shown(browser, "text"), shown(browser, "place")) == (
        "source 0",
        "text 0",
        "1 / 6",
    )
    rate(browser, "4")
    browser.press("ArrowRight", "ArrowRight", "ArrowLeft", "9", "x")
    assert (shown(browser, "text"), shown(browser, "progress")) == ("text 2", "1 of 6 rated")
    rate(browser, "2")
    browser.press("ArrowLeft")
    assert browser.js("document.querySelector('[aria-pressed=true]').dataset.grade") == "2"
    rate(browser, "5")  # another mind
    assert kept(browser)["diffq-ratings-abc-1"]["ratings"].keys() == {"00", "02"}
    browser.open(address)
    assert (shown(browser, "text"), shown(browser, "progress")) == ("text 3", "2 of 6 rated"), "it goes on where it was"
    browser.press("ArrowLeft")
    assert browser.js("document.querySelector('[aria-pressed=true]').dataset.grade") == "5"
    assert browser.complaints() == []
    assert browser.requests() == [address]


def test_a_key_held_down_rates_one_text(browser, page):
    page(data())
    begin(browser)
    for _ in range(5):
        browser.call(
            "Input.dispatchKeyEvent", type="keyDown", key="3", text="3", windowsVirtualKeyCode=51, autoRepeat=True
        )
    browser.press("3", "3", "3")
    time.sleep(0.5)
    assert shown(browser, "progress") == "1 of 6 rated"


def test_two_studies_and_two_pages_do_not_mix(browser, page):
    page(data(study="one"))
    begin(browser)
    rate(browser, "1")
    page(data(study="two"), fresh=False)
    assert shown(browser, "progress") == "0 of 6 rated"
    page(data(study="one", page=2), fresh=False)
    assert shown(browser, "progress") == "0 of 6 rated"
    begin(browser, "Bob")
    rate(browser, "2")
    held = {name: entry["ratings"] for name, entry in kept(browser).items()}
    assert {name: [r["rating"] for r in entry.values()] for name, entry in held.items()} == {
        "diffq-ratings-one-1": [1], "diffq-ratings-one-2": [2],
    }  # fmt: skip


def test_texts_are_never_read_as_html_and_nothing_is_fetched(browser, page):
    bad = {"id": "00", "source": BAD, "text": BAD}
    address = page(data(items=1, question=BAD) | {"items": [bad]})
    begin(browser)
    assert (shown(browser, "source"), shown(browser, "text"), shown(browser, "question")) == (BAD, BAD, BAD)
    assert browser.js("window.hacked === undefined && document.querySelectorAll('img').length === 0")
    assert browser.js("fetch('https://example.org/').then(() => 'fetched', () => 'refused')") == "refused"
    assert browser.requests() == [address]


def test_empty_texts_and_line_breaks_are_shown_as_they_are(browser, page):
    items = [{"id": "0", "source": "", "text": " "}, {"id": "1", "source": "", "text": "one\n  two"}]
    page(data() | {"items": items})
    begin(browser)
    assert shown(browser, "text") == "(there is no text)"
    assert browser.js("document.getElementById('source-part').hidden")
    rate(browser, "1")
    assert browser.js("document.getElementById('text').textContent") == "one\n  two"


def test_ten_grades_have_keys(browser, page):
    page(data(scale=[1, 10], words={"1": "worst", "10": "best"}))
    begin(browser)
    rate(browser, "0")
    rate(browser, "7")
    assert [r["rating"] for r in kept(browser)["diffq-ratings-abc-1"]["ratings"].values()] == [10, 7]


def test_a_phone_shows_everything_without_scrolling_sideways(browser, page):
    long = {"id": "00", "source": "what is it ? " * 10, "text": "a word and another one " * 40 + "x" * 200}
    page(data() | {"items": [long]}, width=360, height=640)
    begin(browser)
    assert browser.js("document.documentElement.scrollWidth <= window.innerWidth")
    boxes = browser.js("[...document.querySelectorAll('.grade')].map((b) => [b.getBoundingClientRect().width,"
                       " b.getBoundingClientRect().height, b.getBoundingClientRect().bottom])")  # fmt: skip
    assert len(boxes) == 5
    assert all(width >= 44 and height >= 44 and bottom <= 640 for width, height, bottom in boxes), "can be tapped"
    browser.js("document.querySelectorAll('.grade')[3].click()")
    browser.wait("!document.getElementById('end').hidden", 5)
    assert shown(browser, "end-head") == "All rated. Thank you!"


def test_dark_follows_the_system_and_can_be_changed(browser, page):
    page(data(), dark=True)
    assert browser.js("document.documentElement.dataset.theme") == "dark"
    browser.js("document.getElementById('theme').click()")
    assert browser.js("document.documentElement.dataset.theme") == "light"
    # Relative luminance by WCAG; text on its ground has at least 4.5 : 1.
    ratio = """(() => {
        const light = (c) => { const v = c.match(/[\\d.]+/g).slice(0, 3).map((x) => x / 255)
            .map((x) => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
            return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
        const style = (s) => getComputedStyle(document.querySelector(s));
        const pair = (a, b) => { const [x, y] = [light(a), light(b)].sort(); return (y + 0.05) / (x + 0.05); };
        return Math.min(pair(style('#progress').color, style('body').backgroundColor),
                        pair(style('#begin').color, style('#begin').backgroundColor),
                        pair(style('.quiet').color, style('body').backgroundColor));
    })()"""
    for _ in range(2):
        browser.js("new Promise((done) => setTimeout(done, 200))")
        assert browser.js(ratio) >= 4.5
        browser.js("document.getElementById('theme').click()")


def save_to(browser: Browser, folder: Path) -> None:
    """Has files saved in a folder, without asking where."""
    folder.mkdir(exist_ok=True)
    where = {"downloadPath": str(folder), "browserContextId": browser.profile}
    browser.call("Browser.setDownloadBehavior", behavior="allow", **where)


def downloaded(folder: Path) -> Path:
    until = time.monotonic() + 10
    while not (found := list(folder.glob("*.json"))):
        assert time.monotonic() < until, "nothing was saved"
        time.sleep(0.05)
    return found[0]


def test_saved_ratings_are_read_and_can_be_taken_to_another_device(browser, tmp_path, capsys):
    store, _ = make_store(tmp_path)
    words = ["mos", "export", "grammar-made-up", f"outputs={store.outputs}", "--items", "2", "--with-references"]
    assert main([*words, "--to", str(tmp_path / "study")]) == 0
    file = tmp_path / "study/rater-1.html"
    items = page_data(file)["items"]
    browser.open(file.as_uri())
    begin(browser, "Ann Ä./x")
    given = [str(1 + n % 5) for n in range(len(items))]
    for key in given[:-1]:
        rate(browser, key)
    save_to(browser, tmp_path / "down")
    browser.js("document.getElementById('save-early').click()")
    assert shown(browser, "end-head") == f"1 of {len(items)} are not rated yet"
    browser.js("document.getElementById('save').click()")
    part = downloaded(tmp_path / "down")
    assert part.name.startswith("ratings-")
    assert "Ann_Ä_x" in part.name
    text = part.read_text()
    part.unlink()
    browser.forget()  # another device: the file is loaded there
    save_to(browser, tmp_path / "down")
    browser.open(file.as_uri())
    load(browser, json.loads(text))
    browser.wait("document.getElementById('begin').innerText === 'Go on'", 5)
    browser.js("document.getElementById('begin').click()")
    assert shown(browser, "place") == f"{len(items)} / {len(items)}"
    rate(browser, given[-1])
    assert shown(browser, "end-head") == "All rated. Thank you!"
    browser.js("document.getElementById('save').click()")
    whole = downloaded(tmp_path / "down")
    held = json.loads(whole.read_text())
    expected = ratings(page_data(file), lambda item: int(given[items.index(item)]), "Ann Ä./x")
    for own in (held, expected):
        own["ratings"] = {item: said["rating"] for item, said in own["ratings"].items()}
    assert held == expected
    capsys.readouterr()
    assert main(["mos", "import", str(tmp_path / "study"), str(whole), f"outputs={store.outputs}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["raters"][0]["rated"] == len(items)
    key = json.loads((tmp_path / "study/key.json").read_text())
    own = [int(g) for g, item in zip(given, items, strict=True) if 0 in key["items"][item["id"]]["systems"]]
    assert found["systems"][0]["mos"] == pytest.approx(sum(own) / len(own))


def load(browser: Browser, held: dict) -> None:
    """Gives the page a file, as its button does."""
    browser.js(f"""(() => {{
        const file = document.getElementById('file'), moved = new DataTransfer();
        moved.items.add(new File([{json.dumps(json.dumps(held))}], 'r.json'));
        file.files = moved.files;
        file.dispatchEvent(new Event('change'));
    }})()""")


def test_of_two_ratings_the_later_one_holds(browser, page):
    """Whether it was given here or, on another device, is in the file that is loaded."""
    page(made := data(2))
    begin(browser)
    for key in "33":
        rate(browser, key)
    grades = {"00": {"rating": 5, "at": "2999-01-01T00:00:00Z"}, "01": {"rating": 1, "at": "2001-01-01T00:00:00Z"}}
    held = {"format": "diffq-ratings", "study": made["study"], "page": 1, "rater": "Ann", "ratings": grades}
    page(made, fresh=False)
    load(browser, held)
    browser.wait("Object.values(localStorage).some((text) => text.includes('2999'))", 5)
    (own,) = (x for x in kept(browser).values() if "ratings" in x)
    assert {item: said["rating"] for item, said in own["ratings"].items()} == {"00": 5, "01": 3}


def test_two_windows_of_one_page_have_what_was_rated_in_either(browser, page):
    page(data(3))
    begin(browser)
    rate(browser, "3")
    (place,) = kept(browser)
    other = {"rater": "Ann", "at": 2, "saved": 0, "ratings": {"02": {"rating": 5, "at": "2999-01-01T00:00:00Z"}}}
    browser.js(f"""dispatchEvent(new StorageEvent("storage", {{
        key: {json.dumps(place)}, newValue: {json.dumps(json.dumps(other))} }}))""")
    assert (shown(browser, "progress"), shown(browser, "place")) == ("2 of 3 rated", "2 / 3"), "it stays where it was"
    held = kept(browser)[place]["ratings"]
    assert {item: said["rating"] for item, said in held.items()} == {"00": 3, "02": 5}, "the other did not have both"
    rate(browser, "1")
    rate(browser, "2")
    assert shown(browser, "end-head") == "All rated. Thank you!"


def test_another_study_s_file_is_not_loaded(browser, page):
    page(data())
    load(browser, {"format": "diffq-ratings", "study": "other", "page": 1, "ratings": {}})
    browser.wait("!document.getElementById('warning').hidden", 5)
    assert "saved from another page" in shown(browser, "warning")


def test_a_browser_that_keeps_nothing_says_so(browser, page):
    address = page(data())
    script = "Storage.prototype.setItem = () => { throw new Error('full'); };"
    made = browser.call("Page.addScriptToEvaluateOnNewDocument", source=script)
    browser.open(address)
    assert "keeps nothing of this page" in shown(browser, "warning")
    begin(browser)
    rate(browser, "3")
    assert shown(browser, "progress") == "1 of 6 rated"
    browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=made["identifier"])
