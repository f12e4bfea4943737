#!/usr/bin/env python3
"""report.html in a headless Chromium: report_test.py RENDER_PROFILE [unittest arguments]. Exits with 77 without Chromium."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

import numpy as np
from PIL import Image

import browser
from make_profile import HOSTILE, profile

RENDER = sys.argv.pop(1) if len(sys.argv) > 1 else ""
SECTIONS = ["timeline", "ranks", "coverage", "bytes", "kernels", "prediction", "slowest", "layers", "operations", "memory", "curves",
            "overhead", "job", "definitions"]
CHARTS = """[...document.querySelectorAll('.chart')].map((element) => {
  const made = echarts.getInstanceByDom(element), canvas = element.querySelector('canvas');
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});
  copy.drawImage(canvas, 0, 0);
  const pixels = copy.getImageData(0, 0, canvas.width, canvas.height).data;
  const seen = new Set();
  for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3] > 128) seen.add((pixels[i] << 16) | (pixels[i + 1] << 8) | pixels[i + 2]);
  return {name: element.getAttribute('aria-label'), made: !!made, colours: seen.size, wide: element.clientWidth};
})"""
# Every chart of a page, by the name that a screen reader says.
NAMES = ["Timeline of the step on all ranks", "Step of each rank by its parts", "Each step of the window by its parts",
         "Transfer and wait by group of ranks and operation", "Coverage or density by layer and head", "Bytes sent from rank to rank",
         "Roofline of the kernels", "Compute and exposed communication of each layer", "Memory of each rank by category",
         "Curve of loss", "Curve of throughput"]


def column(label, table):
    """JavaScript: the index of the column of a table whose heading begins with the label."""
    return f"[...document.querySelectorAll('table[aria-label=\"{table}\"] th button')].findIndex((b) => b.firstChild.data === '{label}')"


def cells(label, table):
    return f"(() => {{ const i = {column(label, table)}; return [...document.querySelectorAll('table[aria-label=\"{table}\"] tbody tr')].map((r) => r.cells[i].textContent); }})()"


def click_heading(label, table):
    return f"document.querySelectorAll('table[aria-label=\"{table}\"] th button')[{column(label, table)}].click()"


def number(text):
    return float(text.replace("\u2009", "").replace("\u2212", "-"))


class Report(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="sprocket_report_")
        cls.page = browser.Browser()

    @classmethod
    def tearDownClass(cls):
        cls.page.__exit__()
        cls.folder.cleanup()

    def setUp(self):
        self.page.resize(1366, 768)
        self.page.prefer("light")

    def tearDown(self):
        self.assertEqual(self.page.messages, [], "the console")

    def open(self, data):
        """Opens the page of a profile; it asks for nothing but itself."""
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        source, target = (os.path.join(self.folder.name, name) for name in ("profile.json", "report «1».html"))
        with open(source, "w", encoding="utf-8") as file:
            file.write(text)
        subprocess.run([RENDER, source, target], check=True)
        self.page.open(target)
        self.assertEqual(len(self.page.requests), 1, self.page.requests)
        self.assertEqual(self.page.evaluate("document.documentElement.dataset.ready"), "true")

    def charts(self):
        return {chart["name"]: chart for chart in self.page.evaluate(CHARTS)}

    def assert_drawn(self, names):
        charts = self.charts()
        self.assertEqual(sorted(charts), sorted(names))
        for chart in charts.values():
            self.assertTrue(chart["made"], chart)
            self.assertGreater(chart["colours"], 4, chart)
            self.assertGreater(chart["wide"], 200, chart)

    def text(self, selector):
        return self.page.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")

    def picture(self):
        path = os.path.join(self.folder.name, "shot.png")
        self.page.screenshot(path)
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")).astype(int)

    def assert_fits(self):
        """Nothing sticks out to the right, and no heading lies over another one."""
        self.assertLessEqual(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"), 0)

    def test_everything_is_drawn(self):
        self.open(profile(ranks=4))
        self.assert_drawn(NAMES)
        self.assertEqual(self.page.evaluate("[...document.querySelectorAll('section')].map((s) => s.id)"), SECTIONS)
        self.assertEqual(self.page.evaluate("document.querySelectorAll('.absent-why').length"), 0)
        for line in profile(ranks=4)["verdict"]:
            self.assertIn(line, self.text(".verdict"))
        self.assert_fits()

    def test_shares_and_figures_are_the_profiles(self):
        data = profile(ranks=4)
        self.open(data)
        strip = self.text(".strip-key")
        for key in ("compute", "exposed_communication"):
            self.assertIn(f"{100 * data['shares'][key]:.1f} %", strip)
        figures = self.text(".figures")
        self.assertIn(f"{data['step']['seconds']:.2f}s", figures.replace("\n", "").replace(" ", ""))
        self.assertIn("17\u2009063", figures)

    def test_charts_hold_the_profiles_numbers(self):
        data = profile(ranks=4)
        self.open(data)
        held = self.page.evaluate("""Object.fromEntries([...document.querySelectorAll('.chart')].map((e) => [e.getAttribute('aria-label'),
            echarts.getInstanceByDom(e).getOption().series.map((s) => [s.name, s.data.map((d) => d.value ?? d)])]))""")
        parts = {"compute": "compute", "exposed communication": "exposed", "copies": "copies", "data wait": "data_wait", "other": "other"}
        self.assertEqual(dict(held[NAMES[1]]), {name: [row[f"{key}_ms"] for row in data["ranks"]] for name, key in parts.items()})
        for name, values in held[NAMES[2]]:
            key = {"exposed communication": "exposed_communication", "data wait": "data_wait"}.get(name, name)
            self.assertEqual(values, data["each"][key], name)
        for name, key in (("compute", "compute_ms"), ("exposed communication", "exposed_ms"), ("wait", "wait_ms")):
            self.assertEqual(dict(held[NAMES[7]])[name], [row[key] for row in data["layers"]])
        moved = {tuple(cell[:2]): cell[2] for cell in held[NAMES[5]][0][1]}
        self.assertEqual(moved, {(j, i): v for i, row in enumerate(data["bytes"]) for j, v in enumerate(row) if v})
        needed = {tuple(cell[:2]): cell[2] for cell in held[NAMES[4]][0][1]}
        self.assertEqual(needed, {(h, l): v for l, row in enumerate(data["heads"]["coverage"]) for h, v in enumerate(row)})
        self.assertEqual(held[NAMES[9]][0][1], data["curves"]["loss"])
        waited = {(row["op"], row["phase"]): row["wait_ms"] for row in data["operations"]}
        self.assertEqual(sorted(dict(held[NAMES[3]])["wait"]), sorted(waited.values()))
        for name, values in held[NAMES[8]]:
            np.testing.assert_allclose(values, [row["memory"][f"{name}_bytes"] / 1e9 for row in data["ranks"]])
        counted = [k for k in data["kernels"] if "flops" in k]
        np.testing.assert_allclose([v for v in held[NAMES[6]][1][1]], [[k["flops"] / k["bytes"], k["flops"] / k["ms"] / 1e6] for k in counted])

    def test_all_ranks_are_in_the_table(self):
        data = profile(ranks=64)
        self.open(data)
        shown = [number(text) for text in self.page.evaluate(cells("compute", "Ranks"))]
        np.testing.assert_allclose(shown, [row["compute_ms"] for row in data["ranks"]], atol=0.5)

    def test_tables_sort_by_a_click(self):
        data = profile(ranks=64)
        self.open(data)
        values = lambda: [number(text) for text in self.page.evaluate(cells("caused wait", "Ranks"))]  # noqa: E731
        self.page.evaluate(click_heading("caused wait", "Ranks"))
        self.assertEqual(values(), sorted(values(), reverse=True))
        self.assertEqual(self.page.evaluate(cells("rank", "Ranks"))[0], "63")
        self.page.evaluate(click_heading("caused wait", "Ranks"))
        self.assertEqual(values(), sorted(values()))
        # As numbers: 9 before 10; as words: by the alphabet.
        self.page.evaluate(click_heading("rank", "Ranks"))
        self.page.evaluate(click_heading("rank", "Ranks"))
        self.assertEqual(self.page.evaluate(cells("rank", "Ranks")), [str(i) for i in range(64)])
        self.page.evaluate(click_heading("kernel", "Kernels"))
        names = self.page.evaluate(cells("kernel", "Kernels"))
        self.assertEqual(names, sorted(names))

    def test_every_table_sorts_by_every_column_and_says_so(self):
        self.open(profile(ranks=4))
        wrong = self.page.evaluate("""[...document.querySelectorAll('table')].flatMap((table) => [...table.querySelectorAll('th')].filter((head) => {
            head.querySelector('button').click();
            const marked = [...table.querySelectorAll('th')].filter((h) => h.getAttribute('aria-sort') !== 'none');
            return marked.length !== 1 || marked[0] !== head || !table.querySelector('tbody tr');
          }).map((head) => `${table.getAttribute('aria-label')}: ${head.innerText}`))""")
        self.assertEqual(wrong, [])

    def test_unknown_values_come_last_both_ways(self):
        self.open(profile(ranks=4))
        for _ in range(2):
            self.page.evaluate(click_heading("work", "Kernels"))
            self.assertEqual(self.page.evaluate(cells("work", "Kernels"))[-1], "–")

    def test_every_heading_has_its_definition_at_hand(self):
        self.open(profile(ranks=4))
        self.assertEqual(self.page.evaluate("""[...document.querySelectorAll('thead button, .figure .help')]
            .filter((e) => !document.querySelector('.definitions').innerText.includes(e.dataset.term)).map((e) => e.innerText)"""), [])
        # By keyboard: focus shows it, Escape hides it.
        self.page.evaluate("document.querySelector('.figure .help').focus()")
        self.assertIn("Wall time T", self.text("#hint"))
        self.page.key("Escape")
        self.assertTrue(self.page.evaluate("document.getElementById('hint').hidden"))
        self.page.key("Tab")
        self.assertIn("Tokens of all ranks", self.text("#hint"))

    def test_light_and_dark(self):
        self.open(profile(ranks=4))
        light = self.picture()
        self.assertGreater(light[5, 5].min(), 200)
        self.page.prefer("dark")
        self.page.settle()
        dark = self.picture()
        self.assertLess(dark[5, 5].max(), 60)
        self.assert_drawn(NAMES)
        ink = "[...new Set([...document.querySelectorAll('.chart')].map((e) => echarts.getInstanceByDom(e).getOption().legend?.[0]?.textStyle.color))].filter(Boolean)"
        self.assertEqual(self.page.evaluate(ink), ["#e4e2dc"], "the charts follow")
        self.page.evaluate("document.querySelector('[data-theme-choice=light]').click()")
        self.page.settle()
        self.assertGreater(self.picture()[5, 5].min(), 200)
        self.assertEqual(self.page.evaluate(ink), ["#22262b"])

    def test_text_stands_out_from_its_ground(self):
        """Contrast of 4.5 and more for text that is read, 3 for what stands beside."""
        def luminance(colour):
            parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
            return sum(w * (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4) for w, c in zip((0.2126, 0.7152, 0.0722), parts))

        self.open(profile(ranks=1))
        for scheme in ("light", "dark"):
            self.page.prefer(scheme)
            self.page.settle()
            colour = lambda name: self.page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()")  # noqa: E731
            ground = luminance(colour("paper"))
            for name, least in (("ink", 7), ("soft", 4.5), ("faint", 3)):
                ratio = (max(ground, luminance(colour(name))) + 0.05) / (min(ground, luminance(colour(name))) + 0.05)
                self.assertGreaterEqual(ratio, least, f"{name}, {scheme}")

    def test_absent_keys_are_explained(self):
        self.open(profile(ranks=4, bare=True))
        reasons = self.page.evaluate("[...document.querySelectorAll('.absent-why')].map((e) => e.textContent)")
        for section, reason in {"prediction": "--cluster", "timeline": "no timeline", "curves": "No curves", "overhead": "Not measured",
                                "coverage": "dense attention", "memory": "No rank reported"}.items():
            self.assertIn(reason, self.text(f"#{section}"))
            self.assertTrue(self.page.evaluate(f"document.querySelector('#contents a[href=\"#{section}\"]').classList.contains('absent')"))
        self.assertIn("No roofline", self.text("#kernels"))
        self.assertIn("Rates of the links", self.text("#operations"))
        self.assertGreaterEqual(len(reasons), 7)
        self.assertNotIn("undefined", self.text("main"))
        self.assertNotIn("NaN", self.text("main"))
        self.assert_fits()

    def test_one_rank(self):
        self.open(profile(ranks=1))
        self.assert_drawn([name for name in NAMES if not name.startswith(("Transfer", "Bytes"))])
        self.assertIn("One rank", self.text("#bytes"))
        self.assertIn("One rank", self.text("#operations"))
        self.assertNotIn("NaN", self.text("main"))

    def test_a_thousand_ranks(self):
        self.open(profile(ranks=1024, layers=40, heads=40))
        self.assert_drawn(NAMES)
        self.assertIn("64 of 1024 ranks", self.text("#timeline"))
        self.assertIn("4 × 4 ranks", self.text("#bytes"))
        self.assertEqual(len(self.page.evaluate(cells("rank", "Ranks"))), 1024)
        self.page.evaluate(click_heading("caused wait", "Ranks"))
        self.assertEqual(self.page.evaluate(cells("rank", "Ranks"))[0], "1\u2009023")
        self.assert_fits()

    def test_strings_from_outside_stay_text(self):
        self.open(profile(ranks=4, hostile=True))
        self.assertIsNone(self.page.evaluate("window.injected ?? null"))
        self.assertEqual(self.page.evaluate("document.querySelectorAll('main img, main script').length"), 0)
        self.assertEqual(self.page.evaluate("document.querySelector('.verdict li').textContent"), profile(ranks=4, hostile=True)["verdict"][0])
        self.assertIn("rank 5 recorded nothing", self.text(".notice"))
        self.assertIn("5, 9", self.text(".notice"))
        self.page.evaluate("document.querySelector('details').open = true")
        self.assertEqual(self.page.evaluate("document.querySelector('pre').textContent"), profile(ranks=4, hostile=True)["job"]["description"])
        self.assert_fits()
        self.hover("Step of each rank by its parts", 0.3, 0.6)
        self.assertIn(HOSTILE.split()[0], self.page.evaluate("[...document.querySelectorAll('.tip')].map((e) => e.innerText).join()"))
        self.assertIsNone(self.page.evaluate("window.injected ?? null"))

    def hover(self, name, x, y):
        box = self.page.evaluate(f"""(() => {{ const e = [...document.querySelectorAll('.chart')].find((c) => c.getAttribute('aria-label') === '{name}');
            e.scrollIntoView({{block: 'center', behavior: 'instant'}}); const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; }})()""")
        self.page.settle()
        at = box[0] + x * box[2], box[1] + y * box[3]
        for dx in (-3, 0):
            self.page.mouse("mouseMoved", at[0] + dx, at[1])
            self.page.settle()

    def test_the_timeline_says_what_lies_under_the_pointer(self):
        data = profile(ranks=4)
        # One span of 100 ms at a known place: rank 2, its clock 10 ms late.
        data["timeline"]["ranks"] = [{"rank": r, "offset_us": 10000 if r == 2 else 0, "spans": [[0, 8, 1, 5, 40000, 100000]]} for r in range(4)]
        self.open(data)
        place = self.page.evaluate("""(() => { const made = echarts.getInstanceByDom(document.querySelector('.chart'));
            const at = made.convertToPixel({gridIndex: 0}, [148, 2]); return [at[0] / made.getWidth(), (at[1] - 6) / made.getHeight()]; })()""")
        self.hover(NAMES[0], *place)
        hint = self.text("#hint")
        for word in ("attention.local", "100 ms", "50.000 ms", "forward", "attention"):
            self.assertIn(word, hint)
        # Rank 1 has nothing at 148 ms.
        place = self.page.evaluate("""(() => { const made = echarts.getInstanceByDom(document.querySelector('.chart'));
            const at = made.convertToPixel({gridIndex: 0}, [148, 1]); return [at[0] / made.getWidth(), (at[1] - 6) / made.getHeight()]; })()""")
        self.hover(NAMES[0], *place)
        self.assertTrue(self.page.evaluate("document.getElementById('hint').hidden"))

    def test_the_timeline_zooms_and_hides_families(self):
        self.open(profile(ranks=4))
        span = "(() => { const z = echarts.getInstanceByDom(document.querySelector('.chart')).getOption().dataZoom[0]; return z.end - z.start; })()"
        blue = """(() => { const c = document.querySelector('.chart canvas'), copy = new OffscreenCanvas(c.width, c.height).getContext('2d');
            copy.drawImage(c, 0, 0); const p = copy.getImageData(62, 24, c.width - 100, c.height - 90).data; let n = 0;
            for (let i = 0; i < p.length; i += 4) if (p[i] === 0x44 && p[i + 1] === 0x77 && p[i + 2] === 0xaa) ++n; return n; })()"""
        self.page.evaluate("document.querySelector('#timeline [aria-label=\"Zoom in\"]').click()")
        self.assertAlmostEqual(self.page.evaluate(span), 50)
        self.assertGreater(self.page.evaluate(blue), 100, "attention")
        self.page.evaluate("document.querySelector('#timeline .key button').click()")
        self.page.settle()
        self.assertEqual(self.page.evaluate(blue), 0)
        self.assertAlmostEqual(self.page.evaluate(span), 50, msg="hiding a family keeps the zoom")
        self.page.evaluate("[...document.querySelectorAll('#timeline .plain')].at(-1).click()")
        self.assertAlmostEqual(self.page.evaluate(span), 100)

    def test_the_wheel_scrolls_the_page_and_zooms_with_control(self):
        self.open(profile(ranks=4))
        self.hover(NAMES[0], 0.5, 0.3)
        middle = self.page.evaluate("(() => { const b = document.querySelector('.chart').getBoundingClientRect(); return [b.left + b.width / 2, b.top + 60]; })()")
        zoom = "(() => { const z = echarts.getInstanceByDom(document.querySelector('.chart')).getOption().dataZoom[0]; return z.end - z.start; })()"
        before = self.page.evaluate("scrollY")
        self.page.evaluate("window.scrolled = new Promise((done) => addEventListener('scroll', done, {once: true})); 0")
        self.page.wheel(*middle, 100)
        self.page.evaluate("Promise.race([window.scrolled, new Promise((done) => setTimeout(done, 5000))]).then(() => 0)")
        self.assertGreater(self.page.evaluate("scrollY"), before)
        self.assertAlmostEqual(self.page.evaluate(zoom), 100)
        self.page.evaluate("document.querySelector('.chart').scrollIntoView({block: 'center', behavior: 'instant'})")
        self.page.evaluate("""window.zoomed = new Promise((done) => {
            const made = echarts.getInstanceByDom(document.querySelector('.chart')); made.on('datazoom', () => done(0)); setTimeout(done, 5000); }); 0""")
        middle = self.page.evaluate("(() => { const b = document.querySelector('.chart').getBoundingClientRect(); return [b.left + b.width / 2, b.top + 60]; })()")
        self.page.wheel(*middle, -100, control=True)
        self.page.evaluate("window.zoomed.then(() => 0)")
        self.assertLess(self.page.evaluate(zoom), 99)

    def test_a_large_matrix_is_an_image_and_says_its_cells(self):
        data = profile(ranks=256)
        data["bytes"] = [[1e6 * (i + 2 * j) for j in range(256)] for i in range(256)]
        self.open(data)
        self.assertGreater(self.charts()[NAMES[5]]["colours"], 100)
        place = self.page.evaluate("""(() => { const made = echarts.getInstanceByDom(document.querySelector('#bytes .chart'));
            const at = made.convertToPixel({gridIndex: 0}, [100, 40]); return [at[0] / made.getWidth(), at[1] / made.getHeight()]; })()""")
        self.hover(NAMES[5], *place)
        self.assertIn("rank 40 to rank 100", self.text("#hint"))
        self.assertIn("240 MB", self.text("#hint"))

    def test_ranks_in_the_order_of_what_they_took(self):
        data = profile(ranks=64)
        self.open(data)
        first = "echarts.getInstanceByDom(document.querySelector('#ranks .chart')).getOption().xAxis[0].data.slice(0, 3)"
        self.assertEqual(self.page.evaluate(first), ["0", "1", "2"])
        self.page.evaluate("document.querySelectorAll('#ranks .choice button')[1].click()")
        largest = sorted(data["ranks"], key=lambda row: -row["compute_ms"])[:3]
        self.assertEqual(self.page.evaluate(first), [str(row["rank"]) for row in largest])

    def test_density_instead_of_coverage(self):
        data = profile(ranks=4)
        self.open(data)
        largest = "echarts.getInstanceByDom(document.querySelector('#coverage .chart')).getOption().visualMap[0].max"
        self.assertAlmostEqual(self.page.evaluate(largest), max(map(max, data["heads"]["coverage"])))
        self.page.evaluate("document.querySelectorAll('#coverage .choice button')[1].click()")
        self.assertAlmostEqual(self.page.evaluate(largest), max(map(max, data["heads"]["density"])))

    def test_a_wide_screen_and_a_narrow_one(self):
        self.open(profile(ranks=4))
        for width in (1920, 1366, 800):
            self.page.resize(width, 900)
            self.page.settle()
            self.assert_drawn(NAMES)
            self.assert_fits()

    def test_prints(self):
        self.open(profile(ranks=4))
        self.page.prefer("dark")
        self.page.settle()
        self.assertGreater(len(self.page.call("Page.printToPDF", printBackground=False)["data"]), 50_000)
        self.assertEqual(self.page.evaluate("document.documentElement.dataset.theme"), "dark", "the screen's colours are back")

    def test_what_cannot_be_read_is_said(self):
        for text, words in (('{"schema": 2, "ranks": [', "cannot be read"), ('{"schema": 3}', "schema 2, and this one has 3")):
            self.open(text)
            self.assertIn(words, self.text("[role=alert]"))


if __name__ == "__main__":
    if not browser.find_chromium():
        print("no Chromium is installed: skipped")
        sys.exit(77)
    unittest.main()
