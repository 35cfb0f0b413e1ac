"""docs/threats.md names tests that exist, and what it says is nowhere in the code is nowhere in the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_structure import PACKAGES, imports_of, parsed

THREATS = (ROOT / "docs" / "threats.md").read_text()
# modules that run, or may be made to run, what they read
NEVER_IMPORTED = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle", "telnetlib", "xmlrpc"}
# what ruff's security rules are told to overlook in the packages, each with its reason beside it
OVERLOOKED = {
    ("data_shards/browse/page.py", "S704"),
    ("serving/client.py", "S311"),
    ("serving/replicas/shadow.py", "S311"),
    ("serving/report/page.py", "S704"),
    ("cluster/demo.py", "S311"),
}


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def dangers_in(tree: ast.AST, *, in_serving: bool = False) -> Iterator[str]:
    """What is called there that runs what it reads, or may."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "tempfile.mktemp"):
                yield name
            if name.endswith("torch.load") and options.get("weights_only") != "True":
                yield f"{name} without weights_only=True"
            if name in ("np.load", "numpy.load") and options.get("allow_pickle") != "False":
                yield f"{name} without allow_pickle=False"
            if name.startswith("yaml.") and name.split(".")[1] in ("load", "load_all", "unsafe_load", "full_load"):
                yield f"{name} instead of yaml.safe_load"
            if name.endswith((".extractall", ".unpack_archive")):
                yield f"{name} of what others packed"
            for option in ("shell", "allow_pickle", "trust_remote_code"):
                if options.get(option) == "True":
                    yield f"{name} with {option}=True"
            if options.get("verify") == "False" or options.get("weights_only") == "False":
                yield f"{name} with a check turned off"
            if in_serving and name.endswith(".recv") and not node.args:
                yield f"{name}, which unpickles what a child sends"
        elif in_serving and isinstance(node, ast.ImportFrom) and "ProcessPoolExecutor" in [alias.name for alias in node.names]:
            yield "ProcessPoolExecutor, which unpickles what a child sends"


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", THREATS)
    assert len(named) > 30
    missing = [
        f"{path}::{name}" for path, name in named if not re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_every_line_of_the_tables_names_a_test() -> None:
    tables = [part for part in THREATS.split("## ") if "| shown by |" in part]
    lines = [
        line
        for part in tables
        for line in part.splitlines()
        if line.startswith("| ") and not line.startswith(("| asset", "| ---"))
    ]
    assert len(lines) > 20
    assert [line[:80] for line in lines if "::" not in line] == []


def test_nothing_that_runs_what_it_reads_is_called() -> None:
    found = {}
    for path in modules():
        name = path.relative_to(ROOT).as_posix()
        if dangers := [*dangers_in(parsed(path), in_serving=name.startswith("serving/"))]:
            found[name] = dangers
        if forbidden := imports_of(path) & NEVER_IMPORTED:
            found.setdefault(name, []).extend(sorted(forbidden))
    assert found == {}


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=l)",
        "subprocess.run('x', shell=True)",
        "eval(text)",
        "exec(text)",
        "os.system(text)",
        "archive.extractall(folder)",
        "connection.recv()",
        "from concurrent.futures import ProcessPoolExecutor",
        "httpx.get(url, verify=False)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_each_danger_would_be_seen(code: str) -> None:
    assert list(dangers_in(ast.parse(code), in_serving=True))


def test_security_rules_are_overlooked_where_a_reason_is_known_alone() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), rule)
        for path in modules()
        for rules in re.findall(r"# noqa: ([A-Z0-9, ]+)", path.read_text())
        for rule in re.findall(r"S\d{3}", rules)
    }
    assert found <= OVERLOOKED


def test_the_page_writes_text_and_never_markup() -> None:
    scripts = [*(ROOT / "serving" / "page").glob("*.js"), *(ROOT / "data_shards" / "browse").glob("*.js")]
    assert scripts
    markup = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\([\"']on|srcdoc|javascript:"
    )
    assert {path.name: found for path in scripts if (found := markup.findall(path.read_text()))} == {}
    pages = [*(ROOT / "serving" / "page").glob("*.html")]
    assert pages
    assert [page.name for page in pages if re.search(r"\son\w+=|<script(?![^>]*\bsrc=)|style=", page.read_text())] == []
