# ruff: noqa: E501
"""Chat templates that do to a conversation what those of well-known models do, written for the tests.

Each names what it reproduces. SPECIAL are their special tokens; `tokenizer(name)` is a small byte-level one with them.
"""

from pocket.tiny import CORPUS, train_tokenizer

# ChatML as Qwen2.5: a default system prompt, tools in it, roles that it knows only, no thoughts
QWEN25 = (
    "{%- if tools %}<|im_start|>system\n"
    "{{ messages[0].content if messages[0].role == 'system' else 'You are Qwen.' }}\n<tools>"
    "{%- for tool in tools %}\n{{ tool | tojson }}{%- endfor %}\n</tools><|im_end|>\n"
    "{%- else %}<|im_start|>system\n"
    "{{ messages[0].content if messages[0].role == 'system' else 'You are Qwen.' }}<|im_end|>\n{%- endif %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'user' or (m.role == 'system' and not loop.first) or (m.role == 'assistant' and not m.tool_calls) %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{%- elif m.role == 'assistant' %}{{ '<|im_start|>assistant' }}"
    "{%- if m.content %}{{ '\n' + m.content }}{%- endif %}"
    '{%- for call in m.tool_calls %}{{ \'\n<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{ call.function.arguments | tojson }}{{ '}\n</tool_call>' }}{%- endfor %}{{ '<|im_end|>\n' }}"
    "{%- elif m.role == 'tool' %}"
    "{{ '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)
