"""One opening for every file of rows: the same records, whatever holds them; what cannot be read is one line."""

import gzip
import http.server
import json
import os
import re
import subprocess
import sys
import threading

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from data.records import read_records
from data.rows import hub_rows, iter_rows
from errors import UserError
from tests.support.scripts import ROOT

ROWS = [
    {
        "id": f"a{n}",
        "problem": f"{n} + 1?",
        "answer": str(n + 1),
        "reasoning": "é " * n + "x",
        "domain": None,
        "steps": [],
    }
    for n in range(600)
]  # more than one batch
MESSAGES = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "2", "name": "m"}]


def packed(kind, folder):
    """Write ROWS as `kind` of file; return what a user would name."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    table, half = datasets.Dataset.from_list(ROWS), len(ROWS) // 2
    if kind in ("rows.jsonl", "rows.json"):
        (folder / kind).write_bytes(text)
    elif kind == "bom.jsonl":
        (folder / kind).write_bytes(b"\xef\xbb\xbf" + text)
    elif kind in ("rows.jsonl.gz", "rows.jsonl"):
        (folder / kind).write_bytes(gzip.compress(text))
    elif kind == "rows.jsonl.zst":
        with pyarrow.CompressedOutputStream(str(folder / kind), "zstd") as out:
            out.write(text)
    elif kind in ("array.json", "array.json.gz"):
        array = json.dumps(ROWS, indent=1).encode()
        (folder / kind).write_bytes(gzip.compress(array) if kind.endswith("gz") else array)
    elif kind == "rows.parquet":
        table.to_parquet(folder / kind)
    elif kind == "saved":
        table.save_to_disk(folder / kind)
    elif kind == "saved dict":
        datasets.DatasetDict(train=table).save_to_disk(folder / kind)
    elif kind == "one of two/train":
        datasets.DatasetDict(train=table, test=table.select([0])).save_to_disk(folder / "one of two")
    elif kind == "saved/*.arrow":
        table.save_to_disk(folder / "saved", num_shards=2)
    else:  # shards
        for n, part in enumerate((table.select(range(half)), table.select(range(half, len(ROWS))))):
            (folder / "shards/data").mkdir(parents=True, exist_ok=True)
            part.to_parquet(folder / f"shards/data/train-{n:05}-of-00002.parquet")
    return folder / kind


@pytest.mark.parametrize(
    "kind",
    ["rows.jsonl", "rows.json", "bom.jsonl", "rows.jsonl.gz", "rows.jsonl.zst", "array.json", "array.json.gz",
     "rows.parquet", "saved", "saved dict", "one of two/train", "saved/*.arrow", "shards", "shards/data/*.parquet"],
)  # fmt: skip
def test_the_same_rows_whatever_holds_them(tmp_path, kind):
    path = packed(kind, tmp_path)
    assert [row for _, row in iter_rows(path)] == ROWS
    assert list(read_records(str(path), "problem")) == ROWS
    places = [where for where, _ in iter_rows(path)]
    assert len(set(places)) == len(ROWS) and places[1].endswith(":2")


@pytest.mark.parametrize("kind", ["csv", "csv.gz"])
def test_csv(tmp_path, kind):
    chain = "x" * 200_000
    text = f'id,problem,answer,reasoning\n007,"1,\n2?",3,{chain}\n8,?,5,r\n'.encode("utf-8-sig")
    (tmp_path / f"p.{kind}").write_bytes(gzip.compress(text) if kind.endswith("gz") else text)
    first, second = iter_rows(tmp_path / f"p.{kind}")
    assert first[1] == {"id": "007", "problem": "1,\n2?", "answer": "3", "reasoning": chain}
    assert second[0].endswith(":4") and second[1]["id"] == "8"


def test_keys_that_a_columnar_file_filled_with_null_are_dropped(tmp_path):
    datasets.Dataset.from_list([{"id": "1", "messages": MESSAGES}]).to_parquet(tmp_path / "s.parquet")
    assert list(read_records(tmp_path / "s.parquet", "sft")) == [{"id": "1", "messages": MESSAGES}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "a.jsonl:2: not valid JSON"),
        ("a.json", b'{\r\n  "data": [\r\n', "a.json:1: not valid JSON: .*write one object a line, or an array"),
        ("a.jsonl", b'{"a": 1}\n"text"\n', "a.jsonl:2: a record must be a JSON object, not str"),
        ("a.jsonl", b'{"a": ' + b"1" * 5000 + b"}", "a.jsonl:1: not valid JSON: Exceeds the limit"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl: not valid JSON: maximum recursion"),
        ("a.jsonl", b'{"a": {"b": 1, "c": 2, "b": 1}}', "a.jsonl:1: not valid JSON: the key 'b' stands twice"),
        ("a.json", b'[{"a": 1},\n 7]', "a.json:2: a record must be a JSON object, not int"),
        ("a.json", b'[{"a": 1},\n {"a": }]', "a.json: not valid JSON: Expecting value: line 2 column 8"),
        ("a.json", "[]".encode("utf-16"), "a.json:1: not UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 9, mtime=0)[:-9], "a.jsonl.gz:\\d+: cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n', mtime=0)[:12] + b"\xff" * 40, "a.jsonl.gz:\\d+: cannot be read"),
        ("a.parquet", b"PAR1 and no more", r"cannot read .*a.parquet \(.*not a parquet file"),
        ("a.csv", b'a,b\n1,"2\n', "a.csv:2: not valid CSV"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "a.csv:3: more fields than the 2 of the first line"),
        ("a.csv", b"a,b,a\n1,2,3\n", "a.csv:1: two columns are called 'a'"),
        ("a.arrow", b"no arrow", "cannot read .*a.arrow"),
        ("folder/a.jsonl", b'{"a": 1}\n7\n', "folder/a.jsonl:2: a record must be a JSON object"),
        ("folder/a.bin", b"", "cannot read .*folder"),
        ("folder/state.json", b"{}", "cannot read .*folder"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, name, content, message):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        list(iter_rows(file.parent if file.parent != tmp_path else file))
    assert "\n" not in str(error.value)


def test_splits_are_not_mixed(tmp_path):
    table = datasets.Dataset.from_list(ROWS[:3])
    datasets.DatasetDict(train=table, test=table).save_to_disk(tmp_path / "saved")
    for split in ("train", "test"):
        (tmp_path / "shards").mkdir(exist_ok=True)
        table.to_parquet(tmp_path / f"shards/{split}-00000.parquet")
    for folder in ("saved", "shards"):
        with pytest.raises(UserError, match=r"the splits train, test; name the files of one, such as .*/train\*"):
            list(iter_rows(tmp_path / folder))
        assert [row for _, row in iter_rows(tmp_path / folder / "train*")] == ROWS[:3]
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe is no file or folder"):
        list(iter_rows(tmp_path / "pipe"))
    with pytest.raises(UserError, match=r"no such file: .*none"):
        list(iter_rows(tmp_path / "none*.jsonl"))


def test_texts_in_folders_of_shards_stay_as_they_are(tmp_path):
    """The library's readers make numbers, times and null of them, and refuse shards with other keys."""
    texts = ["2024-01-01", "007", "1.10", "1e5", "None", "NA", "true"]
    for kind, write in (("json", lambda text: json.dumps({"answer": text})), ("csv", lambda text: f"answer\n{text}")):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "README.md").write_text("about")
        (tmp_path / kind / "notes.txt").write_text("about")
        for number, text in enumerate(texts):
            (tmp_path / kind / f"train-{number}.{kind}").write_text(write(text) + "\n")
        assert [row["answer"] for _, row in iter_rows(tmp_path / kind)] == texts
    (tmp_path / "json" / "train-7.json").write_text('{"solution": {"of": 1}}\n')
    assert [row for _, row in iter_rows(tmp_path / "json")][-1] == {"solution": {"of": 1}}


