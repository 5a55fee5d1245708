"""Normal Python keeps working inside."""

from __future__ import annotations

import subprocess
import sys

import pytest

WORKS = {
    "threads": """
        import threading
        results = []
        threads = [threading.Thread(target=lambda i=i: results.append(i * i)) for i in range(20)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert sorted(results) == [i * i for i in range(20)]
    """,
    "thread pool": """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(abs, range(-50, 0))) == list(range(50, 0, -1))
    """,
    "subprocess": """
        import subprocess, sys
        assert subprocess.check_output([sys.executable, '-c', 'print(6*7)'], text=True) == '42\\n'
        assert subprocess.run('exit 3', shell=True).returncode == 3
        p = subprocess.Popen(['cat'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert p.communicate(b'x' * 300_000)[0] == b'x' * 300_000
    """,
    "os.fork": """
        import os
        pid = os.fork()
        if pid == 0: os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    """,
    "locks between processes": """
        import multiprocessing as mp
        ctx = mp.get_context('fork')
        value, lock, event, queue = ctx.Value('i', 0), ctx.Lock(), ctx.Event(), ctx.Queue()
        def work():
            event.wait()
            for _ in range(200):
                with lock: value.value += 1
            queue.put('done')
        children = [ctx.Process(target=work) for _ in range(4)]
        for c in children: c.start()
        event.set()
        assert [queue.get(timeout=20) for _ in children] == ['done'] * 4
        for c in children: c.join()
        assert value.value == 800
    """,
    "shared memory": """
        from multiprocessing import shared_memory, Process, get_context
        block = shared_memory.SharedMemory(create=True, size=1 << 20)
        def fill():
            other = shared_memory.SharedMemory(name=block.name); other.buf[:4] = b'abcd'; other.close()
        p = get_context('fork').Process(target=fill); p.start(); p.join()
        assert bytes(block.buf[:4]) == b'abcd' and p.exitcode == 0
        block.close(); block.unlink()
    """,
    "pickled lambdas fail as everywhere": """
        import pickle
        class A: pass
        a = pickle.loads(pickle.dumps(A()))
        assert type(a) is A and A.__module__ == '__main__'
    """,
    "asyncio": """
        import asyncio
        async def main():
            assert await asyncio.gather(*(asyncio.sleep(0.01, i) for i in range(50))) == list(range(50))
            p = await asyncio.create_subprocess_exec('echo', 'hi', stdout=asyncio.subprocess.PIPE)
            assert (await p.communicate())[0] == b'hi\\n'
            async def answer(reader, writer):
                writer.write((await reader.readline()).upper()); await writer.drain(); writer.close()
            server = await asyncio.start_server(answer, '127.0.0.1', 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b'hello\\n')
            assert await reader.readline() == b'HELLO\\n'
            writer.close(); server.close()
            assert await asyncio.to_thread(lambda: 5) == 5
        asyncio.run(main())
    """,
    "sockets": """
        import socket, threading
        a, b = socket.socketpair(); a.sendall(b'x'); assert b.recv(1) == b'x'
        with socket.create_server(('localhost', 0)) as server:
            threading.Thread(target=lambda: server.accept()[0].sendall(b'hi')).start()
            assert socket.create_connection(server.getsockname()).recv(2) == b'hi'
        with socket.socket(socket.AF_UNIX) as s: s.bind('/tmp/sock'); s.listen()
    """,
    "http server": """
        import http.server, threading, urllib.request
        server = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert urllib.request.urlopen(f'http://127.0.0.1:{server.server_port}/').status == 200
        server.shutdown()
    """,
    "sqlite": """
        import sqlite3
        db = sqlite3.connect('/tmp/x.db'); db.execute('create table t (a)')
        db.execute('insert into t values (42)'); db.commit()
        db.execute('pragma journal_mode=wal'); db.execute('insert into t values (43)'); db.commit()
        assert sqlite3.connect('/tmp/x.db').execute('select sum(a) from t').fetchone() == (85,)
    """,
    "tempfile": """
        import os, tempfile
        with tempfile.NamedTemporaryFile('w+') as f: f.write('x'); f.flush(); assert open(f.name).read() == 'x'
        with tempfile.TemporaryFile() as f: f.write(b'x')
        with tempfile.TemporaryDirectory() as d: open(d + '/x', 'w').close(); os.rename(d + '/x', d + '/y')
        assert tempfile.gettempdir() == '/tmp'
    """,
    "mmap": """
        import mmap, os
        m = mmap.mmap(-1, 1 << 20); m[:2] = b'hi'; assert m[:2] == b'hi'
        with open('/tmp/m', 'w+b') as f:
            f.truncate(8192); m = mmap.mmap(f.fileno(), 8192); m[0:1] = b'x'; m.flush()
        assert open('/tmp/m', 'rb').read(1) == b'x'
    """,
    "locale": """
        import locale, sys
        locale.setlocale(locale.LC_ALL, '')
        assert sys.stdout.encoding == 'utf-8' and sys.getfilesystemencoding() == 'utf-8'
        assert locale.getpreferredencoding(False).lower() == 'utf-8'
        open('/tmp/ü€', 'w').write('ü')
        assert open('/tmp/ü€').read() == 'ü'
    """,
    "time zone": """
        import datetime, time
        assert abs(datetime.datetime.now().timestamp() - time.time()) < 5
        import zoneinfo
    """,
    "ssl": """
        import ssl, hashlib
        context = ssl.create_default_context()
        assert hashlib.sha256(b'').hexdigest().startswith('e3b0c442')
    """,
    "numpy": """
        import numpy as np
        a = np.random.default_rng(0).random((300, 300))
        assert np.allclose(a @ np.linalg.inv(a), np.eye(300), atol=1e-6)
        np.save('/tmp/a.npy', a); assert np.array_equal(np.load('/tmp/a.npy', mmap_mode='r'), a)
    """,
    "pandas": """
        import pandas as pd
        frame = pd.DataFrame({'a': ['x', 'y', 'x'], 'b': [1, 2, 3]})
        frame.to_csv('/tmp/f.csv', index=False)
        assert pd.read_csv('/tmp/f.csv').groupby('a').b.sum().to_dict() == {'x': 4, 'y': 2}
    """,
    "signal handlers": """
        import os, signal, time
        seen = []
        signal.signal(signal.SIGUSR1, lambda n, f: seen.append(n))
        os.kill(os.getpid(), signal.SIGUSR1)
        signal.signal(signal.SIGALRM, lambda n, f: seen.append(n))
        signal.setitimer(signal.ITIMER_REAL, 0.05); time.sleep(0.3)
        assert seen == [signal.SIGUSR1, signal.SIGALRM]
        child = os.fork()
        if child == 0: time.sleep(30); os._exit(0)
        os.kill(child, signal.SIGTERM)
        assert os.waitpid(child, 0)[1] == signal.SIGTERM
    """,
    "sigchld": """
        import os, signal, time
        seen = []
        signal.signal(signal.SIGCHLD, lambda *a: seen.append(1))
        if os.fork() == 0: os._exit(0)
        time.sleep(0.2)
        assert seen and os.wait()
    """,
    "exec": """
        import dis, inspect
        exec('def f(): return 5'); assert f() == 5
        def g(): return 7
        assert g() == 7 and __name__ == '__main__' and 'g' in globals()
    """,
    "dataclasses and typing": """
        from __future__ import annotations
        import dataclasses, typing
        @dataclasses.dataclass
        class A:
            x: int = 1
        assert typing.get_type_hints(A) == {'x': int} and A().x == 1
    """,
    "inspect finds the source": """
        import inspect
        def f():
            return 'here'
        assert "return 'here'" in inspect.getsource(f)
    """,
    "recursion": """
        def down(n): return down(n + 1)
        try: down(0)
        except RecursionError: pass
        else: raise AssertionError
    """,
    "ctypes": """
        import ctypes
        assert ctypes.CDLL(None).getpid() > 1
        assert ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 5)() == 5
    """,
    "random and uuid": """
        import os, random, secrets, uuid
        assert len({secrets.token_hex() for _ in range(3)} | {uuid.uuid4() for _ in range(3)}) == 6
    """,
    "files": """
        import os, pathlib, shutil
        os.makedirs('/tmp/a/b'); pathlib.Path('/tmp/a/b/c').write_text('x'); shutil.copytree('/tmp/a', '/tmp/d')
        os.symlink('/tmp/a', '/tmp/l'); os.link('/tmp/a/b/c', '/tmp/h'); assert os.stat('/tmp/h').st_nlink == 2
        shutil.rmtree('/tmp/a'); os.rename('/tmp/d', '/tmp/e'); os.chmod('/tmp/e', 0o700)
        os.rmdir('/var/log') if not os.listdir('/var/log') else None
        os.makedirs('/var/log', exist_ok=True); open('/var/log/x', 'w').close()
        import fcntl
        with open('/tmp/lock', 'w') as f: fcntl.flock(f, fcntl.LOCK_EX); fcntl.lockf(f, fcntl.LOCK_EX)
    """,
    "pty": """
        import os, pty
        out = []
        def read(fd):
            data = os.read(fd, 1024); out.append(data); return data
        pty.spawn(['sh', '-c', 'test -t 0 && echo tty'], read)
        assert b'tty' in b''.join(out)
    """,
    "posix message of wait3": """
        import os, resource
        if os.fork() == 0: os._exit(0)
        assert os.wait3(0)[2].ru_maxrss > 0
        assert os.cpu_count() >= 1 and os.sched_getaffinity(0)
    """,
    "getpass and pwd": """
        import getpass, pwd, os
        assert pwd.getpwuid(os.getuid()).pw_dir == os.environ['HOME']
        assert os.path.expanduser('~') == os.environ['HOME'] and getpass.getuser()
    """,
}


