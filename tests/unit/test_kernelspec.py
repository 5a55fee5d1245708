"""Kernelspecs of `contain kernel install`, in real directories and through Jupyter's own KernelSpecManager."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from PIL import Image

from container_magic import cli
from container_magic.errors import HostError, NotFoundError, OptionError
from container_magic.kernel import kernelspec
from container_magic.kernel.command import completions, kernel
from container_magic.kernel.options import parse_kernel
from container_magic.options import OPTIONS, parse_line
from container_magic.options.portable import _WITH_PATHS, portable_words


@pytest.fixture(autouse=True)
def jupyter(tmp_path, monkeypatch):
    """Give Jupyter directories of its own: two to look into, and the user's."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")  # the user's kernels go before those of the environment
    for name in ("JUPYTER_CONFIG_DIR", "XDG_DATA_HOME", "IPYTHONDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "user"))
    monkeypatch.setenv("JUPYTER_PATH", f"{tmp_path / 'first'}:{tmp_path / 'second'}")
    monkeypatch.setattr(kernelspec, "unenforceable", lambda words: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spec(name):
    """Return the kernelspec that Jupyter finds."""
    return KernelSpecManager().get_kernel_spec(name)


def other(directory, name):
    """Write a kernelspec that is not ours."""
    place = Path(directory, "kernels", name)
    place.mkdir(parents=True)
    (place / "kernel.json").write_text('{"argv": ["python"], "display_name": "other", "language": "python"}')
    return str(place)


# --- install ---


def test_installed_kernel_is_found_by_jupyter_and_starts_the_launcher(jupyter):
    """Its command is an absolute path, has the options before the connection file, and nothing that names ipykernel."""
    said = kernel(["install", "--mem", "1G", "--net", "none", "--allow-widgets"])
    assert said == f"installed the kernel container (Python 3 (container)) in {jupyter}/user/kernels/container\n"
    found = spec("container")
    assert found.argv[-7:] == ["--mem", "1G", "--net", "none", "--allow-widgets", "-f", "{connection_file}"]
    assert found.argv[:-7] == [*kernelspec.launcher_command(), "kernel", "start"]
    assert os.path.isabs(found.argv[0])
    assert os.access(found.argv[0], os.X_OK)
    assert not [word for word in found.argv if "ipykernel" in word]
    assert (found.language, found.interrupt_mode, found.env) == ("python", "message", {})
    assert found.metadata["debugger"] is True
    assert found.metadata["container_magic"]["options"] == "--mem 1G --net none --allow-widgets"
    assert "supported_encryption" not in found.metadata
    parse_kernel([*found.argv[found.argv.index("start") + 1 : -1], "/run/kernel.json"])


def test_protocol_version_is_the_one_of_ipykernel():
    """A front end is told what the kernel inside speaks, as far as ipykernel says it."""
    from ipykernel.kernelspec import get_kernel_dict

    written = kernelspec.kernel_json("x", [])
    assert written.get("kernel_protocol_version") == get_kernel_dict().get("kernel_protocol_version")


def test_kernelspec_is_readable_for_others_and_has_logos(jupyter):
    """A kernel for all users is one that they can read; both sizes of the picture are what their names say."""
    old = os.umask(0o022)
    try:
        kernel(["install"])
    finally:
        os.umask(old)
    place = jupyter / "user/kernels/container"
    assert stat.S_IMODE(place.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o644}
    for size in (32, 64):
        with Image.open(place / f"logo-{size}x{size}.png") as picture:
            assert (picture.size, picture.format) == ((size, size), "PNG")
    assert (place / "logo-svg.svg").read_text().startswith("<svg ")


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ([], "user/kernels"),
        (["--user"], "user/kernels"),
        (["--prefix", "env"], "env/share/jupyter/kernels"),
        (["--prefix=env"], "env/share/jupyter/kernels"),
        (["--dir", "first/kernels"], "first/kernels"),
        (["--sys-prefix"], "sys/share/jupyter/kernels"),
        (["--system"], "system/kernels"),
    ],
)
def test_place_of_a_kernel(jupyter, monkeypatch, words, place):
    """User, prefix, environment, system and a directory by name."""
    monkeypatch.setattr(sys, "prefix", str(jupyter / "sys"))
    monkeypatch.setattr("jupyter_core.paths.SYSTEM_JUPYTER_PATH", [str(jupyter / "system")])
    kernel(["install", "--name", "k", *words])
    assert (jupyter / place / "k" / "kernel.json").is_file()


