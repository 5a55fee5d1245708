"""The benchmark runs and writes what it promises; no figure is asserted."""

import json

import pytest

from benchmarks.__main__ import main

pytestmark = [pytest.mark.alone, pytest.mark.root, pytest.mark.timeout(300)]


def test_quick_benchmark_writes_a_table_and_json(tmp_path, capsys):
    """`python -m benchmarks --quick` measures each subject once or twice and writes the figures as JSON."""
    output = tmp_path / "bench.json"

    assert main(["--quick", "--output", str(output)]) == 0

    assert "cm.run" in capsys.readouterr().out
    assert json.loads(output.read_text())
