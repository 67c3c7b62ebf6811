import base64
import json
import os
import re
import shutil
from collections import Counter
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from axe_core_python.selenium import Axe
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from benchmark.reporting import report
from benchmark.reporting.figure import Figure
from benchmark.reporting.page import page
from benchmark.reporting.pictures import Picture
from benchmark.reporting.stored_sets import StoredSets
from benchmark.reporting.table import MISSING, Cell, Table
from benchmark.rows import read

VOID = {"meta", "link", "img", "br", "input"}
REPORTS = Path(__file__).parents[1] / "reports"
BACKWARDS = "a \u202eb\u2066"
HOSTILE = "</script><img src=x onerror='hacked = 1'>\"{{ 7 * 7 }}\u2028 & `<b>`"


class Node:
    def __init__(self, tag, attributes):
        self.tag, self.attributes, self.children, self.text = tag, dict(attributes), [], ""

    def all(self, tag=None):
        for child in self.children:
            if tag in (None, child.tag):
                yield child
            yield from child.all(tag)

    @property
    def content(self):
        return self.text + "".join(child.content for child in self.children)


class Tree(HTMLParser):
    """A document whose every element is closed, in order."""

    def __init__(self, text):
        super().__init__()
        self.root = Node("document", {})
        self.open = [self.root]
        self.feed(text)
        self.close()
        assert self.open == [self.root]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs)
        node = Node(tag, attrs)
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].children.append(Node(tag, attrs))

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        node = Node("text", {})
        node.text = data
        self.open[-1].children.append(node)


def tree(text):
    return Tree(text).root


@pytest.fixture(scope="module")
def rows(new_row):
    return [
        new_row(
            label=label,
            student=student,
            seed=seed,
            probe=probe,
            value=value + seed + 10 * (student == "vit"),
            N=None if label == "untrained" else 100,
            settings={"outer_steps": 100, "views": ["rot90", "rot180"], "ridge": None},
            changes={label: {"outer_steps": 100}},
            downstream="patterns",
        )
        for label, value in {
            "untrained": 9.5,
            "random": 20.25,
            "krr-st": 30.5,
            "ours": 40.5,
        }.items()
        for student in ("convnet", "vit")
        for seed in (0, 1, 2)
        for probe in ("fair", "paper")
    ]


@pytest.fixture(scope="module")
def built(rows, tmp_path_factory):
    """Build a report with plots, a picture kept from another run, and one that is missing."""
    folder = tmp_path_factory.mktemp("built")
    whole = report.build(rows, title="A title & more", notes="Notes with `code`.")
    whole = report.illustrated(whole, folder, StoredSets())
    file = folder / "kept.png"
    Image.new("RGB", (4, 4)).save(file)
    kept = Figure(name="kept", title="Kept", alt="A dark square", draw=lambda: None)
    return replace(
        whole,
        pictures=[*whole.pictures, Picture(figure=kept, file=file)],
        missing={"Gone": "its set is not in the store"},
        left_out="3 of 51 rows are not in the report: 3 differing from the last row in teacher",
    )


@pytest.fixture(scope="module")
def text(built):
    return page(built)


@pytest.fixture(scope="module")
def hostile(rows, tmp_path_factory):
    """Build a page of a report whose every word would like to be markup."""
    table = Table(
        name="main",
        title=HOSTILE,
        notes=HOSTILE,
        columns=["", HOSTILE],
        body=[[Cell(HOSTILE), Cell(HOSTILE, value=1.0, keys=(rows[0].key,))]],
    )
    odd = replace(rows[0], label=HOSTILE, downstream=HOSTILE, settings={HOSTILE: HOSTILE})
    file = tmp_path_factory.mktemp("hostile") / "x.png"
    Image.new("RGB", (4, 4)).save(file)
    figure = Figure(name="x", title=HOSTILE, notes=HOSTILE, alt=HOSTILE, draw=lambda: None)
    return page(
        report.Report(
            title=HOSTILE,
            notes=HOSTILE,
            facts={HOSTILE: HOSTILE},
            commands=[HOSTILE],
            changes={HOSTILE: HOSTILE},
            rows=[odd],
            left_out=HOSTILE,
            tables=[table],
            pictures=[Picture(figure=figure, file=file)],
            missing={HOSTILE: HOSTILE},
        )
    )


