"""The report in a real browser, opened from the file system: clicked, dragged, typed into, and its console is empty.

Needs Chromium and its driver (Debian: chromium, chromium-driver) and selenium; skipped without.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from rdpbench.results.names import signs

Data = Callable[[str], Any]
Page = Any
"""The report in the browser; see the class in conftest.py."""


def test_a_click_on_a_curve_shows_its_point(page: Page, data: Data) -> None:
    marker = page.points("psnr", "webp")[2]
    page.mouse().move_to_element(marker).perform()
    page.until(lambda: "WebP" in page.text("#tip"))
    page.mouse().click().perform()
    page.until(lambda: page.all("#point .thumb"))
    report = data("report")
    point = next(one for one in report["points"] if one["id"] == page.state["point"])
    assert report["curves"][point["curve"]]["codec"] == "webp"
    text = page.text("#point")
    assert point["setting"] in text
    assert f"{point['bpp'][0]:.4f}" in text
    assert f"{point['values']['psnr'][0]:.2f}" in text
    assert page.text("#point .command pre") == point["command"]
    page.until(
        lambda: page.js("return [...document.querySelectorAll('#point .thumb img')].some(i => i.naturalWidth > 0)")
    )
    page.press("\ue00c")  # Escape
    page.until(lambda: "point" not in page.state)


def test_from_a_thumbnail_to_the_viewer_with_matched_rates(page: Page, data: Data) -> None:
    point = next(one for one in data("report")["points"] if one["pictures"] >= 3)
    page.open(f"point={point['id']}")
    page.click('#point .thumb[data-image="third"], #point .thumb[data-image="one"]')
    page.until(lambda: len(page.all(".cell .decoded")) == 4)
    loaded = "return [...document.querySelectorAll('.cell img')].every((i) => i.complete && i.naturalWidth === 208)"
    page.until(lambda: page.js(loaded))
    assert page.state["view"] == "viewer"
    panes = [one.text for one in page.all(".cell .label")]
    assert panes[0].startswith("Original")
    assert sum("% rate" in one for one in panes) == 2
    # Matched: no other setting of that codec is nearer for this image.
    script = """
        const [first, second] = rdpbench.state.panes.map((id) => rdpbench.points.get(id).curve);
        const image = Number(document.querySelector("#image").innerText.split(/\\s+/).pop().split("/")[0]) - 1;
        return Promise.all([rdpbench.rows(first), rdpbench.rows(second)]).then(([a, b]) => {
            const of = (rows, setting) => rows.curve.points.find((one) => one.setting === setting).order;
            const rate = (rows, setting) => rows.bpp[rows.at(image).get(of(rows, setting))];
            const chosen = [...document.querySelectorAll("[data-setting]")].map((one) => one.selectedOptions[0].text);
            const anchor = rate(a, chosen[0]);
            const apart = (bpp) => Math.abs(Math.log(bpp / anchor));
            const all = [...b.at(image).values()].map((line) => apart(b.bpp[line]));
            return [apart(rate(b, chosen[1])), Math.min(...all)];
        });
    """
    found, best = page.js(script)
    assert found == pytest.approx(best)
    assert len(page.all("#scores tbody tr")) == 4
    assert len(page.all("#scores tbody tr:nth-child(3) b")) == 1
    assert "payload" in page.text(".below") or "file" in page.text(".below")


def test_the_wipe_is_dragged(page: Page) -> None:
    page.open("view=viewer&mode=wipe")
    handle = page.one("#wipe")
    stage = page.one("#stage").rect
    before = page.js("return getComputedStyle(document.querySelector('.over')).clipPath")
    page.mouse().click_and_hold(handle).move_by_offset(int(stage["width"] * 0.2), 0).release().perform()
    page.until(lambda: "wipe" in page.state)
    assert float(page.state["wipe"]) == pytest.approx(70, abs=1)
    assert handle.get_attribute("aria-valuenow") == "70"
    assert page.js("return getComputedStyle(document.querySelector('.over')).clipPath") != before
    assert handle.rect["x"] + handle.rect["width"] / 2 == pytest.approx(stage["x"] + 0.7 * stage["width"], abs=3)
    handle.send_keys("\ue012")  # arrow left
    page.until(lambda: float(page.state["wipe"]) == pytest.approx(69, abs=1))


def test_zoom_is_shared_and_stays_in_the_address(page: Page) -> None:
    page.open("view=viewer")
    page.until(lambda: len(page.all(".cell .decoded")) >= 3)
    page.press("z")
    page.until(lambda: page.text("#scale") == "100 %")
    page.press("+")
    page.press("+")
    page.until(lambda: "zoom" in page.state and page.text("#scale") == "225 %")
    page.mouse().drag_and_drop_by_offset(page.one("#stage .cell"), 40, 20).perform()
    transforms = "return [...document.querySelectorAll('.cell .decoded')].map((i) => i.style.transform)"
    moved = page.js(transforms)
    assert len(set(moved)) == 1
    assert page.js("return getComputedStyle(document.querySelector('.cell .decoded')).imageRendering") == "pixelated"
    page.until(lambda: not page.state["zoom"].endswith("0.5,0.5"))
    page.browser.refresh()
    page.until(lambda: page.js(transforms) == moved)


def test_differences_are_shown_from_a_file(page: Page) -> None:
    """The browser blends what it may not read: what is drawn is the difference of the two files, times the gain."""
    from io import BytesIO

    import numpy as np
    from PIL import Image as pil

    page.open("view=viewer&mode=difference&gain=4&zoom=1,0.5,0.5")
    loaded = "return [...document.querySelectorAll('.cell img')].every((i) => i.complete && i.naturalWidth > 0)"
    page.until(lambda: page.all(".cell .decoded") and page.js(loaded))
    page.js("document.querySelectorAll('.label').forEach((one) => one.remove())")
    script = """
        const cell = document.querySelector(".cell:not([hidden])");
        const [original, decoded] = ["original", "decoded"].map((kind) => cell.querySelector(`.${kind}`));
        const box = decoded.getBoundingClientRect();
        return [original.getAttribute("src"), decoded.getAttribute("src"), box.left, box.top, box.width, box.height];
    """
    original, decoded, left, top, width, height = page.js(script)
    site = Path(page.address.removeprefix("file://")).parent
    first, second = (np.asarray(pil.open(site / one)).astype(int) for one in (original, decoded))
    expected = np.minimum(255, 4 * np.abs(first - second))
    shot = np.asarray(pil.open(BytesIO(page.browser.get_screenshot_as_png())).convert("RGB")).astype(int)
    found = shot[round(top) : round(top + height), round(left) : round(left + width)]
    assert found.shape == expected.shape
    assert expected.mean() > 5
    assert np.abs(found - expected).max() <= 4


def test_flicker_runs_and_is_stepped_by_key(page: Page) -> None:
    page.open("view=viewer&mode=flicker&hz=4")
    page.until(lambda: page.all(".cell.away"))
    seen = "return [...document.querySelectorAll('.cell')].findIndex((one) => !one.classList.contains('away'))"
    first = page.js(seen)
    page.until(lambda: page.js(seen) != first)
    page.press("2")  # a codec by its number: it holds
    page.until(lambda: page.js(seen) == 2)
    assert page.one("#play").get_attribute("aria-pressed") == "false"


def test_the_table_is_sorted_and_filtered(page: Page) -> None:
    page.click('[data-view="table"]')
    heads = page.js("return [...document.querySelectorAll('.grid thead th')].map((one) => one.dataset.column)")
    at = heads.index("psnr")
    page.click('.grid th[data-column="psnr"] button')
    page.until(lambda: page.state.get("sort") == "psnr")
    values = [float(one.split()[0]) for one in page.column(at)]
    assert values == sorted(values)
    assert len(values) > 10
    page.click('.grid th[data-column="psnr"] button')
    page.until(lambda: page.state.get("sort") == "-psnr")
    assert [float(one.split()[0]) for one in page.column(at)] == sorted(values, reverse=True)
    page.one("#search").send_keys("webp psnr>25")
    page.until(lambda: "q" in page.state)
    page.until(lambda: set(page.column(heads.index("codec"))) == {"WebP"})
    assert all(float(one.split()[0]) > 25 for one in page.column(at))
    assert page.text("#found").split()[0] == str(len(page.column(at)))


def test_filters_reach_curves_and_table(page: Page) -> None:
    assert len(page.all(".panel")) == 4  # two sets, two metrics
    page.click('[data-filter="data"][data-name="folder-more"]')
    page.until(lambda: len(page.all(".panel")) == 2)
    page.click('[data-filter="metric"][data-name="ms-ssim"]')
    page.until(lambda: len(page.all(".panel")) == 1)
    page.click('[data-filter="codec"][data-name="webp"]')
    page.until(lambda: "webp" not in page.state["codec"])
    shown = "return document.querySelector('.panel .plot').data?.filter((one) => one.customdata).length"
    page.until(lambda: page.js(shown) == 3)
    page.press("t")
    page.until(lambda: page.column(0))
    assert "WebP" not in page.column(0)
    assert "folder-more" not in page.text(".grid")
    assert (
        page.js(
            "return [...document.querySelectorAll('.grid thead th')].some((one) => one.dataset.column === 'ms-ssim')"
        )
        is False
    )


def test_no_number_of_the_table_is_cut(page: Page, data: Data) -> None:
    """With the point's panel open, on a desk and on a phone: the table scrolls, and its cells are whole."""
    point = next(one for one in data("report")["points"] if one["pictures"])
    for width in (1280, 400):
        page.browser.set_window_size(width, 900)
        page.open(f"view=table&point={point['id']}")
        page.until(lambda: page.column(0))
        cut = """return [...document.querySelectorAll('.grid td, .grid thead th')]
            .filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.innerText)"""
        assert page.js(cut) == []


