#!/usr/bin/env python3
"""The status page in a headless Chromium: page_test.py SERVE_STATUS [unittest arguments]. Exits with 77 without Chromium."""
import copy
import json
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../profile_html"))
import browser  # noqa: E402
from served import Served  # noqa: E402

SERVE = sys.argv.pop(1) if len(sys.argv) > 1 else ""
PATIENCE = 60


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.page = browser.Browser(width=1400, height=900)

    @classmethod
    def tearDownClass(cls):
        cls.page.__exit__()

    def setUp(self):
        self.served = Served(SERVE)
        self.addCleanup(self.served.end)
        self.example = self.served.status()
        self.page.resize(1400, 900)
        self.page.prefer("light")
        self.page.visit(self.served.url + "/")
        self.wait_for("document.documentElement.dataset.ready === 'true'")

    def wait_for(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not self.page.evaluate(condition):
            self.assertLess(time.monotonic(), deadline, f"in vain: {condition}; the console: {self.page.messages}")
            time.sleep(0.05)

    def text(self, selector):
        return self.page.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")

    def show(self, change):
        status = copy.deepcopy(self.example)
        change(status)
        self.served.show(status)

    def test_it_says_what_the_status_says(self):
        self.assertEqual(self.page.messages, [], "the console")
        self.assertEqual(self.text("#state"), "running")
        self.assertEqual(self.text("#steps"), "step 120 of 500 (24.0 %)")
        self.assertEqual(self.text("#eta"), "6:28 left")
        figures = self.text("#figures")
        for words in ("0.1235", "1.020", "10234", "18.8 %", "100", "0:21 ago"):
            self.assertIn(words, figures)
        notices = self.text("#notices")
        self.assertIn("Straggler: rank 2 (node2, process 4712): its own part of a step takes 1.31 times", notices)
        self.assertIn("Last failure: crash: rank 3", notices)
        rows = self.page.evaluate("[...document.querySelectorAll('tbody tr')].map((r) => [...r.cells].map((c) => c.innerText))")
        self.assertEqual(len(rows), 4)
        self.assertEqual(rows[2][:6], ["2", "node2", "4712", "step", "120", "1.020 s"])
        self.assertEqual(rows[3][3], "not heard of yet")
        self.assertEqual(self.page.evaluate("[...document.querySelectorAll('tbody tr')].map((r) => r.className)"),
                         ["", "", "straggler", ""])
        bars = self.page.evaluate("[...document.querySelectorAll('.bar')].map((b) => [...b.children].map((i) => i.getBoundingClientRect().width))")
        self.assertEqual([[round(width, 1) for width in bar] for bar in bars], [[91.8, 28.2], [91.8, 28.2], [120, 0]])
        self.assertEqual(self.page.evaluate("document.title"), "step 120 of 500 (24.0 %) · Sprocket")
        self.assertTrue(all(url.startswith(self.served.url) for url in self.page.requests), self.page.requests)

    def test_it_looks_again_by_itself(self):
        def change(status):
            status["job"].update(step=250, straggler=None, straggler_sentence="", last_failure="")
        self.show(change)
        self.wait_for("document.getElementById('steps').innerText === 'step 250 of 500 (50.0 %)'")
        self.assertEqual(self.text("#notices"), "")
        self.assertEqual(self.page.evaluate("document.querySelectorAll('tr.straggler').length"), 0)

        def fail(status):
            status["job"].update(state="waiting to restart", last_failure="hang: rank 1 silent")
        self.show(fail)
        self.wait_for("document.getElementById('state').innerText === 'waiting to restart'")
        self.assertIn("the job waits to be started again: hang: rank 1 silent", self.text("#notices"))

    def test_a_supervisor_that_is_gone_is_said(self):
        self.served.process.stdin.close()
        self.served.process.wait(30)
        self.wait_for("document.documentElement.dataset.ready === 'lost'")
        self.assertEqual(self.text("#state"), "no answer")
        self.assertIn("does not answer", self.text("#notices"))
        self.assertEqual(self.text("#steps"), "step 120 of 500 (24.0 %)")

    def test_what_is_unknown(self):
        def forget(status):
            for key in ("loss", "step_seconds", "tokens_per_second", "exposed_communication_share", "eta_seconds", "slowest_rank"):
                status["job"][key] = None
            status["job"].update(step=-1, total_steps=0, checkpoint_step=-1, checkpoint_age_seconds=None, state="starting", folder="")
        self.show(forget)
        self.wait_for("document.getElementById('steps').innerText === 'no step yet'")
        self.assertNotIn("null", self.text("main"))
        self.assertNotIn("NaN", self.text("main"))
        self.assertNotIn("undefined", self.text("main"))

    def test_words_of_ranks_are_no_markup(self):
        hostile = "<img src=x onerror=alert(1)><script>document.title='no'</script>"

        def change(status):
            status["ranks"][0].update(host=hostile, operation=hostile)
            status["job"].update(last_failure=hostile, command=hostile, step=121)
        self.show(change)
        self.wait_for("document.getElementById('steps').innerText.startsWith('step 121')")
        self.assertEqual(self.page.evaluate("document.querySelectorAll('img, main script').length"), 0)
        self.assertIn("onerror", self.text("tbody"))
        self.assertEqual(self.page.messages, [], "the console")

    def test_it_fits_a_telephone_and_a_desk(self):
        for width in (400, 900, 1010, 1400):
            for scheme in ("light", "dark"):
                self.page.resize(width, 900)
                self.page.prefer(scheme)
                self.page.settle()
                self.assertLessEqual(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"), 0, f"{width} {scheme}")
                if os.environ.get("SCREENSHOTS"):
                    self.page.screenshot(os.path.join(os.environ["SCREENSHOTS"], f"status_{width}_{scheme}.png"), whole=True)
        self.page.prefer("light")
        light = self.page.evaluate("getComputedStyle(document.body).backgroundColor")
        self.page.prefer("dark")
        self.assertNotEqual(self.page.evaluate("getComputedStyle(document.body).backgroundColor"), light)


if __name__ == "__main__":
    if not browser.find_chromium():
        print("no Chromium is installed: skipped")
        sys.exit(77)
    unittest.main()
