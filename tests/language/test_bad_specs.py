"""Wrong spec files: the first line of each says at which place it must give an error.

``bad_specs`` holds the files; what cannot be kept as one (50 MB, not UTF-8, a pipe) is made
here. A definition is loaded through a small model that uses it.
"""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sampling import sampled
from time_limits import computed_within
from wording import Wording

from harness.errors import SpecError, UsageError
from harness.language.library import FOLDERS, Library
from harness.language.model import load_spec

FILES = sorted((Path(__file__).parent / "bad_specs").glob("*.yaml"))
EXPECT = re.compile(r"# expect (\d+:\d+)(?: in (\S+))?\n")
SECONDS = 4
USER = """\
model: user
summary: Uses one definition.
source: Made for a test.
sizes: {width: 3, units: 4}
inputs:
  x: {shape: [batch, time, width]}
layers:
  out: {layer: dense, units: units}
  use: {layer: LAYER}
equations: |
  y = FUNCTION(use(x))
  z = out(x)
targets:
  target: {shape: [batch, time, units]}
loss: mean(LOSS(z, target))
optimizer: {optimizer: OPTIMIZER}
"""
USUAL = {
    "LAYER": "dense, units: units",
    "FUNCTION": "softmax",
    "LOSS": "squared_error",
    "OPTIMIZER": "sgd",
}


def load_bad(path, folder):
    """Load a model, or a definition (copied into ``folder``) through a model that uses it."""
    text = path.read_text(encoding="utf-8")
    first = re.search(r"^(\w+): ", text, re.MULTILINE)
    if first is None or first.group(1) not in FOLDERS or first.group(1) == "model":
        return load_spec(str(path))
    return load_definition(first.group(1), path.stem, text, folder)


def load_definition(kind, name, text, folder):
    """Load the model above with one of its definitions replaced by this one."""
    used = {**USUAL, kind.upper(): name}
    if kind == "layer" and "units: size" in text:
        used["LAYER"] += ", units: units"
    model = USER
    if arguments := re.search(r"^# arguments (\d)$", text, re.MULTILINE):
        more = ", x" * (int(arguments.group(1)) - 1)
        call = {"layer": "use(x", "function": "FUNCTION(use(x)"}[kind]
        model = model.replace(call, call + more)
    for word, value in used.items():
        model = model.replace(word, value)
    for below, file, content in (("models", "user", model), (FOLDERS[kind], name, text)):
        (folder / below).mkdir(exist_ok=True)
        (folder / below / f"{file}.yaml").write_text(content, encoding="utf-8")
    return load_spec("user", [folder])


def refused(name, folders=()):
    """The error of loading something bad, which must come soon."""
    with computed_within(SECONDS), pytest.raises((SpecError, UsageError)) as caught:
        load_spec(str(name), folders)
    return str(caught.value)


def test_errors_that_do_not_depend_on_each_other_are_told_together(tmp_path: Path) -> None:
    """Of attributes, layers, inputs, equations, the loss and the optimizer, in the file's order."""
    text = (Path(__file__).parent / "bad_specs" / "index_rows.yaml").read_text()
    for right, wrong in (
        ("index: vocab}\nlayers", "index: vocabb}\nlayers"),
        ("units: hidden, activation: relu", "hidden_size: hidden, num_layers: 2, activation: rleu"),
        ("{layer: dense, units: vocab}", "{layer: Linear, units: vocab}"),
        ("hidden_states = rnn(", "hidden_states = rnn.forward("),
        ("loss: mean(", "loss: F.mean("),
        ("{optimizer: adam}", "{optimizer: adam, lr: 0.001}"),
        ("target: {offset: 8}", "tarjet: {offset: 8}"),
    ):
        assert right in text
        text = text.replace(right, wrong)
    (file := tmp_path / "many.yaml").write_text(text)
    lines = refused(file).splitlines()
    found = [line.removeprefix(f"{file}:").partition(": ")[0] for line in lines]
    assert found == ["7:40", "10:28", "10:49", "10:76", "11:16", "13:22", "17:8", "18:30", "30:5"]
    assert "units" in lines[1]
    assert not [line for line in lines if "is missing" in line]  # it is there by another name


def test_a_file_of_something_else_is_not_quoted(tmp_path: Path, wording: Wording) -> None:
    """It may be a link to what nobody should read in a log."""
    (file := tmp_path / "x.yaml").write_text("root:x:0:0:root:/root:/bin/bash\nbin:x:1\n")
    with pytest.raises(SpecError) as caught:
        load_spec(str(file))
    wording(caught.value, f"{file}:1:1")


