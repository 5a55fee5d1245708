"""What a kernel takes of the option table, and which defaults are other ones there.

A kernel is one session that lasts as long as its notebook is open: what belongs to one run has no meaning in it, and
is refused with the reason.
"""

from __future__ import annotations

from container_magic.options.option import Front, Option

_ONE_SESSION = "a kernel is one interpreter for all cells of a notebook"
_IS_PYTHON = "a kernel runs Python; %%contain in a notebook and contain run have other languages"
_CODE_COMES = "its code comes from notebooks"
_ASKS = "input() asks whoever works with the notebook"
_VARIABLES = "there is no second interpreter whose variables it could take or give"
_STARTS_ONCE = "it is started once, by whoever opens a notebook"
_JUPYTER_SHOWS = "Jupyter shows its errors as those of any kernel"
_REPORTS = "its reports stand in the notebook, below the cells: --report"

NOT_FOR_A_KERNEL: dict[str, str] = {
    "--out-file": "files come out of a volume: -v SRC:DST",
    "--stdin": _ASKS,
    "--stdin-file": _ASKS,
    "--lang": _IS_PYTHON,
    "--interpreter": _IS_PYTHON,
    "--warm": _STARTS_ONCE,
    "-c": _CODE_COMES,
    "--input": _VARIABLES,
    "--output": _VARIABLES,
    "--session": _ONE_SESSION,
    "--snapshot": _ONE_SESSION,
    "--result": _REPORTS,
    "--report-file": _REPORTS,
    "--no-raise-error": _JUPYTER_SHOWS,
    "--quiet": "no report is shown unless --report asks for one",
    "--dry-run": "contain run --dry-run shows what would be enforced",
}
"""The options, by the name that tables show, that are none of a kernel, and why."""

KERNEL_DEFAULTS: dict[str, str] = {"report": "none", "idle": "none", "work": "overlay"}
"""By keyword: where a kernel's default is another than that of a run."""


def default_of(option: Option, front: Front) -> str | None:
    """Return the default of ``option`` as the user of ``front`` would write it; None = nothing."""
    if front == "kernel" and option.keywords and option.keyword in KERNEL_DEFAULTS:
        return KERNEL_DEFAULTS[option.keyword]
    return option.default


def why_not(name: str, option: Option) -> str:
    """Return what is said to somebody who gave ``name``, a spelling of ``option``, to a kernel."""
    return f"{name} is not an option of a kernel: {NOT_FOR_A_KERNEL[option.name]}"
