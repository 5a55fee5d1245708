"""Run a notebook in a kernel of this interpreter, show it in the terminal, write it and its HTML page.

``python notebooks/run_notebook.py NOTEBOOK.ipynb DIRECTORY``
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

CELL_SECONDS = 120
SOURCE_LINES_SHOWN = 6
CONTAINED = "contained"
CONTAINED_OPTIONS = ("--mem", "500M", "--mem-high", "300M", "--net", "none")
"""As the notebook on the contained kernel has them installed."""


class OwnInterpreter(KernelSpecManager):
    """Knows this interpreter's own kernel and the contained one, whatever kernelspecs are installed on the machine."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return the contained kernel by its name, and the kernel of this interpreter under any other."""
        argv, mode = [sys.executable, "-m", "ipykernel_launcher"], "signal"
        if kernel_name == CONTAINED:
            argv, mode = (
                [sys.executable, "-P", "-m", "container_magic", "kernel", "start", *CONTAINED_OPTIONS],
                "message",
            )
        argv += ["-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python", interrupt_mode=mode)


def run(path: Path, *, show: bool = False) -> nbformat.NotebookNode:
    """Return the notebook with its outputs; cells after one that failed have none.

    Args:
        path: The notebook; its kernel works in its directory.
        show: Whether each cell is printed when it has run.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as directory:
        # unix sockets in a directory of this user alone: nobody else on the machine can listen or connect
        manager = AsyncKernelManager(
            kernel_name=notebook.metadata.kernelspec.name,
            kernel_spec_manager=OwnInterpreter(),
            transport="ipc",
            ip=f"{directory}/kernel",
        )
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=CELL_SECONDS,
            resources={"metadata": {"path": str(path.parent)}},
            on_cell_executed=_show if show else None,
        )
        # an error stands in the notebook as an output, and `failed` finds it there
        with contextlib.suppress(CellExecutionError):
            client.execute(cleanup_kc=True)
    # as a page does it: pieces of a stream that follow each other are one text, and a rewritten line is rewritten
    joined, _ = CoalesceStreamsPreprocessor(enabled=True)(notebook, {})
    return joined


def failed(notebook: nbformat.NotebookNode) -> bool:
    """Return whether a cell ended with an error that its tags do not announce."""
    return any(
        output.output_type == "error"
        for cell in notebook.cells
        if cell.cell_type == "code" and "raises-exception" not in cell.metadata.get("tags", [])
        for output in cell.outputs
    )


def write(notebook: nbformat.NotebookNode, name: str, directory: Path) -> tuple[Path, Path]:
    """Write ``name.ipynb`` and ``name.html`` into ``directory`` and return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    page, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": name}})
    targets = directory / f"{name}.ipynb", directory / f"{name}.html"
    nbformat.write(notebook, targets[0])
    targets[1].write_text(page, encoding="utf-8")
    return targets


def output_text(output: nbformat.NotebookNode) -> str:
    """Return what an output says in a terminal."""
    if output.output_type == "stream":
        return str(output.text)
    if output.output_type == "error":
        return "\n".join(output.traceback) + "\n"
    return str(output.data.get("text/plain", "")) + "\n"


def _show(cell: nbformat.NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
    del cell_index
    lines = cell.source.splitlines()
    hidden = len(lines) - SOURCE_LINES_SHOWN
    lines = [*lines[:SOURCE_LINES_SHOWN], *([f"... {hidden} more lines"] if hidden > 0 else [])]
    number = execute_reply["content"].get("execution_count")
    print(f"\nIn [{number}]:", *(f"  {line}" for line in lines), sep="\n")
    for output in cell.outputs:
        print("".join(f"    {line}\n" for line in output_text(output).splitlines()), end="", flush=True)


def main(arguments: list[str]) -> int:
    """Run, show and write; return 1 when a cell failed."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    path, directory = map(Path, arguments)
    notebook = run(path, show=True)
    targets = write(notebook, path.stem, directory)
    print(f"\nwritten: {', '.join(map(str, targets))}")
    return 1 if failed(notebook) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
