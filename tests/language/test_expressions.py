"""Equations: what they mean, and that everything else is refused at its place."""

import ast
import random

import pytest
from time_limits import computed_within
from wording import Wording

from harness.errors import Place, SpecError
from harness.language.expressions import parse_equations, parse_expression
from harness.language.tree import (
    Assignment,
    Binary,
    Call,
    Compare,
    Index,
    IndexItem,
    List,
    Name,
    Negate,
    Number,
    Rest,
    SliceItem,
)

HERE = Place("any", 1, 1)  # Equality of nodes does not look at places.


def locate(line, column):
    return Place("m.yaml", line + 1, column + 1)


def name(text):
    return Name(text, place=HERE)


def number(value):
    return Number(value, place=HERE)


def expression(text):
    return parse_expression(text, locate)


def error_of(text):
    """Return the SpecError of reading `text`, or None; any other exception escapes."""
    try:
        parse_equations(text, locate)
    except SpecError as error:
        return error
    return None


def refusal(text):
    with pytest.raises(SpecError) as caught:
        parse_equations(text, locate)
    return str(caught.value)


X, A, B = name("x"), name("a"), name("b")


@pytest.mark.parametrize("operator", ["+", "-", "*", "/", "**", "@"])
def test_binary_operators(operator):
    assert expression(f"a {operator} b") == Binary(operator, A, B, place=HERE)


@pytest.mark.parametrize("operator", ["<", "<=", ">", ">=", "==", "!="])
def test_comparisons(operator):
    assert expression(f"a {operator} b") == Compare(operator, A, B, place=HERE)


@pytest.mark.parametrize(
    "text", ["0", "7", "0.5", "1.", ".5", "1e-3", "2E+4", "9223372036854775807"]
)
def test_numbers_keep_value_and_type(text):
    value = expression(text).value
    assert value == ast.literal_eval(text)
    assert type(value) is type(ast.literal_eval(text))


def test_precedence_is_pythons():
    product = Binary("*", name("i"), name("g"), place=HERE)
    assert expression("x + i * g") == Binary("+", X, product, place=HERE)
    square = Binary("**", A, number(2), place=HERE)
    assert expression("-a ** 2") == Negate(square, place=HERE)


def test_calls_take_lists_and_rest_as_arguments():
    call = expression("f(a, [b, 2], axis=..., shape=[a], keep=-1)")
    assert call == Call(
        "f",
        (A, List((B, number(2)), place=HERE)),
        (
            ("axis", Rest(place=HERE)),
            ("shape", List((A,), place=HERE)),
            ("keep", Negate(number(1), place=HERE)),
        ),
        place=HERE,
    )


def test_indices():
    items = (
        Rest(place=HERE),
        IndexItem(-1, place=HERE),
        SliceItem(None, None, 2, place=HERE),
        SliceItem(number(1), Negate(number(3), place=HERE), None, place=HERE),
    )
    assert expression("x[..., -1, ::2, 1:-3]") == Index(X, items, place=HERE)
    assert expression("x[0]") == Index(X, (IndexItem(0, place=HERE),), place=HERE)


def test_equations_with_comments_blank_lines_brackets_and_several_targets():
    text = "# é is fine here, and 'quotes'\n\na = f(x,  # more\n      b)\n\na, b = g(x)\n"
    first, second = parse_equations(text, locate)
    assert first == Assignment((A,), Call("f", (X, B), (), place=HERE), place=HERE)
    assert second == Assignment((A, B), Call("g", (X,), (), place=HERE), place=HERE)


def test_every_node_knows_its_place():
    (equation,) = parse_equations("\ny = f(a,\n  x[0] @ b)", locate)
    assert equation.place == locate(1, 0)
    assert equation.value.place == locate(1, 4)
    product = equation.value.arguments[1]
    assert product.place == product.left.place == locate(2, 2)
    assert product.left.items[0].place == locate(2, 4)
    assert product.right.place == locate(2, 9)