@pytest.mark.parametrize("name", WORKS)
def test_works_inside(run, name):
    """What Python does outside it does inside."""
    report = run(WORKS[name], mem="512M")

    assert report.ok, report.stderr or report


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_pool(run, method):
    """A pool works with every start method, the main module being guarded as it has to be everywhere."""
    report = run(
        f"""
        import multiprocessing as mp
        def square(x): return x * x
        if __name__ == '__main__':
            with mp.get_context('{method}').Pool(2) as pool:
                print(sum(pool.map(square, range(100))))
        """,
        mem="512M",
    )

    assert (report.stdout, report.ok) == ("328350\n", True), report.stderr


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_process_pool_executor(run, method):
    """concurrent.futures with fresh interpreters, its shared memory and locks too."""
    report = run(
        f"""
        import multiprocessing as mp
        from concurrent.futures import ProcessPoolExecutor
        def f(x): return x + 1
        def locked(lock, value):
            with lock: value.value += 1
        if __name__ == '__main__':
            ctx = mp.get_context('{method}')
            with ProcessPoolExecutor(2, mp_context=ctx) as pool:
                print(list(pool.map(f, range(3))))
            lock, value = ctx.Lock(), ctx.Value('i', 0)
            children = [ctx.Process(target=locked, args=(lock, value)) for _ in range(2)]
            for c in children: c.start()
            for c in children: c.join()
            print(value.value)
        """,
        mem="512M",
    )

    assert report.stdout == "[1, 2, 3]\n2\n", report.stderr


