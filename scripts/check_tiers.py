#!/usr/bin/env python3
"""Fails when a test tier (a ctest label) is empty.

    check_tiers.py registered BUILD_FOLDER TIER…   every tier has tests
    check_tiers.py ran JUNIT_FILE TIER…            every tier has tests that ran and were not skipped

Silent when all is well.
"""
import json
import subprocess
import sys
import xml.etree.ElementTree as xml


def registered(build):
    """Number of tests of each label that ctest would run."""
    listing = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], check=True, capture_output=True)
    counts = {}
    for test in json.loads(listing.stdout)["tests"]:
        for prop in test.get("properties", []):
            if prop["name"] == "LABELS":
                for label in prop["value"]:
                    counts[label] = counts.get(label, 0) + 1
    return counts


def ran(junit):
    """Number of tests of each label that ran and were not skipped."""
    counts = {}
    for case in xml.parse(junit).getroot().iter("testcase"):
        if case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            continue
        for prop in case.iter("property"):
            if prop.get("name") == "cmake_labels":
                for label in prop.get("value").split(";"):
                    counts[label] = counts.get(label, 0) + 1
    return counts


def main():
    if len(sys.argv) < 4 or sys.argv[1] not in ("registered", "ran"):
        sys.exit(__doc__)
    counts = {"registered": registered, "ran": ran}[sys.argv[1]](sys.argv[2])
    empty = [tier for tier in sys.argv[3:] if not counts.get(tier)]
    if empty:
        found = ", ".join(f"{label} {count}" for label, count in sorted(counts.items())) or "none"
        sys.exit(f"no test {sys.argv[1]} in tier: {', '.join(empty)} (found: {found})")


if __name__ == "__main__":
    main()