def test_the_document_is_whole_and_names_its_parts(text, built):
    document = tree(text)
    assert [node.attributes.get("lang") for node in document.all("html")] == ["en"]
    assert next(document.all("title")).content == "A title & more"
    assert len(list(document.all("main"))) == len(list(document.all("nav"))) == 1
    assert len(list(document.all("h1"))) == 1
    ids = Counter(node.attributes["id"] for node in document.all() if "id" in node.attributes)
    assert set(ids.values()) == {1}
    for node in document.all("a"):
        assert node.attributes["href"].removeprefix("#") in ids
    named = {f"table-{table.name}" for table in built.tables}
    assert named | {f"figure-{picture.figure.name}" for picture in built.pictures} <= ids.keys()
    assert f"{built.left_out}." in document.content
    assert "Gone: its set is not in the store" in document.content


def test_tables_have_captions_and_headings(text, built):
    shown = [node for node in tree(text).all("table") if list(node.all("caption"))]
    assert [next(node.all("caption")).content.strip() for node in shown] == [
        table.title for table in built.tables
    ]
    for node, table in zip(shown, built.tables, strict=True):
        head, *body = node.all("tr")
        columns = list(head.all("th"))
        assert [th.content for th in columns[1:]] == list(table.columns[1:])
        assert all(th.content and th.attributes["scope"] == "col" for th in columns)
        assert len(body) == len(table.body)
        for line, cells in zip(body, table.body, strict=True):
            fields = [child for child in line.children if child.tag in ("th", "td")]
            assert [field.tag for field in fields] == ["th"] + ["td"] * (len(cells) - 1)
            assert fields[0].attributes["scope"] == "row"
            for field, cell in zip(fields[1:], cells[1:], strict=True):
                assert field.attributes.get("data-value") == (
                    None if cell.value is None else str(cell.value)
                )
                words = field.content.replace("\u2007", " ").replace("\u2008", " ").split()
                assert {word.rstrip(",") for word in cell.text.split()} <= set(words)
                words = " ".join(words)
                assert ("≈" in words) == (cell.mark == "noise")
                assert bool(list(field.all("strong"))) == (cell.mark == "best")


def test_pictures_have_alternative_text(text, built):
    document = tree(text)
    drawn = [node for node in document.all() if node.attributes.get("role") == "img"]
    kept = list(document.all("img"))
    assert [node.attributes["aria-label"] for node in drawn] + [
        node.attributes["alt"] for node in kept
    ] == [picture.figure.alt for picture in built.pictures]
    assert all(len(list(node.all("svg"))) == 1 for node in drawn)
    _, data = kept[0].attributes["src"].split("data:image/png;base64,")
    assert base64.b64decode(data) == built.pictures[-1].file.read_bytes()


@pytest.mark.parametrize("name", ["text", "hostile"])
def test_nothing_is_asked_of_a_network(name, request):
    document = tree(request.getfixturevalue(name))
    for node in document.all():
        for key, value in node.attributes.items():
            if key in ("src", "href", "xlink:href", "action", "srcset", "poster"):
                assert value.startswith(("#", "data:")), (node.tag, key, value)
    style, *_ = document.all("style")
    assert "url(" not in style.content and "@import" not in style.content
    policy = next(n for n in document.all("meta") if "http-equiv" in n.attributes).attributes
    assert policy["content"].startswith("default-src 'none'; img-src data:;")


def test_all_words_are_text(hostile):
    document = tree(hostile)
    assert len(list(document.all("script"))) == 3
    assert [node.attributes["alt"] for node in document.all("img")] == [HOSTILE]
    assert not any(key.startswith("on") for node in document.all() for key in node.attributes)
    shown = document.content
    assert "49" not in shown
    assert shown.count("</script><img src=x onerror='hacked = 1'>\"{{ 7 * 7 }}") >= 10


