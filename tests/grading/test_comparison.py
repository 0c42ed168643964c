"""Two answers compared: what is equal, what is different, and what an exception or a timeout leaves open."""

import pytest

from grading import symbolic, workers
from grading.answers import compare, grade


def is_equal(pred, gold, tolerance=None):
    return compare(pred, gold, tolerance) == "equal"


EQUAL = [
    ("073", "73"), ("1.5e3", "1500"), ("2E-4", "0.0002"),
    ("1,234", "1234"), ("10\\,000", "10000"), ("10 000", "10000"), ("5.0", "5"), ("$5$", "5"),
    ("+5", "5"), ("½", "0.5"), ("2**10", "1024"), ("\\$18.90", "18.9"), ("−3", "-3"), ("0.1\\overline{6}", "1/6"),
    ("74°", "74^\\circ"), ("\\varnothing", "\\emptyset"), ("0.\\overline{3}", "\\frac{1}{3}"),
    ("\\fbox{5}", "5"), ("\\dfrac12", "0.5"), ("\\text{(C)}", "C"), ("\\textbf{Even}", "\\text{even}"), ("x=5", "5"),
    ("2 \\le x < 5", "[2,5)"), ("[2,5)", "2 \\le x < 5"),
    ("(3*sqrt(5))/7", "\\frac{3\\sqrt{5}}{7}"), ("\\ln 2", "\\log 2"), ("\\{3,2,1\\}", "\\{1,2,3\\}"),
    ("6.17", "6.17\\%"), ("6.17\\%", "6.17"), ("20 \\%", "20"), ("7\\%", "0.07"),
    ("\\begin{pmatrix}-2\\\\-14\\end{pmatrix}", "\\begin{pmatrix} -2 \\\\ -14 \\end{pmatrix}"), ("5 \\text{ cm}", "5"),
    ("1\\frac{4}{5}", "9/5"), ("-\\frac{3}{4}", "\\frac{-3}{4}"), ("1000,99", "1000.99"), ("x^2-y^2", "(x-y)(x+y)"),
    ("10\\%", "\\frac{1}{10}"), ("e^{i\\pi}", "-1"), ("\\sin 45^\\circ", "\\frac{\\sqrt{2}}{2}"), ("50%", "0.5"),
    ("\\cos^2(60^\\circ)", "1/4"), ("\\text{All real numbers}", "\\mathbb{R}"), ("0.\\dot{3}", "1/3"),
    ("3-2i", "-2i+3"),
    ("3.4641016151377546", "2\\sqrt{3}"), ("1,5", "1.5"), ("\\text{(c)}", "C"), ("Even", "even"), ("\\text{no}", "No"),
    ("x = 3 + 2 = 5", "5"), ("2 + 2 = 4", "4"), ("\\angle ABC = 74^\\circ", "74"), ("x=3,y=4", "(3,4)"),
    ("(3,4)", "x=3,y=4"),
    ("x=3,x=4", "4,3"), ("101_2", "101_{2}"), ("f'(x)", "f^{\\prime}(x)"), ("y' = 2x", "2x"),
    ("5\\text{ cm}", "5\\text{ centimeters}"), ("5\\text{ kg}", "5"),
    ("\\boxed{1} and \\boxed{-2}", "-2,1"), ("\\sin^2 x", "1-\\cos^2 x"),
    ("\\frac{q}{\\sqrt{2CL}}", "I_{\\max }=\\frac{q}{\\sqrt{2 L C}}"), ("\\text{No solution}", "\\emptyset"),
]  # fmt: skip
DIFFERENT = [
    ("2500", "25"), ("1", "100"), ("120006", "120000"), ("1/2006!", "1/2004!"), ("(2,5)", "[2,5)"), ("0.333", "1/3"),
    ("\\text{March}", "\\text{August}"), ("x", "y"), ("A", "B"), ("5", "5,6"), ("1.414", "\\sqrt{2}"), ("25", "0.25"),
    ("2^{2008}-1", "2^{2008}-2"), ("3,5", "35"), ("x^2+1", "x^2+2"), ("\\frac{1}{3}", "\\frac{1}{2}"), ("2/0", "2"),
    ("3-2i", "3+2i"), ("20\\%", "\\frac{1}{10}"), ("\\sin 30^\\circ", "\\frac{\\sqrt{2}}{2}"), 
    ("\\frac{\\pi}{2}", "90^\\circ"),
    ("0.666667", "\\frac{2}{3}"), ("0.000031", "\\pi/100000"), ("3.464102", "2\\sqrt3"), ("1-1/2006!", "1-1/2004!"),
    ("(1/2006!,1)", "(1/2004!,1)"), ("\\{1,1/2006!\\}", "\\{1/2004!,1\\}"), ("x=1/2006!", "x=1/2004!"),
    ("x/2006!", "x/2004!"),
    ("0.00001", "1/99999"), ("1000.0005", "\\sqrt{1000001}"), ("0.5\\%", "0.5"),
    ("1.234", "1,234"),
    ("1,234", "1.234"), ("x", "X"), ("n", "N"), ("mM", "mm"), ("\\text{x}", "X"), ("x^2+y^2=4", "4"),
    ("2x+3=0", "0"), ("5=6", "6"),
    ("x=3,y=4", "(4,3)"), ("(4,3)", "x=3,y=4"), ("101_2", "101_3"), ("f'(x)", "f(x)"), ("f(x)", "f''(x)"),
    ("5\\text{ cm}", "5\\text{ kg}"), ("\\boxed{6}, \\boxed{5}", "(6,5)"), ("1,5", "1.6"),
    ("\\sqrt{2}", "\\sqrt{2.0001}"), ("\\frac{4}{5}", "1\\frac{4}{5}"), ("", "5"), ("120,006", "120,000"),
]  # fmt: skip


