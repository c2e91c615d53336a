"""The live page in a real browser, without a window."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rdn_engine.service.page import HEADERS, INDEX, assets
from tests.service.page_double import PageDouble, serving, stream

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WAIT = 60  # seconds, for a machine that has much else to do
HOSTILE = """<img src=x onerror="window.hacked = 1">'/?#%2F&amp;"""

in_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs a browser: apt install chromium chromium-driver"
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    # No sandbox: tests run as root in containers. /dev/shm is small there.
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(WAIT)
    yield driver
    driver.quit()


class Page:
    """What a person sees of the page."""

    def __init__(self, driver: Any, server: Any) -> None:
        """server: a PageDouble, or the real one."""
        self.driver, self.double = driver, server
        self.size(1920, 1080)
        driver.get_log("browser")
        driver.get_log("performance")
        driver.get(server.address)

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def __call__(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(f"return {script}", *arguments)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        return WebDriverWait(self.driver, WAIT, 0.1).until(lambda _: condition(), what)

    def names(self) -> list[str]:
        return self("[...document.querySelectorAll('.tile')].map(t => t.querySelector('.name').textContent)")

    def tile(self, name: str, what: str, field: str = "innerText") -> str:
        """Text of a part of a tile, as it is shown, or another field of it."""
        script = "[...document.querySelectorAll('.tile')].find(t => t.dataset.stream === arguments[0])"
        return self(f"{script}?.querySelector(arguments[1])?.[arguments[2]] ?? ''", name, what, field)

    def level(self, name: str) -> str | None:
        return self(
            "[...document.querySelectorAll('.tile')].find(t => t.dataset.stream === arguments[0])?.dataset.level", name
        )

    def shown(self, name: str) -> dict[str, Any]:
        """The picture of a tile: where it is from, how wide, and whether it is seen."""
        script = "[...document.querySelectorAll('.tile')].find(t => t.dataset.stream === arguments[0])"
        return self(
            f"(i => i && {{src: i.src, width: i.naturalWidth, hidden: i.hidden, filter: getComputedStyle(i).filter}})"
            f"({script}?.querySelector('img'))",
            name,
        ) or {"src": "", "width": 0, "hidden": True, "filter": "none"}

    def text(self, selector: str) -> str:
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """Addresses of everything that was asked for, since the page was opened."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


@pytest.fixture
def double() -> Iterator[PageDouble]:
    with serving() as server:
        yield server


@pytest.fixture
def page(chromium: Any, double: PageDouble) -> Iterator[Page]:
    yield Page(chromium, double)
    chromium.get("about:blank")


@in_browser
def test_tiles_come_and_go_with_their_streams(page: Page) -> None:
    page.until(lambda: page.text("#empty") == "No stream is running.", "an empty page says so")
    page.double.streams = [stream("door"), stream("yard")]
    page.until(lambda: page.names() == ["door", "yard"], "two tiles")
    page.until(lambda: page.text("#health") == "2 streams, all well", "the head line")
    assert not page.driver.find_element(By.ID, "empty").is_displayed()
    page.double.streams = [stream("gate"), stream("yard")]
    page.double.ended = [stream("door", state="ended", end_reason="source", error="VideoError: 401")]
    page.until(lambda: page.names() == ["gate", "yard"], "one went, one came")
    page.until(lambda: "source failed: VideoError: 401" in page.text("#ended"), "the end is told")
    assert page.complaints() == []


@in_browser
def test_pictures_and_numbers_change(page: Page) -> None:
    counts = {"doubtful": 5, "epochs": 6, "sessions": 7, "failures": 8}
    page.double.streams = [stream("door", dropped={"source": 3, "rate": 4}, **counts)]
    page.until(lambda: page.shown("door")["width"] == 320, "a picture")
    before = page.shown("door")["src"]
    page.until(lambda: page.shown("door")["src"] != before and page.shown("door")["width"] == 320, "another one")
    page.until(lambda: re.search(r"[1-9][\d.]* / [1-9]", page.tile("door", "dl")), "frames a second")
    numbers = page.tile("door", "dl").split("\n")
    for term, value in counts.items():
        assert numbers[numbers.index(term) + 1] == str(value)
    assert numbers[numbers.index("dropped") + 1] == "7"
    assert numbers[numbers.index("dropped by") + 1] == "source 3, rate 4"
    page.double.streams[0] |= {"doubtful": 1205}
    page.until(lambda: "1,205" in page.tile("door", "dl"), "a count that grew")
    assert page.level("door") == "ok"
    assert page.complaints() == []


@in_browser
def test_whatever_is_wrong_is_said_on_its_tile_and_in_the_head_line(page: Page) -> None:
    alarm = {"written": 3, "dropped": {"full": 2}, "waiting": 9, "trouble": "connection refused"}
    page.double.streams = [
        stream("well"),
        stream("covered", flags=["dark"]),
        stream("stuck", flags=["frozen", "shifted"]),
        stream("cut", trouble=["source_down"], source_error="401 Unauthorized"),
        stream("slow", still=True, last_result_time=time.time() - 4),
        stream("silent", still=True, last_result_time=time.time() - 100),
        stream("new", last_result_time=None),
        stream("told", outputs={"alarm": alarm}),
        stream("busy", lowered=2),
        stream("leaving", state="draining"),
    ]
    page.double.no_picture = {"new"}
    said = {
        "well": "", "covered": "DARK", "stuck": "FROZEN\nSHIFTED", "cut": "camera down", "slow": "late",
        "silent": "no result for 2 min", "new": "no result yet", "told": "alarm: connection refused",
        "busy": "lowered 2", "leaving": "draining",
    }  # fmt: skip
    page.until(lambda: page.names() == list(said), "all tiles")
    for name in said.keys() - {"slow", "silent"}:
        assert page.tile(name, ".reasons") == said[name]
    page.until(lambda: page.text("#health") == "9 of 10 need attention", "the head line")
    bad = {name for name in said if page.level(name) == "bad"}
    assert {"cut", "silent"} <= bad <= {"cut", "silent", "slow"}
    assert page.tile("cut", ".reasons li", "title") == "401 Unauthorized"
    assert page.level("well") == "ok"
    assert page.level("covered") == "warn"
    assert page.tile("silent", ".reasons").startswith("no result for ")
    assert re.fullmatch(r"(\d+ s|\d min)", page.tile("silent", ".age"))
    assert page.tile("new", ".message") == "No picture yet"
    assert page.shown("new")["hidden"]
    page.until(lambda: page.shown("silent")["width"], "its last picture")
    assert "grayscale" in page.shown("silent")["filter"]
    assert page.shown("well")["filter"] == "none"
    chips = page("[...document.querySelectorAll('#attention button')].map(b => b.textContent)")
    assert set(chips) == said.keys() - {"well"}
    assert page.complaints() == []
    page.double.healthy = False
    page.until(lambda: page.text("#health").startswith("Unhealthy"), "the server's own word")


@in_browser
def test_names_and_errors_stay_text(page: Page) -> None:
    page.double.streams = [
        stream(
            HOSTILE, source=HOSTILE, trouble=[HOSTILE], flags=[HOSTILE], dials={HOSTILE: HOSTILE},
            outputs={HOSTILE: {"written": 1, "dropped": {HOSTILE: 1}, "waiting": 0, "trouble": HOSTILE}},
            dropped={HOSTILE: 2},
        )
    ]  # fmt: skip
    page.double.ended = [stream(HOSTILE, state="ended", end_reason=HOSTILE, error=HOSTILE)]
    page.until(lambda: page.names() == [HOSTILE], "its tile")
    page.until(lambda: page.shown(HOSTILE)["width"] == 320, "its picture, whose address is quoted")
    page.driver.find_element(By.CSS_SELECTOR, ".tile .open").send_keys("\n")
    page.until(lambda: page.text("#details-name") == HOSTILE, "its dialog")
    assert HOSTILE in page.text("#details dl")
    assert HOSTILE in page("document.querySelector('#ended').textContent")
    assert page("document.querySelectorAll('img').length") == 2, "that of the tile and that of the dialog"
    assert page("typeof window.hacked") == "undefined"
    assert page.complaints() == []


@in_browser
@pytest.mark.parametrize("how", ["closed", "hung", "broken"])
def test_a_server_that_is_lost_is_not_taken_for_a_live_one(page: Page, how: str) -> None:
    page.double.streams = [stream("door")]
    page.until(lambda: page.shown("door")["width"], "a live tile")
    assert page.text("#health") == "1 stream, well"
    if how == "closed":
        page.double.close()
    elif how == "hung":
        page.double.going_on.clear()
    else:
        page.double.status = 500
    page.until(lambda: page.driver.find_element(By.ID, "lost").is_displayed(), "it is said")
    why = {"closed": "cannot be reached", "hung": "does not answer", "broken": "answered 500"}[how]
    page.until(lambda: why in page.text("#lost"), "why")
    assert page.text("#health") == "Server lost"
    assert page.text("#attention") == "", "of all streams alike"
    assert "grayscale" in page.shown("door")["filter"]
    assert page.tile("door", ".message").startswith("Picture from ")
    assert page.tile("door", "dl").split("\n")[1] == "\u2013 / \u2013"
    page.until(lambda: page.level("door") == "bad", "results are old by now")
    seconds = _seconds(page.tile("door", ".age"))
    page.until(lambda: _seconds(page.tile("door", ".age")) > seconds + 1, "and get older")
    if how == "closed":
        page.double.open()
    page.double.going_on.set()
    page.double.status = 200
    page.until(lambda: not page.driver.find_element(By.ID, "lost").is_displayed(), "it is back")
    page.until(lambda: page.text("#health") == "1 stream, well", "all is well again")
    page.until(lambda: page.shown("door")["filter"] == "none", "in colour")


def _seconds(text: str) -> float:
    return float(text.removesuffix(" s"))


@in_browser
def test_nothing_is_asked_for_elsewhere(page: Page) -> None:
    page.double.streams = [stream("door"), stream("yard", picture="//192.0.2.1/picture.jpg")]
    page.until(lambda: page.shown("door")["width"], "a picture")
    before = page.double.asked["/streams"]
    page.until(lambda: page.double.asked["/streams"] > before + 2, "some more answers")
    asked = [url for url in page.requests() if not url.startswith(("blob:", "about:", "chrome:"))]
    assert len(asked) > 5
    assert [url for url in asked if not url.startswith(page.double.address)] == []


@in_browser
def test_scripts_that_are_not_the_page_s_own_do_not_run(page: Page) -> None:
    page("(s => {s.textContent = 'window.hacked = 1'; document.body.append(s)})(document.createElement('script'))")
    assert page("typeof window.hacked") == "undefined"
    assert any("Content Security Policy" in message for message in page.complaints())


@in_browser
def test_a_token_is_asked_for_and_sent(page: Page) -> None:
    page.double.streams = [stream("door")]
    page.until(lambda: page.names() == ["door"], "without a token")
    page.double.token = "s3cret"
    page.until(lambda: page.driver.find_element(By.ID, "secret").is_displayed(), "a form")
    page.driver.find_element(By.ID, "secret").send_keys("s3cret\n")
    page.until(lambda: page.text("#health") == "1 stream, well", "an answer")
    page.double.tokens.clear()
    page.until(lambda: page.double.tokens["Bearer s3cret"] > 4, "for pictures too")
    assert set(page.double.tokens) == {"Bearer s3cret"}
    assert not page.driver.find_element(By.ID, "token").is_displayed()
    assert "s3cret" not in page("location.href + document.documentElement.outerHTML")


@in_browser
def test_a_tile_opens_to_all_that_is_known_and_closes_when_its_stream_ends(page: Page) -> None:
    bus = {"written": 1200, "dropped": {"full": 2}, "waiting": 9, "trouble": None}
    page.double.streams = [stream("door", outputs={"bus": bus}, damaged=6)]
    page.until(lambda: page.names() == ["door"], "a tile")
    page.driver.find_element(By.CSS_SELECTOR, ".tile .open").send_keys("\n")
    page.until(lambda: page("document.querySelector('#details img').naturalWidth") == 320, "a picture")
    page.until(lambda: "1,200 written, 9 waiting, 2 dropped (full 2)" in page.text("#details"), "outputs")
    for text in ("rtsp://camera.local/door", "window 18, look_ahead 2", "0, 6", "4 MiB", "99% below 0.2 s"):
        assert text in page.text("#details")
    page.double.streams = []
    page.until(lambda: not page("document.querySelector('#details').open"), "closed")
    assert page.complaints() == []


@in_browser
def test_a_view_is_accepted_by_who_has_the_token(page: Page) -> None:
    page.double.change_token = "s3cret"
    page.double.streams = [stream("north gate", flags=["shifted"])]
    page.until(lambda: page.names() == ["north gate"], "a tile")

    def accept() -> None:
        page.driver.find_element(By.CSS_SELECTOR, ".tile .open").send_keys("\n")
        button = page.driver.find_element(By.CSS_SELECTOR, "#accept button")
        page.until(button.is_displayed, "a button")
        button.click()

    accept()
    page.until(lambda: page.driver.find_element(By.ID, "secret").is_displayed(), "a form")
    before = page.double.asked["/streams"]
    page.until(lambda: page.double.asked["/streams"] > before + 1, "answers without a token")
    page.driver.find_element(By.ID, "secret").send_keys("s3cret\n")
    assert page.double.accepted == []
    accept()
    page.until(lambda: page.text("#accept span") == "Accepted", "its answer")
    assert page.double.accepted == ["north gate"]
    page.double.streams = [stream("north gate")]
    page.until(lambda: "SHIFTED" not in page.text("#details"), "the flag is gone")


@in_browser
def test_the_real_server_and_the_page_fit(chromium: Any, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    from rdn_engine.service.config import HttpSettings
    from rdn_engine.service.http import HttpServer
    from tests.media.clips import encode
    from tests.service.doubles import service

    name = "täg <b>&%41"
    clip = str(encode(tmp_path / "clip.mp4", frames=3000))
    with service({"streams": {name: {"source": clip, "policy": "wait", "real_time": True}}}) as running:
        server = HttpServer(running, HttpSettings(port=0))
        try:
            page = Page(chromium, server)
            page.until(lambda: page.names() == [name], "a tile")
            page.until(lambda: page.shown(name)["width"] > 8, "a picture")
            page.until(lambda: page.tile(name, ".age") not in ("", "\u2013"), "its age")
            page.driver.find_element(By.CSS_SELECTOR, ".tile .open").send_keys("\n")
            page.until(lambda: page("document.querySelector('#details img').naturalWidth") > 8, "its picture again")
            assert "look_ahead" in page.text("#details")
            assert page.complaints() == []
        finally:
            chromium.get("about:blank")
            server.close()


@in_browser
@pytest.mark.parametrize(("width", "height", "columns"), [(1920, 1080, 7), (1280, 720, 7), (390, 844, 2)])
def test_thirty_two_tiles(page: Page, width: int, height: int, columns: int) -> None:
    page.size(width, height)
    page.double.streams = [stream(f"camera {i}") for i in range(32)]
    page.until(lambda: len(page.names()) == 32, "all tiles")
    seen = 8 if width < 600 else 32
    page.until(lambda: page("document.querySelectorAll('.tile img[src]').length") >= seen, "pictures")
    page.until(lambda: len({round(box[0]) for box in _boxes(page)}) == columns, "laid out")
    boxes = _boxes(page)
    assert all(box[0] >= 0 and box[1] <= width for box in boxes)
    assert page("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    if width > 600:
        assert max(box[2] for box in boxes) <= height, "all are seen without scrolling"
    else:
        unseen = page.double.asked["/streams/camera 31/picture.jpg"]
        before = page.double.asked["/streams"]
        page.until(lambda: page.double.asked["/streams"] > before + 1, "a second")
        assert page.double.asked["/streams/camera 31/picture.jpg"] == unseen, "which nobody sees"
    assert page.complaints() == []


def _boxes(page: Page) -> list[tuple[float, float, float]]:
    """Left, right and lower edge of each tile, pixels."""
    boxes: list[tuple[float, float, float]] = page(
        "[...document.querySelectorAll('.tile')].map(t => t.getBoundingClientRect()).map(r => [r.x, r.right, r.bottom])"
    )
    return boxes


def test_the_page_names_only_its_own_files() -> None:
    files = assets()
    assert files[INDEX].content_type == "text/html; charset=utf-8"
    assert set(files) == {"index.html", "page.css", "page.js", "tile.js", "words.js", "icon.svg"}
    whole = {name: asset.body.decode() for name, asset in files.items()}
    named = re.findall(r'(?:src|href)="([^"]+)"', whole[INDEX])
    named += re.findall(r'from "\./([^"]+)"', whole["page.js"] + whole["tile.js"] + whole["words.js"])
    assert set(named) == set(files) - {INDEX}
    addresses = re.findall(r"https?://[^\"' ]+", "".join(whole.values()))
    assert set(addresses) == {"http://www.w3.org/2000/svg"}, "the name of a namespace"
    assert re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", "".join(whole.values())) is None
    assert re.search(r"style=|<style|onclick=|<script>", whole[INDEX]) is None, "the policy forbids them"
    assert "default-src 'none'" in HEADERS["Content-Security-Policy"]
    assert set(files) <= {path.name for path in (Path(__file__).parents[2] / "rdn_engine/service/page").iterdir()}