def test_names_for_readers_and_how_many_images_of_all(page: Page, data: Data) -> None:
    text = page.text("#view-curves")
    assert "PSNR (dB) ↑" in text
    assert "MS-SSIM ↑" in text
    assert "JPEG 2000" in page.text("#filters")
    for one in data("report")["sets"]:
        few = f"{one['images']} of " if one["images"] < one["size"] else ""
        assert f"{few}{one['size']} image" in text
    webp = next(one for one in data("report")["curves"] if one["codec"] == "webp")
    assert tuple(webp["look"]) == signs(["webp"])["webp"]


def test_a_shared_address_shows_the_same(page: Page) -> None:
    page.open("view=table&rows=images&sort=-bpp&q=jpeg2000")
    page.until(lambda: page.text("#found").endswith("images"))
    before = page.column(1)
    assert len(before) > 10
    address = page.browser.current_url
    page.open("view=run")
    page.browser.get("about:blank")
    page.browser.get(address)
    page.until(lambda: page.column(1) == before)
    assert page.one("#search").get_attribute("value") == "jpeg2000"
    # A link that was cut or invented breaks nothing.
    page.open("view=nowhere&point=none&panes=x,y&zoom=a&metric=%E0%A4%A&wipe=&codec=%3Cb%3E")
    assert page.js("return document.body.dataset.view") == "curves"


