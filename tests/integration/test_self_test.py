"""``contain doctor --self-test``: what it says is what happened, and an attack that gets through is a failure."""

from __future__ import annotations

import json

import pytest

import container_magic as cm
from container_magic.errors import HostError, OptionError
from container_magic.verbs import self_test as module
from container_magic.verbs.doctor_words import parse_words


def test_every_attack_is_held(contain):
    """On a host that passes the other tests no attack gets through: exit code 0, a line each."""
    done = contain("doctor", "--self-test")
    lines = done.stdout.decode().splitlines()

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(lines) >= 12
    assert all(line.startswith(("held ", "not applicable ")) for line in lines), lines
    assert sum(line.startswith("held ") for line in lines) >= 10


def test_json_has_the_same(contain):
    """``--format json`` gives name, result and detail of each."""
    done = contain("doctor", "--self-test", "--format", "json")
    outcomes = json.loads(done.stdout)

    assert {frozenset(outcome) for outcome in outcomes} == {frozenset(("name", "result", "detail"))}
    assert {outcome["result"] for outcome in outcomes} <= {"held", "not applicable"}


@pytest.fixture
def attack(monkeypatch):
    """Return a function that lets the self-test try one attack instead of its own."""

    def attack(source: str, **keywords) -> cm.RunReport:
        only = module._Attack(name="an attack", source=source, **keywords)
        monkeypatch.setattr(module, "_attacks", lambda directory, port: [only])
        return next(iter(module.self_test()))

    return attack


def test_what_got_through_is_said(attack):
    """An attack that succeeds is FAILED and shows what it got, without control characters."""
    outcome = attack("got('can read /usr\\x1b[31m', os.listdir, '/usr')")

    assert (outcome.result, outcome.detail) == ("FAILED", "can read /usr [31m")


def test_an_attack_that_breaks_off_is_no_success_of_ours(attack):
    """An attack with an error of its own proves nothing: FAILED."""
    assert attack("1 / 0").result == "FAILED"


def test_wrong_verdict_is_a_failure(attack):
    """An attack on a limit that ends well is FAILED."""
    judge = module._unless(lambda report: report.verdict == "MEMORY_LIMIT")

    assert attack("pass", judge=judge).result == "FAILED"


def test_what_this_host_cannot_enforce_is_not_applicable(attack, monkeypatch):
    """A limit that is refused here is not applicable, with the reason."""

    def refuse(source, **options):
        if options:
            raise HostError("cannot enforce --mem 64M: there is no memory controller")
        return cm.run(source)

    monkeypatch.setattr(module, "run", refuse)
    outcome = attack("pass")

    assert outcome.result == "not applicable"
    assert "no memory controller" in outcome.line()


def test_other_machines_attacks_are_not_applicable(attack):
    """An attack that only exists elsewhere is not applicable."""
    assert attack("pass", machines=("elsewhere",)).result == "not applicable"


def test_a_failure_is_exit_code_1(monkeypatch, capfd):
    """The command ends with 1 when one attack got through."""
    from container_magic import cli

    monkeypatch.setattr(
        module, "_attacks", lambda directory, port: [module._Attack(name="an attack", source="print(1)")]
    )

    assert cli.main(["doctor", "--self-test"]) == 1
    assert capfd.readouterr().out == "FAILED          an attack: 1\n"


@pytest.mark.parametrize("words", [["--self-tset"], ["--format"], ["--format", "xml"], ["--self-test", "x"]])
def test_unknown_words_are_refused(words):
    """What doctor does not take is one line that names it."""
    with pytest.raises(OptionError, match="does not take"):
        parse_words(words)


def test_the_magic_shows_the_same_lines():
    """``%contain doctor --self-test`` returns the lines that the command prints."""
    from container_magic.line_verbs import _doctor

    assert "held            read files of the host" in _doctor(["--self-test"]).splitlines()
