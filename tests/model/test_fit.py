"""The fit of chains to a student: against transformers one chain at a time, over ranks, and what is computed again."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from data.ledger import Ledger
from data.records import write_jsonl
from data.render import Renderer, prompt_messages
from errors import UserError
from model.fit import CLIP, Config, Student, main
from model.load import load_tokenizer
from pocket.tiny import make_model
from settings import ModelConfig
from tests.model.test_families import MOE, build
from tests.support.small_runs import on_ranks

TEXTS = [(prompt_messages(f"What is {n} times {n}?"), f"{n} * {n} = {n * n}. " * (1 + n % 4)) for n in range(11, 24)]


def by_hand(folder, texts):
    """[(tokens, NLL, RSR)] by transformers' own forward pass, one chain at a time."""
    lm, tokenizer = AutoModelForCausalLM.from_pretrained(folder), load_tokenizer(folder)
    renderer, found = Renderer(tokenizer), []
    for messages, chain in texts:
        prompt = renderer.prompt_ids(messages)
        words = tokenizer(chain, add_special_tokens=False).input_ids
        with torch.no_grad():
            logits = lm(torch.tensor([prompt + words])).logits[0, len(prompt) - 1 : -1].float()
        logps = logits.log_softmax(-1)[range(len(words)), words]
        ranks = [1 + (row > row[word]).sum().item() for row, word in zip(logits, words, strict=True)]
        clipped = sum(min(rank, CLIP) for rank in ranks)
        found.append((len(words), -logps.mean().item(), clipped / -logps.sum().item()))
    return found


def test_fits_are_those_of_the_plain_model(tiny, tmp_path):
    fits = Student(ModelConfig(tiny), tmp_path / "fit.jsonl", max_tokens=300).fits(TEXTS)
    for fit, (tokens, nll, rsr) in zip(fits, by_hand(tiny, TEXTS), strict=True):
        assert fit.tokens == tokens
        assert (fit.nll, fit.rsr) == pytest.approx((nll, rsr), rel=2e-4)
    assert len({round(fit.rsr, 3) for fit in fits}) > 10  # the student tells them apart


def over_ranks(ranks, student, path, expected):
    found = Student(ModelConfig(student), path, max_tokens=200, ranks=ranks).fits(TEXTS)
    for fit, (tokens, nll, rsr) in zip(found, expected, strict=True):
        assert fit.tokens == tokens and (fit.nll, fit.rsr) == pytest.approx((nll, rsr), rel=2e-4)


def test_sharded_over_ranks_they_are_the_same(tiny_qwen, tmp_path):
    on_ranks(2, over_ranks, tiny_qwen, tmp_path / "fit.jsonl", by_hand(tiny_qwen, TEXTS))
    assert len(Ledger(tmp_path / "fit.jsonl")) == len(TEXTS)  # one rank writes


def test_what_is_known_is_read_and_what_a_kill_tore_is_computed(tiny_qwen, tmp_path):
    path = tmp_path / "fit.jsonl"
    first = Student(ModelConfig(tiny_qwen), path).fits(TEXTS)
    known = path.read_bytes()
    again = Student(ModelConfig(tiny_qwen), path)
    assert again.fits(list(reversed(TEXTS))) == first[::-1]
    assert again.model is None and path.read_bytes() == known  # not even loaded
    path.write_bytes(known[:-20])
    repaired = Student(ModelConfig(tiny_qwen), path).fits(TEXTS)
    assert [fit.tokens for fit in repaired] == [fit.tokens for fit in first] and len(Ledger(path)) == len(TEXTS)


def test_other_weights_are_another_student(tmp_path):
    folder = make_model(tmp_path / "student")
    first = Student(ModelConfig(folder), tmp_path / "fit.jsonl").fits(TEXTS[:3])
    weights = load_file(tmp_path / "student" / "model.safetensors")
    weights["model.norm.weight"] += torch.linspace(0, 1, len(weights["model.norm.weight"]))
    save_file(weights, tmp_path / "student" / "model.safetensors", {"format": "pt"})
    second = Student(ModelConfig(folder), tmp_path / "fit.jsonl").fits(TEXTS[:3])
    assert len(Ledger(tmp_path / "fit.jsonl")) == 6 and all(a != b for a, b in zip(first, second, strict=True))


def test_the_command_scores_a_file_of_problems(tiny_qwen, tmp_path, capsys):
    rows = [
        {"id": f"p{i}", "problem": f"Add {i}", "answer": "1", "reasoning": f"I add {i}.", "domain": "code" * (i % 2)}
        for i in range(5)
    ]
    write_jsonl(tmp_path / "problems.jsonl", rows)
    words = {"problems": str(tmp_path / "problems.jsonl"), "out": str(tmp_path / "fit.jsonl"), "limit": 4}
    main(
        Config(
            model=ModelConfig(tiny_qwen), instruction={"code": "Program: {problem}", "default": "{problem}"}, **words
        )
    )
    assert "nll: " in capsys.readouterr().err
    prompts = [
        prompt_messages(row["problem"], None, "Program: {problem}" if row["domain"] else "{problem}") for row in rows
    ]
    student = Student(ModelConfig(tiny_qwen), tmp_path / "fit.jsonl")
    student.fits([(prompt, row["reasoning"]) for prompt, row in zip(prompts[:4], rows, strict=False)])
    assert student.model is None  # these were the texts


def test_a_folder_is_no_file_of_fits(tiny_qwen, tmp_path):
    with pytest.raises(UserError, match=f"cannot write {tmp_path}: Is a directory"):
        Student(ModelConfig(tiny_qwen), tmp_path)


def test_a_file_of_something_else_is_refused(tiny_qwen, files):
    with pytest.raises(UserError, match=r"sft\.jsonl:1 is damaged, it is no record"):
        Student(ModelConfig(tiny_qwen), files / "sft.jsonl")


def test_the_weights_of_a_student_lie_in_the_compute_dtype(tmp_path):
    student = Student(ModelConfig(make_model(tmp_path / "m"), compute_dtype="bfloat16"), tmp_path / "fit.jsonl")
    student.fits(TEXTS[:1])
    assert {p.dtype for p in student.model.parameters()} == {torch.bfloat16}


def test_a_student_whose_router_stays_float32(tmp_path):
    student = Student(ModelConfig(build(tmp_path, "glm4_moe", **MOE), compute_dtype="bfloat16"), tmp_path / "fit.jsonl")
    student.fits(TEXTS[:1])
    assert {p.dtype for p in student.model.parameters()} == {torch.bfloat16, torch.float32}


def test_a_folder_with_more_than_a_language_model_is_refused(tmp_path):
    folder = make_model(tmp_path / "m")
    (tmp_path / "m/config.json").write_text('{"model_type": "gemma3"}')
    with pytest.raises(UserError, match="more than a language model"):
        Student(ModelConfig(folder), tmp_path / "fit.jsonl").fits(TEXTS)
