#!/usr/bin/env python3
"""Fails when a test tier (a ctest label) is empty; silent when all is well.

    check_tiers.py BUILD_FOLDER TIER…                        every tier has tests
    check_tiers.py BUILD_FOLDER --results JUNIT_FILE TIER…   every tier has a test that ran and was not skipped
"""
import argparse
import json
import subprocess
import sys
import xml.etree.ElementTree as xml


def labels_of_tests(build):
    """{test name: labels} of all tests that ctest knows in the build folder."""
    listing = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], check=True, capture_output=True)
    labels = {}
    for test in json.loads(listing.stdout)["tests"]:
        named = [p["value"] for p in test.get("properties", []) if p["name"] == "LABELS"]
        labels[test["name"]] = named[0] if named else []
    return labels


def names_that_ran(junit):
    for case in xml.parse(junit).getroot().iter("testcase"):
        if case.get("status") in ("run", "fail") and case.find("skipped") is None:
            yield case.get("name")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--results", metavar="JUNIT_FILE")
    parser.add_argument("tiers", nargs="+", metavar="TIER")
    arguments = parser.parse_args()
    labels = labels_of_tests(arguments.build)
    names = names_that_ran(arguments.results) if arguments.results else labels
    counts = {}
    for name in names:
        for label in labels.get(name, []):
            counts[label] = counts.get(label, 0) + 1
    empty = [tier for tier in arguments.tiers if tier not in counts]
    if empty:
        found = ", ".join(f"{label} {count}" for label, count in sorted(counts.items())) or "none"
        verb = "ran" if arguments.results else "registered"
        sys.exit(f"no test {verb} in tier: {', '.join(empty)} (found: {found})")


if __name__ == "__main__":
    main()
