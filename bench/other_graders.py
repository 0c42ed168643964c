"""Other graders, as they come, for bench/graders.py: run with a Python that has the library.

    python bench/other_graders.py GRADER SECONDS      a line [text, answer, gold] in, a line true | false | null out

Their own functions are called, each in the form in which it wants the gold answer; null means that the grader is not
for such answers. The kernel ends the process when one item takes more than SECONDS of processor time.
"""

import json
import logging
import re
import signal
import sys


def wrapped(gold):  # as mathematics
    return gold if re.search(r"(?<!\\)\$|\\boxed|\\\(|\\\[", gold) else f"${gold}$"


def math_verify(text, gold):
    from math_verify import parse, verify

    return verify(parse(wrapped(gold)), parse(text))


def is_equiv(text, gold):  # hendrycks_math's, behind aime's extraction, which reads boxes
    from lm_eval.tasks.aime.utils import process_results

    return bool(process_results({"answer": gold}, [text])["exact_match"])


def minerva(said, gold):  # as if the answer stood in its own format, "Final Answer: The final answer is …"
    from lm_eval.tasks.minerva_math.utils import is_equiv, normalize_final_answer

    return bool(is_equiv(normalize_final_answer(said), normalize_final_answer(gold)))


def minerva_math_verify(text, gold):
    from lm_eval.tasks.minerva_math.utils import process_results

    return bool(process_results({"answer": gold, "solution": wrapped(gold)}, [text])["math_verify"])


def gsm8k(pattern, group, text, gold):  # the filters and the comparison of gsm8k.yaml; for numbers alone
    from lm_eval.api.metrics import exact_match_fn
    from lm_eval.filters.extraction import RegexFilter

    if not re.fullmatch(r"-?[\d.,]+", gold):
        return None
    found = RegexFilter(pattern, group_select=group).apply([[text]], [{}])[0][0]
    ignore = {"regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"], "ignore_case": True}
    return bool(exact_match_fn(predictions=[found], references=[gold], **ignore)["exact_match"])


GRADERS = {  # function of (text, the answer alone, gold)
    "math_verify": lambda text, said, gold: math_verify(f"\\boxed{{{said}}}", gold),
    "math_verify_text": lambda text, said, gold: math_verify(text, gold),
    "is_equiv": lambda text, said, gold: is_equiv(f"\\boxed{{{said}}}", gold),
    "minerva": lambda text, said, gold: minerva(said, gold),
    "minerva_math_verify": lambda text, said, gold: minerva_math_verify(text, gold),
    "gsm8k_strict": lambda text, said, gold: gsm8k("#### (\\-?[0-9\\.\\,]+)", 0, f"#### {said}", gold),
    "gsm8k_flexible": lambda text, said, gold: gsm8k("(-?[$0-9.,]{2,})|(-?[0-9]+)", -1, text, gold),
}

if __name__ == "__main__":
    logging.disable(logging.ERROR)
    grade = GRADERS[sys.argv[1]]
    grade("\\boxed{1}", "1", "1")  # imports
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, float(sys.argv[2]))
        print(json.dumps(grade(*json.loads(line))), flush=True)
