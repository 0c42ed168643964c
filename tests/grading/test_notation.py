"""What is the same answer in another notation, in another unit, as a share; and what only looks like it."""

import pytest

from grading.answers import grade
from grading.notation import normalise
from grading.quantities import split, unit

SAME = [  # gold, the content of a box
    (r"12\text{ cm}^2", r"12\,\mathrm{cm}^2"), (r"12\text{ cm}^2", r"12\text{ square centimeters}"),
    (r"12\text{ cm}^2", r"12 cm²"), (r"12\text{ cm}^2", r"12 \text{ sq. cm}"), (r"12\text{ cm}^2", r"12"),
    (r"5\text{ m/s}", r"5 \frac{\text{m}}{\text{s}}"), (r"5\text{ m/s}", r"5\text{ meters per second}"),
    (r"5\text{ m/s}", r"18\text{ km/h}"), (r"5\text{ m/s}", r"5\ \mathrm{m\,s^{-1}}"),
    (r"50\text{ cents}", r"\$0.50"), (r"\$50", r"50\text{ dollars}"), (r"\$1{,}250", r"1250"),
    (r"\$1,250.00", r"\$1250"), (r"2\text{ hours}", r"120\text{ minutes}"),
    (r"1.5\text{ hours}", r"1\text{ hour and }30\text{ minutes}"), (r"8\text{ ounces}", r"8\text{ oz}"),
    (r"8\text{ ounces}", r"0.5\text{ lb}"), (r"10\text{ feet}", r"10'"), (r"10\text{ ft}", r"10\text{ foot}"),
    (r"16\text{ in}", r"16\text{ inches}"), (r"3\text{ liters}", r"3\text{ L}"), (r"3000\text{ mL}", r"3\text{ L}"),
    (r"45^\circ", r"45\text{ deg}"), (r"25^\circ C", r"25\text{ degrees Celsius}"),
    (r"72\text{ km}", r"72{,}000\text{ m}"), (r"7\text{ apples}", r"7\text{ apple}"), (r"7", r"7\text{ apples}"),
    (r"7\text{ people}", r"7"), (r"12\text{ sq units}", r"12"), (r"12\text{ cubic units}", r"12\text{ units}^3"),
    (r"2\pi\text{ cm}", r"2\pi"), (r"\frac{1}{2}\text{ mile}", r"0.5\text{ miles}"),
    (r"3\sqrt{2}\text{ cm}", r"\sqrt{18}\text{ cm}"), (r"100\text{ cm}", r"1\text{ m}"),
    (r"9.8\text{ m/s}^2", r"9.8\ \text{m/s}^{2}"), (r"4\text{ kg}", r"4\text{ kilograms}"),
    (r"12:30\text{ PM}", r"12:30 p.m."), (r"30\text{ students}", r"30 students"), (r"€20", r"20\text{ euros}"),
    (r"5\text{ N}", r"5\text{ newtons}"), (r"25\%", r"\frac{1}{4}"), (r"25\%", r"0.25"), (r"25\%", r"25"),
    (r"25", r"25\%"), (r"\frac14", r"25\%"), (r"0.25", r"25\text{ percent}"), (r"33\frac{1}{3}\%", r"\frac13"),
    (r"\frac{100}{3}\%", r"33\tfrac13\%"), (r"150\%", r"1.5"), (r"12.5", r"12.5\text{ percent}"),
    (r"0.5\%", r"0.005"), (r"12", r"\mathrm{12}"), (r"12", r"\mathsf{12}"), (r"12", r"\boldsymbol{12}"),
    (r"12", r"{\bf 12}"), (r"12", r"\Large 12"), (r"12", r"\textcolor{blue}{12}"), (r"12", r"\text{ 12 }"),
    (r"12", r"\textbf{12 units}"), (r"-3", r"\mathbf{-3}"), (r"\frac{3}{4}", r"\textbf{3/4}"), (r"12", r"**12**"),
    (r"12", r"$12$"), (r"12", r"\(12\)"), (r"12", r"\text{$12$}"), (r"12", r"\mathbf{\text{12}}"),
    (r"\sqrt{2}", r"\mathbf{\sqrt{2}}"), (r"(1,2)", r"\mathbf{(1,2)}"), (r"12", r"\bm{12}"), (r"12", r"\fbox{12}"),
    (r"12", r"\large{12}"), (r"12", r"\huge\mathbf{12}"), (r"12", r"\underline{\underline{12}}"),
    (r"12", r"\left(12\right)"), (r"12", r"12\quad"), (r"2^{10}", r"2¹⁰"), (r"x^2+1", r"x²+1"),
    (r"\sqrt{2}/2", r"√2/2"), (r"\frac{\sqrt{2}}{2}", r"(√2)/2"), (r"\frac{3}{5}", r"⅗"), (r"3\frac12", r"3½"),
    (r"\frac{7}{8}", r"7⁄8"), (r"[1,2]", r"［1，2］"), (r"\{1,2\}", r"\{1，2\}"), (r"-7", r"—7"), (r"-7", r"－7"),
    (r"-7", r"⁻7"), (r"3.5", r"3．5"), (r"x_1+x_2", r"x₁+x₂"), (r"2\pi", r"2π"), (r"\pi r^2", r"πr²"),
    (r"\theta", r"θ"), (r"\alpha+\beta", r"α+β"), (r"\sqrt[3]{5}", r"∛5"), (r"x\ge 3", r"x⩾3"),
    (r"x \in \mathbb{R}", r"x∈ℝ"), (r"10^{-3}", r"10⁻³"), (r"2\times 3", r"2×3"), (r"\emptyset", r"∅"),
    (r"90^\circ", r"90º"), (r"\sqrt{x+1}", r"√(x+1)"), (r"2\sqrt{3}", r"2·√3"), (r"\frac{1}{2}", r"１/２"),
    (r"12", r"１２。"), (r"\textbf{(C)}\ \frac{1}{2}", r"\frac12"), (r"\textbf{(C)}\ \frac{1}{2}", r"\text{(C)}"),
    (r"\textbf{(C)}\ \frac{1}{2}", r"C"), (r"\mathrm{(A)}\ 7", r"7"), (r"\textbf{(C) }42", r"42"),
    (r"\text{(B) } 3", r"(B)"), (r"(\text{B}) 3", r"3"), (r"C", r"\text{C. } 42"), (r"\textbf{(D)}\ 2\sqrt{3}", r"D"),
    (r"D", r"\textbf{(D)}\ 2\sqrt{3}"), (r"\textbf{(E)}\ \text{none of these}", r"E"), (r"12", r"12个"),
    (r"12", r"12 рублей"), (r"12", r"12円"), (r"12", r"12개"), (r"12", r"12平方厘米"), (r"12", r"\text{12 元}"),
    (r"\frac12", r"\frac1{2}"), (r"\frac{\pi}{2}", r"\frac\pi2"), (r"\sqrt3", r"\sqrt 3"), (r"e^{16}", r"\exp(16)"),
    (r"e^2", r"\mathrm{e}^2"), (r"3+2i", r"3+2\mathrm{i}"), (r"x<2 \text{ or } x>3", r"x < 2 \text{ or } x > 3"),
    (r"(-\infty,2)\cup(3,\infty)", r"x<2 \text{ or } x>3"), (r"x<2 \text{ or } x>3", r"(-\infty,2)\cup(3,\infty)"),
    (r"x<2 \text{ or } x>3", r"x>3 \text{ or } x<2"), (r"2\sqrt[4]{3}", r"2\sqrt[4]3"), (r"\binom{5}{2}", r"10"),
    (r"10", r"{5 \choose 2}"), (r"\frac{a}{b}", r"a/b"), (r"\dfrac{3}{4}", r"\tfrac34"), (r"10^{6}", r"10^6"),
    (r"3,4", r"3\text{ and }4"), (r"\ln 2", r"\operatorname{ln} 2"), (r"\sin x", r"\mathrm{sin}\,x"),
    (r"1000000", r"10^6"), (r"1000000", r"1\,000\,000"), (r"0.000125", r"1.25\times10^{-4}"), (r"f(x)=2x", r"2x"),
    (r"2x", r"f(x)=2x"), (r"\{1,2,3\}", r"\left\{1,2,3\right\}"), (r"\left[-\frac12,3\right)", r"[-0.5,3)"),
    (r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"), (r"x=\pm2", r"\pm 2"),
    (r"\pm 2", r"2,-2"), (r"\frac{1\pm\sqrt5}{2}", r"\frac{1+\sqrt5}{2},\frac{1-\sqrt5}{2}"), (r"5!", r"120"),
    (r"|x|", r"\lvert x\rvert"), (r"\lfloor x\rfloor", r"⌊x⌋"), (r"1:2", r"1 : 2"), (r"\text{even}", r"even"),
    (r"\text{None}", r"none"), (r"\text{Saturday}", r"\textbf{Saturday}"), (r"\text{June 5}", r"June 5"),
    (r"y=-3x+2", r"y = 2 - 3x"), (r"x^2+y^2=4", r"y^2+x^2=4"), (r"2x+3y=6", r"4x+6y=12"),
    (r"\overrightarrow{AB}", r"\vec{AB}"), (r"\angle ABC", r"\angle CBA"), (r"\overline{AB}", r"\overline{BA}"),
    (r"A", r"\text{A}"), (r"\text{Alice}", r"\text{Alice}."), (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"-\frac{1}{2}", r"\frac{1}{-2}"), (r"0.\overline{3}", r"1/3"), (r"2^{3/2}", r"2\sqrt2"), (r"\log_{2} 8", r"3"),
    (r"\frac{\log 8}{\log 2}", r"3"), (r"\sqrt{ab}", r"\sqrt{a}\sqrt{b}"),
    (r"\frac{1}{\sqrt{ab}}", r"\frac{\sqrt{ab}}{ab}"), (r"1,234", r"1234"), (r"1234", r"1,234"),
    (r"(a+b)^2", r"a^2+2ab+b^2"), (r"\cos x", r"\sin(\frac{\pi}{2}-x)"), (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt3}"),
    (r"\tan^{-1}(2)", r"\arctan 2"), (r"1\text{ million}", r"1000000"), (r"\$1.25\text{ million}", r"1250000"),
    (r"12\text{ or }13", r"13, 12"), (r"(-3,4)", r"x=-3, y=4"), (r"a=3,b=4", r"b=4,a=3"), (r"a=3,b=4", r"(3,4)"),
    (r"5\text{ and }7", r"\{5,7\}"), (r"x=2", r"2"), (r"2", r"x=2"), (r"2", r"2=x"), (r"2", r"x = 2\text{ cm}"),
    (r"\text{Yes}", r"yes"), (r"\text{True}", r"\mathrm{True}"), (r"\text{a circle}", r"circle"),
    (r"\text{no}", r"\text{No.}"),
]  # fmt: skip
OTHER = [
    (r"12\text{ cm}^2", r"12\text{ cm}^3"), (r"12\text{ cm}^2", r"12\text{ cm}"), (r"12\text{ cm}", r"12\text{ mm}"),
    (r"5\text{ m}", r"5\text{ min}"), (r"\$50", r"\$5"), (r"\$50", r"€50"), (r"5\text{ kg}", r"5\text{ lbs}"),
    (r"2\text{ hours}", r"2\text{ minutes}"), (r"10\text{ feet}", r"10\text{ inches}"),
    (r"60\text{ mph}", r"60\text{ m/s}"), (r"12\text{ m}", r"12\text{ m/s}"), (r"3\text{ cats}", r"3\text{ dogs}"),
    (r"8:00\text{ AM}", r"8:00\text{ PM}"), (r"45^\circ", r"45\text{ rad}"), (r"20^\circ C", r"20^\circ F"),
    (r"25\%", r"0.25\%"), (r"25\%", r"2.5"), (r"25\%", r"0.025"), (r"\frac14", r"25"), (r"0.25", r"0.25\%"),
    (r"\frac12", r"\frac12\%"), (r"12", r"\mathbf{13}"), (r"12", r"\text{-12}"), (r"12", r"1\mathbf{2}3"),
    (r"x+1", r"\mathbf{x-1}"), (r"2^{10}", r"2¹¹"), (r"2^{10}", r"210"), (r"x^2", r"x2"), (r"\sqrt{3}", r"∛3"),
    (r"\frac13", r"⅔"), (r"x_1", r"x₂"), (r"\textbf{(B)}\ 12", r"13"), (r"\textbf{(B)}\ 12", r"\textbf{(C)}\ 12"),
    (r"B", r"\textbf{(C)}\ 12"), (r"12", r"\textbf{(B)}\ 13"), (r"12", r"13个"), (r"12", r"12万"),
    (r"12", r"12\text{ million}"), (r"12", r"12 thousand"), (r"12", r"\text{12 dozen}"), (r"12", r"\text{not } 12"),
    (r"12", r"\text{less than } 12"), (r"12", r"<12"), (r"12", r"\ge 12"), (r"12", r"12+"), (r"12", r"12n"),
    (r"12", r"12 \text{ or } 13"), (r"12", r"12!"), (r"12", r"12, 13"), (r"12", r"12\pi"), (r"12", r"12i"),
    (r"12", r"12 + C"), (r"12", r"12^2"), (r"\angle ABC", r"\angle BAC"),
    (r"\overrightarrow{AB}", r"\overrightarrow{BA}"), (r"\triangle ABC", r"\triangle ABD"),
    (r"x<2 \text{ or } x>3", r"x<2 \text{ and } x>4"), (r"x<2 \text{ or } x>3", r"x>2 \text{ or } x<3"),
    (r"(-\infty,2)\cup(3,\infty)", r"x>2 \text{ or } x<3"), (r"e^2", r"\mathrm{e}^3"), (r"\pm 2", r"2"),
    (r"2", r"\pm 2"), (r"(1,2)", r"[1,2]"), (r"|x|", r"x"), (r"x", r"|x|"), (r"\ln 2", r"\ln 3"),
    (r"\text{Monday}", r"\text{Tuesday}"), (r"\text{yes}", r"\text{no}"), (r"\text{yes}", r"\text{not yes}"),
    (r"\text{increasing}", r"\text{decreasing}"), (r"A", r"B"), (r"A,B", r"A,C"), (r"-5", r"5"),
    (r"\frac{1}{2}", r"\frac{2}{1}"), (r"1:2", r"1:3"), (r"3:45", r"3:46"), (r"0.333", r"\frac13"),
    (r"\sqrt{2}", r"1.41"), (r"f(x)=2x", r"f(x)=3x"), (r"x=2", r"y=2"), (r"x=2", r"x=3"), (r"1,2,3", r"1,2"),
    (r"(1,2)", r"(2,1)"), (r"\binom{5}{2}", r"\binom{5}{4}"), (r"10", r"C_{5}^{4}"), (r"3+4i", r"3-4j"),
    (r"[-2,7]", r"\{x : -2 < x < 7\}"), (r"(2,5)", r"]2,6["), (r"\begin{pmatrix}1\\2\end{pmatrix}", r"(2,1)"),
    (r"\frac32", r"1 1/3"), (r"2\ln a", r"\ln a^3"), (r"\sqrt{a/b}", r"\sqrt{b/a}"), (r"1/2/3", r"\frac{3}{2}"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "said"), SAME)
def test_same(gold, said):
    assert grade(f"\\boxed{{{said}}}", gold).status == "correct"


@pytest.mark.parametrize(("gold", "said"), OTHER)
def test_other(gold, said):
    assert grade(f"\\boxed{{{said}}}", gold).status == "wrong"


@pytest.mark.parametrize(
    "product", ["12x", "3ab", "2 x", "3 \\sin x", "n^2 \\text{ if } n > 2", "(45^\\circ, 60^\\circ)"]
)
def test_a_product_is_no_quantity(product):
    assert split(product) == (product, None)


def test_the_same_unit_by_many_names():
    for names in (
        ["m^2", "square meters", "sq. m", "metres squared", "m²"],
        ["km/h", "kilometers per hour", "kph", "km h^-1"],
        ["cm^3", "cubic centimeters", "cc", "mL", "milliliters"],
        ["ft", "feet", "foot"],
        ["\\text{°C}", "degrees Celsius", "degree C"],
    ):
        read = [unit(normalise(name)) for name in names]
        assert all(other.powers == read[0].powers and other.size == read[0].size for other in read), names


def test_normalise_does_not_read_twice():
    for text in (
        "\\frac12",
        "1\\frac12",
        "0.1\\overline{6}",
        "\\mathbf{12}\\text{ cm}^2",
        "√3⁄2 ≤ 𝑥",
        "\\$50",
        "]2,5[",
    ):
        assert normalise(normalise(text)) == normalise(text)