def test_atexit_handlers_run_in_reverse_order(run):
    """At the end: threads joined, then exit handlers, the last registered first."""
    report = run("import atexit; atexit.register(print, 'first'); atexit.register(print, 'second'); print('code')")

    assert report.stdout == "code\nsecond\nfirst\n"


def test_atexit_handlers_run_after_an_exception_and_after_exit(run):
    """Exit handlers run however the code ends by itself."""
    for ending in ("1/0", "raise SystemExit(4)"):
        assert run(f"import atexit; atexit.register(print, 'bye'); {ending}").stdout == "bye\n"


def test_exception_in_an_exit_handler_is_shown(run):
    """Python prints it and goes on."""
    report = run("import atexit; atexit.register(print, 'other'); atexit.register(lambda: 1/0)")

    assert "ZeroDivisionError" in report.stderr
    assert report.stdout == "other\n"


def test_non_daemon_threads_are_joined(run):
    """The run lasts until its threads end."""
    report = run("import threading, time; threading.Thread(target=lambda: (time.sleep(0.3), print('late'))).start()")

    assert report.stdout == "late\n"
    assert report.usage.wall_seconds >= 0.3


def test_daemon_threads_do_not_hold_the_end_back(run):
    """A daemon thread ends with the code."""
    report = run("import threading, time; threading.Thread(target=time.sleep, args=(50,), daemon=True).start()")

    assert report.ok
    assert report.usage.wall_seconds < 20


def test_threads_exception_goes_to_stderr(run):
    """An uncaught exception in a thread is printed, the run is OK, as with ``python FILE``."""
    report = run("import threading; t = threading.Thread(target=lambda: 1/0); t.start(); t.join()")

    assert report.ok
    assert "ZeroDivisionError" in report.stderr


def test_stdin_is_at_its_end(run):
    """input() raises EOFError as it does for ``python FILE < /dev/null``."""
    report = run("input()")

    assert report.error.ename == "EOFError"


