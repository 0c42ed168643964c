"""metrics.jsonl: one line a step, on rank 0, cut back to the checkpoint when a run resumes."""

import json
from pathlib import Path


class Metrics:
    def __init__(self, path, next_step, ranks):
        """Keep the lines of steps before `next_step`, drop what a killed run wrote beyond its last checkpoint."""
        self.file = None
        if not ranks.is_main:
            return
        path = Path(path)
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < next_step]
        partial = path.with_name(path.name + ".tmp")
        partial.write_text("".join(kept))
        partial.replace(path)  # a kill here must not cost the history
        self.file = path.open("a", buffering=1)

    def log(self, **values):
        if self.file is not None:
            self.file.write(json.dumps(values) + "\n")

    def close(self):
        if self.file is not None:
            self.file.close()
