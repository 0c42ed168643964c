"""The same calls through two other libraries, each with its own defaults but for rate limits and concurrency.

    PYTHON bench/client_neighbours.py curator|distilabel URL CALLS CONCURRENCY PROMPT_BYTES FOLDER

Run by bench/client.py with a Python that has the library. Prints one JSON line: seconds, CPU seconds, answers.
"""

import json
import os
import resource
import sys
import time


def cpu_seconds():
    """Of this process and of those it has waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def curator(url, prompts, concurrency, folder):
    os.environ |= {"TELEMETRY_ENABLED": "0", "CURATOR_CACHE_DIR": folder, "CURATOR_DISABLE_RICH_DISPLAY": "1"}
    from bespokelabs import curator as library

    params = {"base_url": url, "api_key": "none", "max_requests_per_minute": 10**7, "max_tokens_per_minute": 10**10,
              "max_concurrent_requests": concurrency}  # fmt: skip
    llm = library.LLM(model_name="stub", backend="openai", backend_params=params)
    begin, used = time.perf_counter(), cpu_seconds()
    answers = llm(prompts)
    answers = getattr(answers, "dataset", answers)
    return time.perf_counter() - begin, used, sum(bool(row["response"]) for row in answers)


def distilabel(url, prompts, concurrency, folder):
    os.environ["HF_HOME"] = folder
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    with Pipeline(name="bench", cache_dir=folder) as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": prompt} for prompt in prompts], batch_size=concurrency)
        llm = OpenAILLM(model="stub", base_url=url, api_key="none", generation_kwargs={"max_new_tokens": 64})
        load >> TextGeneration(llm=llm, input_batch_size=concurrency)
    begin, used = time.perf_counter(), cpu_seconds()
    rows = pipeline.run(use_cache=False)["default"]["train"]
    return time.perf_counter() - begin, used, sum(bool(row["generation"]) for row in rows)


if __name__ == "__main__":
    name, url, calls, concurrency, prompt_bytes, folder = sys.argv[1:]
    prompts = [f"{n} ".ljust(int(prompt_bytes), "q") for n in range(int(calls))]
    seconds, used, answers = {"curator": curator, "distilabel": distilabel}[name](
        url, prompts, int(concurrency), folder
    )
    cpu = cpu_seconds() - used
    print(json.dumps({"seconds": seconds, "cpu": cpu, "answers": answers}))