def test_signs_that_turn_words_around_are_shown(new_row):
    table = Table(
        name="t",
        title=BACKWARDS,
        notes=BACKWARDS,
        columns=["", BACKWARDS],
        body=[[Cell(BACKWARDS), Cell(BACKWARDS)]],
    )
    text = alone(table, [new_row(label=BACKWARDS)])
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", text)
    names = [node.content for node in tree(text).all("bdi")]
    assert names == ["method", "a U+202EbU+2066", "a U+202EbU+2066"]


def summarised():
    """Return a table whose last line summarises the others."""
    body = [
        [Cell(name), Cell(f"{value}", value=value)]
        for name, value in {"b": 2, "c": 3, "a": 1}.items()
    ]
    last = [Cell("agreement"), Cell("2.5", value=2.5)]
    return Table(name="t", title="T", columns=["", "a"], body=[*body, last], num_summaries=1)


def test_summaries_are_the_foot_of_their_table():
    (foot,) = tree(alone(summarised())).all("tfoot")
    assert [node.content for node in foot.all() if node.tag in ("th", "td")] == ["agreement", "2.5"]


def test_code_in_backticks_is_code(text):
    assert "Notes with <code>code</code>." in text


def test_rows_are_all_there_each_setting_once(text, rows):
    script = next(n for n in tree(text).all("script") if n.attributes.get("id") == "rows")
    assert "<" not in script.content
    stored = json.loads(script.content)
    again = [
        {
            field: stored["shared"][value] if field in stored["nested"] else value
            for field, value in zip(stored["fields"], line, strict=True)
        }
        for line in stored["rows"]
    ]
    assert again == [asdict(row) for row in rows]
    assert len({json.dumps(part) for part in stored["shared"]}) == len(stored["shared"])


def test_numbers_lead_to_their_rows(text, rows, built):
    name = f"table-{built.tables[0].name}"
    section = next(n for n in tree(text).all("section") if n.attributes.get("id") == name)
    keys = [row.key for row in rows]
    for line, cells in zip(list(section.all("tr"))[1:], built.tables[0].body, strict=True):
        for field, cell in zip(line.all("td"), cells[1:], strict=True):
            found = [button.attributes["data-rows"] for button in field.all("button")]
            places = [int(place) for places in found for place in places.split()]
            assert [keys[place] for place in places] == list(cell.keys)


def test_what_follows_numbers_is_equally_wide():
    column = [Cell("9.50 ± 10.25", value=9.5), Cell("8.00 ± 0.10", value=8.0), MISSING]
    table = Table(name="t", title="T", columns=["", "a"], body=[[Cell("x"), c] for c in column])
    rests = [n.content for n in tree(alone(table)).all("span") if n.attributes["class"] == "rest"]
    assert rests == [" ± 10.25", " ± \u20070.10"]


def alone(table, rows=()):
    """Return the page of one table."""
    return page(
        report.Report(
            title="T",
            notes="",
            facts={},
            commands=[],
            changes={},
            rows=rows,
            tables=[table],
        )
    )


def test_decimal_points_stand_below_each_other():
    texts = ("1,234", "0.25", "-7.5", "yes", "–")
    body = [[Cell("x"), Cell(text, value=1.0 if text[-1] != "–" else None)] for text in texts]
    document = tree(alone(Table(name="t", title="T", columns=["", "a"], body=body)))
    fields = [field.content for field in document.all("td")]
    assert fields == ["1,234\u2008\u2007\u2007", "0.25", "-7.5\u2007", "yes", "–"]


def test_what_follows_an_interval_stands_on_a_line_of_its_own():
    texts = ("1.50 ± 0.25, p = 0.012", "2.00 ± 1.00 (paper 1.90, +0.10)", "8, 9 (-1 ± 2)", "1 (2)")
    body = [[Cell("x"), Cell(text, value=1.0)] for text in (*texts, "3.00 ± 4.00")]
    body += [[Cell("x"), Cell("words (in brackets)")]]
    document = tree(alone(Table(name="t", title="T", columns=["", "a"], body=body)))
    more = [n.content.strip() for n in document.all("span") if n.attributes["class"] == "more"]
    assert more == ["p = 0.012", "(paper 1.90, +0.10)", "(-1 ± 2)", "(2)"]