def test_user_with_a_value_is_the_user_inside():
    """--user alone is Jupyter's word for a place, with a value Docker's for who runs the code."""
    kernel(["install", "--user", "--user", "1000:1000", "--mem", "1G"])
    asked = parse_kernel([*spec("container").argv[len(kernelspec.launcher_command()) + 2 : -1], "x"])
    assert asked.spec.process.user == "1000:1000"
    kernel(["install", "--user=1000"])
    assert "--user" in spec("container").argv


def test_paths_are_absolute_and_variables_are_named_only(jupyter, monkeypatch):
    """What was relative to the directory of `install` means the same at start; a secret is not written down."""
    monkeypatch.setenv("TOKEN", "secret")
    (jupyter / "job.env").write_text("PASSWORD=hidden\n")
    words = ["-v", "./data", "-v", "~/out:/out", "--mount", "type=bind,source=./a b,dst=/ab,ro"]
    kernel(["install", *words, "--tmpfs", "/scratch:size=64M", "-e", "TOKEN", "--env-file", "job.env"])
    argv = spec("container").argv
    assert f"{jupyter}/data:{jupyter}/data:ro" in argv
    assert f"{jupyter}/home/out:/out:rw" in argv
    assert f"type=bind,src={jupyter}/a b,dst=/ab,readonly" in argv
    assert argv[argv.index("--env-file") + 1] == f"{jupyter}/job.env"
    assert argv[argv.index("--env") + 1] == "TOKEN"
    written = (jupyter / "user/kernels/container/kernel.json").read_text()
    assert "secret" not in written
    assert "hidden" not in written
    monkeypatch.chdir("/")
    asked = parse_kernel([*argv[argv.index("start") + 1 : -1], "x"])
    assert {mount.destination for mount in asked.spec.mounts} == {f"{jupyter}/data", "/out", "/ab", "/scratch"}
    assert dict(asked.spec.process.env) == {"TOKEN": "secret", "PASSWORD": "hidden"}


def test_every_option_with_a_path_is_made_absolute():
    """A row of the table whose value is a path of the host is known to `portable_words`."""
    with_paths = {option.name for option in OPTIONS if option.completes in ("path", "volume") and option.fronts}
    assert {name for name in with_paths if "kernel" in _fronts(name)} <= set(_WITH_PATHS)


def _fronts(name):
    return next(option.fronts for option in OPTIONS if option.name == name)


def test_value_that_begins_with_a_dash_is_one_word():
    """-1 stays the value of its option."""
    texts = parse_line(["--mem", "1G", "--memory-swap=-1"], "kernel").texts
    assert portable_words(texts, "kernel") == ["--mem", "1G", "--memory-swap=-1"]


def test_path_with_a_comma_survives(jupyter, monkeypatch):
    """--mount quotes it as RFC 4180 says."""
    (jupyter / "a,b").mkdir()
    monkeypatch.chdir(jupyter / "a,b")
    (_, word) = portable_words({"mount": ["type=bind,src=./x,dst=/x"]}, "kernel")
    assert word == f'type=bind,"src={jupyter}/a,b/x",dst=/x'
    assert parse_kernel(["--mount", word, "-f", "x"]).spec.mounts[0].source == f"{jupyter}/a,b/x"


def test_path_with_a_colon_is_refused_for_a_volume(jupyter, monkeypatch):
    """Docker's spelling cannot hold it; --mount can."""
    (jupyter / "a:b").mkdir()
    monkeypatch.chdir(jupyter / "a:b")
    with pytest.raises(OptionError, match="holds a colon; accepted: --mount type=bind"):
        kernel(["install", "-v", "./x:/x"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mem", "lots"], "--mem 'lots'"),
        (["--session", "s"], "--session is not an option of a kernel"),
        (["-f", "x"], "is what Jupyter gives a kernel"),
        (["notebook"], "unexpected argument 'notebook'"),
        (["--name", "a/b"], "--name 'a/b': accepted: letters"),
        (["--name", ".."], "--name '..': accepted: letters"),
        (["--name"], "--name: its value is missing"),
        (["--name", "--mem"], "--name: its value is missing"),
        (["--name", "a", "--name", "b"], "--name is given twice"),
        (["--user", "--sys-prefix"], "--user and --sys-prefix both say where"),
        (["--prefix", "a", "--dir", "b"], "--prefix and --dir both say where"),
        (["--replace=yes"], "it takes no value"),
        (["-e", "A={prefix}"], r"Jupyter replaces \{prefix\} in the command of a kernel"),
    ],
)
def test_malformed_words_install_nothing(jupyter, words, message):
    """They are refused in one line before a file is written."""
    with pytest.raises(OptionError, match=message):
        kernel(["install", *words])
    assert not (jupyter / "user").exists()


