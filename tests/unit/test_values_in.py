"""Variables on their way in: one sealed file, mapped and not copied, or a message that names what cannot go."""

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from container_magic.errors import OptionError
from container_magic.values.pack import pack
from container_magic.values.unpack import InputError, read_wanted, unpack


def test_values_come_back_with_what_they_share():
    """Two names of one list are one list inside; arrays keep their dtype and can be written to."""
    shared = [1, 2]
    array = np.arange(100_000)
    values = {"a": shared, "b": {"x": shared}, "c": array, "d": array, "e": array[::3], "f": pd.DataFrame({"q": [1]})}

    found = unpack(pack(values, values))
    found["c"][0] = 7

    assert found["a"] is found["b"]["x"]
    assert found["c"] is found["d"]
    assert array[0] == 0, "what is written inside is not written outside"
    np.testing.assert_array_equal(found["e"], array[::3])
    pd.testing.assert_frame_equal(found["f"], values["f"])


def test_file_is_sealed_and_the_originals_are_out_of_reach():
    """Nobody inside can change or resize what lies there."""
    fd = pack(["x"], {"x": np.arange(100_000)})

    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.truncate(fd, 1)
    os.close(fd)


@pytest.mark.parametrize(
    "large", [np.zeros(10**6), pa.table({"x": np.zeros(10**6)}), pd.DataFrame({"x": np.zeros(10**6)})]
)
def test_large_data_lies_beside_the_pickle_on_pages_of_its_own(large):
    """Arrays, tables and frames: out of band, where a mapping can be handed out as it is."""
    fd = pack(["x"], {"x": large})
    size = os.fstat(fd).st_size
    head = np.frombuffer(os.pread(fd, 40, 0), dtype="=u8")
    os.close(fd)

    assert head[0] < 10_000, "the pickle holds no data"
    assert head[1] == 1
    assert head[3] % 4096 == 0
    assert size == head[3] + head[4] == head[3] + 8_000_000


def _run(source, *fds):
    words = [sys.executable, "-c", textwrap.dedent(source), *map(str, fds)]
    return subprocess.run(words, pass_fds=fds, capture_output=True, text=True, check=False)


def test_reading_takes_no_memory_of_the_readers_own():
    """A hundred megabytes are summed up, and the private memory of the process grows by less than five."""
    fd = pack(["df"], {"df": pd.DataFrame(np.ones((1_310_720, 10)))})
    done = _run(
        """
        import sys, pandas
        from container_magic.values.unpack import unpack
        def private():
            lines = open("/proc/self/status").read().splitlines()
            return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
        before = private()
        df = unpack(int(sys.argv[1]))["df"]
        total = float(df.to_numpy().sum())
        print(total, private() - before < 5 * 1024)
        df.iloc[0, 0] = 5
        print(df.iloc[0, 0])
        """,
        fd,
    )
    os.close(fd)

    assert done.stdout.split() == ["13107200.0", "True", "5.0"], done.stderr


def test_what_main_defines_goes_along():
    """Functions, lambdas and classes of a notebook are not there inside: they travel by value."""
    done = _run(
        """
        import os, subprocess, sys
        from container_magic.values.pack import pack
        scale = 3
        class Point:
            def __init__(self, x): self.x = x
        def times(n): return n * scale
        fd = pack(["p", "f", "g"], {"p": Point(2), "f": times, "g": lambda n: times(n) + 1})
        inside = (
            "import sys; from container_magic.values.unpack import unpack; v = unpack(int(sys.argv[1]));"
            "print(v['p'].x, v['f'](2), v['g'](2))"
        )
        subprocess.run([sys.executable, "-c", inside, str(fd)], pass_fds=[fd], check=True)
        """
    )

    assert done.stdout == "2 6 7\n", done.stderr


class Failing:
    """Cannot be pickled, in its own words."""

    def __reduce__(self):
        raise RuntimeError("not me")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["good", "lock"], "--input lock: a _thread.lock cannot go into a container: TypeError"),
        (["failing"], "Failing cannot go into a container: RuntimeError: not me"),
        (["nested"], "--input nested: a builtins.list cannot go"),
        (["absent"], "--input absent: no variable of this name is defined"),
        (["a b"], "--input 'a b': no name of a variable"),
        (["class"], "no name of a variable"),
        ([7], "no name of a variable"),
    ],
)
def test_what_cannot_go_in_is_named_with_type_and_reason(names, words):
    """One line: which variable, of which type, why."""
    namespace = {"good": 1, "lock": threading.Lock(), "failing": Failing(), "nested": [threading.Lock()], 7: 1}

    with pytest.raises(OptionError) as caught:
        pack(names, namespace)

    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_missing_module_is_named_inside():
    """An object of a module that is only outside says which one it is."""
    done = _run(
        """
        import os, subprocess, sys, tempfile
        from container_magic.values.pack import pack
        folder = tempfile.mkdtemp()
        open(folder + "/only_outside.py", "w").write("class Thing: pass")
        sys.path.insert(0, folder)
        import only_outside
        fd = pack(["x"], {"x": only_outside.Thing()})
        inside = '''
        import sys
        from container_magic.values.unpack import InputError, unpack
        try: unpack(int(sys.argv[1]))
        except InputError as error: print(error)
        '''
        import textwrap
        subprocess.run([sys.executable, "-c", textwrap.dedent(inside), str(fd)], pass_fds=[fd], check=True)
        """
    )

    assert "needs the module 'only_outside', which is not there inside" in done.stdout, done.stderr


def test_names_that_are_wanted_back_travel_along():
    """They are read before the variables are, and leave these as they are."""
    fd = pack(["x"], {"x": 5}, wanted=["y", "größe"])
    assert read_wanted(fd) == ("y", "größe")
    assert unpack(fd) == {"x": 5}


def test_file_without_inputs_is_an_error_of_its_own():
    """What cannot be unpickled says so."""
    fd = os.memfd_create("x")
    os.write(fd, bytes(24) + b"rubbish")

    with pytest.raises(InputError):
        unpack(fd)