def test_labels_of_the_same_settings_have_rows_of_their_own(new_row):
    names = ("first", "second", "third")
    rows = [new_row(label=name, key="same", seed=seed) for seed in (0,) for name in names]
    table = Table(
        name="t",
        title="T",
        columns=["", "a", "third"],
        body=[
            [Cell(line), *(Cell("1", value=1, keys=("same",)) for _ in range(2))]
            for line in ("second", "second - first", "else")
        ],
    )
    found = [
        node.attributes["data-rows"]
        for node in tree(alone(table, rows)).all("button")
        if "data-rows" in node.attributes
    ]
    assert found == ["1", "1 2", "0 1", "0 1 2", "0 1 2", "2"]


def test_the_page_begins_with_its_conditions_and_the_main_table(text, rows):
    document = tree(text)
    (head,) = document.all("header")
    words = [node.content for node in head.all("span")]
    assert words == [
        "source cifar100 32x32",
        "teacher barlow-twins",
        "recipe paper",
        "3 seeds",
        f"{len(rows)} numbers",
    ]
    main = next(document.all("main"))
    assert [node.tag for node in main.all() if node.tag in ("table", "details", "dl")][:2] == [
        "table",
        "details",
    ]
    folded = {
        next(node.all("summary")).content
        for node in main.all("details")
        if "open" not in node.attributes
    }
    assert folded == {
        "How to read these numbers",
        "How they were made",
        "Settings that are not the published defaults",
    }


def test_no_rows_are_a_page_too():
    document = tree(page(report.build([], title="Nothing", notes="")))
    assert "No rows." in next(document.all("main")).content


