"""One opening for every file of rows: the same records, whatever holds them; what cannot be read is one line."""

import gzip
import json

import datasets
import pyarrow
import pytest

from data.records import read_records
from data.rows import iter_rows
from errors import UserError

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
        ("a.jsonl", b'{"a": 1}\n"text"\n', "a.jsonl:2: a record must be a JSON object, not str"),
        ("a.jsonl", b'{"a": ' + b"1" * 5000 + b"}", "a.jsonl:1: not valid JSON: Exceeds the limit"),
        ("a.json", b'[{"a": 1},\n 7]', "a.json:2: a record must be a JSON object, not int"),
        ("a.json", b'[{"a": 1},\n {"a": }]', "a.json: not valid JSON: Expecting value: line 2 column 8"),
        ("a.json", "[]".encode("utf-16"), "a.json:1: not UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 9, mtime=0)[:-9], "a.jsonl.gz:\\d+: cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n', mtime=0)[:12] + b"\xff" * 40, "a.jsonl.gz:\\d+: cannot be read"),
        ("a.parquet", b"PAR1 and no more", "a.parquet: not a Parquet file"),
        ("a.csv", b'a,b\n1,"2\n', "a.csv:2: not valid CSV"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "a.csv:3: more fields than the 2 of the first line"),
        ("a.arrow", b"no arrow", "cannot read .*a.arrow"),
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
    with pytest.raises(UserError, match=r"no such file: .*none"):
        list(iter_rows(tmp_path / "none*.jsonl"))