def test_codecs_and_datasets_have_pages_with_addresses(page: Page, data: Data) -> None:
    report = data("report")
    assert len(page.all("#matrix tbody tr")) == len(report["codecs"])
    page.click('#matrix a[href*="of=webp"]')
    page.until(lambda: page.state.get("view") == "codec")
    assert page.state["of"] == "webp"
    assert "decoded: each rate counts the bytes" in page.text("#view-curves .card")
    page.points("psnr", "webp")
    opacity = """return Object.fromEntries(document.querySelector(".panel .plot").data
        .map((one) => [rdpbench.points.get(one.customdata?.[0])?.curve.codec, one.opacity]))"""
    page.until(lambda: page.js(opacity)["webp"] == 1)
    assert page.js(opacity)["jpeg2000"] < 0.5
    # A link is followed by the keyboard, also where Enter compares a point.
    page.press("\ue014")
    page.until(lambda: page.state.get("point"))
    page.one('.head a[href*="view=table"]').send_keys("\ue007")
    page.until(lambda: page.state.get("view") == "table" and set(page.column(0)) == {"WebP"})
    page.browser.back()
    page.until(lambda: page.state.get("view") == "codec")
    # By the keyboard: a select of the header has the other pages.
    page.one('[data-page="dataset"]').send_keys("folder-more")
    page.until(lambda: page.state.get("of") == "folder-more")
    page.until(lambda: len(page.all(".panel")) == 2)
    assert "folder-pictures" not in page.text("#view-curves")
    assert "BD-rate" in page.text("#view-curves .tables")
    page.until(lambda: page.all(".head .thumb img"))
    page.browser.back()
    page.until(lambda: page.state["of"] == "webp")
    assert "WebP" in page.text("#view-curves h2")
    page.open("view=codec&of=%3Cb%3Enothing")
    assert "No codec <b>nothing in this report" in page.text("#view-curves h2")