@pytest.mark.parametrize(("pred", "gold"), EQUAL)
def test_equal(pred, gold):
    assert compare(pred, gold) == "equal"


@pytest.mark.parametrize(("pred", "gold"), DIFFERENT)
def test_different(pred, gold):
    assert compare(pred, gold) == "different"


def test_tolerance_is_absolute_per_value_and_in_any_order():
    assert is_equal("0.6054", "\\cos^{10}(\\frac{\\pi}{10})", tolerance=1e-4)
    assert not is_equal("0.6064", "\\cos^{10}(\\frac{\\pi}{10})", tolerance=1e-4)
    assert is_equal("0.001, 7.1 \\cdot 10^{35}", "7 \\times 10^{35}, 0.002", tolerance=[1e34, 1e-3])
    assert not is_equal("0.001, 7.3 \\cdot 10^{35}", "7 \\times 10^{35}, 0.002", tolerance=[1e34, 1e-3])


INFINITE = [  # gold, an answer, whether they are equal
    (r"(5,\infty)", r"(5, \infty)", True),
    (r"(5,\infty)", r"(5, +\infty)", True),
    (r"(5,\infty)", r"x > 5", True),
    (r"(5,\infty)", r"[5, \infty)", False),
    (r"(5,\infty)", r"(6, \infty)", False),
    (r"(5,\infty)", r"(5, 6)", False),
    (r"(5,\infty)", r"(-\infty, 5)", False),
    (r"(-\infty,5]", r"(-\infty, 5]", True),
    (r"(-\infty,5]", r"x \le 5", True),
    (r"(-\infty,5]", r"(-\infty, 5)", False),
    (r"(-\infty,\infty)", r"(-\infty, +\infty)", True),
    (r"(-\infty,\infty)", r"\mathbb{R}", True),
    (r"(-\infty,\infty)", r"(0, \infty)", False),
    (r"(\frac12,\infty)", r"(0.5, \infty)", True),
    (r"(-\infty,0)\cup(5,\infty)", r"(5, \infty) \cup (-\infty, 0)", True),
    (r"(-\infty,0)\cup(5,\infty)", r"(-\infty, 0] \cup (5, \infty)", False),
    (r"(-\infty,0)\cup(5,\infty)", r"(-\infty, 0) \cup (6, \infty)", False),
    (r"\infty", r"+\infty", True),
    (r"\infty", r"-\infty", False),
    (r"\infty", "10", False),
    (r"\infty", r"\lim_{x\to\infty} x", True),
    (r"-\infty", r"\lim_{x\to\infty} x", False),
    (r"(1,2,\infty)", r"(1, 2, +\infty)", True),
    (r"(1,2,\infty)", r"(1, 2, -\infty)", False),
    (r"\{1,\infty\}", r"\{\infty, 1\}", True),
    (r"\{1,\infty\}", r"\{-\infty, 1\}", False),
    (r"x<\infty", r"x < +\infty", True),
    (r"\begin{pmatrix}1&\infty\\0&1\end{pmatrix}", r"\begin{pmatrix} 1 & +\infty\\ 0 & 1\end{pmatrix}", True),
    (r"\begin{pmatrix}1&\infty\\0&1\end{pmatrix}", r"\begin{pmatrix} 1 & -\infty\\ 0 & 1\end{pmatrix}", False),
]


@pytest.mark.parametrize(("gold", "answer", "equal"), INFINITE)
def test_infinite_ends(gold, answer, equal):
    assert grade(f"\\boxed{{{answer}}}", gold).status == ("correct" if equal else "wrong")


def test_a_failed_check_leaves_math_verifys_verdict_and_says_so(monkeypatch):
    def contradict(golds, preds):
        raise ValueError("a number without an end")

    monkeypatch.setattr(symbolic, "contradict", contradict)
    equal, differs, failed = symbolic.compared("1/2", "0.5", None)
    assert equal is True and not differs and "contradict: ValueError: a number without an end" in failed


def test_an_exception_is_no_verdict():
    graded = grade(r"\boxed{\frac{2}{0}}", r"\frac{1}{0}")  # math-verify raises on complex infinity
    assert graded.status == "error" and graded.extracted == r"\frac{2}{0}" and "ValueError" in graded.detail
    assert compare(r"\frac{2}{0}", r"\frac{1}{0}") == "error" and not is_equal(r"\frac{2}{0}", r"\frac{1}{0}")
    assert compare(r"\infty", r"\frac{1}{0}") == compare("5", r"\frac{1}{0}") == "different"


def test_an_equation_that_cannot_be_checked_is_not_wrong(monkeypatch):
    monkeypatch.setattr(workers, "SECONDS", 0.5)
    assert grade(r"\boxed{9^{9^{9}} = 5}", "5").status == "timeout"
    assert grade(r"\boxed{\frac{10}{2} = 5}", "5").status == "correct"


def test_only_what_is_shown_to_differ_is_different_where_that_is_asked():
    for pred, gold in [("13", "12"), ("x+2", "x+1"), ("no", "yes"), ("5\\text{ m}", "5\\text{ s}"), ("(1,3)", "(1,2)")]:
        assert compare(pred, gold, shown=True) == "different"
    for pred, gold in [("see above", "x+1"), ("Mon.", "Monday"), ("two", "2")]:
        assert (compare(pred, gold), compare(pred, gold, shown=True)) == ("different", "unshown")