def test_deep_recursion_error_is_a_normal_error(run):
    """A RecursionError is reported with a traceback of bearable length."""
    report = run("def f(): f()\nf()")

    assert report.error.ename == "RecursionError"
    assert len(report.stderr) < 100_000


def test_stack_overflow_is_a_signal(run):
    """Code that breaks the interpreter's stack is SIGNALED and not an error of the sandbox."""
    report = run(
        "import sys; sys.setrecursionlimit(10**9)\nf = lambda: f()\nx = None\nfor _ in range(10**6): x = [x]\nrepr(x)"
    )

    assert report.verdict in ("SIGNALED", "RUNTIME_ERROR")


def test_module_path_holds_nothing_of_ours(inside):
    """sys.path, sys.modules and the environment of imports are those of a plain interpreter."""
    path, modules, main = inside(
        """
        import sys
        ours = [name for name in sys.modules if 'container_magic' in name]
        answer([sys.path, ours, sorted(vars(sys.modules['__main__']))])
        """
    )

    assert not [entry for entry in path if ".container_magic" in entry]
    assert modules == []
    assert {name for name in main if name.startswith("_")} <= {
        "__annotations__", "__builtins__", "__cached__", "__doc__", "__file__", "__loader__", "__name__", "__package__",
        "__spec__", "_answer", "_errno", "_json",
    }  # fmt: skip


def test_importing_the_package_inside_starts_afresh(inside):
    """``import container_magic`` finds the installed package or nothing, never the runtime's live modules."""
    found = inside(
        """
        try:
            import container_magic
        except ImportError:
            answer('not installed')
        else:
            answer(container_magic.__file__)
        """
    )

    assert "/.container_magic" not in found


def test_no_module_of_a_users_choice_is_imported_before(inside):
    """The interpreter is warm and clean: of the environment's packages it has loaded what a plain start loads."""
    found = "sorted(n for n, m in sys.modules.items() if 'site-packages' in str(getattr(m, '__file__', '')))"
    source = f"import sys; found = {found}"
    plain = subprocess.check_output([sys.executable, "-c", f"{source}; print(*found)"], text=True).split()

    assert set(inside(f"{source}; answer(found)")) <= set(plain)


def test_standard_streams_are_usable_objects(inside):
    """Names, encodings, file numbers, buffers and reconfigure work as usual."""
    found = inside(
        """
        import sys
        sys.stdout.reconfigure(line_buffering=True)
        sys.stdout.buffer.write(b''); sys.stdout.buffer.flush()
        print('x', file=sys.__stderr__)
        answer([sys.stdin.fileno(), sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.encoding, sys.stdout.isatty(),
                sys.__stdout__ is not None, sys.stdout.writable(), sys.stdin.readable()])
        """
    )

    assert found == [0, 1, 2, "utf-8", False, True, True, True]


def test_binary_and_text_output_keep_their_order(run):
    """Print and sys.stdout.buffer.write mix in the order in which they were called."""
    report = run("import sys\nfor i in range(5):\n    print(i)\n    sys.stdout.buffer.write(b'b\\n')")

    assert report.stdout == "".join(f"{i}\nb\n" for i in range(5))


def test_warnings_are_shown_once_with_the_line(run):
    """A warning names its line of the code."""
    report = run("import warnings\nwarnings.warn('careful')")

    assert "UserWarning: careful" in report.stderr
    assert "<cell>:2" in report.stderr


def test_traceback_module_knows_the_source(run):
    """Code that prints its own tracebacks sees its own lines."""
    report = run(
        "import sys, traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc(file=sys.stdout)"
    )

    assert "    1 / 0" in report.stdout


def test_source_with_a_coding_line_and_a_bom(run):
    """PEP 263 holds."""
    assert run(b"# -*- coding: latin-1 -*-\nprint(ascii('\xe4'))").stdout == "'\\xe4'\n"
    assert run("\ufeffprint('bom')".encode()).stdout == "bom\n"


def test_windows_line_ends(run):
    """CRLF source runs."""
    assert run("x = 1\r\nif x:\r\n    print('ok')\r\n").stdout == "ok\n"


def test_fork_without_exec_runs_the_rest_twice(run):
    """A forked child that falls off the end ends quietly: its output once, no second report."""
    report = run("import os, sys\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint('child' if not pid else 'parent')")

    assert sorted(report.stdout.split()) == ["child", "parent"]
    assert report.ok