def test_there_are_enough_bad_files():
    assert len(FILES) >= 200


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_bad_file(path, tmp_path, wording: Wording):
    wanted = EXPECT.match(path.read_text(encoding="utf-8"))
    assert wanted is not None, "the first line must say '# expect LINE:COLUMN'"
    place, file = wanted.groups()
    with computed_within(SECONDS), pytest.raises(SpecError) as caught:
        load_bad(path, tmp_path)
    text = str(caught.value).replace(f"{tmp_path}/", "").replace(f"{path.parent}/", "")
    there = [
        line
        for line in text.splitlines()
        if Path(line.split(":")[0]).name == (file or path.name) and f":{place}: " in line
    ]
    assert there, text
    wording(there)


def test_good_twins_of_the_bad_files_load(tmp_path):
    """The model that definitions are tried in is right, and so is a scalar that looks odd."""
    model = USER.replace("OPTIMIZER}", "OPTIMIZER, learning_rate: 1e-3}")
    for word, value in USUAL.items():
        model = model.replace(word, value.replace("dense, units", "simple_rnn, units"))
    (tmp_path / "user.yaml").write_text(model, encoding="utf-8")
    spec = load_spec(str(tmp_path / "user.yaml"))
    assert spec.update.attributes == {"learning_rate": 0.001}
    assert type(spec.update.attributes["learning_rate"]) is float


def test_unreadable_files(tmp_path, wording: Wording):
    path = tmp_path / "model.yaml"
    assert f"{path}: no such file" in refused(path)
    path.mkdir()
    wording.line(refused(path), f"{path} ... .yaml")
    wording(refused(tmp_path))
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    wording.line(refused(pipe), f"{pipe}")
    wording(refused("/dev/zero"))
    assert "did you mean 'pipe.yaml'?" in refused(tmp_path / "pip.yaml")
    assert "NUL" in refused("a\0b.yaml")
    assert "cannot be read" in refused("x" * 5000 + ".yaml")


def test_contents_that_are_no_text(tmp_path, wording: Wording):
    (path := tmp_path / "model.yaml").write_bytes(b"")
    wording.line(refused(path), f"{path}:1:1")
    path.write_bytes("model: café\n".encode("latin-1"))
    wording.line(refused(path), f"{path}:1:11 ... UTF-8 ... 0xe9 ... 10")
    path.write_bytes("model: bad\n".encode("utf-16"))
    wording(refused(path), f"{path}:1:1")
    with path.open("wb") as file:
        file.truncate(50_000_000)
    wording.line(refused(path), f"{path}: 50,000,000")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 500, "1:31 ... 30"),
        # libyaml has a limit of its own, and looks ahead.
        ("[" * 100_000, "1:"),
        ("- " * 100_000, "1:61 ... 30"),
        ("".join(f"k{n}: 1\n" for n in range(60_000)), "10000:8 ... 20,000"),
        ("a: " + "9" * 100_000, "1:4"),
        ("a: '" + "x" * 900_000, "1:900005"),
        ("? " * 100_000, "1:3"),
    ],
    ids=["brackets", "many brackets", "dashes", "keys", "digits", "quote", "marks"],
)
def test_deep_and_large_yaml(tmp_path, text, message, wording: Wording):
    path = tmp_path / "model.yaml"
    path.write_text(text, encoding="utf-8")
    wording.line(refused(path), f"{path}:{message}")


def test_unknown_names(wording: Wording):
    wording.line(refused("lesson6/simple_rn"), "'lesson6/simple_rn' ... 'lesson6/simple_rnn'")
    assert "unknown model" in refused("x" * 5000)
    assert "unknown model" in refused("../models/lesson6/simple_rnn")
    with wording.raises(UsageError, "'nowhere'"):
        load_spec("lesson6/simple_rnn", ["nowhere"])


FUNCTION = """\
function: NAME
summary: A function.
source: Made for a test.
inputs: {x: any}
equations: y = BODY
output: y
"""


def write_functions(folder, bodies):
    (folder / "functions").mkdir()
    for name, body in bodies.items():
        text = FUNCTION.replace("NAME", name).replace("BODY", body)
        (folder / "functions" / f"{name}.yaml").write_text(text, encoding="utf-8")


def refused_function(folder, bodies):
    write_functions(folder, bodies)
    with computed_within(SECONDS), pytest.raises(SpecError) as caught:
        load_definition("function", "f0", (folder / "functions" / "f0.yaml").read_text(), folder)
    return str(caught.value)


