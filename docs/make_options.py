"""Write docs/options.md from the option table: ``python docs/make_options.py``."""

from __future__ import annotations

from pathlib import Path

from container_magic.options import OPTIONS, PROFILES, Option
from container_magic.options.for_kernel import default_of
from container_magic.options.help import described

TARGET = Path(__file__).with_name("options.md")

HEAD = """\
# Options of a run

Written by `docs/make_options.py` from the option table in `container_magic/options/table.py`; edit that.

The same options are taken by `%%contain` in a notebook, by `contain run` on the command line, by the kernels that
`contain kernel install` makes ([how-to-kernel.md](how-to-kernel.md)) and, as keywords, by `container_magic.run()`: the
keyword is the long option with `_` for `-`, without the dashes (`cpu_time="5s"`). Every option of `%%contain` is also a
default in IPython's configuration (`c.ContainMagics.mem = "512M"`).

What is said closer to the run wins: built-in defaults < `--profile` < defaults of the session (`%contain --mem 512M`,
the configuration) < the options of the run itself. Repeatable options add up; a later one for the same variable, the
same place inside, the same limit or the same device replaces an earlier one.

- **SIZE**: `200M`, `1.5G`, `64KiB`, or a number of bytes; `k m g t` are powers of 1024, as in Docker.
- **DUR**: `500ms`, `10s`, `2m`, `1h30m`, or a number of seconds.
- **LIST**: `0-1`, `0,2`, `1-3,6`.

An option that is unknown or malformed is an error, and so is one that this host cannot enforce (unless
`--best-effort`): nothing is started. Defaults that a host cannot enforce are recorded in the report as downgrades.
"""
PLACES = {"magic": "`%%contain`", "cli": "`contain run`", "api": "Python", "kernel": "a kernel"}


def markdown() -> str:
    """Return the page."""
    sections: dict[str, list[str]] = {}
    for option in OPTIONS:
        sections.setdefault(option.section, []).append(_row(option))
    tables = [
        f"## {title}\n\n| option | keyword | meaning | examples |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
        for title, rows in sections.items()
    ]
    return "\n".join([HEAD, *tables, _profiles()])


def _row(option: Option) -> str:
    spelled = ", ".join(f"`{name}`" for name in option.names) + (f" `{option.metavar}`" if option.metavar else "")
    keyword = ", ".join(f"`{word}`" for word in option.keywords) if "api" in option.fronts else ""
    meaning = "a set of defaults, see below" if option.name == "--profile" else described(option)
    if len(option.fronts) < len(PLACES):
        meaning += f"; only for {_enumerated([PLACES[front] for front in PLACES if front in option.fronts])}"
    if "kernel" in option.fronts and default_of(option, "kernel") != option.default:
        meaning += f"; default of a kernel: {default_of(option, 'kernel')}"
    if option.not_on_cli:
        meaning += f"; `{option.not_on_cli[0]}` is CODE on the command line"
    cells = (spelled, keyword, meaning, ", ".join(f"`{example}`" for example in option.examples))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _enumerated(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _profiles() -> str:
    rows = []
    for name, settings in PROFILES.items():
        spelled = [
            f"--{word.replace('_', '-')}" + ("" if text == "true" else f" {text}") for word, text in settings.items()
        ]
        rows.append(f"| `{name}` | {' '.join(f'`{one}`' for one in spelled)} |")
    return "## Profiles\n\n| profile | stands for |\n|---|---|\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    TARGET.write_text(markdown(), encoding="utf-8")
