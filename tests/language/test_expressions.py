"""Equations: what they mean, and that everything else is refused at its place."""

import ast
import random

import pytest
from time_limits import computed_within

from harness.errors import Place, SpecError
from harness.language.expressions import (
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
    parse_equations,
    parse_expression,
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
        "1:6: what stands behind a dot is not part of the language: an axis is as long as its name "
        "says: write the name; found '.shape'",
    ),
    ("y = x if a else b", "1:7: 'if' is not part of the language; use where"),
    ("y = a and b", "1:7: 'and' is not part of the language; write (a < b) & (c < d)"),
    ("y = not a", "1:5: 'not' is not part of the language; write ~(a < b)"),
    ("y = a ^ b", "1:7: write ** for a power"),
    ("y = a < b < c", "1:5: expected one comparison at a time, found 'a < b < c'"),
    ("y = a // b", "1:7: write floor(a / b) for a // b; of a size declare the half as one of"),
    ("y = a % b", "1:7: write a - b * floor(a / b) for a % b; found '%'"),
    ("y = lambda a: a", "1:5: 'lambda' is not part"),
    ("y = f(a for a in x)", "1:9: 'for' is not part of the language; use a scan"),
    ("y = f'{x}'", "1:6: text in quotes is not part"),
    ('y = "x"', "1:5: text in quotes is not part"),
    ("y = __import__('os')", "1:5: a name may not begin with two underscores, found '__import__'"),
    ("y = f(a := 3)", "1:9: write an equation on a line of its own; found ':='"),
    (
        "y = f(*a)",
        "1:7: expected a number, a name, a call, an index or + - * / ** @ & | ~, found '*a'",
    ),
    ("y = f(**a)", "1:7: '**' cannot unpack; write the arguments out, found '**a'"),
    ("y = f(a=1, a=2)", "1:12: argument 'a' is given twice, found 'a=2'"),
    ("y = True", "1:5: 'True' is not part of the language; write true or false"),
    ("y = None", "1:5: None can only be an index"),
    ("y += 1", "1:3: write it out, as in 'a = a + b'; found '+='"),
    ("y: x = 1", "1:1: expected 'name = expression' or 'a, b = call(...)', found 'y: x = 1'"),
    ("a = b = c", "1:1: expected one '=' a line, found 'a = b = c'"),
    ("f(x)", "1:1: expected 'name = expression' or 'a, b = call(...)', found 'f(x)'"),
    ("x[0] = a", "1:1: expected a name to the left of '=', found 'x[0]'"),
    ("y, (h, c) = f(x)", "1:4: write all names in one row, as in 'y, h, c = lstm(x)'"),
    ("y = x[f(i)]", "1:7: an index must be a whole number, a slice of them or '...', found 'f(i)'"),
    ("y = x[1.0]", "1:7: an index must be a whole number"),
    ("y = x[9223372036854775808]", "1:7: an index must be a whole number"),
    ("y = [a]", "1:5: a list can only be an argument of a call, found '[a]'"),
    ("y = f([[a]])", "1:8: a list can only be an argument of a call, found '[a]'"),
    ("y = ...", "1:5: '...' can only be an index or the value of a keyword, found '...'"),
    ("y = a, b", "1:5: expected one value; write one equation for each, found 'a, b'"),
    ("y = f(a)(b)", "1:5: only a name can be called, found 'f(a)(b)'"),
    ("y = +a", "1:5: leave out the leading '+'"),
    ("y = {a}", "1:5: dictionaries and sets are not part"),
    ("y = await a", "1:5: 'await' is not part"),
    ("import os", "1:1: 'import' is not part"),
    ("y = 0x1F", "1:5: write a plain decimal number, such as 10, 0.5 or 1e-3, found '0x1F'"),
    ("y = 1_000", "1:5: write a plain decimal number"),
    ("y = 010", "1:5: write a plain decimal number"),
    ("y = 2j", "1:5: write a plain decimal number"),
    ("y = 1if", "1:5: write a plain decimal number"),
    ("y = " + "9" * 5000, "1:2001: a line of 5,004 characters"),
    ("y = 1e999", "1:5: this number is too large, found '1e999'"),
    ("y = 9223372036854775808", "1:5: this number is too large"),
    ("y = ﬁx", "1:5: only ASCII characters are allowed outside comments, found 'ﬁ'"),
    ("y\t= a", "1:2: use spaces, not tabs"),
    ("y = a; z = b", "1:6: write one equation a line; found ';'"),
    ("y = a \\\n + b", "1:7: wrap a long line inside brackets"),
    ("y = a\nz = (b\nw = c", "2:5: '(' is never closed"),
    ("y = a)", "1:6: ')' closes nothing"),
    ("y = (a]", "1:7: expected ')' to close '(' of m.yaml:1:5, found ']'"),
    ("y = a b", "1:7: cannot read 'y = a b'"),
    ("y = x\nz = a +", "2:8: cannot read 'z = a +': invalid syntax"),
    ("y = x\n  + b", "2:2: cannot read '+ b': unexpected indent; what goes on in the next line"),
    ("y = x\n+ b", "2:1: expected 'name = expression' or 'a, b = call(...)'; what goes on in the"),
    ("y = x\n@ b", "2:1: cannot read '@ b': invalid syntax; what goes on in the next line stands"),
    ("# nothing", "1:1: no equation here"),
    ("y = " + "(" * 41 + "a" + ")" * 41, "1:45: brackets are nested more than 40 deep"),
    ("y = " + "- " * 41 + "a", "1:85: more than 40 signs in a row"),
    ("y = " + "a+" * 200 + "a", "1:5: more than 100 levels deep"),
    ("y = a\n" * 4000, "1:1: 24,000 characters of equations; at most 20,000"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[text[:20] for text, _ in REFUSED])
def test_all_else_is_refused_at_its_place(text, message):
    assert refusal(text).startswith(f"m.yaml:{message}")


@pytest.mark.parametrize(
    ("text", "column", "told"),
    [
        ("y = x.reshape(a, b)", 6, "split(x, axis=-1, sizes=[a, b]) cuts an axis, merge(x, "),
        ("y = x[:, 0].T @ x", 12, "write permute_dims(x, axes=[1, 0]); found '.T'"),
        ("y = x.softmax(dim=-1)", 6, "write softmax(x, ...); found '.softmax'"),
        ("y = torch.relu(x)", 10, "write relu(...); found '.relu'"),
        ("y = f(F.silu(x))", 8, "write silu(...); found '.silu'"),
        ("y = x.", 6, "write sum(x, axis=1) for x.sum(1), exp(x) for np.exp(x); found '.'"),
        (
            "y = einsum('ij,jk->ik', a, b)",
            12,
            "quotes is not part of the language; write it with @",
        ),
    ],
)
def test_what_to_write_is_told_of_what_a_framework_has(text, column, told):
    found = refusal(text)
    assert found.startswith(f"m.yaml:1:{column}: ")
    assert told in found


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