def test_kernel_of_somebody_else_is_not_overwritten(jupyter):
    """It takes --replace; a kernel of ours is replaced at once."""
    place = other(jupyter / "user", "python3")
    with pytest.raises(OptionError, match="is a kernel that contain did not make; accepted: another name"):
        kernel(["install", "--name", "python3"])
    assert "contain" not in Path(place, "kernel.json").read_text()
    kernel(["install", "--name", "python3", "--replace", "--mem", "1G"])
    kernel(["install", "--name", "Python3", "--mem", "2G"])
    assert spec("python3").metadata["container_magic"]["options"] == "--mem 2G"


def test_directory_that_cannot_be_written_is_named(jupyter):
    """The message has the path and the reason; nothing else is left there."""
    (jupyter / "file").write_text("")
    with pytest.raises(HostError, match=f"cannot install the kernel in {jupyter}/file/container: "):
        kernel(["install", "--dir", "file"])


def test_display_name_follows_the_name():
    """python3 in a container says that it is in one; another name is shown itself; --display-name goes before both."""
    kernel(["install", "--name", "python3"])
    kernel(["install", "--name", "k"])
    kernel(["install", "--name", "l", "--display-name", "A b"])
    assert [spec(name).display_name for name in ("python3", "k", "l")] == ["Python 3 (container)", "k", "A b"]


def test_host_that_cannot_do_it_is_a_warning(monkeypatch):
    """The kernel is installed, for it may start elsewhere; the reason and the remedy are said."""
    error = HostError("no such limit here", hint="ask root")
    monkeypatch.setattr(kernelspec, "unenforceable", lambda words: error)
    said = kernel(["install"]).splitlines()
    assert said[1:] == ["warning: on this host it would not start: no such limit here", "hint: ask root"]


# --- shadows, list, remove ---


def test_install_says_what_it_shadows_and_by_what_it_is_shadowed(jupyter):
    """The first directory in which Jupyter looks wins; the output names the other."""
    first = other(jupyter / "first", "python3")
    assert f"it is shadowed by {first}: Jupyter starts that one" in kernel(["install", "--name", "python3"])
    assert spec("python3").display_name == "other"
    second = other(jupyter / "second", "two")
    assert f"it shadows {second}\n" in kernel(["install", "--name", "two", "--dir", "first/kernels"])
    assert spec("two").argv[-3] == "start"


def test_advice_of_a_shadowed_kernel_works(jupyter):
    """What the output says would take precedence does."""
    other(jupyter / "first", "python3")
    said = kernel(["install", "--name", "python3"])
    words = said.partition("; ")[2].partition(" takes its place")[0].split()
    kernel(["install", "--name", "python3", *words])
    assert spec("python3").display_name == "Python 3 (container)"


def test_python3_without_a_kernelspec_is_shadowed_too(jupyter, monkeypatch):
    """Jupyter has one of its own when no directory has one."""
    monkeypatch.setattr("jupyter_core.paths.ENV_JUPYTER_PATH", [])
    monkeypatch.setattr("jupyter_core.paths.SYSTEM_JUPYTER_PATH", [])
    assert "python3 that Jupyter has without a kernelspec" in kernel(["install", "--name", "python3"])


def test_place_where_jupyter_does_not_look_is_said():
    """A kernel there is listed by nobody until JUPYTER_PATH names it."""
    assert "does not look there; JUPYTER_PATH" in kernel(["install", "--prefix", "elsewhere"])


def test_list_has_ours_only_and_marks_the_shadowed(jupyter):
    """Every one is listed in Jupyter's order, with options and directory."""
    other(jupyter / "first", "theirs")
    (jupyter / "first/kernels/broken").mkdir()
    (jupyter / "first/kernels/broken/kernel.json").write_text("[1")
    kernel(["install", "--dir", "first/kernels", "--mem", "1G", "-e", "A=b c"])
    kernel(["install", "--dir", "second/kernels"])
    found = json.loads(kernel(["list", "--format", "json"]))
    assert [one["directory"] for one in found] == [
        f"{jupyter}/first/kernels/container",
        f"{jupyter}/second/kernels/container",
    ]
    assert [one["options"] for one in found] == [["--mem", "1G", "--env", "A=b c"], []]
    assert [one["shadowed_by"] for one in found] == ["", f"{jupyter}/first/kernels/container"]
    head, one, two = kernel(["list"]).splitlines()
    assert head.split() == ["NAME", "DISPLAY", "NAME", "OPTIONS", "DIRECTORY"]
    assert "--mem 1G --env 'A=b c'" in one
    assert two.endswith(f"(shadowed by {jupyter}/first/kernels/container)")


