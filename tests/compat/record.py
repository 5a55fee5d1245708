"""Run ``python -m test`` and write the result of every single test as one JSON line: ``record.py FILE ARGUMENT...``.

This runs outside and inside alike, with the standard library alone. regrtest's own JUnit file leaves subtests out and
is lost when a test takes the interpreter down, so results are noted where unittest collects them, one write each.
"""

import json
import os
import runpy
import sys
import unittest

OUTCOMES = {
    "addSuccess": "passed",
    "addExpectedFailure": "passed",
    "addSkip": "skipped",
    "addFailure": "failed",
    "addError": "failed",
    "addUnexpectedSuccess": "failed",
}


def reason_of(details):
    """Return what unittest passed along with a result: a skip's reason or the last line of an error."""
    if not details or details[0] is None:
        return ""
    if isinstance(details[0], str):
        return details[0]
    kind, error = details[0][:2]
    return f"{kind.__name__}: {error}"[:500]


def install(path):
    """Note every result of regrtest's TestResult, in this process alone, in the file at ``path``."""
    owner = os.getpid()

    def note(result, test, outcome, details):
        if os.getpid() != owner or type(result).__name__ != "RegressionTestResult":
            return
        test = getattr(test, "test_case", test)  # a subtest counts as its test
        line = {"id": test.id(), "outcome": outcome, "reason": reason_of(details)}
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(line) + "\n")

    def wrapped(name):
        original = getattr(unittest.TestResult, name)

        def method(self, test, *details):
            note(self, test, OUTCOMES[name], details)
            return original(self, test, *details)

        return method

    for name in OUTCOMES:
        setattr(unittest.TestResult, name, wrapped(name))
    original_subtest = unittest.TestResult.addSubTest

    def add_subtest(self, test, subtest, error):
        if error is not None:
            note(self, subtest, "failed", (error,))
        return original_subtest(self, test, subtest, error)

    unittest.TestResult.addSubTest = add_subtest


if __name__ == "__main__":  # what multiprocessing spawns imports this file again
    install(sys.argv.pop(1))
    runpy.run_module("test", run_name="__main__")
