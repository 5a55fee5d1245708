"""The provisioner `container-magic`: the command that a real KernelManager would launch with it."""

import asyncio
import json
import os
import sys
from importlib.metadata import entry_points

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import KernelProvisionerFactory
from traitlets.config import Config

from container_magic.errors import ContainError, HostError, OptionError
from container_magic.kernel.kernelspec import launcher_command
from container_magic.kernel.options import parse_kernel
from container_magic.kernel.provisioner import ContainerProvisioner, contained

IPYKERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """Return a function that prepares a start of a kernelspec and returns command, environment and manager."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))

    def launched(*, argv=IPYKERNEL, stanza=True, start=None, manager=None, config=None, **spec):
        place = tmp_path / "kernels" / "wrapped"
        place.mkdir(parents=True, exist_ok=True)
        metadata = {"supported_encryption": ["curve"]}
        if stanza:
            metadata["kernel_provisioner"] = {"provisioner_name": "container-magic", "config": stanza_of(stanza)}
        written = {"argv": argv, "display_name": "d", "language": "python", "metadata": metadata, **spec}
        (place / "kernel.json").write_text(json.dumps(written))
        specs = KernelSpecManager(kernel_dirs=[str(tmp_path / "kernels")])
        made = AsyncKernelManager(kernel_name="wrapped", kernel_spec_manager=specs, config=config, **(manager or {}))

        async def prepare():
            try:
                return await made.pre_start_kernel(**(start or {}))
            finally:
                made.cleanup_connection_file()

        command, keywords = asyncio.run(prepare())
        return command, keywords["env"], made

    yield launched
    KernelProvisionerFactory.clear_instance()


def stanza_of(stanza):
    """Return the ``config`` of a kernelspec: None of it where only the name is given."""
    return {} if stanza is True else stanza


def test_entry_point_is_declared():
    """Jupyter finds the provisioner by its name."""
    (found,) = entry_points(group="jupyter_client.kernel_provisioners", name="container-magic")
    assert found.load() is ContainerProvisioner


@pytest.mark.parametrize("options", ["--mem 1G --net none -e 'A=b c'", ["--mem", "1G", "--net", "none", "-e", "A=b c"]])
def test_launcher_is_started_instead_of_ipykernel(launched, options):
    """The options stand before the connection file, what nbclient appends behind it."""
    extra = ["--HistoryManager.hist_file=:memory:"]
    command, _, manager = launched(stanza={"options": options}, start={"extra_arguments": extra})
    begin = [*launcher_command(), "kernel", "start"]
    assert command[: len(begin)] == begin
    assert command[len(begin) : -3] == ["--mem", "1G", "--net", "none", "-e", "A=b c"]
    assert command[-3:] == ["-f", os.path.realpath(manager.connection_file), *extra]
    assert parse_kernel(command[len(begin) :]).spec.resources.memory_bytes == 2**30


def test_default_provisioner_of_the_environment(launched, monkeypatch):
    """A spec that says nothing is contained through its variable; options are in the server's configuration."""
    monkeypatch.setenv("JUPYTER_DEFAULT_PROVISIONER_NAME", "container-magic")
    KernelProvisionerFactory.clear_instance()
    config = Config({"ContainerProvisioner": {"options": "--mem 512M"}})
    command, _, _ = launched(stanza=False, config=config)
    assert command[len(launcher_command()) :][:5] == ["kernel", "start", "--mem", "512M", "-f"]


def test_variables_of_the_kernelspec_reach_the_inside(launched):
    """They are set for the launcher, which hands on the ones that are named."""
    command, env, _ = launched(stanza={"options": "-e SEED=1"}, env={"OMP_NUM_THREADS": "2"})
    assert env["OMP_NUM_THREADS"] == "2"
    words = command[command.index("start") + 1 : command.index("-f")]
    assert words == ["--env", "OMP_NUM_THREADS", "-e", "SEED=1"]


