"""What tests share: data made on the spot, a script run in this process, the real data, and the table of faults."""

import contextlib
import os
import signal
import subprocess
import warnings
from functools import partial
from pathlib import Path

import pytest

# The workers of pytest-xdist share out the cores, before any of them imports torch.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

from tests.helpers import child, tiny

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser):
    parser.addoption("--fuzz-examples", type=int, metavar="N", help="so many examples a kind for tests/test_fuzz_*.py")


@pytest.fixture(scope="session")
def made_up() -> tiny.Tiny:
    """600 training and 200 test images, not to be changed."""
    return tiny.make()


@pytest.fixture
def offline(monkeypatch, made_up) -> tiny.Tiny:
    """The made-up data, whose checksums count as the published ones here; no other source is within reach."""
    from fmnist import download

    def out_of_reach(_private: Path, _log) -> Path:
        raise download.Unavailable("out of reach")

    monkeypatch.setattr(download, "FILES", tiny.files_table(made_up))
    monkeypatch.setattr(download, "SYSTEM_COPY", Path("/nonexistent/fashion-mnist"))
    monkeypatch.setattr(download, "_download", out_of_reach)
    monkeypatch.setattr(download, "_fetch_package", out_of_reach)
    return made_up


@pytest.fixture
def run_here(capfd, monkeypatch):
    """Call a script's `main` as the script does, in this process: a function of its arguments that returns what
    `subprocess.run` would."""
    import fashionmnist
    from fmnist import errors

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(arguments, main=fashionmnist.main) -> subprocess.CompletedProcess:
        capfd.readouterr()
        exit_code = errors.run_main(lambda: main([str(word) for word in arguments]))
        return subprocess.CompletedProcess(arguments, exit_code, *capfd.readouterr())

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave out the pictures, where a test is not about them: they take seconds."""
    from fmnist.figures import album

    for name in ("draw_dataset", "draw_models", "networks_to_look_into"):
        monkeypatch.setattr(album, name, lambda *_: [])


@pytest.fixture
def only_loads(monkeypatch):
    """End the run when the data are loaded, where a test is about nothing that comes after."""
    import fashionmnist
    from fmnist import data

    monkeypatch.setattr(fashionmnist, "experiment", lambda options, _folder: data.load(options.data_dir))


@pytest.fixture
def never_loads(monkeypatch):
    """A run that gets as far as loading the data fails the test."""
    from fmnist import data

    monkeypatch.setattr(data, "load", lambda *_: pytest.fail("the run went on"))


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """A data folder and an output folder, neither of them there yet."""
    return tmp_path / "data", tmp_path / "out"


@pytest.fixture
def data_is_there(folders, offline) -> None:
    """The made-up data lie in the data folder."""
    tiny.write_torchvision(offline, folders[0])


@pytest.fixture
def earlier_run(folders) -> None:
    """An earlier run left something in the output folder."""
    for name, body in child.EARLIER_RUN.items():
        path = folders[1] / name
        path.parent.mkdir(parents=True)
        path.write_bytes(body)


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    """Where real trainings are interrupted; see tests/helpers/bench.py."""
    from tests.helpers.bench import Bench

    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="session")
def held(bench, tmp_path_factory):
    """A network whose training waits until it is let go; see tests/helpers/held.py."""
    from tests.helpers.held import Held

    return Held(bench, tmp_path_factory.mktemp("held"))


@pytest.fixture(scope="session")
def fuzz(request):
    """A function of a usual number of examples, a strategy and a test that is called with so many of its values."""
    return partial(_fuzz, request.config.getoption("--fuzz-examples"))


def _fuzz(examples: int | None, usual: int, strategy, test) -> None:
    """Call `test` with values of `strategy`; any exception but Refused is a failure."""
    from hypothesis import HealthCheck, Phase, given, settings

    from fmnist.errors import Refused

    @settings(
        max_examples=examples or usual,
        derandomize=examples is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(strategy)
    def property_(value):
        with warnings.catch_warnings(), contextlib.suppress(Refused):
            warnings.simplefilter("error", UserWarning)  # it would be a second line on standard error
            test(value)

    property_()


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """The folder that holds the published data set; fetched if need be. Skips where no source can be reached."""
    from fmnist import data
    from fmnist.errors import Refused

    try:
        data.load(ROOT / "data")
    except Refused as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the real data cannot be had: {reason}")
    return ROOT / "data"


@pytest.fixture(scope="session")
def real_data(real_folder):
    """The published data set, as `fmnist.data.load` returns it."""
    from fmnist import data

    return data.load(real_folder)


# The table of faults. A test that injects fault N is marked @pytest.mark.fault(N, "in words"); one that injects it more
# than once says how often: record_property("injections", 20).


def pytest_collection_modifyitems(items):
    for item in items:
        item.user_properties += [("fault", mark.args) for mark in item.iter_markers("fault")]


def pytest_terminal_summary(terminalreporter):
    rows = {}
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.getreports(outcome):
            properties = getattr(report, "user_properties", [])  # a file that cannot be imported has none
            times = dict(properties).get("injections", 1)
            for number, words in (value for name, value in properties if name == "fault"):
                row = rows.setdefault(number, {"words": words, "injected": 0, "survived": 0, "files": set()})
                row["injected"] += times
                row["survived"] += times * (outcome == "passed")
                row["files"].add(f"`{Path(report.location[0]).name}`")
    if rows:
        terminalreporter.section("faults injected")
        terminalreporter.write_line("| # | fault | injected | survived | test file |")
        terminalreporter.write_line("| -: | ----- | -------: | -------: | --------- |")
    for number, row in sorted(rows.items()):
        files = ", ".join(sorted(row["files"]))
        terminalreporter.write_line(f"| {number} | {row['words']} | {row['injected']} | {row['survived']} | {files} |")
