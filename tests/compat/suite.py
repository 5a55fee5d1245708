"""Compare CPython's own tests outside and inside: ``tests/compat/run [MODULE...]``.

Every test of every module runs outside and inside as the same user, and what became of it is compared. A difference
is an error unless ``known.toml`` holds it with a reason that ``docs/compatibility.md`` explains. Tests that depend on
the load of the machine differ now and then, so a module with a new difference is run once more, and only what differs
in the same way again counts.
"""

import argparse
import fnmatch
import signal
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from worlds import HERE, PYTHON, Workspace, has_tests, identities

PAGE = HERE.parents[1] / "docs/compatibility.md"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One test that fares differently."""

    identity: str
    test: str
    outside: str
    inside: str
    why: str = ""

    def __str__(self):
        why = f"  ({self.why})" if self.why else ""
        return f"{self.identity}: {self.test}: {self.outside} outside, {self.inside} inside{why}"

    @property
    def key(self):
        """What makes it the same difference when the module is run again."""
        return self.identity, self.test, self.outside, self.inside


@dataclass(frozen=True, kw_only=True)
class Known:
    """One entry of known.toml: whose tests differ how, and the heading in docs/compatibility.md that says why."""

    cause: str
    tests: tuple[str, ...]
    identities: tuple[str, ...]
    outside: str
    inside: str

    def covers(self, difference):
        """Return whether ``difference`` is one of those that this entry stands for."""
        return (
            (difference.outside, difference.inside) == (self.outside, self.inside)
            and difference.identity in self.identities
            and any(fnmatch.fnmatchcase(difference.test, pattern) for pattern in self.tests)
        )


def read_data():
    """Return the modules of a plain run, the tests to leave out, and the known differences."""
    data = tomllib.loads((HERE / "known.toml").read_text(encoding="utf-8"))
    known = [
        Known(
            cause=entry["cause"],
            tests=tuple(entry["tests"]),
            identities=tuple(entry.get("identities", ("root", "user", "self"))),
            outside=entry["outside"],
            inside=entry["inside"],
        )
        for entry in data["difference"]
    ]
    return data["modules"], data["ignored"], known


def compare(identity, module, outside, inside):
    """Return the differences of one module, or one for the module itself if it broke off before the first test."""
    broken = [side for side in (outside, inside) if not side.outcomes and side.ending != "skipped"]
    if broken:
        why = " | ".join(side.log.strip()[-200:] for side in broken)
        return [Difference(identity=identity, test=module, outside=outside.ending, inside=inside.ending, why=why)]
    found = []
    for test in sorted(outside.outcomes | inside.outcomes):
        was, became = outside.outcome(test), inside.outcome(test)
        if was != became:
            why = " | ".join(filter(None, (outside.reason(test), inside.reason(test))))
            found.append(Difference(identity=identity, test=test, outside=was, inside=became, why=why))
    if not found and outside.ending != inside.ending:
        found.append(Difference(identity=identity, test=module, outside=outside.ending, inside=inside.ending))
    return [item for item in found if not item.test.startswith(("setUpClass", "setUpModule"))]


def run_module(workspace, identity, module, known):
    """Run ``module`` on both sides, again where something new differs; return the differences and a line on it."""
    began = time.monotonic()
    outside, inside = (workspace.run(identity, side, module, 1) for side in (False, True))
    found = compare(identity.name, module, outside, inside)
    if any(is_new(item, known) for item in found):
        again = compare(identity.name, module, *(workspace.run(identity, side, module, 2) for side in (False, True)))
        kept = {item.key for item in found if item.test != module}
        # a run that broke off is no matter of load
        found = [item for item in found if item.test == module] + [
            item for item in again if item.key in kept or item.test == module or not is_new(item, known)
        ]
    counts = " ".join(
        f"{sum(1 for outcome in inside.outcomes.values() if outcome == kind)} {kind}"
        for kind in ("passed", "failed", "skipped")
    )
    seconds = time.monotonic() - began
    print(f"{identity.name:5} {module:32} {seconds:6.1f} s  inside {counts}  {len(found)} differ", flush=True)
    return found


def is_new(difference, known):
    """Return whether no entry of known.toml covers ``difference``."""
    return not any(entry.covers(difference) for entry in known)


def unexplained(known):
    """Return the causes of known.toml that docs/compatibility.md has no heading for."""
    headings = {line.lstrip("# ").strip() for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:1] == "#"}
    return sorted({entry.cause for entry in known} - headings)


def main():
    """Run, print the differences, and return 1 if there is one that is not known or not explained."""
    # a shell's background job ignores SIGINT, programs inherit that, and tests of interrupts then fail outside alone
    signal.signal(signal.SIGINT, signal.default_int_handler)
    modules, ignored, known = read_data()
    choices = identities()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="modules of CPython's test package")
    parser.add_argument(
        "-j", "--jobs", type=int, default=3, help="modules at the same time (default: 3; many tests sleep)"
    )
    parser.add_argument("--identity", choices=sorted(choices), help="compare as this user only")
    parser.add_argument("--keep", metavar="DIR", help="an existing directory for results and output, which stay")
    options = parser.parse_args()
    chosen = [choices[options.identity]] if options.identity else list(choices.values())
    asked = options.modules or modules
    present = [module for module in asked if has_tests(module)]
    if len(present) < len(asked):
        print(f"not installed with {PYTHON}: {' '.join(sorted(set(asked) - set(present)))}", flush=True)
    with tempfile.TemporaryDirectory(prefix="compat-") as directory:
        workspace = Workspace(options.keep or directory, ignored)
        with ThreadPoolExecutor(options.jobs) as pool:
            futures = [
                pool.submit(run_module, workspace, identity, module, known)
                for identity in chosen  # outermost: the same module twice at once gets in its own way on the host
                for module in present
            ]
            found = [difference for future in futures for difference in future.result()]
    return report(found, known)


def report(found, known):
    """Print what was found, known and new apart; return the exit status."""
    new = [item for item in found if is_new(item, known)]
    for entry in known:
        covered = [item for item in found if entry.covers(item)]
        if covered:
            print(f"known, {entry.cause}: {len(covered)}")
    for item in new:
        print(f"NEW {item}")
    missing = unexplained(known)
    for cause in missing:
        print(f"{PAGE.name} has no heading {cause!r}")
    print(f"{len(found)} differences, {len(new)} of them new")
    return 1 if new or missing else 0


if __name__ == "__main__":
    sys.exit(main())