def test_list_says_which_kernel_does_not_start_a_container(jupyter):
    """A command that was edited, or whose environment is gone, is marked."""
    kernel(["install"])
    path = jupyter / "user/kernels/container/kernel.json"
    written = json.loads(path.read_text())
    argv = ["/gone/contain", "kernel", "start", "--mem", "1G", "-f", "{connection_file}"]
    path.write_text(json.dumps(written | {"argv": argv}))
    assert "(/gone/contain is not there)" in kernel(["list"])
    path.write_text(json.dumps(written | {"argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]}))
    assert "(its command was changed: it may start without a container)" in kernel(["list"])


def test_without_kernels_list_says_how_to_make_one():
    """An empty table helps nobody."""
    assert kernel(["list"]) == "no kernels; contain kernel install makes one\n"


def test_remove_takes_ours_and_says_what_the_name_is_now(jupyter):
    """A kernel of the same name that was shadowed comes back."""
    second = other(jupyter / "second", "k")
    kernel(["install", "--name", "k", "--dir", "first/kernels"])
    assert kernel(["remove", "K"]) == f"removed {jupyter}/first/kernels/k\nK is now {second}\n"
    assert spec("k").display_name == "other"


def test_remove_refuses_what_is_not_ours(jupyter):
    """The kernel stays."""
    place = other(jupyter / "first", "theirs")
    with pytest.raises(OptionError, match=f"{place} is a kernel that contain did not make"):
        kernel(["remove", "theirs"])
    with pytest.raises(NotFoundError, match="there is no kernel 'none'"):
        kernel(["remove", "none"])
    assert spec("theirs").display_name == "other"


def test_remove_of_a_link_leaves_what_it_points_to(jupyter):
    """As Jupyter's own remove does."""
    kernel(["install", "--dir", "real"])
    (jupyter / "first/kernels").mkdir(parents=True)
    (jupyter / "first/kernels/container").symlink_to(jupyter / "real/container")
    kernel(["remove", "container"])
    assert not (jupyter / "first/kernels/container").is_symlink()
    assert (jupyter / "real/container/kernel.json").is_file()


# --- the launcher's command ---


def test_script_of_another_project_is_not_taken(jupyter, monkeypatch):
    """Beside the interpreter something else may be called contain; -P keeps the notebook's directory off the path."""
    (jupyter / "bin").mkdir()
    monkeypatch.setattr(sys, "executable", str(jupyter / "bin/python"))
    module = [str(jupyter / "bin/python"), "-P", "-m", "container_magic"]
    assert kernelspec.launcher_command() == module
    script = jupyter / "bin/contain"
    script.write_text("#!/bin/sh\necho other\n")
    script.chmod(0o755)
    assert kernelspec.launcher_command() == module
    script.write_text("#!/x/python\nfrom container_magic.cli import main\n")
    assert kernelspec.launcher_command() == [str(script)]


def test_notebook_directory_is_not_where_the_launcher_comes_from(jupyter, monkeypatch):
    """A package of the same name beside the notebook is not imported outside of a container."""
    (jupyter / "container_magic").mkdir()
    (jupyter / "container_magic/__init__.py").write_text("print('hijacked')")
    (jupyter / "container_magic/__main__.py").write_text("")
    monkeypatch.setattr(kernelspec, "_is_our_script", lambda path: False)
    done = subprocess.run([*kernelspec.launcher_command(), "kernel"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: contain kernel install")


# --- words ---


def test_words_behind_kernel(capfd):
    """Help without a word, the near word for a mistyped one, help for each."""
    assert cli.main(["kernel"]) == 0
    assert capfd.readouterr().out.startswith("usage: contain kernel install [OPTIONS]")
    assert cli.main(["kernel", "instal"]) == 125
    assert "did you mean contain kernel install?" in capfd.readouterr().err
    for word in ("install", "list", "remove", "start"):
        assert cli.main(["kernel", word, "--help"]) == 0
        text = capfd.readouterr().out
        assert text.startswith(f"usage: contain kernel {word}")
        assert max(map(len, text.splitlines())) <= 120
        assert ("--mem, --memory" in text) == (word in ("install", "start"))
    for words in (["list", "--format", "xml"], ["remove"], ["remove", "a", "b"], ["remove", "--all"]):
        assert cli.main(["kernel", *words]) == 125
        assert capfd.readouterr().err.startswith("contain: ")


def test_shell_is_offered_the_words_of_each(monkeypatch):
    """Names of our kernels behind remove, options of a kernel behind install and start."""
    kernel(["install", "--name", "mine"])
    offered = completions()
    assert offered["remove"].names() == ["mine"]
    assert offered["install"].options
    assert "--display-name" in offered["install"].words