def browser_files():
    browsers = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, browsers)), None), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser():
    program, driver = browser_files()
    if not (program and driver):
        pytest.skip("needs a browser: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("headless=new", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # which Chromium does not have for root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    started.set_script_timeout(300)  # axe reads every element, on machines that are busy, too
    yield started
    started.quit()


@pytest.fixture(scope="module")
def address(text, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(text, encoding="utf-8")
    return file.as_uri()


LOADED = "return document.readyState === 'complete'"


@pytest.fixture
def shown(browser, address):
    """Show the page afresh in some size and look of the system."""

    def show(address=address, *, width=1200, scheme="light"):
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        look = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", look)
        browser.get(address)
        browser.execute_script("localStorage.clear()")
        browser.get(address)
        # on a busy machine the driver may return before the page's script has run
        WebDriverWait(browser, 60).until(lambda page: page.execute_script(LOADED))
        return browser

    return show


def ground(browser):
    return browser.execute_script("return getComputedStyle(document.body).backgroundColor")


def violations(browser, part="html"):
    """Return what is wrong with a part of the page; what is in an image, its words stand for."""
    context = {"include": [[part]], "exclude": [["[role=img] > svg"]]}
    found = Axe().run(browser, context)["violations"]
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 375), ("light", 1200), ("dark", 1200), ("dark", 1600)]
)
def test_it_loads_without_a_word_and_is_accessible(shown, scheme, width):
    browser = shown(scheme=scheme, width=width)
    assert browser.get_log("browser") == []
    assert violations(browser) == []
    asked = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    assert [name for name in browser.execute_script(asked) if not name.startswith("data:")] == []
    assert (ground(browser) == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_look_can_be_chosen_and_is_kept(shown):
    browser = shown(scheme="dark")
    dark = ground(browser)
    browser.find_element(By.ID, "look").click()
    assert ground(browser) == "rgb(255, 255, 255)" != dark
    assert browser.find_element(By.ID, "look").text == "Dark look"
    browser.refresh()
    assert ground(browser) == "rgb(255, 255, 255)"


def columns(browser, table):
    script = """
        return [...document.querySelectorAll(`#table-${arguments[0]} tbody tr`)]
            .map((line) => [...line.cells].map((cell) => cell.dataset.value ?? cell.innerText))
    """
    return list(zip(*browser.execute_script(script, table), strict=True))


def test_a_click_on_a_heading_sorts(shown, built):
    browser, table = shown(), built.tables[0]
    before = columns(browser, table.name)
    buttons = browser.find_elements(By.CSS_SELECTOR, f"#table-{table.name} button.sort")
    headings = browser.find_elements(By.CSS_SELECTOR, f"#table-{table.name} thead th")
    for order in ("descending", "ascending"):
        buttons[2].click()
        values = [float(value) for value in columns(browser, table.name)[2]]
        assert values == sorted(values, reverse=order == "descending")
        assert [heading.get_attribute("aria-sort") for heading in headings].count(order) == 1
        assert headings[2].get_attribute("aria-sort") == order
    buttons[2].click()
    assert columns(browser, table.name) == before
    assert headings[2].get_attribute("aria-sort") is None
    buttons[0].send_keys(Keys.ENTER)
    assert headings[0].get_attribute("aria-sort") == "ascending"
    names = list(columns(browser, table.name)[0])
    assert names == sorted(names) != list(before[0])


def test_summaries_stay_last(shown, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(alone(summarised()), encoding="utf-8")
    browser = shown(file.as_uri())
    for button in browser.find_elements(By.CSS_SELECTOR, "#table-t button.sort"):
        for _ in range(2):
            button.click()
            texts = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#table-t tr th")]
            assert sorted(texts[2:5]) == ["a", "b", "c"] and texts[5] == "agreement"


STOPS = """
    return [...document.querySelectorAll("main table")].map(
        (table) => [...table.querySelectorAll("button")].filter((one) => one.tabIndex === 0).length
    )
"""


def test_a_table_is_one_stop_of_the_tab_key_and_arrows_go_through_it(shown, built):
    browser = shown()
    assert browser.execute_script(STOPS) == [1] * len(built.tables)
    body = f"#table-{built.tables[0].name} tbody"
    numbers = browser.find_elements(By.CSS_SELECTOR, f"{body} tr:nth-child(2) button.open")
    above = browser.find_elements(By.CSS_SELECTOR, f"{body} tr:nth-child(1) button.open")
    browser.execute_script("arguments[0].focus()", numbers[0])
    ways = [
        *((Keys.ARROW_RIGHT, numbers[1]), (Keys.ARROW_UP, above[1]), (Keys.ARROW_LEFT, above[0])),
        *((Keys.ARROW_DOWN, numbers[0]), (Keys.END, numbers[-1]), (Keys.HOME, numbers[0])),
        (Keys.ARROW_LEFT, numbers[0]),
    ]
    for key, reached in ways:
        browser.switch_to.active_element.send_keys(key)
        assert browser.switch_to.active_element == reached
    assert browser.execute_script(STOPS) == [1] * len(built.tables)
    browser.switch_to.active_element.send_keys(Keys.TAB)
    left = browser.execute_script("return document.activeElement.closest('table')")
    assert left != browser.find_element(By.CSS_SELECTOR, f"#table-{built.tables[0].name} table")


def test_a_long_name_leaves_room_for_the_numbers(shown, tmp_path):
    number = Cell("12.34 ± 0.50", value=12.34)
    names = ("m" * 200, "many words " * 20, "ours")
    columns = ["", *"abcdef"]
    body = [[Cell(name), *[number] * 6] for name in names]
    file = tmp_path / "page.html"
    file.write_text(alone(Table(name="t", title="T", columns=columns, body=body)), encoding="utf-8")
    browser = shown(file.as_uri(), width=375)
    widths = "return [...document.querySelectorAll('tbody th')].map((one) => one.clientWidth)"
    assert max(browser.execute_script(widths)) < 375 / 2
    lines = "return [...document.querySelectorAll('tbody bdi')].map((one) => one.clientHeight)"
    long, words, short = browser.execute_script(lines)
    assert min(long, words) > 3 * short and short < 30


def test_a_picture_from_a_file_has_a_softer_ground_in_the_dark(shown):
    script = "return getComputedStyle(document.querySelector('.paper')).backgroundColor"
    light = shown(scheme="light").execute_script(script)
    red, green, blue = map(int, re.findall(r"\d+", shown(scheme="dark").execute_script(script)))
    assert light == "rgb(255, 255, 255)" and 128 < max(red, green, blue) < 225


def test_a_committed_report_is_accessible(shown):
    browser = shown((REPORTS / "supervised" / "report.html").as_uri())
    assert browser.get_log("browser") == []
    assert violations(browser) == []


def test_names_sort_by_the_numbers_in_them(shown, tmp_path):
    body = [
        [Cell(name), Cell(f"{place} s")]
        for place, name in enumerate(("N = 100", "N = 20", "b", "A"))
    ]
    file = tmp_path / "page.html"
    file.write_text(
        alone(Table(name="t", title="T", columns=["", "a"], body=body)), encoding="utf-8"
    )
    browser = shown(file.as_uri())
    browser.find_element(By.CSS_SELECTOR, "#table-t button.sort").click()
    assert list(columns(browser, "t")[0]) == ["A", "b", "N = 20", "N = 100"]


def test_a_first_column_of_numbers_sorts_by_them(shown, tmp_path):
    body = [[Cell(str(value), value=value), Cell("x")] for value in (20, 100, 3)]
    file = tmp_path / "page.html"
    file.write_text(
        alone(Table(name="t", title="T", columns=["N", "a"], body=body)), encoding="utf-8"
    )
    browser = shown(file.as_uri())
    browser.find_element(By.CSS_SELECTOR, "#table-t button.sort").send_keys(Keys.SPACE)
    assert list(columns(browser, "t")[0]) == ["100", "20", "3"]


def test_missing_numbers_come_last_either_way(shown, built):
    browser = shown()
    table = next(table for table in built.tables if "average rank" in table.columns)
    place = list(table.columns).index("average rank")
    button = browser.find_elements(By.CSS_SELECTOR, f"#table-{table.name} button.sort")[place]
    for _ in range(2):
        button.click()
        assert columns(browser, table.name)[place][-1] == MISSING.text


def test_a_number_shows_what_it_rests_on(shown, built, rows):
    browser, table = shown(), built.tables[0]
    opener = browser.find_elements(By.CSS_SELECTOR, f"#table-{table.name} button.open")[3]
    opener.send_keys(Keys.ENTER)
    dialog = browser.find_element(By.TAG_NAME, "dialog")
    assert dialog.is_displayed()
    assert violations(browser, "dialog") == []
    assert dialog.find_element(By.TAG_NAME, "h2").text.startswith("random, vit: 31.25 ± ")
    lines = browser.execute_script("""
        return [...document.querySelectorAll("dialog tr")]
            .map((line) => [...line.cells].map((cell) => cell.textContent))
    """)
    assert ["field", "seed 0", "seed 1", "seed 2"] in lines
    assert ["value", "30.25", "31.25", "32.25"] in lines
    assert ["outer_steps", "100"] in lines
    assert ["views", "rot90, rot180"] in lines
    assert ["ridge", "–"] in lines
    assert ["labels_per_class", "all"] in lines
    row = next(row for row in rows if (row.label, row.student) == ("random", "vit"))
    fields = {name for name, value in asdict(row).items() if not isinstance(value, dict)}
    assert fields <= {line[0] for line in lines}
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()
    assert browser.switch_to.active_element == opener


FRAMES = """
    return [...document.querySelectorAll("main .scroll")].map((frame) => ({
        hidden: frame.scrollWidth - frame.clientWidth,
        width: frame.getBoundingClientRect().right,
        reached: frame.tabIndex === 0,
        said: frame.classList.contains("cut"),
    }))
"""


@pytest.mark.parametrize("width", [375, 1200, 1600])
def test_nothing_needs_sideways_scrolling_but_tables_in_their_frames(shown, width):
    browser = shown(width=width)
    page_width, window = browser.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert page_width == window <= width
    frames = browser.execute_script(FRAMES)
    assert frames[0]["hidden"] == 0 or width == 375  # the main table
    assert any(frame["hidden"] for frame in frames) == (width == 375)
    for frame in frames:
        assert frame["width"] <= width
        assert frame["reached"] == frame["said"] == (frame["hidden"] > 0)
    browser.find_element(By.CSS_SELECTOR, "button.open").click()
    box = browser.find_element(By.TAG_NAME, "dialog").rect
    assert box["x"] >= 0 and box["x"] + box["width"] <= width


def test_a_frame_at_its_end_does_not_say_that_there_is_more(shown):
    browser = shown(width=375)
    frame = browser.find_element(By.CSS_SELECTOR, "main .scroll")
    assert "cut" in frame.get_attribute("class")
    browser.execute_script("arguments[0].scrollLeft = 10_000", frame)
    WebDriverWait(browser, 5).until(lambda _: "cut" not in frame.get_attribute("class"))


def test_paper_shows_what_is_folded(shown):
    browser = shown()
    assert (
        browser.execute_script(
            "return document.querySelectorAll('main details:not([open])').length"
        )
        == 3
    )
    printed = browser.execute_cdp_cmd("Page.printToPDF", {})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
    assert (
        browser.execute_script(
            "return document.querySelectorAll('main details:not([open])').length"
        )
        == 0
    )


def test_rows_of_strangers_stay_text_from_their_file_to_the_browser(shown, rows, tmp_path):
    file = tmp_path / "rows.jsonl"
    lines = []
    for row in rows:
        content = asdict(row)
        for name in (
            "label",
            "method",
            "source",
            "teacher",
            "student",
            "downstream",
            "recipe",
            "suite",
            "device",
            "precision",
            "key",
            "context",
        ):
            content[name] = f"{content[name]} {HOSTILE}"
        content["settings"] = {HOSTILE: HOSTILE, "__proto__": {HOSTILE: 1}, "constructor": 2}
        content["changes"] = {HOSTILE: {HOSTILE: HOSTILE}}
        content["provenance"] |= {"commit": HOSTILE, "torch": HOSTILE, "flags": HOSTILE}
        lines.append(json.dumps(content))
    file.write_text("\n".join(lines), encoding="utf-8")
    whole = report.build(read(file), title=HOSTILE, notes=HOSTILE)
    whole = report.illustrated(whole, tmp_path, StoredSets())
    assert whole.tables and whole.pictures
    document = tree(page(whole))
    assert len(list(document.all("script"))) == 3
    assert not any(key.startswith("on") for node in document.all() for key in node.attributes)
    (tmp_path / "page.html").write_text(page(whole), encoding="utf-8")
    browser = shown((tmp_path / "page.html").as_uri())
    browser.find_element(By.CSS_SELECTOR, "button.open").click()
    cells = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "dialog th")]
    assert "constructor" in cells and f"__proto__.{HOSTILE}".split("\u2028")[0] in " ".join(cells)
    assert browser.execute_script(
        "return [typeof hacked, Object.keys(Object.prototype).length]"
    ) == ["undefined", 0]
    assert browser.get_log("browser") == []


def test_words_stay_text_in_a_browser(shown, hostile, tmp_path):
    file = tmp_path / "hostile.html"
    file.write_text(hostile, encoding="utf-8")
    browser = shown(file.as_uri())
    browser.find_element(By.CSS_SELECTOR, "button.open").click()
    assert HOSTILE.split("\u2028")[0] in browser.find_element(By.ID, "opened").text
    assert browser.execute_script("return typeof hacked") == "undefined"
    assert browser.get_log("browser") == []
    assert violations(browser) == []
    assert not re.search(r"\b49\b", browser.find_element(By.TAG_NAME, "body").text)