REFUSED = [
    (
        "y = x.shape",
        "1:6 ... '.shape'",
    ),
    ("y = x if a else b", "1:7: 'if'"),
    ("y = a and b", "1:7: 'and'"),
    ("y = not a", "1:5: 'not' ... ~(a"),
    ("y = a ^ b", "1:7"),
    ("y = a < b < c", "1:5 ... a ... c"),
    ("y = a // b", "1:7 ... floor(a"),
    ("y = a % b", "1:7 ... a - b * floor(a / b)"),
    ("y = lambda a: a", "1:5: 'lambda'"),
    ("y = f(a for a in x)", "1:9: 'for'"),
    ("y = f'{x}'", "1:6"),
    ('y = "x"', "1:5"),
    ("y = __import__('os')", "1:5 ... '__import__'"),
    ("y = f(a := 3)", "1:9"),
    (
        "y = f(*a)",
        "1:7 ... '*a'",
    ),
    ("y = f(**a)", "1:7: '**' ... '**a'"),
    ("y = f(a=1, a=2)", "1:12 ... 'a' ... 'a=2'"),
    ("y = True", "1:5: 'True'"),
    ("y = None", "1:5"),
    ("y += 1", "1:3 ... a ... b"),
    ("y: x = 1", "1:1 ... name ... expression ... a ... call(...) ... y ... 1"),
    ("a = b = c", "1:1 ... a ... c"),
    ("f(x)", "1:1 ... name ... expression ... a ... call(...) ... 'f(x)'"),
    ("x[0] = a", "1:1 ... 'x[0]'"),
    ("y, (h, c) = f(x)", "1:4 ... y ... lstm(x)"),
    ("y = x[f(i)]", "1:7 ... 'f(i)'"),
    ("y = x[1.0]", "1:7"),
    ("y = x[9223372036854775808]", "1:7"),
    ("y = [a]", "1:5 ... '[a]'"),
    ("y = f([[a]])", "1:8 ... '[a]'"),
    ("y = ...", "1:5: '...'"),
    ("y = a, b", "1:5 ... 'a, b'"),
    ("y = f(a)(b)", "1:5 ... 'f(a)(b)'"),
    ("y = +a", "1:5"),
    ("y = {a}", "1:5"),
    ("y = await a", "1:5: 'await'"),
    ("import os", "1:1: 'import'"),
    ("y = 0x1F", "1:5 ... 10, 0.5 ... 1e-3 ... '0x1F'"),
    ("y = 1_000", "1:5"),
    ("y = 010", "1:5"),
    ("y = 2j", "1:5"),
    ("y = 1if", "1:5"),
    ("y = " + "9" * 5000, "1:2001 ... 5,004"),
    ("y = 1e999", "1:5 ... '1e999'"),
    ("y = 9223372036854775808", "1:5"),
    ("y = ﬁx", "1:5 ... ASCII ... 'ﬁ'"),
    ("y\t= a", "1:2"),
    ("y = a; z = b", "1:6"),
    ("y = a \\\n + b", "1:7"),
    ("y = a\nz = (b\nw = c", "2:5: '('"),
    ("y = a)", "1:6: ')'"),
    ("y = (a]", "1:7 ... m.yaml:1:5"),
    ("y = a b", "1:7 ... y ... b"),
    ("y = x\nz = a +", "2:8 ... z"),
    ("y = x\n  + b", "2:2 ... '+ b'"),
    ("y = x\n+ b", "2:1 ... name ... expression ... a ... call(...)"),
    ("y = x\n@ b", "2:1 ... '@ b'"),
    ("# nothing", "1:1"),
    ("y = " + "(" * 41 + "a" + ")" * 41, "1:45 ... 40"),
    ("y = " + "- " * 41 + "a", "1:85 ... 40"),
    ("y = " + "a+" * 200 + "a", "1:5 ... 100"),
    ("y = a\n" * 4000, "1:1: ... 24,000 ... 20,000"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[text[:20] for text, _ in REFUSED])
def test_all_else_is_refused_at_its_place(text, message, wording: Wording):
    wording(refusal(text), f"m.yaml:{message}")


@pytest.mark.parametrize(
    ("text", "column", "told"),
    [
        ("y = x.reshape(a, b)", 6, "split(x, axis=-1, sizes=[a, b]) ... merge(x"),
        ("y = x[:, 0].T @ x", 12, "permute_dims(x, axes=[1, 0]) ... '.T'"),
        ("y = x.softmax(dim=-1)", 6, "softmax(x, ...) ... '.softmax'"),
        ("y = torch.relu(x)", 10, "relu(...) ... '.relu'"),
        ("y = f(F.silu(x))", 8, "silu(...) ... '.silu'"),
        ("y = x.", 6, "sum(x, axis=1) ... x.sum(1), exp(x) ... np.exp(x)"),
        (
            "y = einsum('ij,jk->ik', a, b)",
            12,
            "",
        ),
    ],
)
def test_what_to_write_is_told_of_what_a_framework_has(text, column, told, wording: Wording):
    found = refusal(text)
    assert found.startswith(f"m.yaml:1:{column}: ")
    wording.line(found, told)


def test_an_expression_is_one_value():
    for text, place in [("", "1:1"), ("y = a", "1:3"), ("a\nb", "2:1"), ("[a]", "1:1")]:
        with pytest.raises(SpecError, match=f"^m.yaml:{place}: "):
            expression(text)


def test_the_deepest_allowed_tree_is_accepted():
    assert expression("a+" * 99 + "a").operator == "+"
    assert expression("(" * 40 + "a" + ")" * 40) == A


@pytest.mark.parametrize(
    "bomb",
    [
        "y = (" + "a\n+" * 6000 + "a)",
        "y = " + "f(" * 900 + ")" * 900,
        "y = " + "-(" * 900 + "a" + ")" * 900,
        "y = a" + "[0]" * 600,
        "y = a" + "**a" * 600,
        "y = 9" + "**9" * 90,
        "y = " + "9" * 10**7,
    ],
    ids=["sum", "calls", "minus", "indices", "powers", "tower", "digits"],
)
def test_bombs_are_neither_evaluated_nor_slow(bomb):
    with computed_within(2.0):
        error_of(bomb)


def test_nothing_is_executed(tmp_path):
    planted = tmp_path / "planted"
    attack = f"__import__('os').system('touch {planted}')"
    assert "two underscores" in refusal(f"y = {attack}")
    with pytest.raises(SpecError):
        expression(attack)
    assert not planted.exists()
    eval(attack)  # The attack works where text is evaluated: the check above can fail.
    assert planted.exists()


WORDS = """a b x f ( ) [ ] { } , : . ... = == != < <= + - * / ** @ % // := -> ; ~ ! & | ^ ' " # \\
if else for in is not and or lambda None True await yield import class def 0 1 07 1.5 1e9 2j 0x1 1_0
9223372036854775808 __import__ axis=... é"""
BLANKS = ["\n", "\t", "\x00", "\r", "\x0c", "\ud800"]


def test_random_tokens_give_equations_or_spec_errors():
    random_source = random.Random(0)
    words = WORDS.split() + BLANKS
    accepted = 0
    for _ in range(20_000):
        chosen = random_source.choices(words, k=random_source.randint(1, 10))
        text = random_source.choice(["", "y = "]) + random_source.choice(["", " "]).join(chosen)
        error = error_of(text)
        if error is None:
            accepted += 1
            continue
        assert 1 <= error.place.line <= text.count("\n") + 1
        assert 1 <= error.place.column <= len(text) + 1
    assert accepted > 100  # Otherwise the words are not a test of the reader behind the checks.
