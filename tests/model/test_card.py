"""The model card: what a stranger learns from the README.md of an exported folder, and whose it is."""

import json

import pytest
from huggingface_hub import ModelCard

from errors import UserError
from model import card
from tests.support.scripts import cogpo_words, inside, metrics, sft_words


@pytest.fixture(scope="module")
def runs(tiny_qwen, files, tmp_path_factory):
    """Both phases, the second one from the first one's export."""
    out = tmp_path_factory.mktemp("card")
    inside("train_sft.py", *sft_words(tiny_qwen, files, out / "sft", model__export_dtype="bfloat16"))
    words = {"heldout__file": files / "pairs.jsonl", "loss__penalty": 3, "epochs": 1, "lora__rank": 2}
    template = "{% set day = date_string %}" + (tiny_template := out / "sft/model/chat_template.jinja").read_text()
    tiny_template.write_text(template)
    words["data__chat_template_kwargs"] = "{date_string: 1 May 2026}"
    inside("train_cogpo.py", *cogpo_words(out / "sft/model", files, out / "cogpo", **words))
    return out


def read(folder):
    return (folder / "README.md").read_text()


@pytest.mark.parametrize("phase", ["sft", "cogpo"])
def test_a_card_says_what_the_model_was_made_from_and_what_came_of_it(runs, tiny_qwen, files, phase):
    text, record = read(runs / phase / "model"), json.loads((runs / phase / "run.json").read_text())
    lines, config = metrics(runs / phase), (runs / phase / "config.yaml").read_text()
    # weights, data, script, loss and libraries by what identifies them
    assert all(value in text for name, value in record["inputs"].items() if not name.startswith("model.path/"))
    start = str(runs / "sft/model") if phase == "cogpo" else tiny_qwen
    assert (
        f"started from | `{start}`" in text
        and str(files / ("pairs.jsonl" if phase == "cogpo" else "sft.jsonl")) in text
    )
    assert all(f"{name} {version}" in text for name, version in record["libraries"].items())
    assert f"model.path: {start}" in config and "transformers" in record["libraries"]
    # how much of the change survived, the steps, the first and the last loss
    trained = [line for line in lines if "loss" in line]
    assert f"{100 * record['export']['kept']:.1f} % of the change since `{start}` is in the files" in text
    assert f"| steps | {record['step']} of 8 {'pairs' if phase == 'cogpo' else 'examples'};" in text
    assert record["step"] == len(trained)
    first, last = trained[0]["loss"], trained[-1]["loss"]
    assert f"| loss (nats) | {first:.4g} (0) | {last:.4g} ({len(trained) - 1}) |" in text


def test_the_second_phase_names_the_first_its_keys_and_held_out_values(runs, tiny_qwen, files):
    text, lines = read(runs / "cogpo/model"), metrics(runs / "cogpo")
    assert f"| which came of | train_sft.py on `{files}/sft.jsonl`, started from `{tiny_qwen}` |" in text
    assert "| loss | cogpo, penalty 3.0; losses/cogpo.py" in text and "LoRA of rank 2, merged" in text
    assert "| chat template | date_string: 1 May 2026 |" in text
    assert f"held out: loss (nats) | 0.6931 (0) | {lines[-1]['eval/loss']:.4g} ({len(lines) - 1}) |" in text
    assert f"large gap: β, mean over pairs | 0.5 (0) | 0.5 ({len(lines) - 2}) |" in text
    data = ModelCard(text).data
    assert data.library_name == "transformers" and "cogpo" in data.tags and data.license is None
    assert data.base_model is None  # of a local folder nothing is claimed


def test_a_table_is_added_and_what_somebody_wrote_stays(runs, tmp_path):
    model, table = runs / "sft/model", tmp_path / "table.md"
    table.write_text("| | base | SFT |\n| --- | --- | --- |\n| GSM8K | 1.0 % | 2.0 % |\n")
    plain = read(model)
    card.main(card.Config(str(model), str(table)))
    assert table.read_text() in read(model) and plain.rpartition("<!--")[0].strip() in read(model)
    card.main(card.Config(str(model)))
    assert read(model) == plain
    for own in ("# My model\n", "", plain.replace("license: yours to set", "license: mit"), plain + "More.\n"):
        (model / "README.md").write_text(own)
        with pytest.raises(UserError, match=r"README\.md is not as model/card\.py wrote it and stays"):
            card.main(card.Config(str(model), str(table)))
        assert read(model) == own
    (model / "README.md").unlink()


def test_a_run_that_ended_before_its_card_writes_it_when_it_is_started_again(tiny_qwen, files, tmp_path, capsys):
    words = sft_words(tiny_qwen, files, tmp_path / "o", epochs=1)
    inside("train_sft.py", *words)
    written = read(tmp_path / "o/model")
    (tmp_path / "o/model/README.md").unlink()
    inside("train_sft.py", *words)
    assert read(tmp_path / "o/model") == written
    (tmp_path / "o/model/README.md").write_text("# Mine")
    inside("train_sft.py", *words)
    assert read(tmp_path / "o/model") == "# Mine" and "warning" not in capsys.readouterr().err


def test_other_folders_have_no_card(tiny_qwen, tmp_path):
    (tmp_path / "config.yaml").write_text("model.path: x\n")
    (tmp_path / "run.json").write_text('{"inputs": 3}')
    with pytest.raises(UserError, match=r"run\.json is damaged; restore it"):
        card.main(card.Config(str(tmp_path / "model")))
    with pytest.raises(UserError, match=r"is no export of a training here: .*config\.yaml or .* is missing"):
        card.main(card.Config(tiny_qwen))
    with pytest.raises(UserError, match=r"no such file: nowhere\.md"):
        card.main(card.Config(tiny_qwen, "nowhere.md"))