@pytest.mark.parametrize(
    "behind_the_interpreter",
    [["-Xfrozen_modules=off", "-m", "ipykernel_launcher"], ["-X", "frozen_modules=off", "-m", "ipykernel"]],
)
def test_commands_of_python_kernels_are_known(behind_the_interpreter):
    """Both modules, and what ipykernel's own install writes for its debugger."""
    argv = [sys.executable, *behind_the_interpreter, "-f", "x", "--debug"]
    assert contained(argv, ["--mem", "1G"]) == [
        *launcher_command(), "kernel", "start", "--mem", "1G", "-f", "x", "--debug",
    ]  # fmt: skip
    assert contained([sys.executable, "-m", "ipykernel_launcher", "--f=x"], [])[-2:] == ["-f", "x"]


def test_python_of_the_kernelspec_is_kept():
    """The notebook gets the packages that its kernelspec promises; Jupyter's own words mean its own interpreter."""
    found = contained(["/other/bin/python3.12", "-m", "ipykernel_launcher", "-f", "x"], [])
    assert found == ["/other/bin/python3.12", "-P", "-m", "container_magic", "kernel", "start", "-f", "x"]
    for name in ("python", "python3"):
        assert contained([name, "-m", "ipykernel_launcher", "-f", "x"], [])[:-4] == launcher_command()


def test_kernel_of_contain_keeps_its_own_options():
    """Where the provisioner is the default of a server, its options are the ones that a kernel does not say itself."""
    own = ["kernel", "start", "--mem", "2G", "-f", "x"]
    for begin in (launcher_command(), ["/other/python", "-P", "-m", "container_magic"]):
        found = contained([*begin, *own], ["--mem", "1G", "--pids", "64"])
        assert found == [*begin, "kernel", "start", "--mem", "1G", "--pids", "64", "--mem", "2G", "-f", "x"]
    resources = parse_kernel(found[found.index("start") + 1 :]).spec.resources
    assert (resources.memory_bytes, resources.pids) == (2**31, 64)
    with pytest.raises(OptionError, match="cannot be put into a container"):
        contained(["/bin/sh", *own], [])


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"],
        ["conda", "run", "python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        ["python", "-m", "bash_kernel", "-f", "{connection_file}"],
        ["python", "-m", "ipykernel_launcher"],
        ["python", "-m", "ipykernel_launcher", "--debug", "-f", "{connection_file}"],
        ["python", "-m", "ipykernel_launcher", "-f"],
        ["python", "-O", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        ["python", "-X", "dev", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        ["python", "-X"],
        ["python", "ipykernel_launcher.py", "-f", "{connection_file}"],
    ],
)
def test_other_kernels_are_refused(launched, tmp_path, argv):
    """What cannot be put into a container is not started, and no connection file is left for it."""
    with pytest.raises(OptionError, match=r"cannot be put into a container: .*accepted: python -m ipykernel_launcher"):
        launched(argv=argv)
    assert not list((tmp_path / "runtime").glob("*.json"))


@pytest.mark.parametrize(
    ("stanza", "message"),
    [
        ({"options": "--mem lots"}, "--mem 'lots'"),
        ({"options": "--session s"}, "--session is not an option of a kernel"),
        ({"options": "x"}, "unexpected argument 'x'"),
        ({"options": "-- x"}, "unexpected argument"),
        ({"options": "-f x"}, "unknown option '-f'"),
        ({"options": "'"}, "cannot be split"),
        ({"mem": "1G"}, "unknown key 'mem'; accepted"),
    ],
)
def test_malformed_configuration_starts_nothing(launched, stanza, message):
    """An option that is ignored would be a limit that somebody believes in."""
    with pytest.raises(ContainError, match=message):
        launched(stanza=stanza)


def test_file_of_variables_is_relative_to_the_notebook(launched):
    """It is the launcher that reads it: the server has another directory."""
    command, _, _ = launched(stanza={"options": "--env-file not-here.env"})
    assert command[command.index("--env-file") + 1] == "not-here.env"


def test_connection_is_not_encrypted(launched):
    """The launcher reads messages: it has no CurveZMQ, and a manager that requires it starts nothing."""
    if not AsyncKernelManager.class_traits().get("transport_encryption"):
        pytest.skip("this jupyter_client has no transport_encryption")
    _, _, manager = launched(manager={"transport_encryption": "auto"})
    assert manager.curve_publickey is None
    with pytest.raises(HostError, match="a kernel in a container has no CurveZMQ"):
        launched(manager={"transport_encryption": "required"})