def test_the_same_from_a_static_host_behind_a_path(page: Page, site: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").symlink_to(site)
    served = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.address = f"http://127.0.0.1:{server.server_port}/a/b/"
        page.open("view=dataset&of=folder-pictures&metric=psnr&theme=dark")
        page.points("psnr", "webp")
        page.until(lambda: page.all(".head .thumb img"))
        links = page.js("return [...document.querySelectorAll('.head a')].map((one) => one.href)")
        assert links
        page.open()
        files = page.js("return [...document.querySelectorAll('.files a')].map((one) => one.href)")
        assert len(files) == 6
        for address in (*links, *files):
            assert address.startswith(page.address)
            with urlopen(address) as answer:
                assert answer.status == 200
        page.browser.get((site / "index.html").as_uri())
        server.shutdown()


def test_two_runs_side_by_side_in_the_browser(
    page: Page, made: Path, run: Path, make_report: Callable[..., Path], tmp_path: Path
) -> None:
    other = run.rename(run.with_name("again"))
    out = make_report(made, other, "--images", "none", "--out", tmp_path / "out")
    page.address = (out / "index.html").as_uri()
    page.open("view=codec&of=webp")
    assert len(page.all("#view-curves .head .card")) == 2
    first, second = (page.points("psnr", f"webp[run={name}]") for name in ("both", "again"))
    assert len(first) == len(second) == 4
    # They lie on one another, and both are seen.
    assert [one.rect["width"] < two.rect["width"] for one, two in zip(first, second, strict=True)] == [True] * 4
    assert "nothing is averaged over runs" in page.text("#view-curves")
    page.open("view=table&run=again")
    page.until(lambda: page.column(1))
    assert set(page.column(1)) == {"again"}


def test_history_goes_back_by_views(page: Page) -> None:
    page.press("t")
    page.until(lambda: page.state.get("view") == "table")
    page.press("v")
    page.until(lambda: page.state.get("view") == "viewer")
    page.browser.back()
    page.until(lambda: page.js("return document.body.dataset.view") == "table")


def lightness(colour: str) -> int:
    return sum(map(int, colour.strip("rgb()").split(",")))


def test_the_theme_is_switched_and_kept(page: Page) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    page.points("psnr", "webp")
    grid = "return document.querySelector('.panel .plot').layout.xaxis.gridcolor"
    light, line = page.js(colour), page.js(grid)
    page.click("#theme")
    dark = page.js(colour)
    assert lightness(light) > 600
    assert lightness(dark) < 150
    page.until(lambda: page.js(grid) != line)
    assert page.state["theme"] == "dark"
    page.open()
    assert page.js(colour) == dark
    assert page.state["theme"] == "dark"  # what is copied now shows the same to somebody else
    page.press("l")
    assert page.js(colour) == light
    page.open("view=table&theme=dark")  # somebody else's link
    assert page.js(colour) == dark
    page.open()
    assert page.js(colour) == light


def test_the_system_may_be_dark(page: Page) -> None:
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        page.open()
        assert lightness(page.js("return getComputedStyle(document.body).backgroundColor")) < 150
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_by_keyboard_alone(page: Page) -> None:
    right, down, enter, escape = "\ue014", "\ue015", "\ue007", "\ue00c"
    page.press(right)
    page.until(lambda: "point" in page.state)
    first = page.state["point"]
    page.press(right)
    page.until(lambda: page.state["point"] != first)
    page.press(down)
    codecs = "return rdpbench.points.get(rdpbench.state.point).curve.codec"
    assert page.js(codecs) != page.js("return rdpbench.points.get(arguments[0]).curve.codec", first)
    page.press(enter)
    page.until(lambda: page.state.get("view") == "viewer")
    page.until(lambda: page.text("#image"))
    before = page.text("#image")
    page.press(right)
    page.until(lambda: page.text("#image") != before)
    page.press("d")
    page.until(lambda: page.state["mode"] == "difference")
    page.press("m")
    page.until(lambda: page.state.get("match") == "0")
    page.press("?")
    page.until(lambda: page.js("return document.querySelector('#keys').open"))
    page.press(escape)
    page.until(lambda: not page.js("return document.querySelector('#keys').open"))
    page.press("/")
    page.until(lambda: page.js("return document.activeElement.id") == "search")
    page.press("v")  # typed, not a command
    assert page.state["view"] == "table"
    page.press(escape)
    page.js("document.querySelector('.grid').focus()")
    page.press(down, down, enter)
    page.until(lambda: page.js("return !document.querySelector('#point').hidden"))


def test_names_are_shown_as_they_are(page: Page, hostile: Mapping[str, str]) -> None:
    page.js("window.alert = () => { window.alerted = true; }")
    page.points("psnr", hostile["codec"])
    page.mouse().move_to_element(page.points("psnr", hostile["codec"])[1]).click().perform()
    page.until(lambda: hostile["codec"] in page.text("#point h2"))
    page.until(lambda: page.all("#point .thumb"))
    assert hostile["image"] in page.js(
        "return [...document.querySelectorAll('#point .thumb')].map((one) => one.dataset.image)"
    )
    page.js("rdpbench.set({ view: 'viewer', image: arguments[0] })", hostile["image"])
    page.until(lambda: hostile["image"] in page.text("#image"))
    page.until(lambda: "alert(4)" in page.text("#view-viewer > p"))
    assert hostile["caption"].split("\u2028")[0] in page.text("#view-viewer > p")
    page.until(lambda: "alert(5)" in page.text("#told"))
    told = page.js("return [...document.querySelectorAll('#told dd')].map((one) => one.textContent)")
    assert hostile["prompt"] in told
    assert "paint <b>" in told
    page.press("r")
    page.until(lambda: hostile["image"] in page.text("#view-run"))
    page.press("t")
    page.click('[data-rows="images"]')
    page.until(lambda: hostile["image"] in page.column(1))
    strange = "return document.querySelectorAll('img[src=x], td script, [onerror], #main script').length"
    assert page.js(strange) == 0
    assert page.js("return window.alerted ?? null") is None


def test_a_phone_scrolls_down_only(page: Page) -> None:
    states = ["view=codec&of=webp", "view=dataset&of=folder-more", "view=table", "view=table&rows=images"]
    states += ["view=viewer", "view=viewer&mode=wipe", "view=run", ""]
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        for state in states:
            page.open(state)
            page.until(lambda: page.js("return document.querySelector('main').innerText.length") > 20)
            assert page.js("return [innerWidth, document.documentElement.scrollWidth]") == [360, 360], state
        page.js("rdpbench.set({ point: [...rdpbench.points.keys()][0] })")
        page.until(lambda: page.all("#point .thumb"))
        assert page.js("return document.documentElement.scrollWidth") == 360
        assert page.one("#point").rect["height"] < 0.7 * 740
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_thousands_of_lines_make_few_elements(page: Page) -> None:
    """Lines are copied within the browser: the table takes whatever a run holds."""
    page.open("view=table&rows=images")
    page.until(lambda: page.text("#found").endswith("images"))
    script = """
        const grid = rdpbench.grid({ label: "many", key: (line) => String(line), open: () => {}, resort: () => {} });
        document.querySelector("#view-table").append(grid.box);
        const lines = Array.from({ length: 200000 }, (_, n) => (n * 7919) % 200000);
        const columns = [
            { id: "name", title: "name", value: (line) => `line ${line}`, text: (line) => `line ${line}` },
            { id: "size", title: "size", number: true, value: (line) => line, text: (line) => String(line) },
        ];
        grid.show({ columns, lines, q: "size<150000", sort: "size", chosen: "" });
        grid.box.scrollTop = 1e9;
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        const rows = [...grid.box.querySelectorAll("tr[data-key]")];
        return [grid.count(), rows.length, rows.at(-1).cells[1].innerText, rows.at(-1).getAttribute("aria-rowindex")];
    """
    count, drawn, last, index = page.js(script)
    assert (count, last, index) == (150000, "149999", "150001")
    assert drawn < 80
