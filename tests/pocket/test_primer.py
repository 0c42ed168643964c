"""The micro student's exercises: right, repeatable, and nothing of what the study asks."""

import re

from data.records import read_records
from pocket.arithmetic import equations, holds
from pocket.problems import WRITERS
from pocket.study.primer import PrimerConfig, main


def test_sheets(tmp_path):
    cfg = PrimerConfig(out=str(tmp_path / "a.jsonl"), sheets=400)
    main(cfg)
    rows = list(read_records(cfg.out, "sft"))
    assert len(rows) == 400
    for row in rows:
        asked, response = (message["content"] for message in row["messages"])
        lines, exercises = response.split("\n\n")[0].splitlines(), asked.split("; ")
        ends = [re.search(r"-?\d+$", line).group() for line in lines]
        if exercises[-1] == "results":
            exercises.pop()
            lines.pop()
            assert response.split("\n\n")[0].endswith("\nResults: " + ", ".join(ends[:-1]))
        assert len(lines) == (int(asked.split()[-2]) if asked.startswith("Count") else len(exercises))
        assert response.endswith(f"The final answer is \\boxed{{{ends[-1]}}}.")
        found = equations(response)
        assert all(map(holds, found)), response
        assert all(len(re.findall(r"\d[-+*]", "=".join(sides))) == 1 for sides in found), response  # single steps
    assert not any(word in str(rows) for word in ("How many", "State the final", "Solve the following", "these cards"))
    main(PrimerConfig(out=str(tmp_path / "b.jsonl"), sheets=400))
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert set(WRITERS) == {"leg_counting", "chain_sum", "products", "hands"}  # the tasks that the words above are of
