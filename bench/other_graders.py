"""Other graders, as they come, for bench/graders.py: run with a Python that has the library.

    python bench/other_graders.py GRADER SECONDS      a line [text, answer, gold] in, a line true | false | null out

Nothing of them is rewritten here: their own functions are called, each in the form in which it wants the gold answer
(wrapped as mathematics), and null means that the answer is of a kind that the grader is not for. The kernel ends the
process when one item takes more than SECONDS of processor time.
"""

import json
import logging
import re
import signal
import sys


def wrapped(gold):
    return gold if re.search(r"(?<!\\)\$|\\boxed|\\\(|\\\[", gold) else f"${gold}$"


def math_verify_text(text, said, gold):
    from math_verify import parse, verify

    return verify(parse(wrapped(gold)), parse(text))


def math_verify(text, said, gold):
    return math_verify_text(f"\\boxed{{{said}}}", said, gold)


def is_equiv(text, said, gold):
    """Call hendrycks_math's is_equiv behind aime's extraction, which reads boxes."""
    from lm_eval.tasks.aime.utils import process_results

    return bool(process_results({"answer": gold}, [f"\\boxed{{{said}}}"])["exact_match"])


def minerva(text, said, gold):
    """Compare as if the answer stood in its own format, "Final Answer: The final answer is …"."""
    from lm_eval.tasks.minerva_math import utils

    return bool(utils.is_equiv(utils.normalize_final_answer(said), utils.normalize_final_answer(gold)))


def minerva_math_verify(text, said, gold):
    from lm_eval.tasks.minerva_math.utils import process_results

    return bool(process_results({"answer": gold, "solution": wrapped(gold)}, [text])["math_verify"])


def gsm8k(pattern, group, text, gold):
    """Filter and compare as gsm8k.yaml does; for numbers alone."""
    from lm_eval.api.metrics import exact_match_fn
    from lm_eval.filters.extraction import RegexFilter

    if not re.fullmatch(r"-?[\d.,]+", gold):
        return None
    found = RegexFilter(pattern, group_select=group).apply([[text]], [{}])[0][0]
    ignore = {"regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"], "ignore_case": True}
    return bool(exact_match_fn(predictions=[found], references=[gold], **ignore)["exact_match"])


def gsm8k_strict(text, said, gold):
    return gsm8k("#### (\\-?[0-9\\.\\,]+)", 0, f"#### {said}", gold)  # the format that its examples ask for


def gsm8k_flexible(text, said, gold):
    return gsm8k("(-?[$0-9.,]{2,})|(-?[0-9]+)", -1, text, gold)


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    grade = globals()[sys.argv[1]]
    grade("\\boxed{1}", "1", "1")  # imports
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, float(sys.argv[2]))
        print(json.dumps(grade(*json.loads(line))), flush=True)