# Qwen3: takes thoughts out of the content, drops those before the last question, writes an empty one in the last turn;
# enable_thinking=false closes an empty thought in the prompt
QWEN3 = (
    "{%- set ns = namespace(last=0) %}{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}"
    "{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- if m.role in ['user', 'system'] %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{%- elif m.role == 'assistant' %}{%- set content = m.content %}{%- set thought = '' %}"
    "{%- if m.reasoning_content is string %}{%- set thought = m.reasoning_content %}"
    "{%- elif '</think>' in content %}"
    "{%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{%- if loop.index0 > ns.last and (loop.last or thought) %}"
    "{{ '<|im_start|>assistant\n<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}"
    "{%- else %}{{ '<|im_start|>assistant\n' + content }}{%- endif %}{{ '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)
# Qwen3-…-Thinking-2507: the prompt opens the thought; Qwen3.5's small ones: it closes it unless asked not to
QWEN3_THINKING = QWEN3.replace("{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>assistant\n<think>\n' }}")
QWEN35_SMALL = QWEN3.replace(
    "enable_thinking is defined and enable_thinking is false", "not (enable_thinking is defined and enable_thinking)"
).replace(
    "'<think>\n\n</think>\n\n' }}{%- endif %}", "'<think>\n\n</think>\n\n' }}{%- else %}{{ '<think>\n' }}{%- endif %}"
)
# DeepSeek-R1's distilled models: cuts every answer before </think>, opens the thought in the prompt
R1 = (
    "{{ bos_token }}{%- for m in messages %}{%- if m.role == 'system' %}{{ m.content }}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- if m.role == 'user' %}{{ '<|User|>' + m.content }}"
    "{%- elif m.role == 'assistant' %}{{ '<|Assistant|>' + m.content.split('</think>')[-1] + eos_token }}{%- endif %}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{%- endif %}"
)
# DeepSeek-V3.1 without thinking: the prompt ends with the bare closing tag
V31 = R1.replace("<think>\n", "</think>")
# Granite: the date, a role in its own tokens, no end of a line behind a turn; roles that it does not know are dropped
GRANITE = (
    "{{ '<|start|>system<|stop|>Today is ' + strftime_now('%B %d, %Y') + '.<|im_end|>\n' }}{%- for m in messages %}"
    "{%- if m.role in ['user', 'assistant', 'system'] %}"
    "{{ '<|start|>' + m.role + '<|stop|>' + m.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|start|>assistant<|stop|>' }}{%- endif %}"
)
# Mistral 7B v0.3: the system prompt stands before the last question, a space before the answer
MISTRAL = (
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}{%- set loop_messages = messages[1:] %}"
    "{%- else %}{%- set loop_messages = messages %}{%- endif %}{{ bos_token }}{%- for m in loop_messages %}"
    "{%- if m.role == 'user' %}{%- if loop.last and system is defined %}"
    "{{ '[INST] ' + system + '\n\n' + m.content + '[/INST]' }}"
    "{%- else %}{{ '[INST] ' + m.content + '[/INST]' }}{%- endif %}"
    "{%- elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{%- else %}{{ raise_exception('Only user and assistant roles are supported') }}{%- endif %}{%- endfor %}"
)
# Gemma: the assistant is the model, contents are trimmed, no system prompt
GEMMA = (
    "{{ bos_token }}{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{%- endif %}"
    "{%- for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{ m.content | trim }}{{ '<end_of_turn>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{%- endif %}"
)
# Llama 3.1: the date, trimmed contents, results of tools as JSON
LLAMA31 = (
    "{{ bos_token }}{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '\n\n' }}"
    "{%- if messages[0].role == 'system' %}{{ messages[0].content | trim }}{%- set messages = messages[1:] %}{%- endif %}"
    "{%- if tools %}{%- for tool in tools %}{{ tool | tojson(indent=4) }}{%- endfor %}{%- endif %}{{ '<|eot_id|>' }}"
    "{%- for m in messages %}{%- if m.role == 'assistant' and m.tool_calls %}"
    '{{ \'<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "\' + m.tool_calls[0].function.name }}'
    "{{ '\", \"parameters\": ' }}{{ m.tool_calls[0].function.arguments | tojson }}{{ '}<|eom_id|>' }}"
    "{%- elif m.role == 'tool' %}{{ '<|start_header_id|>ipython<|end_header_id|>\n\n' }}{{ m.content | tojson }}"
    "{{ '<|eot_id|>' }}{%- else %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}{{ m.content | trim }}"
    "{{ '<|eot_id|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
# SmolLM3: the date, custom_instructions, a mode, whose switches it takes out of the system prompt
SMOLLM3 = (
    "{%- set thinking = enable_thinking if enable_thinking is defined else true %}"
    "{{ '<|im_start|>system\nToday Date: ' + strftime_now('%d %B %Y') + '\nReasoning Mode: ' }}"
    "{{ '/think' if thinking else '/no_think' }}{{ '\n' + (custom_instructions or '') }}"
    "{%- if messages[0].role == 'system' %}"
    "{{ messages[0].content.replace('/no_think', '').replace('/think', '').rstrip() }}{%- endif %}{{ '<|im_end|>\n' }}"
    "{%- for m in messages %}{%- if m.role == 'user' %}{{ '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}"
    "{%- elif m.role == 'assistant' %}{% generation %}"
    "{{ '<|im_start|>assistant\n' + ('' if thinking else '<think>\n\n</think>\n') + m.content.lstrip('\n') }}"
    "{{ '<|im_end|>\n' }}{% endgeneration %}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' + ('' if thinking else '<think>\n\n</think>\n') }}{%- endif %}"
)
# Phi-3: a token behind the whole conversation that is no part of a turn
PHI3 = (
    "{%- for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{%- else %}{{ eos_token }}{%- endif %}"
)
# gpt-oss: thought and answer in channels, the thought under the name `thinking`
HARMONY = (
    "{%- for m in messages %}{%- if m.role == 'assistant' %}"
    "{%- if m.thinking and loop.last %}{{ '<|start|>assistant<|channel|>analysis<|stop|>' + m.thinking + '<|end|>' }}"
    "{%- endif %}{{ '<|start|>assistant<|channel|>final<|stop|>' + m.content }}"
    "{{ '<|return|>' if loop.last else '<|end|>' }}"
    "{%- else %}{{ '<|start|>' + m.role + '<|stop|>' + m.content + '<|end|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{%- endif %}"
)
CHATML_LIKE = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)
TEMPLATES = {  # name: (template, bos, eos)
    "qwen2.5": (QWEN25, None, "<|im_end|>"),
    "qwen3": (QWEN3, None, "<|im_end|>"),
    "qwen3-thinking": (QWEN3_THINKING, None, "<|im_end|>"),
    "qwen3.5-small": (QWEN35_SMALL, None, "<|im_end|>"),
    "r1": (R1, "<|begin|>", "<|endoftext|>"),
    "v3.1": (V31, "<|begin|>", "<|endoftext|>"),
    "granite": (GRANITE, None, "<|endoftext|>"),
    "mistral": (MISTRAL, "<s>", "</s>"),
    "gemma": (GEMMA, "<|begin|>", "<|endoftext|>"),
    "llama3.1": (LLAMA31, "<|begin|>", "<|eot_id|>"),
    "smollm3": (SMOLLM3, None, "<|im_end|>"),
    "bare": (CHATML_LIKE.replace("assistant\n'", "assistant\n<think>'"), None, "<|im_end|>"),
    "two breaks": (CHATML_LIKE.replace("assistant\n'", "assistant\n<think>\n\n'"), None, "<|im_end|>"),
    "phi3": (PHI3, None, "<|endoftext|>"),
    "harmony": (HARMONY, None, "<|return|>"),
}
SPECIAL = [
    "<|endoftext|>", "<|begin|>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|User|>", "<|Assistant|>", "<|start|>",
    "<|stop|>", "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|channel|>", "<|return|>", "<|user|>", "<|assistant|>",
]  # fmt: skip


def tokenizer(name):
    template, bos, eos = TEMPLATES[name]
    return train_tokenizer(CORPUS, 340, SPECIAL, template, bos=bos, eos=eos, pad="<|endoftext|>")