def test_functions_that_call_each_other_in_a_circle(tmp_path):
    message = refused_function(tmp_path, {"f0": "f1(x)", "f1": "2 * f2(x)", "f2": "f0(x)"})
    assert "f2.yaml:5:16: cyclic definition: f0 -> f1 -> f2 -> f0" in message


def test_functions_that_call_each_other_too_deep(tmp_path, wording: Wording):
    bodies = {f"f{n}": f"f{n + 1}(x)" for n in range(500)}
    message = refused_function(tmp_path, {**bodies, "f500": "2 * x"})
    wording.line(message, "20")


def test_functions_that_double_each_other(tmp_path, wording: Wording):
    bodies = {f"f{n}": f"f{n + 1}(x) + f{n + 1}(2 * x)" for n in range(18)}
    message = refused_function(tmp_path, {**bodies, "f18": "exp(x)"})
    wording.line(message, "20,000")


def test_a_definition_under_another_name(tmp_path, wording: Wording):
    write_functions(tmp_path, {"f0": "2 * x"})
    (tmp_path / "functions" / "f0.yaml").rename(tmp_path / "functions" / "other.yaml")
    text = (tmp_path / "functions" / "other.yaml").read_text()
    with wording.raises(SpecError, "'f0' ... 'other'"):
        load_definition("function", "other", text, tmp_path)
    (tmp_path / "models" / "again.yaml").write_bytes((tmp_path / "models/user.yaml").read_bytes())
    wording.line(refused("again", [tmp_path]), "1:8 ... 'user' ... 'again'")


def test_folders_that_go_round(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "loop").symlink_to(tmp_path / "models")
    assert "unknown model" in refused("nothing", [tmp_path])


PROBE = """
import pathlib, re, sys
sys.path[:0] = sys.argv[1:]
from test_bad_specs import FILES, load_bad
from harness.errors import SpecError
from harness.language.model import load_spec
large = pathlib.Path("large.yaml")
with large.open("wb") as file:
    file.truncate(50_000_000)
pathlib.Path("deep.yaml").write_text("[" * 1_000_000)
pathlib.Path("wide.yaml").write_text("a: [" + "1," * 500_000 + "1]")
bombs = [*map(pathlib.Path, ("large.yaml", "deep.yaml", "wide.yaml")), *FILES]
count = 0
for path in bombs:
    try:
        load_bad(path, pathlib.Path(".")) if path in FILES else load_spec(str(path))
    except SpecError:
        count += 1
# Not ru_maxrss: a child begins with its parent's.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
print(count == len(bombs), peak.group(1))
"""


def test_memory_stays_small_and_nothing_is_executed(tmp_path):
    here = Path(__file__).parent
    probe = [sys.executable, "-c", PROBE, str(here), str(here.parent / "support")]
    done = subprocess.run(probe, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    all_refused, kilobytes = done.stdout.split()
    assert (all_refused, int(kilobytes) < 500_000) == ("True", True)
    made = {path.name for path in tmp_path.iterdir()}
    assert made <= {"large.yaml", "deep.yaml", "wide.yaml", *FOLDERS.values()}


TOKEN = re.compile(r"\w+|\s+|.", re.DOTALL)


def mutated(text, words, generator):
    """The text with one to three of its words deleted, doubled or replaced."""
    tokens = TOKEN.findall(text)
    for _ in range(generator.randint(1, 3)):
        place = generator.randrange(len(tokens))
        match generator.randrange(3):
            case 0:
                del tokens[place]
            case 1:
                tokens.insert(place, tokens[place])
            case _:
                tokens[place] = generator.choice(words)
    return "".join(tokens)


@pytest.mark.parametrize("count", sampled((600, 2000), (600,)))
def test_mutated_models_load_or_are_refused(count: int):
    """Mutants of the shipped models: nothing but a SpecError with a place comes out."""
    library = Library()
    texts = {n: "\n".join(library.find("model", n).document.lines) for n in library.names("model")}
    words = sorted({word for text in texts.values() for word in TOKEN.findall(text)})
    generator = random.Random(20240601)
    places = []
    for _ in range(count):
        name = generator.choice(sorted(texts))
        text = mutated(texts[name], words, generator)
        try:
            load_spec(name, overrides={("model", name): text})
        except SpecError as error:
            places.append(error.place)
    assert count / 4 < len(places) < count
    assert None not in places
