"""``--lang`` in real containers: languages that this host has run and fail in their own words, others are refused."""

import shutil

import pytest

import container_magic as cm
from container_magic.languages import LANGUAGES

HELLO = {
    "bash": "echo hello",
    "sh": "echo hello",
    "node": "console.log('hello')",
    "Rscript": "cat('hello\\n')",
    "julia": 'println("hello")',
    "perl": 'print "hello\\n"',
    "ruby": "puts 'hello'",
}
BROKEN = {
    "bash": ("x=1\nnope_nope", "bash", "line 2: nope_nope: command not found"),
    "sh": ("x=1\nnope_nope", "sh", "line 2: nope_nope: not found"),
    "node": ("let a = 1;\nnope_nope", "ReferenceError", "nope_nope is not defined"),
    "Rscript": ("a <- 1\nnope_nope", "Error", "object 'nope_nope' not found"),
    "julia": ("a = 1\nnope_nope", "UndefVarError", "nope_nope"),
    "perl": ("my $a = 1;\nnope_nope();", "perl", "Undefined subroutine &main::nope_nope called at - line 2."),
    "ruby": ("a = 1\nnope_nope", "NameError", "nope_nope"),
}


def _needed(language):
    if shutil.which(language) is None:
        pytest.skip(f"{language} is not installed on this host; recordings of its errors are in tests/unit")


def test_every_language_has_a_program_here():
    """The two tables name the same languages as the package."""
    assert set(HELLO) == set(BROKEN) == set(LANGUAGES)


@pytest.mark.parametrize("language", sorted(LANGUAGES))
class TestLanguage:
    """One language."""

    def test_code_runs(self, run, language):
        """Its output is the report's."""
        _needed(language)
        report = run(HELLO[language], lang=language)
        assert (report.verdict, report.stdout) == ("OK", "hello\n")
        assert report.error is None

    def test_failure_is_the_languages_own(self, run, language):
        """Name and message; the lines stand in stderr and in the traceback."""
        _needed(language)
        code, ename, evalue = BROKEN[language]
        report = run(code, lang=language)
        assert report.verdict == "RUNTIME_ERROR"
        assert report.error.ename == ename
        assert evalue in report.error.evalue
        assert report.error.printed
        assert all(line in report.stderr for line in report.error.traceback)

    def test_missing_program_is_refused_before_anything_starts(self, language, monkeypatch):
        """The message names the program and where it was looked for."""
        from container_magic.runtime import worker

        def never(*_args, **_keywords):
            raise AssertionError("a container was asked for")

        monkeypatch.setattr(worker.Worker, "__init__", never)
        with pytest.raises(cm.OptionError) as caught:
            cm.run("1", lang=language, env={"PATH": "/nowhere:/tmp"})
        assert (
            caught.value.message
            == f"--lang {language}: there is no program {language} inside; looked in /nowhere, /tmp"
        )
        assert language in caught.value.hint


def test_program_of_a_volume_is_found(run, tmp_path):
    """A directory of PATH inside may be a volume."""
    (tmp_path / "perl").write_text("#!/bin/sh\necho mine\n")
    (tmp_path / "perl").chmod(0o755)
    report = run("x", lang="perl", volume=[f"{tmp_path}:/own:ro"], env={"PATH": "/own"})
    assert report.stdout == "mine\n"


def test_link_that_leads_out_of_the_host_tree_is_no_program(tmp_path):
    """It would dangle inside; the hint says where the program is."""
    import dataclasses

    from container_magic.options import from_keywords
    from container_magic.programs import check_language
    from container_magic.rootfs.host import Lower

    (tmp_path / "usr").mkdir()
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/ruby").write_text("#!/bin/sh\n")
    (tmp_path / "opt/ruby").chmod(0o755)
    (tmp_path / "usr/ruby").symlink_to("../opt/ruby")
    spec = from_keywords({"lang": "ruby", "env": {"PATH": str(tmp_path / "usr")}}).spec
    with pytest.raises(cm.OptionError):
        check_language(spec, [Lower(path=str(tmp_path / "usr"), view="")])
    check_language(spec, [Lower(path=str(tmp_path), view="")])
    check_language(dataclasses.replace(spec, process=dataclasses.replace(spec.process, args=("/any",))), [])


def test_other_interpreters_are_read_as_what_they_are(run):
    """A path is judged by the program's name; what is not known says no more than how it ended."""
    report = run("die 'x'", interpreter="/usr/bin/perl")
    assert (report.error.ename, report.error.evalue) == ("perl", "x at - line 1.")
    assert run("x", interpreter="/bin/false").error is None