def test_text_that_parquet_holds_as_bytes(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"problem": ["1 × 2".encode()]}), tmp_path / "a.parquet")
    assert [row for _, row in iter_rows(tmp_path / "a.parquet")] == [{"problem": "1 × 2"}]


# --- the hub ---

CARD = """---
configs:
- {config_name: one, data_files: [{split: train, path: one.jsonl}]}
- {config_name: two, data_files: [{split: train, path: two.jsonl}, {split: rare, path: one.jsonl}]}
---
"""


@pytest.mark.parametrize(
    ("subset", "split", "message"),
    [
        (None, "train", r"Config name is missing.*\['one', 'two'\]"),
        ("three", "train", r"BuilderConfig 'three' not found. Available: \['one', 'two'\]"),
        ("one", "test", r"(Unknown|Bad) split.*\['train'\]"),
    ],
)
@pytest.mark.parametrize("streaming", [True, False])
def test_a_wrong_subset_or_split_is_one_line(tmp_path, subset, split, message, streaming):
    """Of a folder that is laid out as a repository of the hub."""
    (tmp_path / "README.md").write_text(CARD)
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"name": name}) + "\n")
    assert [row for _, row in hub_rows(str(tmp_path), "two", "rare", streaming)] == [{"name": "one"}]
    with pytest.raises(UserError, match=rf"no {tmp_path} from the hub \(.*{message}") as error:
        list(hub_rows(str(tmp_path), subset, split, streaming))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"cannot read .*Config name is missing"):
        list(iter_rows(tmp_path))


class Hub(http.server.BaseHTTPRequestHandler):
    """What the hub says of a repository with a loading script, of one that asks for consent, and of none."""

    def do_GET(self):
        about = {"id": "some/script", "sha": "0" * 40, "siblings": [{"rfilename": "script.py"}]}
        errors = {"gated": "GatedRepo", "script": "EntryNotFound", "none": "RepoNotFound"}
        error = errors.get(self.path.split("some/")[-1].split("/")[0], "")
        known = "script" in self.path and not self.path.endswith((".md", ".yaml"))
        body = json.dumps(about).encode() if known else b""
        self.send_response(200 if body else 403 if error == "GatedRepo" else 404)
        self.send_header("X-Error-Code", error)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"0"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command == "GET" else b"")

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


def test_what_the_hub_does_not_give_is_one_line(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    script = """
from data.rows import hub_rows
from errors import UserError
for name in ("some/script", "some/gated", "some/none", "no name"):
    try:
        list(hub_rows(name, None, "train"))
    except UserError as error:
        print(error)
"""
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    env |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", script]
    try:
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    finally:
        server.shutdown()
        server.server_close()
    says = ("script.*no longer supported.*script.py", "gated dataset", "doesn't exist", "no name")
    assert len(done.stdout.splitlines()) == len(says), done.stdout + done.stderr
    for line, said in zip(done.stdout.splitlines(), says, strict=True):
        assert re.match(rf"no \S.* from the hub \(.*{said}", line), line
